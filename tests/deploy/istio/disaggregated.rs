//! Roles by the subsets of a DestinationRule.

use envoy_harness::wait_until;
use serde_yaml::Value;

use super::pilot::parse;
use super::running::Running;
use super::{built, gateway_yaml, manifest, manifests, SERVICE};

const MEMBERS: &str = "outbound|8000||vllm.llm.svc.cluster.local";

/// Returns the gateway with the cluster that Istio makes for each subset of the manifest: the Service has two pods,
/// of which the first has the first subset's labels and the second the other's.
fn gateway() -> String {
    let mut gateway: Value = serde_yaml::from_str(&gateway_yaml()).unwrap();
    let clusters = gateway["static_resources"]["clusters"]
        .as_sequence_mut()
        .unwrap();
    let own = clusters
        .iter()
        .find(|one| one["name"] == MEMBERS)
        .unwrap()
        .clone();
    let rules = parse(&manifest("disaggregated.yaml"));
    let subsets = rules[0]["spec"]["subsets"].as_sequence().unwrap();
    for (number, subset) in subsets.iter().enumerate() {
        let name = MEMBERS.replace("||", &format!("|{}|", subset["name"].as_str().unwrap()));
        let mut cluster = own.clone();
        cluster["name"] = name.clone().into();
        cluster["alt_stat_name"] = format!("{name};").into();
        let assignment = &mut cluster["load_assignment"];
        assignment["cluster_name"] = name.into();
        let members = &mut assignment["endpoints"][0]["lb_endpoints"];
        *members = vec![members[number].clone()].into();
        clusters.push(cluster);
    }
    serde_yaml::to_string(&gateway).unwrap()
}

#[test]
fn subsets_give_roles() {
    let files = manifests(&["cluster.yaml", "disaggregated.yaml", "metric-labels.yaml"]);
    let gateway = Running::of(built(gateway(), &files));
    gateway.knows(2);
    let prompt = "A prompt of more than 512 tokens. ".repeat(100);
    let at = gateway.stage.sim.addresses();
    let pods = || gateway.members(MEMBERS);
    let [decode, prefill] = [0, 1].map(|member| pods()[member].clone());
    let number = |pod: &str| pod.strip_prefix("pod-").unwrap().parse::<usize>().unwrap() - 1;
    wait_until("the decode pod gets the address of the prefill pod", || {
        gateway.ask(SERVICE, &prompt);
        let seen = gateway.stage.sim.pod(number(&decode)).seen();
        let named = seen
            .last()
            .and_then(|seen| seen.header("x-prefiller-host-port").map(str::to_owned));
        named.is_some_and(|named| named == at[number(&prefill)].to_string())
    });
    gateway.stage.sim.pods().for_each(|pod| pod.forget());
    for number in 0..20 {
        let response = gateway.ask(SERVICE, &format!("{number} {prompt}"));
        assert_eq!((response.status, response.pod()), (200, &*decode));
    }
    assert_eq!(gateway.leaked(), 0);
}

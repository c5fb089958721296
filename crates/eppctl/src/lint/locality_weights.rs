//! Istio gives the pool's cluster locality weights, which Envoy rejects beside `override_host`.

use epp_core::config::value::problem::Step;
use epp_core::config::value::{Node, Path};

use super::no_override_host::is_patched;
use super::patches::patches;
use super::pool::{istio, IstioCluster};
use super::routing::overrides;
use super::site::{below, entries, flag, path_below, text, text_below, Site};
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "locality-weights",
    finds: "locality settings, `trafficDistribution` and settings of `common_lb_config` beside the policy, which Envoy rejects",
    why: "Envoy rejects a cluster with both override_host and locality weights, and replies to every request to it with 500",
    fix: "set trafficPolicy.loadBalancer.localityLbSetting.enabled: false in the Service's DestinationRule, and remove zoneAwareLbSetting",
    check: |site| {
        let mut faults = Vec::new();
        for host in hosts(site) {
            faults.extend(by_rules(site, host));
            faults.extend(by_service(site, host));
            faults.extend(by_mesh(site, host));
        }
        faults.extend(by_cluster(site));
        faults
    },
};

/// Checks Envoy's own settings in a cluster with the policy, or in a patch that adds it.
fn by_cluster(site: &Site<'_>) -> Vec<Fault> {
    const REFUSED: [&str; 3] = [
        "locality_weighted_lb_config",
        "zone_aware_lb_config",
        "consistent_hashing_lb_config",
    ];
    let mut faults = Vec::new();
    for (path, map) in &site.maps {
        let Some(common) = map.get("common_lb_config") else {
            continue;
        };
        let name = text(map, "name");
        let own = map.get("load_balancing_policy").is_some_and(overrides);
        if !own && (name.is_empty() || !is_patched(site, name)) {
            continue;
        }
        for key in REFUSED.iter().filter(|key| common.get(key).is_some()) {
            let place = path.key("common_lb_config").key(key);
            let fault = Fault::at(&place, format!("{key} beside override_host"));
            faults.push(
                fault
                    .because("Envoy rejects a cluster with both, and a bootstrap with such a cluster")
                    .fixed_by(format!("remove {key}; set it in the fallback_policy of override_host if that has it")),
            );
        }
    }
    faults
}

/// Returns the Services whose clusters get the policy, each once.
fn hosts<'s>(site: &'s Site<'_>) -> Vec<IstioCluster<'s>> {
    // Istio itself gives an InferencePool's cluster the policy, and no weights.
    let pools = site.loaded().filter_map(|(_, plan)| istio(plan.cluster()));
    let pools = pools.filter(|cluster| !cluster.is_of_inference_pool());
    let mut hosts: Vec<IstioCluster<'_>> = Vec::new();
    let mut add = |cluster: IstioCluster<'s>| {
        if !cluster.host.is_empty() && !hosts.iter().any(|known| known.host == cluster.host) {
            hosts.push(cluster);
        }
    };
    pools.for_each(&mut add);
    for patch in patches(site) {
        if patch.target() != "CLUSTER" || !patch.value().is_some_and(overrides) {
            continue;
        }
        let wanted = |key| text_below(patch.entry, &["match", "cluster", key]);
        if let Some(cluster) = istio(wanted("name")) {
            add(cluster);
        }
        add(IstioCluster {
            port: "",
            subset: "",
            host: wanted("service"),
        });
    }
    hosts
}

/// Returns the DestinationRules of a Service.
fn rules<'s>(
    site: &'s Site<'_>,
    cluster: IstioCluster<'s>,
) -> impl Iterator<Item = &'s (Path, &'s Node)> {
    site.objects("DestinationRule").filter(move |(_, rule)| {
        let namespace = text_below(rule, &["metadata", "namespace"]);
        cluster.is_host(text_below(rule, &["spec", "host"]), namespace)
    })
}

/// Finds settings of DestinationRules that Istio turns into weights.
fn by_rules(site: &Site<'_>, cluster: IstioCluster<'_>) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (path, rule) in rules(site, cluster) {
        // Subsets are separate clusters, which a patch by name does not match.
        let spec = path.key("spec").key("traffic_policy");
        let Some(policy) = below(rule, &["spec", "traffic_policy"]) else {
            continue;
        };
        let detects = policy.get("outlier_detection").is_some();
        let ports = entries(policy, &["port_level_settings"]).iter().enumerate();
        let ports = ports.map(|(index, port)| {
            let place = spec.key("port_level_settings").index(index);
            (place, port, port.get("outlier_detection").is_some())
        });
        for (place, policy, detects) in
            std::iter::once((spec.clone(), policy, detects)).chain(ports)
        {
            let keys = ["load_balancer", "locality_lb_setting"];
            if let Some(what) = below(policy, &keys).and_then(|setting| weighs(setting, detects)) {
                faults.push(Fault::at(&path_below(&place, &keys), what));
            }
            let zones = ["load_balancer", "zone_aware_lb_setting"];
            if below(policy, &zones).is_some() {
                let what = "zoneAwareLbSetting sets zone-aware routing, even with enabled: false";
                faults.push(Fault::at(&path_below(&place, &zones), what));
            }
        }
    }
    faults
}

/// Returns the part of a setting that Istio turns into weights. Failover needs outlier detection.
fn weighs(setting: &Node, detects: bool) -> Option<&'static str> {
    if setting.get("enabled").and_then(flag) == Some(false) {
        return None;
    }
    let given = |key| matches!(setting.get(key), Some(Node::List(list)) if !list.is_empty());
    if given("distribute") {
        return Some("distribute sets locality weights");
    }
    (detects && (given("failover") || given("failover_priority")))
        .then_some("failover with outlierDetection sets locality weights")
}

/// Checks the Service's own setting, which a DestinationRule may turn off.
fn by_service(site: &Site<'_>, cluster: IstioCluster<'_>) -> Vec<Fault> {
    let keys = [
        "spec",
        "traffic_policy",
        "load_balancer",
        "locality_lb_setting",
        "enabled",
    ];
    let off = |(_, rule): &(Path, &Node)| below(rule, &keys).and_then(flag) == Some(false);
    if rules(site, cluster).any(off) {
        return Vec::new();
    }
    let services = site.objects("Service").filter(|(_, service)| {
        let namespace = text_below(service, &["metadata", "namespace"]);
        cluster.is_host(text_below(service, &["metadata", "name"]), namespace)
    });
    let mut faults = Vec::new();
    for (path, service) in services {
        let annotation = [
            "metadata",
            "annotations",
            "networking.istio.io/traffic-distribution",
        ];
        for keys in [&["spec", "traffic_distribution"][..], &annotation] {
            if below(service, keys).is_some() {
                faults.push(Fault::at(
                    &path_below(path, keys),
                    "trafficDistribution sets locality weights",
                ));
            }
        }
    }
    faults
}

/// Checks the mesh-wide settings, unless a Service overrides them.
fn by_mesh(site: &Site<'_>, cluster: IstioCluster<'_>) -> Vec<Fault> {
    let policies =
        rules(site, cluster).filter_map(|(_, rule)| below(rule, &["spec", "traffic_policy"]));
    let policies: Vec<&Node> = policies.collect();
    let own = |key| {
        policies
            .iter()
            .any(|policy| below(policy, &["load_balancer", key]).is_some())
    };
    let detects = policies
        .iter()
        .any(|policy| policy.get("outlier_detection").is_some());
    let mut faults = Vec::new();
    for (path, map) in &site.maps {
        let in_rule =
            matches!(path.steps().last(), Some(Step::Key(key)) if **key == *"load_balancer");
        if in_rule {
            continue;
        }
        let setting = map
            .get("locality_lb_setting")
            .and_then(|setting| weighs(setting, detects));
        if let (Some(what), false) = (setting, own("locality_lb_setting")) {
            faults.push(Fault::at(&path.key("locality_lb_setting"), what));
        }
        if map.get("zone_aware_lb_setting").is_some() && !own("locality_lb_setting") {
            let what = "zoneAwareLbSetting sets zone-aware routing";
            faults.push(Fault::at(&path.key("zone_aware_lb_setting"), what));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use crate::lint::found;

    const CLUSTER: &str = include_str!("../../../../envoy/istio/cluster.yaml");
    const FILTER: &str = include_str!("../../../../envoy/istio/filter.yaml");

    fn with(more: &str) -> usize {
        let (one, two) = (
            format!("{CLUSTER}\n---\n{more}"),
            format!("{FILTER}\n---\n{more}"),
        );
        let count = found(&super::RULE, &one).len();
        // The picker names the same Service as the patch.
        assert_eq!(found(&super::RULE, &two).len(), count);
        count
    }

    fn rule(host: &str, setting: &str, more: &str) -> usize {
        with(&format!("kind: DestinationRule\nmetadata: {{namespace: llm}}\nspec:\n  host: {host}\n  trafficPolicy:\n    loadBalancer: {{localityLbSetting: {setting}}}\n{more}"))
    }

    #[test]
    fn finds_what_sets_weights() {
        let host = "vllm.llm.svc.cluster.local";
        let detection = "    outlierDetection: {consecutive5xxErrors: 5}\n";
        assert_eq!(rule(host, "{distribute: [{from: a, to: {b: 100}}]}", ""), 1);
        assert_eq!(rule("vllm", "{failover: [{from: a, to: b}]}", detection), 1);
        assert_eq!(rule(host, "{failoverPriority: [a]}", detection), 1);
        assert_eq!(rule(host, "{failover: [{from: a, to: b}]}", ""), 0);
        assert_eq!(rule(host, "{}", detection), 0);
        assert_eq!(
            rule(host, "{enabled: false, distribute: [{from: a}]}", detection),
            0
        );
        assert_eq!(
            rule(
                host,
                "{enabled: 'false', distribute: [{from: a}]}",
                detection
            ),
            0
        );
        assert_eq!(rule("qwen", "{distribute: [{from: a}]}", ""), 0);
        let zones = "      zoneAwareLbSetting: {enabled: false}\n";
        let zones = format!("kind: DestinationRule\nspec:\n  host: {host}\n  trafficPolicy:\n    loadBalancer:\n{zones}");
        assert_eq!(with(&zones), 1);
        let port = "    portLevelSettings: [{port: {number: 8000}, loadBalancer: {localityLbSetting: {distribute: [{from: a}]}}}]\n";
        assert_eq!(rule(host, "{}", port), 1);
    }

    #[test]
    fn finds_a_service_that_distributes() {
        let service = "kind: Service\nmetadata: {name: vllm, namespace: llm}\nspec: {trafficDistribution: PreferClose}\n";
        assert_eq!(with(service), 1);
        assert_eq!(with(&service.replace("vllm", "qwen")), 0);
        let annotated = "kind: Service\nmetadata: {name: vllm, namespace: llm, annotations: {networking.istio.io/traffic-distribution: PreferClose}}\nspec: {}\n";
        assert_eq!(with(annotated), 1);
        let off = format!("{service}---\nkind: DestinationRule\nspec: {{host: vllm.llm, trafficPolicy: {{loadBalancer: {{localityLbSetting: {{enabled: false}}}}}}}}\n");
        assert_eq!(with(&off), 0);
    }

    #[test]
    fn finds_the_settings_of_a_mesh() {
        let mesh = "kind: ConfigMap\nmetadata: {name: istio}\ndata:\n  mesh: |\n    localityLbSetting: {distribute: [{from: a}]}\n";
        assert_eq!(with(mesh), 1);
        // As `kubectl get configmap -o yaml` and `-o json` print several.
        let list = "kind: List\nitems:\n- kind: ConfigMap\n  data:\n    mesh: |\n      localityLbSetting: {distribute: [{from: a}]}\n";
        assert_eq!(with(list), 1);
        let list = "{\"kind\": \"List\", \"items\": [{\"kind\": \"ConfigMap\", \"data\": {\"mesh\": \"localityLbSetting:\\n  distribute: [{from: a}]\\n\"}}]}";
        assert_eq!(with(list), 1);
        let operator = "kind: IstioOperator\nspec: {meshConfig: {localityLbSetting: {failover: [{from: a}]}}}\n";
        assert_eq!(with(operator), 0);
        let detection = "---\nkind: DestinationRule\nspec: {host: vllm.llm, trafficPolicy: {outlierDetection: {}}}\n";
        assert_eq!(with(&format!("{operator}{detection}")), 1);
        let off = "---\nkind: DestinationRule\nspec: {host: vllm.llm, trafficPolicy: {loadBalancer: {localityLbSetting: {enabled: false}}}}\n";
        assert_eq!(with(&format!("{mesh}{off}")), 0);
    }

    #[test]
    fn finds_what_envoy_refuses_in_a_cluster() {
        let right = "  - name: inference-pool\n";
        for key in ["locality_weighted_lb_config", "zone_aware_lb_config"] {
            let wrong = format!("{right}    common_lb_config: {{{key}: {{}}}}\n");
            crate::lint::finds(&super::RULE, right, &wrong);
            let bootstrap = include_str!("../../../../envoy/envoy.yaml");
            let other = bootstrap
                .replace(right, &wrong)
                .replace("override_host.v3.OverrideHost", "ring_hash.v3.RingHash");
            assert!(found(&super::RULE, &other).is_empty());
        }
        let right = "        load_balancing_policy:\n";
        let wrong = format!("        common_lb_config: {{zone_aware_lb_config: {{}}}}\n{right}");
        assert_eq!(
            found(&super::RULE, &CLUSTER.replace(right, &wrong)).len(),
            1
        );
        let harmless = wrong.replace(
            "zone_aware_lb_config: {}",
            "healthy_panic_threshold: {value: 0}",
        );
        assert!(found(&super::RULE, &CLUSTER.replace(right, &harmless)).is_empty());
    }

    #[test]
    fn an_inference_pool_gets_no_weights() {
        let pool = FILTER.replace("vllm.llm.svc", "vllm-ip-5a1b2c3d.llm.svc");
        let mesh = "---\nlocalityLbSetting: {distribute: [{from: a}]}\n";
        assert!(found(&super::RULE, &format!("{pool}\n{mesh}")).is_empty());
    }

    #[test]
    fn a_service_without_the_policy_may_weigh() {
        let rule = "kind: DestinationRule\nspec: {host: vllm.llm, trafficPolicy: {loadBalancer: {localityLbSetting: {distribute: [{from: a}]}}}}\n";
        assert!(found(&super::RULE, rule).is_empty());
    }
}

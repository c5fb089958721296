use std::time::Instant;

use super::*;

/// A plan whose endpoints are those of Envoy, and what more its document says.
fn plan(scorer: &str, more: &str) -> Plan {
    let text = format!(
        "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{{type: {scorer}}}{more}]
schedulingProfiles: [{{name: default, plugins: [{{pluginRef: {scorer}}}]}}]
"
    );
    epp_core::config::load(&text).unwrap().plan
}

fn members_at(addresses: &[&str]) -> Vec<Member> {
    let member = |address: &&str| Member {
        name: (*address).to_owned(),
        address: (*address).to_owned(),
        labels: Vec::new(),
        health: epp_core::scheduling::Health::Healthy,
    };
    addresses.iter().map(member).collect()
}

/// What a filter exports of one endpoint with fresh metrics of this age.
fn page(age: u32) -> Sample {
    let labels = "{pool=\"inference-pool\",endpoint_name=\"10.0.0.1:80\"}";
    let page = format!(
        "epp_wasm_endpoint_freshness{labels} 2
epp_wasm_scrape_age_milliseconds{labels} {age}
llm_d_epp_per_endpoint_queue_size{labels} 7
"
    );
    Sample::parse(&page, Instant::now())
}

fn state(plan: &Plan, addresses: &[&str], age: u32) -> Result<PoolState, Error> {
    exported(&page(age), "inference-pool", members_at(addresses), plan)
}

#[test]
fn metrics_that_the_document_would_not_trust_are_noted_with_their_age() {
    let notes = |plan: &Plan, age| {
        let state = state(plan, &["10.0.0.1:80"], age).unwrap();
        let endpoint = &state.endpoints[0];
        assert_eq!(endpoint.freshness, Freshness::Fresh);
        assert_eq!(endpoint.metrics.waiting, Some(7.0));
        assert_eq!(endpoint.age, Some(Duration::from_millis(age.into())));
        state.notes
    };
    let by_load = plan("queue-scorer", "");
    // At rest, a page may be 2 s older than the threshold of 2 s.
    assert_eq!(notes(&by_load, 4_000), [""; 0]);
    let noted = notes(&by_load, 58_300);
    assert!(
        noted.len() == 1 && noted[0].starts_with("metrics up to 58.3 s old"),
        "{noted:?}"
    );
    let source = |parameters: &str| {
        let source = format!(", {{type: metrics-data-source, parameters: {{{parameters}}}}}");
        plan("queue-scorer", &source)
    };
    assert_eq!(notes(&source("stalenessThreshold: 1m"), 58_300), [""; 0]);
    assert_eq!(notes(&source("stalenessThreshold: 56s"), 58_300).len(), 1);
    // Of the KV cache's size, and of nothing, any age will do.
    for scorer in ["prefix-cache-scorer", "session-affinity-scorer"] {
        let noted = notes(&plan(scorer, ""), 58_300);
        let of_age = noted.iter().filter(|note| note.contains("old"));
        assert_eq!(of_age.count(), 0, "{scorer}: {noted:?}");
    }
}

#[test]
fn a_listed_endpoint_that_envoy_does_not_have_is_said_to_be_none_of_its_members() {
    let text = |plan: &Plan, addresses: &[&str]| match state(plan, addresses, 0) {
        Ok(state) => state.notes.join("\n"),
        Err(error) => format!("error: {error}"),
    };
    let (one, both, other) = (
        &["10.0.0.1:80"][..],
        &["10.0.0.1:80", "10.0.0.2:80"][..],
        &["10.0.0.2:80"][..],
    );
    let of_cluster = plan("queue-scorer", "");
    assert_eq!(text(&of_cluster, one), "");
    let new = "10.0.0.2:80: the filter does not know it yet";
    assert_eq!(text(&of_cluster, both), new);
    assert_eq!(text(&of_cluster, other), new);
    let mut of_list = plan("queue-scorer", "");
    of_list.discovery = Discovery::Static(Default::default());
    assert_eq!(text(&of_list, one), "");
    let absent = "10.0.0.2:80: not a member of this Envoy's pool";
    assert_eq!(text(&of_list, both), absent);
    let error = text(&of_list, other);
    assert!(
        error.starts_with(
            "error: static-discovery: none of the endpoints is a member of inference-pool"
        ),
        "{error}"
    );
}

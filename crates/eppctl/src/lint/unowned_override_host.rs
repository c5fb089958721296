//! A cluster waits for a picker's choice, and no picker serves it.

use epp_wasm::plugins::proxy::envoy_proxy::Requests;

use super::routing::{managers, overrides, Manager};
use super::site::Site;
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "unowned-override-host",
    why: "a filter picks for the cluster that it names and for no other: here Envoy's fallback policy chooses, or a client, where its header is not removed; a subset, a canary, a mirror and an aggregate over the pool are other clusters",
    fix: "give the cluster a picker of its own (envoy-cluster-discovery's clusters, envoy-proxy's cluster), or an ordinary policy in place of override_host",
    check: |site| managers(site).flat_map(|manager| unowned(site, &manager)).collect(),
};

fn unowned(site: &Site<'_>, manager: &Manager<'_>) -> Vec<Fault> {
    // An Endpoint Picker may serve it.
    if manager.has_filter("ext_proc.v3.ExternalProcessor") {
        return Vec::new();
    }
    let Some(pickers) = manager.pickers() else {
        return Vec::new();
    };
    // What does not load has a finding of its own.
    let Ok(plans) = pickers
        .iter()
        .map(|picker| picker.loaded.as_ref())
        .collect::<Result<Vec<_>, _>>()
    else {
        return Vec::new();
    };
    if plans
        .iter()
        .any(|plan| plan.proxy.requests == Requests::All)
    {
        return Vec::new();
    }
    let mut faults = Vec::new();
    for name in manager.clusters() {
        let owned = plans.iter().any(|plan| plan.cluster() == name);
        let Some((path, cluster)) = site.cluster(name).filter(|_| !owned) else {
            continue;
        };
        let policy = cluster.get("load_balancing_policy");
        if policy.is_some_and(overrides) {
            let what = format!("requests are routed to {name}, for which no filter picks");
            faults.push(Fault::at(path, what));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use crate::lint::{finds, found};

    const TWO: &str = include_str!("../../../../envoy/production/two-pools.yaml");

    #[test]
    fn finds_a_pool_that_the_picker_does_not_name() {
        finds(
            &super::RULE,
            "parameters: {readBody: always}",
            "parameters: {readBody: always, cluster: another}",
        );
    }

    #[test]
    fn finds_the_second_pool_without_its_filter() {
        assert_eq!(found(&super::RULE, TWO), Vec::<String>::new());
        let text = TWO.replace("clusters: [qwen]", "clusters: [canary]");
        let found = found(&super::RULE, &text);
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("routed to qwen"), "{found:?}");
    }

    #[test]
    fn an_endpoint_picker_may_serve_it() {
        let text = TWO.replace("clusters: [qwen]", "clusters: [canary]").replace(
            "          # The second pool: another document, the same module and VM.\n",
            "          - name: epp\n            typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor}\n",
        );
        assert_eq!(found(&super::RULE, &text), Vec::<String>::new());
    }
}

//! A cluster waits for a picker's choice, and no picker serves it.

use epp_core::config::value::Node;
use epp_core::config::Plan;
use epp_core::plugins::proxy::envoy_proxy::Requests;

use super::pool::envoy_gateway;
use super::routing::{managers, overrides, Manager};
use super::site::{below, entries, path_below, text, text_below, Site};
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "unowned-override-host",
    finds: "routes to a cluster with the policy for which no filter picks",
    why: "a filter picks only for the cluster that its configuration names: here Envoy's fallback policy chooses, or the client if its header is not removed; subsets, canaries, mirrors and aggregates of the pool are clusters of their own",
    fix: "give the cluster its own picker (clusters of envoy-cluster-discovery, cluster of envoy-proxy), or use an ordinary policy instead of override_host",
    check: |site| {
        let whole = managers(site).flat_map(|manager| unowned(site, &manager));
        whole.chain(of_gateways(site)).collect()
    },
};

/// Finds Envoy Gateway's policies that have a route's cluster read the header, where no filter picks for that route.
fn of_gateways(site: &Site<'_>) -> Vec<Fault> {
    // A document that does not load has its own finding.
    if site.pickers.iter().any(|picker| picker.loaded.is_err()) {
        return Vec::new();
    }
    let keys = ["spec", "load_balancer", "endpoint_override"];
    let mut faults = Vec::new();
    for (path, policy) in site.objects("BackendTrafficPolicy") {
        if below(policy, &keys).is_none() {
            continue;
        }
        let namespace = text_below(policy, &["metadata", "namespace"]);
        let one = below(policy, &["spec", "target_ref"]);
        let targets = entries(policy, &["spec", "target_refs"]).iter().chain(one);
        for route in targets.filter(|target| text(target, "kind") == "HTTPRoute") {
            let route = text(route, "name");
            let is_route = |plan: &Plan| {
                let cluster = envoy_gateway(plan.cluster());
                cluster.is_some_and(|cluster| {
                    cluster.route == route
                        && (namespace.is_empty() || cluster.namespace == namespace)
                })
            };
            let place = path_below(path, &keys);
            let mut own = site
                .loaded()
                .filter(|(picker, _)| picker.is_envoy_gateways(site));
            if site.loaded().any(|(_, plan)| is_route(plan)) {
                continue;
            }
            faults.push(match own.next() {
                Some(_) => Fault::at(
                    &place,
                    format!("endpointOverride for HTTPRoute {route}, and no filter picks for it"),
                ),
                None => {
                    Fault::not_seen(&place, format!("a filter that picks for HTTPRoute {route}"))
                }
            });
        }
    }
    faults
}

fn unowned(site: &Site<'_>, manager: &Manager<'_>) -> Vec<Fault> {
    // An Endpoint Picker behind ext_proc may serve it.
    if manager.has_filter("ext_proc.v3.ExternalProcessor") {
        return Vec::new();
    }
    let Some(pickers) = manager.pickers() else {
        return Vec::new();
    };
    // A document that does not load has its own finding.
    let Ok(plans) = pickers
        .iter()
        .map(|picker| picker.loaded.as_ref())
        .collect::<Result<Vec<_>, _>>()
    else {
        return Vec::new();
    };
    let mut faults = Vec::new();
    let mut fault = |name, what: String| {
        let policy = |cluster: &Node| cluster.get("load_balancing_policy").is_some_and(overrides);
        if let Some((path, _)) = site.cluster(name).filter(|(_, cluster)| policy(cluster)) {
            faults.push(Fault::at(path, what));
        }
    };
    // Behind an aggregate, Envoy's policy does not see the header, whichever filter sets it.
    for name in manager.aggregated() {
        fault(name, format!("requests are routed to {name} through an aggregate cluster, which hides the header"));
    }
    for name in manager.clusters() {
        let owns = |plan: &&Plan| plan.cluster() == name || plan.envoy.requests == Requests::All;
        if !plans.iter().any(owns) {
            fault(
                name,
                format!("requests are routed to {name}, but no filter picks for it"),
            );
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
    fn finds_envoy_gateways_route_without_a_filter() {
        let policy = crate::lint::body_unread::tests::POLICY;
        let traffic = include_str!("../../../../envoy/gateway/traffic.yaml");
        let with = |route: &str| {
            let traffic = traffic.replace("name: vllm}", &format!("name: {route}}}"));
            found(&super::RULE, &format!("{traffic}---\n{policy}"))
        };
        assert!(with("vllm").is_empty());
        let other = with("chat");
        let expected = "endpointOverride for HTTPRoute chat, and no filter picks for it";
        assert!(
            other.len() == 1 && other[0].ends_with(expected),
            "{other:?}"
        );
        let alone = found(&super::RULE, traffic);
        assert!(
            alone.len() == 1 && alone[0].starts_with("not seen: "),
            "{alone:?}"
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
    fn finds_an_aggregate_over_a_pool_that_has_its_filter() {
        let aggregate = "  - name: all\n    cluster_type: {typed_config: {clusters: [llama]}}\n  - name: qwen-metrics\n";
        let text = TWO.replace("  - name: qwen-metrics\n", aggregate).replace(
            "                  cluster: llama\n",
            "                  cluster: all\n",
        );
        let found = found(&super::RULE, &text);
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("through an aggregate"), "{found:?}");
    }

    #[test]
    fn a_patch_may_bring_the_filter() {
        let picker = "          - name: envoy.filters.http.wasm\n            typed_config:\n              \"@type\": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm\n";
        let bootstrap = include_str!("../../../../envoy/envoy.yaml");
        assert!(bootstrap.contains(picker));
        let bare = bootstrap.replacen(picker, &picker.replace("wasm.v3.Wasm", "other.v3.Other"), 1);
        assert_eq!(found(&super::RULE, &bare).len(), 1);
        let filter = include_str!("../../../../envoy/istio/filter.yaml");
        let served = filter.replace(
            "outbound|8000||vllm.llm.svc.cluster.local",
            "inference-pool",
        );
        assert!(found(&super::RULE, &format!("{bare}\n---\n{served}")).is_empty());
        assert_eq!(
            found(&super::RULE, &format!("{bare}\n---\n{filter}")).len(),
            1
        );
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

//! Requests pass the filter, and none of them is for its pool.

use epp_core::config::value::Node;
use epp_core::plugins::proxy::envoy_proxy::Requests;

use super::pool::envoy_gateway;
use super::routing::{managers, Manager};
use super::site::{entries, text, Site};
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "unrouted",
    finds: "a filter in a listener none of whose routes leads to its pool, and `requests: all` where routes lead elsewhere, too",
    why: "the filter leaves requests to other clusters alone: responses are 200, and nothing is picked",
    fix: "route to the cluster that the document names (clusters of envoy-cluster-discovery, or cluster of envoy-proxy), or name the one that is routed to",
    check: |site| {
        let whole = managers(site).flat_map(|manager| faults(site, &manager));
        whole.chain(of_gateways(site)).collect()
    },
};

/// Finds policies of Envoy Gateway's that run the filter on other routes than the one whose cluster it names.
fn of_gateways(site: &Site<'_>) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (picker, plan) in site.loaded() {
        let own = picker.path.steps();
        let mut policies = site.objects("EnvoyExtensionPolicy");
        let policy = policies.find(|(path, _)| own.starts_with(path.steps()));
        let (Some((_, policy)), Some(cluster)) = (policy, envoy_gateway(plan.cluster())) else {
            continue;
        };
        let targets = entries(policy, &["spec", "target_refs"]);
        let is_other = |target: &Node| {
            text(target, "kind") == "HTTPRoute" && text(target, "name") != cluster.route
        };
        if !targets.is_empty() && targets.iter().all(is_other) {
            let what = format!(
                "the filter runs on other routes than HTTPRoute {}, to which {} belongs",
                cluster.route,
                plan.cluster()
            );
            faults.push(Fault::at(&picker.document, what));
        }
    }
    faults
}

fn faults(site: &Site<'_>, manager: &Manager<'_>) -> Vec<Fault> {
    let (Some(pickers), true) = (manager.pickers(), manager.knows_routes()) else {
        return Vec::new();
    };
    let clusters = manager.clusters();
    let aggregated = manager.aggregated();
    let mut faults = Vec::new();
    for picker in pickers {
        let (Ok(plan), false) = (&picker.loaded, picker.is_inserted(site)) else {
            continue;
        };
        let pool = plan.cluster();
        let own = manager.has(picker);
        if own && !clusters.contains(&pool) && !aggregated.contains(&pool) {
            let what = format!("no route of this listener leads to {pool}");
            faults.push(Fault::at(&picker.document, what));
        } else if own && plan.envoy.requests == Requests::All && !manager.names_helpers() {
            if let Some(other) = clusters.iter().find(|name| **name != pool) {
                let what = format!("requests: all, and a route leads to {other}");
                faults.push(
                    Fault::at(&picker.document, what)
                        .because("requests to the other cluster are picked for, too, with endpoints of this one")
                        .fixed_by("remove `requests: all` from envoy-proxy: the filter then asks Envoy for each request's cluster"),
                );
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use crate::lint::{finds, found};

    #[test]
    fn finds_the_filter_on_another_route() {
        let policy = crate::lint::body_unread::tests::POLICY;
        assert!(found(&super::RULE, policy).is_empty());
        let other = found(&super::RULE, &policy.replace("name: vllm", "name: chat"));
        let place = "spec.wasm[0].config: the filter runs on other routes";
        assert!(other.len() == 1 && other[0].starts_with(place), "{other:?}");
        let gateway = policy.replace("kind: HTTPRoute, name: vllm", "kind: Gateway, name: llm");
        assert!(found(&super::RULE, &gateway).is_empty());
    }

    #[test]
    fn finds_a_listener_without_a_route_to_the_pool() {
        let right = "                  cluster: inference-pool\n";
        finds(
            &super::RULE,
            right,
            "                  cluster: prometheus_stats\n",
        );
        let bootstrap = include_str!("../../../../envoy/envoy.yaml");
        assert!(bootstrap.contains(right));
        // The request says which.
        let by_header = bootstrap.replace(right, "                  cluster_header: x-pool\n");
        assert!(found(&super::RULE, &by_header).is_empty());
        let weighted = bootstrap.replace(right, "                  weighted_clusters: {clusters: [{name: other, weight: 1}, {name: inference-pool, weight: 1}]}\n");
        assert!(found(&super::RULE, &weighted).is_empty());
        let all = weighted.replace("{readBody: always}", "{readBody: always, requests: all}");
        let all = found(&super::RULE, &all);
        assert!(
            all.len() == 1 && all[0].ends_with("requests: all, and a route leads to other"),
            "{all:?}"
        );
    }
}

//! Requests pass the filter, and none of them is for its pool.

use epp_core::plugins::proxy::envoy_proxy::Requests;

use super::routing::{managers, Manager};
use super::site::Site;
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "unrouted",
    finds: "a filter in a listener none of whose routes leads to its pool, and `requests: all` where routes lead elsewhere, too",
    why: "the filter leaves requests to other clusters alone: responses are 200, and nothing is picked",
    fix: "route to the cluster that the document names (clusters of envoy-cluster-discovery, or cluster of envoy-proxy), or name the one that is routed to",
    check: |site| managers(site).flat_map(|manager| faults(site, &manager)).collect(),
};

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

//! The pool's circuit breakers open before its endpoints are busy.

use epp_core::config::value::{Node, Path};

use super::patches::patches;
use super::site::{number, text, Site};
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "circuit-breakers",
    finds: "thresholds below twice the number of endpoints",
    why: "polling uses one request per endpoint of the same cluster: below two per endpoint, polls and requests starve each other",
    fix: "raise the thresholds to at least twice the number of endpoints, or omit them (default: 1024)",
    check: |site| {
        let named: Vec<&str> = site.loaded().flat_map(|(_, plan)| [plan.cluster(), plan.metrics_cluster()]).collect();
        let mut faults = Vec::new();
        let known = |name: &str| named.contains(&name);
        for (path, cluster) in site.clusters().filter(|(_, cluster)| known(text(cluster, "name"))) {
            faults.extend(low(site, path, endpoints(cluster)));
        }
        for patch in patches(site).iter().filter(|patch| patch.target() == "CLUSTER") {
            let Some(name) = named.iter().find(|name| patch.is_for_cluster(name)) else {
                continue;
            };
            // A cluster that a patch adds is checked as a cluster of its own.
            if patch.operation() == "MERGE" {
                let cluster = site.cluster(name).map_or(0, |(_, cluster)| endpoints(cluster));
                faults.extend(low(site, &patch.place(&[]), cluster));
            }
        }
        faults
    },
};

/// Finds thresholds of a cluster, or of its patch, that are too low for a number of endpoints.
fn low(site: &Site<'_>, path: &Path, endpoints: usize) -> Vec<Fault> {
    // If the endpoints are not in the files, there is at least one.
    let endpoints = endpoints.max(1);
    let path = path.key("circuit_breakers");
    let mut faults = Vec::new();
    for (place, map) in site.inside(&path) {
        for name in ["max_requests", "max_connections", "max_pending_requests"] {
            match map.get(name).and_then(number) {
                Some(most) if most < 2.0 * endpoints as f64 => {
                    let what =
                        format!("{name} is {most}, less than twice the {endpoints} endpoints");
                    faults.push(Fault::at(&place.key(name), what));
                }
                _ => {}
            }
        }
    }
    faults
}

fn endpoints(node: &Node) -> usize {
    match node {
        Node::Map(entries) => entries
            .iter()
            .map(|(key, node)| match (key.as_str(), node) {
                ("lb_endpoints", Node::List(endpoints)) => endpoints.len(),
                _ => endpoints(node),
            })
            .sum(),
        Node::List(entries) => entries.iter().map(endpoints).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn finds_fewer_requests_than_the_endpoints_need() {
        let right = "max_requests: 16384";
        crate::lint::finds(&super::RULE, right, "max_requests: 7");
    }

    #[test]
    fn finds_the_thresholds_of_a_patch() {
        let filter = include_str!("../../../../envoy/istio/filter.yaml");
        let with = |service: &str, most: u32| {
            let patch = format!("---\nkind: EnvoyFilter\nspec: {{configPatches: [{{applyTo: CLUSTER, match: {{cluster: {{service: {service}}}}}, patch: {{operation: MERGE, value: {{circuitBreakers: {{thresholds: [{{maxRequests: {most}}}]}}}}}}}}]}}\n");
            crate::lint::found(&super::RULE, &format!("{filter}{patch}")).len()
        };
        assert_eq!(with("vllm.llm.svc.cluster.local", 1), 1);
        assert_eq!(with("vllm.llm.svc.cluster.local", 4096), 0);
        assert_eq!(with("qwen.llm.svc.cluster.local", 1), 0);
    }
}

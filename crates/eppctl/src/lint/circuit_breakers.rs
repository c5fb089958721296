//! The pool's circuit breakers open before its endpoints are busy.

use epp_wasm::document::Node;

use super::site::text;
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "circuit-breakers",
    why: "polling takes one request per endpoint of the same cluster: below two per endpoint it starves requests, or they it",
    fix: "raise the thresholds to twice the endpoints at least, or leave them out (1024)",
    check: |site| {
        let mut faults = Vec::new();
        let plans = site.pickers.iter().filter_map(|picker| picker.loaded.as_ref().ok());
        let named: Vec<&str> = plans.flat_map(|plan| [plan.cluster(), plan.metrics_cluster()]).collect();
        for (path, cluster) in site.clusters() {
            let least = 2 * endpoints(cluster);
            if !named.contains(&text(cluster, "name")) {
                continue;
            }
            let path = path.key("circuit_breakers");
            let inside = site.maps.iter().filter(|(place, _)| place.steps().starts_with(path.steps()));
            for (place, map) in inside {
                for name in ["max_requests", "max_connections", "max_pending_requests"] {
                    match map.get(name) {
                        Some(Node::Number(most)) if *most < least as f64 => {
                            let what = format!("{name} is {most}, below twice the {} endpoints", least / 2);
                            faults.push(Fault::at(&place.key(name), what));
                        }
                        _ => {}
                    }
                }
            }
        }
        faults
    },
};

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
}

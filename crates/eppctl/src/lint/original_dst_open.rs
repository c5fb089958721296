//! Clients choose which host the proxy calls.

use epp_wasm::document::Node;

use super::site::{below, text};
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "original-dst-open",
    why: "an ORIGINAL_DST cluster goes to whatever address its header names: where the header is not set by the picker, a client reaches any host that the proxy reaches",
    fix: "route to a cluster with the override_host policy, which knows its own members only",
    check: |site| {
        let open = site.clusters().filter(|(_, cluster)| {
            let by_header = below(cluster, &["original_dst_lb_config", "use_http_header"]);
            let name = text(cluster, "name");
            let routed = site
                .maps
                .iter()
                .any(|(_, map)| map.get("cluster") == Some(&Node::String(name.to_owned())));
            by_header == Some(&Node::Bool(true)) && routed
        });
        open.map(|(path, cluster)| {
            let what = format!("requests are routed to {}, wherever their header says", text(cluster, "name"));
            Fault::at(path, what)
        })
        .collect()
    },
};

#[cfg(test)]
mod tests {
    #[test]
    fn finds_a_route_to_wherever_the_header_says() {
        let right = "  - name: prometheus_stats";
        let wrong = "  - name: anywhere\n    type: ORIGINAL_DST\n    original_dst_lb_config: {use_http_header: true}\n  - name: prometheus_stats";
        let bootstrap = include_str!("../../../../envoy/envoy.yaml").replace(right, wrong);
        assert!(crate::lint::found(&super::RULE, &bootstrap).is_empty());
        let routed = bootstrap.replace("cluster: inference-pool\n", "cluster: anywhere\n");
        assert_eq!(crate::lint::found(&super::RULE, &routed).len(), 1);
    }
}

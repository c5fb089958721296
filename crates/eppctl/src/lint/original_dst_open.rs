//! Clients can choose the host that the proxy connects to.

use epp_core::config::value::Node;

use super::site::{below, flag, text, Site};
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "original-dst-open",
    finds: "routes to any address in a header",
    why: "an ORIGINAL_DST cluster connects to any address in its header: on a route without the picker, a client reaches any host that the proxy reaches",
    fix: "route to a cluster with the override_host policy, which reaches its own members only",
    check: |site| {
        let open = site.clusters().filter(|(_, cluster)| {
            let by_header = below(cluster, &["original_dst_lb_config", "use_http_header"]);
            by_header.and_then(flag) == Some(true) && is_routed_to(site, text(cluster, "name"))
        });
        open.map(|(path, cluster)| {
            let what = format!("requests to {} go to any address in their header", text(cluster, "name"));
            Fault::at(path, what)
        })
        .collect()
    },
};

/// Returns whether any route leads to a cluster, as the only one or as one of several.
fn is_routed_to(site: &Site<'_>, name: &str) -> bool {
    site.maps.iter().any(|(_, map)| leads_to(map, name))
}

/// Returns whether a mapping is a route to a cluster, as the only one or as one of several.
pub fn leads_to(map: &Node, name: &str) -> bool {
    let several = match below(map, &["route", "weighted_clusters", "clusters"]) {
        Some(Node::List(several)) => several.as_slice(),
        _ => &[],
    };
    let one = below(map, &["route"]).is_some_and(|route| text(route, "cluster") == name);
    one || several.iter().any(|one| text(one, "name") == name)
}

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
        let weighted = bootstrap.replace(
            "cluster: inference-pool\n",
            "weighted_clusters: {clusters: [{name: anywhere, weight: 1}]}\n",
        );
        assert_eq!(crate::lint::found(&super::RULE, &weighted).len(), 1);
    }
}

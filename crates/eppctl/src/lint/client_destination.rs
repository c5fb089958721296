//! Clients name the endpoint of a cluster with the `override_host` policy.

use super::routing::{managers, removes_early, sources, to_metadata, Manager};
use super::site::{below, text, Site};
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "client-destination",
    why: "a client that sends the header itself chooses its endpoint: of every cluster with the policy that no filter serves, and of the pool where the filter cannot run (FAIL_OPEN after a trap)",
    fix: "remove the header in early_header_mutation_extensions of the connection manager, as envoy/envoy.yaml does (Istio: a NETWORK_FILTER patch, as in envoy/istio/cluster.yaml)",
    check: |site| {
        let whole = managers(site).flat_map(|manager| open(site, &manager));
        whole.chain(patched(site)).collect()
    },
};

/// The headers that choose something behind this connection manager and that it lets pass.
fn open(site: &Site<'_>, manager: &Manager<'_>) -> Vec<Fault> {
    let mut faults: Vec<(&str, Fault)> = Vec::new();
    let mut fault = |header, what: String| {
        let known = faults.iter().any(|(known, _)| *known == header);
        if !known && !removes_early(manager.map, header) {
            let what = format!("{header} is not removed before a route is looked up: {what}");
            faults.push((header, Fault::at(manager.path, what)));
        }
    };
    for name in manager.clusters() {
        let cluster = site.cluster(name).map(|(_, cluster)| *cluster);
        let headers = cluster.map(|cluster| manager.headers_of(cluster));
        for header in headers.unwrap_or_default() {
            fault(header, format!("clients choose an endpoint of {name}"));
        }
    }
    // Where routes or clusters come from elsewhere.
    for picker in manager.pickers().unwrap_or_default() {
        if let Ok(plan) = &picker.loaded {
            let what = format!("clients choose an endpoint of {}", plan.cluster());
            fault(&plan.proxy.destination_header, what);
        }
    }
    faults.into_iter().map(|(_, fault)| fault).collect()
}

/// The same of Istio's patches: what gives a cluster the policy, or metadata a client's header, and
/// does not remove that header.
fn patched(site: &Site<'_>) -> Vec<Fault> {
    let mut faults = Vec::new();
    let patches = || {
        site.maps
            .iter()
            .filter(|(_, map)| !text(map, "applyTo").is_empty())
    };
    let removed = |header: &str| {
        patches().any(|(_, patch)| {
            text(patch, "applyTo") == "NETWORK_FILTER"
                && below(patch, &["patch", "value", "typed_config"])
                    .is_some_and(|manager| removes_early(manager, header))
        })
    };
    for (path, patch) in patches() {
        let headers = match text(patch, "applyTo") {
            "CLUSTER" => sources(patch),
            "HTTP_FILTER" => to_metadata(patch),
            _ => continue,
        };
        for header in headers.into_iter().filter(|header| !removed(header)) {
            let what = format!("{header} chooses an endpoint, and no patch here removes what clients send under its name");
            faults.push(Fault::at(path, what));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use crate::lint::{finds, found};

    const BOOTSTRAP: &str = include_str!("../../../../envoy/envoy.yaml");
    const REMOVED: &str = "              - remove: x-gateway-destination-endpoint\n";

    #[test]
    fn finds_the_pool_whose_header_passes() {
        finds(&super::RULE, REMOVED, "");
        let by_prefix = "              - remove_on_match: {key_matcher: {prefix: X-Gateway-}}\n";
        let by_prefix = BOOTSTRAP.replace(REMOVED, by_prefix);
        assert_eq!(found(&super::RULE, &by_prefix), Vec::<String>::new());
        // The list of another extension is none.
        let later = BOOTSTRAP.replace("early_header_mutation_extensions", "request_headers");
        assert_eq!(found(&super::RULE, &later).len(), 1);
    }

    /// The demo without its filter, with other routes to the pool.
    fn led(to: &str) -> usize {
        let text = BOOTSTRAP
            .replace(REMOVED, "")
            .replace("EndpointPickerConfig", "AnotherConfig")
            .replace("                  cluster: inference-pool\n", to);
        found(&super::RULE, &text).len()
    }

    #[test]
    fn finds_each_way_that_leads_to_the_policy() {
        let mirror = "                  cluster: prometheus_stats\n                  request_mirror_policies: [{cluster: inference-pool}]\n";
        let several = "                  weighted_clusters: {clusters: [{name: a, weight: 1}, {name: inference-pool, weight: 1}]}\n";
        for (to, expected) in [
            ("                  cluster: inference-pool\n", 1),
            ("                  cluster: prometheus_stats\n", 0),
            (mirror, 1),
            (several, 1),
        ] {
            assert_eq!(led(to), expected, "{to}");
        }
    }

    #[test]
    fn finds_routes_of_rds() {
        let rds = r#"
listener: {"@type": x/a.v3.HttpConnectionManager, rds: {route_config_name: r}, http_filters: []}
routes: {name: r, virtual_hosts: [{routes: [{route: {cluster: c}}]}]}
cluster:
  name: c
  eds_cluster_config: {}
  load_balancing_policy: {"@type": type.googleapis.com/a.override_host.v3.OverrideHost, override_host_sources: [{header: h}]}
"#;
        assert_eq!(found(&super::RULE, rds).len(), 1);
        let other = rds.replace("route_config_name: r", "route_config_name: s");
        assert_eq!(found(&super::RULE, &other).len(), 0);
    }

    #[test]
    fn finds_istios_patches_without_the_removal() {
        let cluster = include_str!("../../../../envoy/istio/cluster.yaml");
        let pool = include_str!("../../../../envoy/istio/inference-pool.yaml");
        let pool = pool.split("\n---\n").nth(1).unwrap();
        // Of the first, both patches: the cluster's, whose policy reads the header for the filter's polls.
        for (text, expected) in [(cluster, 2), (pool, 1)] {
            assert_eq!(found(&super::RULE, text), Vec::<String>::new());
            let open = text.replace(REMOVED, "");
            assert_eq!(found(&super::RULE, &open).len(), expected);
        }
    }
}

//! Clients can choose an endpoint of a cluster with the `override_host` policy.

use epp_core::config::value::Node;

use super::patches::{operations, patches};
use super::routing::{managers, removes_early, sources, to_metadata, Manager};
use super::site::{below, entries, holds, path_below, text, Site};
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "client-destination",
    finds: "clients that can choose an endpoint",
    why: "a client that sends the header itself chooses its endpoint in every cluster with the policy that no filter serves, and in the pool whenever the filter cannot run (FAIL_OPEN after a trap)",
    fix: "remove the header in the connection manager's early_header_mutation_extensions, as in envoy/envoy.yaml (Istio: a NETWORK_FILTER patch, as in envoy/istio/cluster.yaml; Envoy Gateway: headers.earlyRequestHeaders.remove of a ClientTrafficPolicy)",
    check: |site| {
        let whole = managers(site).flat_map(|manager| open(site, &manager));
        whole.chain(patched(site)).chain(of_gateways(site)).collect()
    },
};

/// Finds headers that choose an endpoint behind this connection manager and that it lets pass.
fn open(site: &Site<'_>, manager: &Manager<'_>) -> Vec<Fault> {
    let mut faults: Vec<(&str, Fault)> = Vec::new();
    let mut fault = |header, what: String| {
        let known = faults.iter().any(|(known, _)| *known == header);
        if !known && !removes_early(manager.map, header) && !is_removed(site, header) {
            let what = format!("{header} is not removed before route selection: {what}");
            faults.push((header, Fault::at(manager.path, what)));
        }
    };
    for name in manager.clusters() {
        let cluster = site.cluster(name).map(|(_, cluster)| *cluster);
        let headers = cluster.map(|cluster| manager.headers_of(cluster));
        for header in headers.unwrap_or_default() {
            fault(header, format!("clients can choose an endpoint of {name}"));
        }
    }
    // For routes or clusters that are not in the files.
    for picker in manager.pickers().unwrap_or_default() {
        if let Ok(plan) = &picker.loaded {
            let what = format!("clients can choose an endpoint of {}", plan.cluster());
            fault(&plan.settings.destination_header, what);
        }
    }
    faults.into_iter().map(|(_, fault)| fault).collect()
}

/// Returns whether a patch in these files removes a client's header before route selection.
fn is_removed(site: &Site<'_>, header: &str) -> bool {
    let by_istio = patches(site).iter().any(|patch| {
        let manager = patch.value().and_then(|value| value.get("typed_config"));
        patch.target() == "NETWORK_FILTER"
            && manager.is_some_and(|manager| removes_early(manager, header))
    });
    let keys = ["spec", "headers", "early_request_headers", "remove"];
    let is = |name: &str| name.eq_ignore_ascii_case(header);
    let mut policies = site.objects("ClientTrafficPolicy");
    let by_gateway =
        policies.any(|(_, policy)| below(policy, &keys).is_some_and(|names| holds(names, &is)));
    const EXTENSIONS: &str = "early_header_mutation_extensions";
    let by_patch = operations(site).iter().any(|operation| {
        let list = operation.sets("Listener", EXTENSIONS);
        list.is_some_and(|(_, list)| {
            let manager = Node::Map(vec![(EXTENSIONS.to_owned(), list.clone())]);
            removes_early(&manager, header)
        })
    });
    by_istio || by_gateway || by_patch
}

/// Finds Istio patches that give a cluster the policy, or copy a client's header to metadata, without
/// a patch that removes the header.
fn patched(site: &Site<'_>) -> Vec<Fault> {
    let mut faults = Vec::new();
    for patch in patches(site) {
        let headers = match patch.target() {
            "CLUSTER" => sources(patch.entry),
            "HTTP_FILTER" => to_metadata(patch.entry),
            _ => continue,
        };
        for header in headers
            .into_iter()
            .filter(|header| !is_removed(site, header))
        {
            let what = format!(
                "{header} chooses an endpoint, and no patch here removes it from client requests"
            );
            faults.push(Fault::at(patch.path, what));
        }
    }
    faults
}

/// Finds Envoy Gateway policies that read a client's header. A policy for a whole gateway also reaches
/// routes that no filter serves.
fn of_gateways(site: &Site<'_>) -> Vec<Fault> {
    let keys = ["spec", "load_balancer", "endpoint_override", "extract_from"];
    let mut faults = Vec::new();
    for (path, policy) in site.objects("BackendTrafficPolicy") {
        let one = below(policy, &["spec", "target_ref"]);
        let mut targets = entries(policy, &["spec", "target_refs"]).iter().chain(one);
        let reach = match targets.any(|target| text(target, "kind") == "Gateway") {
            true => "on every route of the gateway",
            false => "wherever the filter does not run",
        };
        for source in entries(policy, &keys) {
            let header = text(source, "header");
            if header.is_empty() || is_removed(site, header) {
                continue;
            }
            let place = path_below(path, &keys);
            let fault = match site.objects("ClientTrafficPolicy").next() {
                Some(_) => Fault::at(&place, format!("{header} chooses an endpoint {reach}, and no ClientTrafficPolicy removes it from client requests")),
                None => Fault::not_seen(&place, format!("a ClientTrafficPolicy with headers.earlyRequestHeaders.remove: [{header}] for the gateway")),
            };
            faults.push(fault);
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
    fn finds_envoy_gateways_policy_for_a_whole_gateway() {
        let policy = |kind: &str| {
            format!("kind: BackendTrafficPolicy\nspec: {{targetRefs: [{{kind: {kind}, name: a}}], loadBalancer: {{endpointOverride: {{extractFrom: [{{header: h}}]}}}}}}\n")
        };
        let gateway = policy("Gateway");
        let client = |names: &str| {
            format!("---\nkind: ClientTrafficPolicy\nspec: {{headers: {{earlyRequestHeaders: {{remove: {names}}}}}}}\n")
        };
        for kind in ["Gateway", "HTTPRoute"] {
            let alone = found(&super::RULE, &policy(kind));
            assert!(
                alone.len() == 1 && alone[0].starts_with("not seen: "),
                "{alone:?}"
            );
            let with =
                |names: &str| found(&super::RULE, &format!("{}{}", policy(kind), client(names)));
            assert!(with("[H]").is_empty());
            let misspelt = with("[hh]");
            assert!(
                misspelt.len() == 1 && misspelt[0].starts_with("spec."),
                "{misspelt:?}"
            );
        }
        let patch = "---\nkind: EnvoyPatchPolicy\nspec: {jsonPatches: [{type: x/envoy.config.listener.v3.Listener, operation: {op: add, path: /a/early_header_mutation_extensions, value: [{typedConfig: {mutations: [{remove: h}]}}]}}]}\n";
        assert!(found(&super::RULE, &format!("{gateway}{patch}")).is_empty());
        let other = patch.replace("remove: h", "remove: i");
        assert_eq!(found(&super::RULE, &format!("{gateway}{other}")).len(), 1);
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

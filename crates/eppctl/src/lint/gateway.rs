//! Gateway API routes to a pool, and the policies attached to them.

use epp_core::config::value::{Node, Path};

use super::pool::{envoy_gateway, istio};
use super::site::{below, entries, path_below, text, text_below, Site};

/// Returns the HTTPRoute from which Envoy Gateway generated a cluster.
pub fn for_pool<'s>(site: &'s Site<'_>, cluster: &str) -> Option<&'s Node> {
    let cluster = envoy_gateway(cluster)?;
    let is = |(_, route): &&(Path, &Node)| {
        let namespace = text_below(route, &["metadata", "namespace"]);
        text_below(route, &["metadata", "name"]) == cluster.route
            && (namespace.is_empty() || namespace == cluster.namespace)
    };
    site.objects("HTTPRoute").find(is).map(|(_, route)| *route)
}

/// Returns whether a policy is attached to an Envoy Gateway cluster's route or gateway.
///
/// A policy that selects its targets by labels counts as attached.
pub fn policy_for(policy: &Node, cluster: &str, route: Option<&Node>) -> bool {
    let Some(cluster) = envoy_gateway(cluster) else {
        return false;
    };
    let namespace = text_below(policy, &["metadata", "namespace"]);
    if !namespace.is_empty() && namespace != cluster.namespace {
        return false;
    }
    let parents = route.map(|route| entries(route, &["spec", "parent_refs"]));
    let is_parent = |name: &str| {
        parents.is_none_or(|parents| parents.iter().any(|parent| text(parent, "name") == name))
    };
    let one = below(policy, &["spec", "target_ref"]);
    let mut targets = entries(policy, &["spec", "target_refs"]).iter().chain(one);
    let attached = targets.any(|target| match text(target, "kind") {
        "HTTPRoute" => text(target, "name") == cluster.route,
        "Gateway" => is_parent(text(target, "name")),
        _ => false,
    });
    attached || below(policy, &["spec", "target_selectors"]).is_some()
}

/// Returns the rules of HTTPRoutes that lead to a pool, each with its path and its route.
pub fn rules<'s>(site: &'s Site<'_>, cluster: &str) -> Vec<(Path, &'s Node, &'s Node)> {
    let mut found = Vec::new();
    for (path, route) in site.objects("HTTPRoute") {
        let namespace = text_below(route, &["metadata", "namespace"]);
        let path = path_below(path, &["spec", "rules"]);
        for (index, rule) in entries(route, &["spec", "rules"]).iter().enumerate() {
            let leads = match (istio(cluster), envoy_gateway(cluster)) {
                (Some(cluster), _) => entries(rule, &["backend_refs"]).iter().any(|backend| {
                    let (name, own) = (text(backend, "name"), text(backend, "namespace"));
                    let namespace = if own.is_empty() { namespace } else { own };
                    match text(backend, "kind") {
                        "" | "Service" => cluster.is_host(name, namespace),
                        "InferencePool" => cluster.is_inference_pool(name, namespace),
                        _ => false,
                    }
                }),
                (_, Some(cluster)) => {
                    let same = namespace.is_empty() || namespace == cluster.namespace;
                    let name = text_below(route, &["metadata", "name"]);
                    same && name == cluster.route && index == cluster.rule
                }
                _ => false,
            };
            if leads {
                found.push((path.index(index), rule, *route));
            }
        }
    }
    found
}

//! A route's timeout cuts generations off.

use std::time::Duration;

use epp_core::config::value::duration::parse_duration;
use epp_core::config::value::{Node, Path};

use super::gateway::{policy_for, rules};
use super::original_dst_open::leads_to;
use super::patches::{operations, patches};
use super::pool::{envoy_gateway, istio};
use super::site::{below, entries, path_below, text, text_below, Site};
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "route-timeout",
    finds: "a route to the pool that cuts generations off: Envoy's default of 15 s, or less than 300 s",
    why: "a route's timeout covers the whole response, and defaults to 15 s in Envoy and Envoy Gateway (Istio sets none): a longer generation is cut off with 504, or in the middle of its stream",
    fix: "set timeout: 0s on the route to the pool (VirtualService: no timeout; HTTPRoute: timeouts.request: 0s), or at least 300s",
    check: |site| {
        let mut faults = envoys(site);
        let mut pools: Vec<_> = site.loaded().map(|(picker, plan)| (plan.cluster(), &picker.document)).collect();
        // One finding per route, however many filters serve its pool.
        pools.sort_by_key(|(name, _)| *name);
        pools.dedup_by_key(|(name, _)| *name);
        for (name, document) in pools {
            faults.extend(virtual_services(site, name));
            faults.extend(http_routes(site, name, document));
        }
        faults
    },
};

/// The shortest acceptable timeout: 8,192 tokens take 273 s at 30 tokens per second.
const ENOUGH: Duration = Duration::from_secs(300);

/// Returns what is wrong with a timeout.
fn wrong(timeout: &str) -> Option<String> {
    let given = parse_duration(timeout)?;
    (!given.is_zero() && given < ENOUGH).then(|| format!("a generation is cut off after {timeout}"))
}

/// Checks routes in Envoy's own configuration.
fn envoys(site: &Site<'_>) -> Vec<Fault> {
    let pools: Vec<&str> = site.loaded().map(|(_, plan)| plan.cluster()).collect();
    let patches = patches(site);
    let mut faults = Vec::new();
    for (path, map) in &site.maps {
        let Some(route) = map.get("route") else {
            continue;
        };
        if !pools.iter().any(|name| leads_to(map, name)) {
            continue;
        }
        let place = path.key("route");
        if let Some(what) = wrong(text(route, "timeout")) {
            faults.push(Fault::at(&place.key("timeout"), what));
        } else if route.get("timeout").is_none() {
            // A merged patch leaves the route's timeout as it is. (A patch of a virtual host adds
            // routes to its list.)
            let merged = patches.iter().any(|patch| {
                path.steps().starts_with(patch.path.steps())
                    && patch.target() == "HTTP_ROUTE"
                    && patch.operation() == "MERGE"
            });
            if !merged && !is_patched(site) {
                faults.push(Fault::at(
                    &place,
                    "no timeout: Envoy cuts a generation off after 15 s",
                ));
            }
        }
    }
    faults
}

/// Returns whether a patch in these files sets a timeout that is long enough.
fn is_patched(site: &Site<'_>) -> bool {
    let is_enough = |timeout: &str| parse_duration(timeout).is_some() && wrong(timeout).is_none();
    let by_istio = patches(site).iter().any(|patch| {
        let timeout = patch
            .value()
            .map(|value| text_below(value, &["route", "timeout"]));
        patch.target() == "HTTP_ROUTE"
            && patch.operation() == "MERGE"
            && timeout.is_some_and(is_enough)
    });
    let by_gateway = operations(site).iter().any(|operation| {
        let set = operation.sets("RouteConfiguration", "timeout");
        matches!(set, Some((_, Node::String(timeout))) if is_enough(timeout))
    });
    by_istio || by_gateway
}

/// Checks VirtualServices that route to the pool's Service. Istio sets no timeout by default.
fn virtual_services(site: &Site<'_>, pool: &str) -> Vec<Fault> {
    let Some(cluster) = istio(pool) else {
        return Vec::new();
    };
    let mut faults = Vec::new();
    for (path, service) in site.objects("VirtualService") {
        let namespace = text_below(service, &["metadata", "namespace"]);
        let path = path_below(path, &["spec", "http"]);
        for (index, route) in entries(service, &["spec", "http"]).iter().enumerate() {
            let leads = entries(route, &["route"])
                .iter()
                .any(|to| cluster.is_host(text_below(to, &["destination", "host"]), namespace));
            if let (true, Some(what)) = (leads, wrong(text(route, "timeout"))) {
                faults.push(Fault::at(&path.index(index).key("timeout"), what));
            }
        }
    }
    faults
}

/// Checks HTTPRoutes to the pool.
fn http_routes(site: &Site<'_>, pool: &str, document: &Path) -> Vec<Fault> {
    let mut faults = Vec::new();
    let found = rules(site, pool);
    for (path, rule, route) in &found {
        for key in ["request", "backend_request"] {
            if let Some(what) = wrong(text_below(rule, &["timeouts", key])) {
                faults.push(Fault::at(&path.key("timeouts").key(key), what));
            }
        }
        // Istio sets 0s if the route has no timeout; Envoy Gateway keeps Envoy's default.
        let given = below(rule, &["timeouts", "request"]).is_some();
        if given || envoy_gateway(pool).is_none() || is_patched(site) {
            continue;
        }
        let keys = ["spec", "timeout", "http", "request_timeout"];
        let policies = site.objects("BackendTrafficPolicy");
        let policies: Vec<_> = policies
            .filter(|(_, policy)| policy_for(policy, pool, Some(route)))
            .collect();
        let timeout = policies
            .iter()
            .find_map(|(path, policy)| Some((path_below(path, &keys), below(policy, &keys)?)));
        match timeout {
            Some((place, Node::String(timeout))) => {
                faults.extend(wrong(timeout).map(|what| Fault::at(&place, what)));
            }
            Some(_) => {}
            None if policies.is_empty() => faults.push(Fault::not_seen(
                path,
                "a BackendTrafficPolicy with timeout.http.requestTimeout, or timeouts.request here",
            )),
            None => faults.push(Fault::at(
                path,
                "no timeouts.request: Envoy cuts a generation off after 15 s",
            )),
        }
    }
    // What Envoy Gateway has made of the HTTPRoute is in a dump.
    let is_shown = || {
        let mut routes = site
            .maps
            .iter()
            .filter(|(_, map)| map.get("route").is_some());
        routes.any(|(_, map)| leads_to(map, pool))
    };
    if found.is_empty() && envoy_gateway(pool).is_some() && !is_patched(site) && !is_shown() {
        let what = format!("the HTTPRoute of {pool}, with timeouts.request: 0s");
        faults.push(Fault::not_seen(document, what));
    }
    faults
}

#[cfg(test)]
mod tests {
    use crate::lint::body_unread::tests::POLICY;
    use crate::lint::{finds, found};

    const BOOTSTRAP: &str = include_str!("../../../../envoy/envoy.yaml");
    const FILTER: &str = include_str!("../../../../envoy/istio/filter.yaml");

    #[test]
    fn finds_a_route_of_envoys_without_enough_time() {
        finds(&super::RULE, "timeout: 0s\n", "idle_timeout: 0s\n");
        finds(&super::RULE, "timeout: 0s\n", "timeout: 60s\n");
        let with = |to: &str| found(&super::RULE, &BOOTSTRAP.replace("timeout: 0s\n", to));
        assert!(with("timeout: 600s\n").is_empty());
        let weighted = BOOTSTRAP.replace("timeout: 0s\n", "\n").replace(
            "cluster: inference-pool\n",
            "weightedClusters: {clusters: [{name: inference-pool, weight: 1}]}\n",
        );
        assert_eq!(found(&super::RULE, &weighted).len(), 1);
        // Another cluster's route.
        let other = BOOTSTRAP
            .replace("timeout: 0s\n", "\n")
            .replace("cluster: inference-pool\n", "cluster: prometheus_stats\n");
        assert!(found(&super::RULE, &other).is_empty());
    }

    #[test]
    fn patches_of_routes_count() {
        let patch = |operation: &str, route: &str| {
            let patch = format!("---\nkind: EnvoyFilter\nspec: {{configPatches: [{{applyTo: HTTP_ROUTE, patch: {{operation: {operation}, value: {{route: {route}}}}}}}]}}\n");
            found(&super::RULE, &format!("{FILTER}{patch}")).len()
        };
        let cluster = "cluster: 'outbound|8000||vllm.llm.svc.cluster.local'";
        assert_eq!(patch("ADD", &format!("{{{cluster}}}")), 1);
        assert_eq!(patch("MERGE", &format!("{{{cluster}}}")), 0);
        assert_eq!(patch("MERGE", &format!("{{{cluster}, timeout: 20s}}")), 1);
        let host = format!("{FILTER}---\nkind: EnvoyFilter\nspec: {{configPatches: [{{applyTo: VIRTUAL_HOST, patch: {{operation: MERGE, value: {{routes: [{{route: {{{cluster}}}}}]}}}}}}]}}\n");
        assert_eq!(found(&super::RULE, &host).len(), 1);
        let without = BOOTSTRAP.replace("timeout: 0s\n", "\n");
        let merged = format!("{without}---\nkind: EnvoyFilter\nspec: {{configPatches: [{{applyTo: HTTP_ROUTE, patch: {{operation: MERGE, value: {{route: {{timeout: 0s}}}}}}}}]}}\n");
        assert!(found(&super::RULE, &merged).is_empty());
    }

    #[test]
    fn istio_has_no_default() {
        let with = |host: &str, timeout: &str| {
            let service = format!("---\nkind: VirtualService\nmetadata: {{namespace: llm}}\nspec: {{http: [{{route: [{{destination: {{host: {host}}}}}]{timeout}}}]}}\n");
            found(&super::RULE, &format!("{FILTER}{service}")).len()
        };
        assert_eq!(with("vllm", ""), 0);
        assert_eq!(with("vllm", ", timeout: 30s"), 1);
        assert_eq!(with("vllm", ", timeout: 0s"), 0);
        assert_eq!(with("vllm", ", timeout: 10m"), 0);
        assert_eq!(with("qwen", ", timeout: 30s"), 0);
        let route = |timeouts: &str| {
            let route = format!("---\nkind: HTTPRoute\nmetadata: {{namespace: llm}}\nspec: {{rules: [{{backendRefs: [{{name: vllm, port: 8000}}]{timeouts}}}]}}\n");
            found(&super::RULE, &format!("{FILTER}{route}")).len()
        };
        assert_eq!(route(""), 0);
        assert_eq!(route(", timeouts: {request: 0s}"), 0);
        assert_eq!(route(", timeouts: {backendRequest: 15s}"), 1);
    }

    #[test]
    fn envoy_gateway_has_envoys_default() {
        let dump = include_str!("../../../../tests/deploy/gateway/full.xds.yaml");
        assert!(found(&super::RULE, dump).is_empty());
        let with = |timeouts: &str, more: &str| {
            let route = format!("---\nkind: HTTPRoute\nmetadata: {{name: vllm, namespace: llm}}\nspec: {{parentRefs: [{{name: llm}}], rules: [{{backendRefs: [{{name: vllm}}]{timeouts}}}]}}\n");
            found(&super::RULE, &format!("{POLICY}{route}{more}"))
        };
        let policy = |spec: &str| {
            format!("---\nkind: BackendTrafficPolicy\nmetadata: {{namespace: llm}}\nspec: {{targetRefs: [{{kind: Gateway, name: llm}}]{spec}}}\n")
        };
        let alone = with("", "");
        assert!(
            alone.len() == 1 && alone[0].starts_with("not seen: "),
            "{alone:?}"
        );
        assert!(with(", timeouts: {request: 0s}", "").is_empty());
        assert_eq!(with(", timeouts: {request: 30s}", "").len(), 1);
        let none = with("", &policy(""));
        assert!(
            none.len() == 1 && none[0].starts_with("spec.rules[0]: "),
            "{none:?}"
        );
        assert!(with("", &policy(", timeout: {http: {requestTimeout: 0s}}")).is_empty());
        assert_eq!(
            with("", &policy(", timeout: {http: {requestTimeout: 15s}}")).len(),
            1
        );
    }
}

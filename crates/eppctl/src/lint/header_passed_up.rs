//! The destination header goes up to the model server.

use epp_wasm::document::{Node, Path};

use super::routing::managers;
use super::site::{text, Site};
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "header-passed-up",
    why: "the model server, and a proxy behind it, see who was picked and next in line; another picker there may act on it",
    fix: "remove the header in upstream_http_filters of the router (header_mutation), behind the cluster's choice",
    check: |site| {
        if site.pickers.is_empty() {
            return Vec::new();
        }
        let headers = site.destinations().into_iter();
        let passed: Vec<&str> = headers.filter(|header| !is_removed(site, header)).collect();
        let routers = site
            .maps
            .iter()
            .filter(|(path, map)| text(map, "@type").ends_with("router.v3.Router") && is_behind_picker(site, path));
        routers
            .flat_map(|(path, _)| passed.iter().map(move |header| Fault::at(path, format!("nothing removes {header}"))))
            .collect()
    },
};

/// Whether something takes the header away behind the cluster's choice.
fn is_removed(site: &Site<'_>, header: &str) -> bool {
    // The removal before routing is of what clients send, not of what the picker sets.
    let early = |path: &Path| {
        path.to_string()
            .contains("early_header_mutation_extensions")
    };
    site.maps.iter().any(|(path, map)| {
        matches!(map.get("remove"), Some(Node::String(name)) if name.eq_ignore_ascii_case(header))
            && !early(path)
    })
}

/// Whether requests that a picker has decided may come to a router.
///
/// False only where its connection manager has neither a picker nor a route to a picker's cluster.
fn is_behind_picker(site: &Site<'_>, router: &Path) -> bool {
    let above = |path: &Path| router.steps().starts_with(path.steps());
    let Some(manager) = managers(site).find(|manager| above(manager.path)) else {
        return true;
    };
    let mut pickers = site.pickers.iter();
    if pickers.any(|picker| picker.path.steps().starts_with(manager.path.steps())) {
        return true;
    }
    // Routes that are elsewhere may lead anywhere.
    let routes = manager.clusters();
    let elsewhere = routes.is_empty() && manager.map.get("route_config").is_none();
    let mut loaded = site.loaded();
    elsewhere || loaded.any(|(_, plan)| routes.contains(&plan.cluster()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn finds_a_header_that_stays() {
        let right = "[{remove: x-gateway-destination-endpoint}]";
        crate::lint::finds(&super::RULE, right, "[{remove: x-other}]");
        // The status page's router has no route.
        let bootstrap = include_str!("../../../../envoy/envoy.yaml");
        let found = |text: &str| crate::lint::found(&super::RULE, text);
        assert_eq!(found(&bootstrap.replace(right, "[]")).len(), 1);
        // Another listener that leads to the pool.
        let leads = bootstrap.replace(right, "[]").replace(
            "route_config: {}",
            "route_config: {virtual_hosts: [{routes: [{route: {cluster: inference-pool}}]}]}",
        );
        assert_eq!(found(&leads).len(), 2);
        let own = bootstrap.replace(
            "{readBody: always}",
            "{readBody: always, destinationHeader: x-own}",
        );
        let own = found(&own);
        assert!(
            own.len() == 1 && own[0].ends_with("nothing removes x-own"),
            "{own:?}"
        );
    }
}

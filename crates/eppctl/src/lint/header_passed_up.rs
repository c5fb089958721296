//! The destination header is forwarded to the model server.

use epp_core::config::value::{Node, Path};

use super::picker::Picker;
use super::routing::managers;
use super::site::{text, Site, DESTINATION};
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "header-passed-up",
    finds: "a router that forwards the destination header to the model servers",
    why: "the model server and any proxy behind it see the picked endpoints; another picker there may act on them",
    fix: "remove the header in the router's upstream_http_filters (header_mutation), which run after load balancing",
    check: |site| {
        let mut faults = Vec::new();
        for (path, map) in &site.maps {
            if !text(map, "@type").ends_with("router.v3.Router") {
                continue;
            }
            let mut headers = headers(site, path);
            headers.retain(|header| !is_removed(site, header));
            faults.extend(headers.into_iter().map(|header| Fault::at(path, format!("nothing removes {header}"))));
        }
        faults
    },
};

/// Returns whether a filter removes the header after load balancing.
fn is_removed(site: &Site<'_>, header: &str) -> bool {
    // Early mutation removes the client's header, not the picker's.
    let early = |path: &Path| {
        path.to_string()
            .contains("early_header_mutation_extensions")
    };
    site.maps.iter().any(|(path, map)| {
        matches!(map.get("remove"), Some(Node::String(name)) if name.eq_ignore_ascii_case(header))
            && !early(path)
    })
}

/// Returns the headers that pickers may set on requests that reach a router.
///
/// Considers the pickers in its connection manager, and those whose cluster it routes to.
fn headers<'s>(site: &'s Site<'_>, router: &Path) -> Vec<&'s str> {
    let above = |path: &Path, place: &Path| place.steps().starts_with(path.steps());
    let manager = managers(site).find(|manager| above(manager.path, router));
    let routes = manager.as_ref().map(|manager| manager.clusters());
    let passes = |picker: &Picker<'_>| {
        let (Some(manager), Some(routes)) = (&manager, &routes) else {
            return true;
        };
        // Routes that are not in the files may lead anywhere.
        let elsewhere = routes.is_empty() && manager.map.get("route_config").is_none();
        let leads = |name: &str| elsewhere || routes.contains(&name);
        let loaded = picker.loaded.as_ref();
        above(manager.path, &picker.path) || loaded.is_ok_and(|plan| leads(plan.cluster()))
    };
    let pickers = site.pickers.iter().filter(|picker| passes(picker));
    let headers = pickers.map(|picker| match &picker.loaded {
        Ok(plan) => &*plan.settings.destination_header,
        Err(_) => DESTINATION,
    });
    let mut headers: Vec<&str> = headers.collect();
    headers.sort_unstable();
    headers.dedup();
    headers
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

    #[test]
    fn a_router_passes_what_its_own_picker_sets() {
        let two = include_str!("../../../../envoy/production/two-pools.yaml");
        assert!(crate::lint::found(&super::RULE, two).is_empty());
        let own = two.replacen(
            ", readBody: always}",
            ", readBody: always, destinationHeader: x-own}",
            1,
        );
        assert!(two != own);
        assert_eq!(crate::lint::found(&super::RULE, &own).len(), 1);
        // Another listener with another picker.
        let first = include_str!("../../../../envoy/envoy.yaml");
        let (before, status) = first.split_once("  - name: status\n").unwrap();
        let (_, llm) = before.split_once("  - name: llm\n").unwrap();
        let second = llm
            .replace(
                "{readBody: always}",
                "{readBody: always, destinationHeader: x-own, cluster: other}",
            )
            .replace("cluster: inference-pool", "cluster: other");
        let both = format!("{before}  - name: second\n{second}  - name: status\n{status}");
        let found = crate::lint::found(&super::RULE, &both);
        assert!(
            found.len() == 1 && found[0].starts_with("static_resources.listeners[1]"),
            "{found:?}"
        );
    }
}

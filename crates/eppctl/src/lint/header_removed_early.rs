//! The route takes the destination header away before the cluster reads it.

use epp_wasm::document::Node;

use super::site::{below, holds, DESTINATION};
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "header-removed-early",
    why: "request_headers_to_remove acts before load balancing: the picked endpoint is never seen, and Envoy balances by itself",
    fix: "take the header out of request_headers_to_remove; remove it in upstream_http_filters instead",
    check: |site| {
        let names = |node: &Node| holds(node, &|text| text.eq_ignore_ascii_case(DESTINATION));
        let routes = site
            .maps
            .iter()
            .filter(|(_, map)| map.get("request_headers_to_remove").is_some_and(names));
        let routes = routes.map(|(path, _)| path.key("request_headers_to_remove"));
        // The same in Istio's VirtualService.
        let services = site.maps.iter().filter(|(_, map)| {
            below(map, &["headers", "request", "remove"]).is_some_and(names)
        });
        let services = services.map(|(path, _)| path.key("headers").key("request").key("remove"));
        // And in Gateway API's HTTPRoute, in a rule or behind one of its backends.
        let filters = site.maps.iter().filter(|(_, map)| {
            below(map, &["request_header_modifier", "remove"]).is_some_and(names)
        });
        let filters = filters.map(|(path, _)| path.key("request_header_modifier").key("remove"));
        routes
            .chain(services)
            .chain(filters)
            .map(|path| Fault::at(&path, format!("{DESTINATION} is removed by the route")))
            .collect()
    },
};

#[cfg(test)]
mod tests {
    #[test]
    fn finds_the_route_that_removes_it() {
        let right = "domains: [\"*\"]";
        let wrong = "domains: [\"*\"]\n              request_headers_to_remove: [X-Gateway-Destination-Endpoint]";
        crate::lint::finds(&super::RULE, right, wrong);
        let service = "kind: VirtualService\nspec: {http: [{headers: {request: {remove: [x-gateway-destination-endpoint]}}}]}";
        assert_eq!(crate::lint::found(&super::RULE, service).len(), 1);
        let other = service.replace("destination", "other");
        assert!(crate::lint::found(&super::RULE, &other).is_empty());
        let route = "kind: HTTPRoute\nspec: {rules: [{backendRefs: [{filters: [{type: RequestHeaderModifier, requestHeaderModifier: {remove: [x-gateway-destination-endpoint]}}]}]}]}";
        assert_eq!(crate::lint::found(&super::RULE, route).len(), 1);
        let other = route.replace("destination", "other");
        assert!(crate::lint::found(&super::RULE, &other).is_empty());
    }
}

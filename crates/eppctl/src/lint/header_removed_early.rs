//! The route removes the destination header before the cluster reads it.

use epp_core::config::value::{Node, Path};

use super::routing::to_metadata;
use super::site::{below, holds, Site};
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "header-removed-early",
    finds: "a route that removes the header before the cluster reads it",
    why: "request_headers_to_remove applies before load balancing: Envoy never sees the picked endpoint and balances by itself",
    fix: "drop the header from request_headers_to_remove; remove it in upstream_http_filters instead",
    check: |site| {
        let headers = site.destinations().into_iter();
        let headers: Vec<&str> = headers.filter(|header| !is_moved(site, header)).collect();
        let names = |node: &Node| {
            holds(node, &|text| headers.iter().any(|header| text.eq_ignore_ascii_case(header)))
        };
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
        // And in Gateway API's HTTPRoute, in a rule or in one of its backends.
        let filters = site.maps.iter().filter(|(_, map)| {
            below(map, &["request_header_modifier", "remove"]).is_some_and(names)
        });
        let filters = filters.map(|(path, _)| path.key("request_header_modifier").key("remove"));
        let fault = |path: Path| Fault::at(&path, "the destination header is removed by the route");
        let by_istio = |fault: Fault| {
            fault.fixed_by("drop the header from headers.request.remove; header_to_metadata, as in envoy/istio/cluster.yaml, removes it before the router instead")
        };
        let of_gateway = |fault: Fault| {
            fault.fixed_by("drop the header from requestHeaderModifier.remove (Istio: header_to_metadata, as in envoy/istio/cluster.yaml, removes it before the router instead; Envoy Gateway: upstream_http_filters, as in envoy/gateway/patch.yaml, after the cluster has read it)")
        };
        routes
            .map(fault)
            .chain(services.map(fault).map(by_istio))
            .chain(filters.map(fault).map(of_gateway))
            .collect()
    },
};

/// Returns whether `header_to_metadata` copies the header to metadata before a route removes it.
///
/// False if any policy reads only the header.
fn is_moved(site: &Site<'_>, header: &str) -> bool {
    let is = |name: &&str| name.eq_ignore_ascii_case(header);
    let moved = site.tops().any(|(_, top)| to_metadata(top).iter().any(is));
    let mut sources = site
        .maps
        .iter()
        .filter_map(|(_, map)| map.get("override_host_sources"));
    moved
        && sources.all(|sources| {
            let Node::List(sources) = sources else {
                return false;
            };
            sources
                .iter()
                .any(|source| source.get("metadata").is_some())
        })
}

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

    #[test]
    fn metadata_stays_where_the_header_goes() {
        let cluster = include_str!("../../../../envoy/istio/cluster.yaml");
        let service = "kind: VirtualService\nspec: {http: [{headers: {request: {remove: [x-gateway-destination-endpoint]}}}]}";
        let beside = |cluster: &str| {
            let faults = crate::lint::faults(&super::RULE, &format!("{cluster}\n---\n{service}"));
            // Istio's MERGE appends to that list.
            assert!(faults
                .iter()
                .all(|(_, fix)| !fix.contains("upstream_http_filters")));
            faults.len()
        };
        assert_eq!(beside(cluster), 0);
        assert_eq!(
            beside(&cluster.replace("metadata_namespace: envoy.lb", "metadata_namespace: other")),
            1
        );
        assert_eq!(
            beside(&cluster.replace("- metadata: {key", "- other: {key")),
            1
        );
        assert_eq!(beside("kind: Service"), 1);
    }
}

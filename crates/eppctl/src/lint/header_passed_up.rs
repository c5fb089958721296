//! The destination header goes up to the model server.

use epp_wasm::document::{Node, Path};

use super::site::{text, DESTINATION};
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "header-passed-up",
    why: "the model server, and a proxy behind it, see who was picked and next in line; another picker there may act on it",
    fix: "remove the header in upstream_http_filters of the router (header_mutation), behind the cluster's choice",
    check: |site| {
        // The removal before routing is of what clients send, not of what the picker sets.
        let early = |path: &Path| path.to_string().contains("early_header_mutation_extensions");
        let removes = site.maps.iter().any(|(path, map)| {
            !early(path) && matches!(map.get("remove"), Some(Node::String(name)) if name.eq_ignore_ascii_case(DESTINATION))
        });
        let routers = site
            .maps
            .iter()
            .filter(|(_, map)| text(map, "@type").ends_with("router.v3.Router"));
        if removes || site.pickers.is_empty() {
            return Vec::new();
        }
        routers
            .map(|(path, _)| Fault::at(path, format!("nothing removes {DESTINATION}")))
            .collect()
    },
};

#[cfg(test)]
mod tests {
    #[test]
    fn finds_a_header_that_stays() {
        let right = "[{remove: x-gateway-destination-endpoint}]";
        crate::lint::finds(&super::RULE, right, "[{remove: x-other}]");
    }
}

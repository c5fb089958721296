//! A patch removes the Endpoint Pickers of all pools of a gateway.

use super::patches::patches;
use super::site::text_below;
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "ext-proc-removed",
    finds: "a patch that removes every pool's Endpoint Picker",
    why: "Istio has one ext_proc filter for all InferencePools of a gateway: removing it disables every pool's Endpoint Picker",
    fix: "keep the filter, and disable it only on this pool's routes (docs/istio.md)",
    check: |site| {
        let removed = patches(site).into_iter().filter(|patch| {
            let filter = ["match", "listener", "filter_chain", "filter", "sub_filter", "name"];
            patch.target() == "HTTP_FILTER"
                && patch.operation() == "REMOVE"
                && text_below(patch.entry, &filter).starts_with("envoy.filters.http.ext_proc")
        });
        removed
            .map(|patch| Fault::at(patch.path, "the ext_proc filter of every pool is removed"))
            .collect()
    },
};

#[cfg(test)]
mod tests {
    use crate::lint::found;

    #[test]
    fn finds_the_removal() {
        let text = "kind: EnvoyFilter\nspec:\n  configPatches:\n  - applyTo: HTTP_FILTER\n    match: {listener: {filterChain: {filter: {subFilter: {name: envoy.filters.http.ext_proc}}}}}\n    patch: {operation: REMOVE}\n";
        assert_eq!(found(&super::RULE, text).len(), 1);
        let other = text.replace("ext_proc", "ext_authz");
        assert!(found(&super::RULE, &other).is_empty());
        let before = text.replace("REMOVE", "INSERT_BEFORE");
        assert!(found(&super::RULE, &before).is_empty());
    }
}

//! Two patches set the upstream filters of one listener's router.

use super::patches::{patches, Patch};
use super::site::below;
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "router-patched-twice",
    finds: "a second patch of `upstream_http_filters`, which Envoy rejects",
    why: "MERGE appends lists: the router gets the filters of both patches, with the codec in the middle, and Envoy rejects every listener (\"must be the last filter\")",
    fix: "patch the router once per gateway; repeat only the CLUSTER patch and the filter for each service",
    check: |site| {
        let patches = patches(site);
        let of_router: Vec<&Patch<'_>> = patches.iter().filter(|patch| is_of_router(patch)).collect();
        let mut faults = Vec::new();
        for (index, patch) in of_router.iter().enumerate() {
            let before = of_router.iter().take(index);
            let mut before = before.filter(|other| patch.meets(other) && !patch.is_same_object(other));
            if before.next().is_some() {
                let what = "a second patch of this gateway's router with upstream_http_filters";
                faults.push(Fault::at(&patch.place(FIELD), what));
            }
        }
        faults
    },
};

const FIELD: &[&str] = &["typed_config", "upstream_http_filters"];

fn is_of_router(patch: &Patch<'_>) -> bool {
    let filters = patch.value().and_then(|value| below(value, FIELD));
    patch.target() == "HTTP_FILTER" && patch.operation() == "MERGE" && filters.is_some()
}

#[cfg(test)]
mod tests {
    use crate::lint::found;

    const ONE: &str = "kind: EnvoyFilter\nmetadata: {name: a, namespace: llm}\nspec:\n  workloadSelector: {labels: {gateway: llm}}\n  configPatches:\n  - applyTo: HTTP_FILTER\n    match: {context: GATEWAY}\n    patch: {operation: MERGE, value: {typed_config: {upstream_http_filters: [{name: codec}]}}}\n";

    #[test]
    fn finds_the_second_copy() {
        assert!(found(&super::RULE, ONE).is_empty());
        let with = |from: &str, to: &str| {
            let second = ONE.replace("name: a", "name: b").replace(from, to);
            found(&super::RULE, &format!("{ONE}---\n{second}"))
        };
        let copy = with("", "");
        assert_eq!(copy.len(), 1, "{copy:?}");
        assert!(copy[0].starts_with("spec.configPatches[0]"), "{copy:?}");
        assert_eq!(with("metadata:", "metadata: #").len(), 1);
        // Of another gateway, without the list, or the same object once more.
        assert!(with("gateway: llm", "gateway: other").is_empty());
        assert!(with("upstream_http_filters", "respect_expected_rq_timeout").is_empty());
        assert!(with("name: b", "name: a").is_empty());
    }
}

//! A patch that current Istio releases ignore.

use super::patches::patches;
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "bootstrap-patch",
    finds: "`applyTo: BOOTSTRAP`, which Istio has ignored since 1.21",
    why: "since 1.21 Istio accepts bootstrap patches and ignores them: metrics keep their labels in their names",
    fix: "set ISTIO_BOOTSTRAP_OVERRIDE on the gateway's pods, through the Gateway's infrastructure.parametersRef (docs/istio.md)",
    check: |site| {
        let patches = patches(site).into_iter();
        patches
            .filter(|patch| patch.target() == "BOOTSTRAP")
            .map(|patch| Fault::at(&patch.path.key("apply_to"), "applyTo: BOOTSTRAP has no effect"))
            .collect()
    },
};

#[cfg(test)]
mod tests {
    use crate::lint::found;

    #[test]
    fn finds_a_patch_of_the_bootstrap() {
        let text = "kind: EnvoyFilter\nspec: {configPatches: [{applyTo: BOOTSTRAP, patch: {operation: MERGE, value: {stats_config: {}}}}]}";
        assert_eq!(found(&super::RULE, text).len(), 1);
        let text = text.replace("BOOTSTRAP", "CLUSTER");
        assert!(found(&super::RULE, &text).is_empty());
    }
}

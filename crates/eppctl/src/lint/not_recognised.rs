//! An EndpointPickerConfig that no rule has checked.

use epp_core::config::value::{Node, Path};

use super::normal::is_picker_config;
use super::site::Site;
use super::{Fault, Rule};
use crate::embedded::{names_kind, LAST_APPLIED};

/// The rule.
pub const RULE: Rule = Rule {
    name: "not-recognised",
    finds: "an EndpointPickerConfig in a place that lint does not read",
    why: "lint does not know which filter reads this EndpointPickerConfig, so nothing about it was checked",
    fix: "pass the configuration that contains it: Envoy's, an EnvoyFilter, a WasmPlugin, an EnvoyExtensionPolicy or an EnvoyPatchPolicy; to check the document alone, use `eppctl check`",
    check: |site| {
        let mut faults = Vec::new();
        for (path, top) in site.tops() {
            look(site, &path, top, &mut faults);
        }
        faults
    },
};

fn look(site: &Site<'_>, path: &Path, node: &Node, faults: &mut Vec<Fault>) {
    if site.pickers.iter().any(|picker| picker.document == *path) {
        return;
    }
    let what = "an EndpointPickerConfig in a place that lint does not read";
    let fault = Fault::at(path, what);
    match node {
        Node::String(text) if is_mentioned(site, text) => faults.push(fault),
        Node::Map(_) if is_picker_config(node) => faults.push(fault),
        Node::Map(entries) => {
            for (key, entry) in entries {
                if is_mentioned(site, key) {
                    faults.push(Fault::at(&path.key(key), what));
                }
                if key != LAST_APPLIED || site.pickers.is_empty() {
                    look(site, &path.key(key), entry, faults);
                }
            }
        }
        Node::List(entries) => {
            for (index, entry) in entries.iter().enumerate() {
                look(site, &path.index(index), entry, faults);
            }
        }
        _ => {}
    }
}

/// Returns whether a text is such a document, or mentions one when no filter was found.
fn is_mentioned(site: &Site<'_>, text: &str) -> bool {
    names_kind(text) || (site.pickers.is_empty() && text.contains("EndpointPickerConfig"))
}

#[cfg(test)]
mod tests {
    use crate::lint::found;

    const FILTER: &str = include_str!("../../../../envoy/istio/filter.yaml");

    #[test]
    fn finds_a_document_where_none_is_read() {
        for text in [
            "kind: ConfigMap\ndata:\n  config.yaml: |\n    kind: EndpointPickerConfig\n",
            "{a: [{kind: EndpointPickerConfig}]}",
            "a: '{\"kind\": \"EndpointPickerConfig\"}'",
            "kind: EnvoyExtensionPolicy\nspec: {lua: [{config: {kind: EndpointPickerConfig}}]}",
            "a: see the EndpointPickerConfig of the gateway",
            "{EndpointPickerConfig: {plugins: []}}",
        ] {
            assert_eq!(found(&super::RULE, text).len(), 1, "{text}");
        }
        assert!(found(&super::RULE, "{kind: Pod, spec: {}}").is_empty());
    }

    #[test]
    fn what_filters_have_was_looked_at() {
        assert!(found(&super::RULE, FILTER).is_empty());
        let noted = FILTER.replace(
            "  name: epp-filter\n",
            "  name: epp-filter\n  annotations:\n    note: with an EndpointPickerConfig\n    kubectl.kubernetes.io/last-applied-configuration: '{\"kind\": \"EndpointPickerConfig\"}'\n",
        );
        assert_ne!(noted, FILTER);
        assert!(found(&super::RULE, &noted).is_empty());
        for beside in [
            "'kind: EndpointPickerConfig'",
            "{kind: EndpointPickerConfig}",
        ] {
            let text = format!("{FILTER}\n---\na: {beside}\n");
            assert_eq!(found(&super::RULE, &text).len(), 1, "{beside}");
        }
    }
}

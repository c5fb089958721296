//! The picker's document does not load.

use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "plugin-config",
    why: "Envoy rejects the update, and a first start leaves the listener without its picker",
    fix: "mend the document; `eppctl check` shows each problem in its line",
    check: |site| {
        let refused = site
            .pickers
            .iter()
            .filter_map(|picker| Some((picker, picker.loaded.as_ref().err()?)));
        refused
            .flat_map(|(picker, rejected)| {
                rejected.errors.iter().map(|error| Fault {
                    path: picker.document.clone(),
                    below: match (picker.is_text, error.location) {
                        (true, Some((line, _))) => line,
                        _ => 0,
                    },
                    what: error.to_string(),
                })
            })
            .collect()
    },
};

#[cfg(test)]
mod tests {
    #[test]
    fn finds_a_document_that_does_not_load() {
        crate::lint::finds(&super::RULE, "hashBlockSize: 5", "hashBlokSize: 5");
    }
}

//! `by-label`: keeps the endpoints whose label has one of some values. Deprecated in llm-d-router, too:
//! `label-selector-filter` does the same.
//!
//! Reads the labels that `envoy-cluster-discovery` and `static-discovery` give endpoints.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `label` | required | the label |
//! | `validValues` | none | its values, at least one unless `allowsNoLabel`; the empty one also keeps endpoints without the label |
//! | `allowsNoLabel` | false | whether endpoints without the label are kept |
//!
//! ```yaml
//! - type: by-label
//!   parameters: {label: accelerator, validValues: [h100, h200], allowsNoLabel: true}
//! ```

use crate::config::value::Node;
use crate::plugins::label_values::LabelValues;
use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "by-label",
    former_names: &[],
    provides: &[Capability::Filter],
    references: &[],
    build,
    parity: Parity::SAME,
};

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    let fields = &mut build.fields;
    let label = fields.required_string("label");
    let values = fields.strings("validValues", &[]);
    let unlabelled = fields.boolean("allowsNoLabel", false);
    if values.is_empty() && !unlabelled {
        let expected = "at least one value, or allowsNoLabel: true";
        fields.refuse("validValues", &Node::List(Vec::new()), expected);
    }
    Capabilities::filter(LabelValues {
        label,
        values,
        unlabelled,
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::{filtered, refused};

    #[test]
    fn endpoints_with_one_of_the_values_are_kept() {
        let labels: [&[(&str, &str)]; 4] = [&[("a", "x")], &[("a", "y")], &[("a", "")], &[]];
        for (parameters, kept) in [
            ("{label: a, validValues: [x]}", [0].as_slice()),
            ("{label: a, validValues: [x, y], allowsNoLabel: true}", &[0, 1, 3]),
            ("{label: a, validValues: ['']}", &[2, 3]),
            ("{label: b, validValues: [x]}", &[]),
            ("{label: a, allowsNoLabel: true}", &[3]),
        ] {
            assert_eq!(filtered("by-label", parameters, &labels), kept, "{parameters}");
        }
        assert!(refused("by-label", "{validValues: [x]}").contains("label"));
        assert!(refused("by-label", "{label: a}").contains("validValues"));
    }
}

//! `label-selector-filter`: keeps the endpoints whose labels match a Kubernetes label selector.
//!
//! Reads the labels that `envoy-cluster-discovery` and `static-discovery` give endpoints.
//! An endpoint is kept if all requirements hold: it has each label of `matchLabels` with just that
//! value, and each of `matchExpressions` is true of it. `In` requires the label with one of the values;
//! `NotIn` for another value or no such label; `Exists` and `DoesNotExist` for the label, whatever its
//! value. A selector without requirements keeps all.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `matchLabels` | none | values by label |
//! | `matchExpressions` | none | further requirements |
//! | `matchExpressions[].key` | required | the label |
//! | `matchExpressions[].operator` | required | `In`, `NotIn`, `Exists` or `DoesNotExist` |
//! | `matchExpressions[].values` | none | the values of `In` and `NotIn`, at least one; none with the others |
//!
//! ```yaml
//! - type: label-selector-filter
//!   parameters:
//!     matchLabels: {llm-d.ai/engine-type: vllm}
//!     matchExpressions:
//!     - {key: accelerator, operator: In, values: [h100, h200]}
//! ```

use crate::config::value::{Fields, Node};
use crate::plugins::{Build, Capabilities, Capability, Dialect, FormerName, Parity, PluginType};
use crate::scheduling::{Basis, Cycle, Endpoint, Filter, Needs, Slot};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "label-selector-filter",
    former_names: &[FormerName {
        name: "by-label-selector",
        dialect: Dialect::LlmD,
    }],
    provides: &[Capability::Filter],
    references: &[],
    build,
    parity: Parity::SAME,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

const OPERATORS: [(&str, Operator); 4] = [
    ("In", Operator::In),
    ("NotIn", Operator::NotIn),
    ("Exists", Operator::Exists),
    ("DoesNotExist", Operator::DoesNotExist),
];

#[derive(Debug)]
struct Requirement {
    label: String,
    operator: Operator,
    values: Vec<String>,
}

impl Requirement {
    fn holds(&self, endpoint: &Endpoint) -> bool {
        let value = endpoint.label(&self.label);
        let listed = value.is_some_and(|value| self.values.iter().any(|known| known == value));
        match self.operator {
            Operator::In => listed,
            Operator::NotIn => !listed,
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

#[derive(Debug)]
struct LabelSelectorFilter {
    requirements: Vec<Requirement>,
}

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    let fields = &mut build.fields;
    for name in ["matchLabels", "matchExpressions"] {
        if let Some(node) = fields.node(name) {
            fields.note(name, node.clone());
        }
    }
    let labels = fields.string_map("matchLabels").into_iter();
    let labels = labels.map(|(label, value)| Requirement {
        label,
        operator: Operator::In,
        values: vec![value],
    });
    let mut requirements: Vec<Requirement> = labels.collect();
    for (entry, path) in fields.list("matchExpressions") {
        let expression = Fields::new(Some(entry), path, fields.problems());
        requirements.extend(read_expression(expression));
    }
    Capabilities::filter(LabelSelectorFilter { requirements })
}

fn read_expression(mut fields: Fields<'_>) -> Option<Requirement> {
    let label = fields.required_string("key");
    let operator = fields.required_choice("operator", &OPERATORS);
    let values = fields.strings("values", &[]);
    let wants_values = matches!(operator, Some(Operator::In | Operator::NotIn));
    if operator.is_some() && values.is_empty() == wants_values {
        let found = Node::List(values.iter().cloned().map(Node::String).collect());
        let expected = match wants_values {
            true => "at least one value with In and NotIn",
            false => "no values with Exists and DoesNotExist",
        };
        fields.refuse("values", &found, expected);
    }
    fields.finish();
    Some(Requirement {
        label,
        operator: operator?,
        values,
    })
}

impl Filter for LabelSelectorFilter {
    fn filter(&self, cycle: &Cycle<'_>, candidates: &mut Vec<Slot>) {
        candidates.retain(|slot| {
            let endpoint = cycle.pool.get(*slot);
            endpoint.is_some_and(|endpoint| self.requirements.iter().all(|one| one.holds(endpoint)))
        });
    }

    fn basis(&self) -> Basis {
        Basis::Pool
    }

    fn needs(&self) -> Needs {
        Needs {
            labels: !self.requirements.is_empty(),
            ..Needs::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{filtered, refused};

    /// Labels of the endpoints p0, p1 and p2.
    const LABELS: [&[(&str, &str)]; 3] = [
        &[("role", "decode"), ("zone", "a")],
        &[("role", "prefill")],
        &[],
    ];

    #[test]
    fn a_selector_keeps_what_kubernetes_would_select() {
        let expression = |of: &str| format!("{{matchExpressions: [{{key: {of}}}]}}");
        for (parameters, kept) in [
            ("{}".to_owned(), [0, 1, 2].as_slice()),
            ("{matchLabels: {role: decode}}".to_owned(), &[0]),
            ("{matchLabels: {role: decode, zone: b}}".to_owned(), &[]),
            ("{matchLabels: {}, matchExpressions: []}".to_owned(), &[0, 1, 2]),
            (expression("role, operator: In, values: [decode, prefill]"), &[0, 1]),
            (expression("role, operator: NotIn, values: [decode]"), &[1, 2]),
            (expression("zone, operator: Exists"), &[0]),
            (expression("zone, operator: DoesNotExist"), &[1, 2]),
            (
                "{matchLabels: {role: prefill}, matchExpressions: [{key: zone, operator: DoesNotExist}]}"
                    .to_owned(),
                &[1],
            ),
        ] {
            let found = filtered("label-selector-filter", &parameters, &LABELS);
            assert_eq!(found, kept, "{parameters}");
        }
    }

    #[test]
    fn values_belong_to_the_operators_that_compare() {
        for (expression, place) in [
            ("{key: a, operator: In}", "matchExpressions[0].values"),
            (
                "{key: a, operator: NotIn, values: []}",
                "matchExpressions[0].values",
            ),
            (
                "{key: a, operator: Exists, values: [b]}",
                "matchExpressions[0].values",
            ),
            (
                "{key: a, operator: Is, values: [b]}",
                "matchExpressions[0].operator",
            ),
            ("{operator: Exists}", "matchExpressions[0].key"),
        ] {
            let parameters = format!("{{matchExpressions: [{expression}]}}");
            let error = refused("label-selector-filter", &parameters);
            assert!(error.contains(place), "{expression}: {error}");
        }
    }
}

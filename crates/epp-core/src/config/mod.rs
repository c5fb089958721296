//! `EndpointPickerConfig`: text → document → defaults → validation → [`Plan`].
//!
//! One pure function of the text, so that the filter and `eppctl check` say the same of it. Two
//! dialects load: that of the Gateway API Inference Extension from v1.0 on, and that of llm-d-router
//! (see [`crate::plugins::Dialect`]). Where their rules differ the stricter one holds, unless it would
//! refuse the Gateway API Inference Extension's own example.
//!
//! `apiVersion` names the dialect. llm-d-router still accepts the older
//! `inference.networking.x-k8s.io/v1alpha1`: a document under it that uses parts which only llm-d-router
//! knows (see `document::uses_llm_d_parts`) is read by llm-d-router's rules.

mod assemble;
pub mod document;
pub mod find;
mod flow_control;
mod known;
mod nesting;
mod parse;
mod plan;
mod sections;
pub mod settings;
pub mod value;

pub use assemble::moved_block_settings;
pub use known::{all_elsewhere, elsewhere, Elsewhere, Here};
pub use plan::{Instance, Plan, Profiled};

use self::value::{Problem, Problems};

/// The document that an empty text stands for: the Endpoint Picker's built-in configuration (llm-d-router).
const BUILT_IN: &str = "
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: queue-scorer
- type: kv-cache-utilization-scorer
- type: prefix-cache-scorer
schedulingProfiles:
- name: default
  plugins:
  - {pluginRef: queue-scorer, weight: 2}
  - {pluginRef: kv-cache-utilization-scorer, weight: 2}
  - {pluginRef: prefix-cache-scorer, weight: 3}
";

/// Approximations that the status page lists: the plan is published whole, and a real document has a
/// few.
const MAX_APPROXIMATIONS: usize = 20;

/// A document that can be put in force.
#[derive(Debug)]
pub struct Loaded {
    /// The compiled plan.
    pub plan: Plan,
    /// Settings without effect here, or with another effect than in the Endpoint Picker.
    pub warnings: Vec<Problem>,
}

/// A document that cannot.
#[derive(Debug)]
pub struct Rejected {
    /// Everything that is wrong, in document order.
    pub errors: Vec<Problem>,
    /// Further settings that would be worth a warning.
    pub warnings: Vec<Problem>,
}

/// Loads a document.
pub fn load(text: &str) -> Result<Loaded, Rejected> {
    let text = if text.trim().is_empty() {
        BUILT_IN
    } else {
        text
    };
    let mut problems = Problems::default();
    let plan = parse::parse(text, &mut problems).and_then(|node| {
        let plan = assemble::assemble(&node, &mut problems);
        parse::locate(text, &mut problems);
        plan
    });
    problems.say_what_was_left_out();
    match plan {
        Some(mut plan) if problems.errors.is_empty() => {
            let approximations = problems.approximations().take(MAX_APPROXIMATIONS);
            plan.approximations = approximations.map(ToString::to_string).collect();
            Ok(Loaded {
                plan,
                warnings: problems.warnings,
            })
        }
        _ => Err(Rejected {
            errors: problems.errors,
            warnings: problems.warnings,
        }),
    }
}

/// Returns the fields that a document may have beside its plugins' parameters, for the schema.
pub fn questions() -> Vec<value::Question> {
    let mut problems = Problems::recording();
    let nothing = value::Node::Null;
    document::read(&nothing, &mut problems);
    problems.into_questions()
}

/// The tree of a text, before anything in it is judged.
pub fn parse(text: &str) -> Result<value::Node, Rejected> {
    let mut problems = Problems::default();
    match parse::parse(text, &mut problems) {
        Some(node) if problems.errors.is_empty() => Ok(node),
        _ => Err(Rejected {
            errors: problems.errors,
            warnings: problems.warnings,
        }),
    }
}

/// The line and column, from one, of a place in a text that parses, or of what it is missing from.
pub fn line_of(text: &str, path: &value::Path) -> Option<(usize, usize)> {
    let mut problems = Problems::default();
    problems.error(path, "");
    parse::locate(text, &mut problems);
    problems.errors.first()?.location
}

/// Loads what Envoy hands over.
pub fn load_bytes(bytes: &[u8]) -> Result<Loaded, Rejected> {
    match std::str::from_utf8(bytes) {
        Ok(text) => load(text),
        Err(error) => {
            let mut problems = Problems::default();
            let message = format!(
                "the text is not valid UTF-8 at byte {}: is `configuration` a StringValue?",
                error.valid_up_to()
            );
            problems.error(&value::Path::default(), message);
            Err(Rejected {
                errors: problems.errors,
                warnings: problems.warnings,
            })
        }
    }
}

#[cfg(test)]
mod admission_tests;
#[cfg(test)]
mod cost_tests;
#[cfg(test)]
mod dialect_tests;
#[cfg(test)]
mod flow_control_tests;
#[cfg(test)]
mod graph_tests;
#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
#[cfg(test)]
mod version_tests;

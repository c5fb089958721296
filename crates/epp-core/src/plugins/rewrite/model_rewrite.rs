//! `model-rewrite`: the model that serves requests for the name that a client uses. A plugin of
//! ours, with the rules of llm-d's `InferenceModelRewrite` resource, which lives in Kubernetes.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `rules` | required | the rules, in order |
//! | `rules[].models` | none | the names that the rule is for; without any it is for all that no other rule names |
//! | `rules[].targets` | required | the models to choose from |
//! | `rules[].targets[].model` | required | the name that takes the client's place in the body |
//! | `rules[].targets[].weight` | 0 | its share of the requests; 0 beside others with a weight: no share |
//!
//! The target is drawn by weight, or evenly where no target has one. Hashing, LoRA affinity and the
//! pod's request all use the target. A rule takes precedence over the header `x-llm-d-model-name-rewrite`
//! (or `x-gateway-model-name-rewrite`), which names a target for one request.
//!
//! The rules route; they are not access control. A body whose model is not known in time (it pauses, is
//! encoded, is not JSON, names it twice) goes to its pod as the client wrote it.
//!
//! ```yaml
//! - type: model-rewrite
//!   parameters:
//!     rules:
//!     - models: [assistant]
//!       targets: [{model: llama-8b-v1, weight: 9}, {model: llama-8b-v2, weight: 1}]
//! ```

use crate::config::value::{Fields, Node, Path, Problems};
use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType, Standing};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "model-rewrite",
    former_names: &[],
    provides: &[Capability::Rewrite],
    references: &[],
    build,
    parity: Parity::of(Standing::Ours(
        "the rules of the InferenceModelRewrite resource, in the document",
    )),
};

/// A model to choose, and its share.
#[derive(Debug, Clone, PartialEq)]
struct Target {
    model: String,
    weight: u32,
}

#[derive(Debug, Clone, PartialEq)]
struct Rule {
    models: Vec<String>,
    targets: Vec<Target>,
}

/// The rules.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ModelRewrite {
    rules: Vec<Rule>,
}

impl ModelRewrite {
    /// Returns whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Returns the model that serves the name; `None` if no rule is for it.
    pub fn target(&self, model: &str, rng: &mut fastrand::Rng) -> Option<&str> {
        let names = |rule: &&Rule| rule.models.iter().any(|name| name == model);
        let rule = self.rules.iter().find(names);
        let rule = rule.or_else(|| self.rules.iter().find(|rule| rule.models.is_empty()))?;
        let total: u32 = rule.targets.iter().map(|target| target.weight).sum();
        if total == 0 {
            let even = rng.usize(..rule.targets.len().max(1));
            return Some(rule.targets.get(even)?.model.as_str());
        }
        let mut drawn = rng.u32(..total);
        let chosen = rule.targets.iter().find(|target| {
            let here = drawn < target.weight;
            drawn = drawn.saturating_sub(target.weight);
            here
        });
        Some(chosen?.model.as_str())
    }
}

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    let fields = &mut build.fields;
    if let Some(node) = fields.node("rules") {
        fields.note("rules", node.clone());
    }
    let mut rules = Vec::new();
    for (entry, path) in fields.required_list("rules", "rules", 1) {
        rules.push(read_rule(entry, path, fields.problems()));
    }
    Capabilities {
        rewrite: Some(ModelRewrite { rules }),
        ..Capabilities::default()
    }
}

fn read_rule(entry: &Node, path: Path, problems: &mut Problems) -> Rule {
    let mut fields = Fields::new(Some(entry), path, problems);
    let models = fields.strings("models", &[]);
    let mut targets = Vec::new();
    for (entry, path) in fields.required_list("targets", "models to choose from", 1) {
        let mut target = Fields::new(Some(entry), path, fields.problems());
        targets.push(Target {
            model: target.required_string("model"),
            weight: target.natural("weight", 0).min(MAX_WEIGHT),
        });
        target.finish();
    }
    fields.finish();
    Rule { models, targets }
}

/// Weights of one rule add up without running over, and no share is finer than this.
const MAX_WEIGHT: u32 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(yaml: &str) -> ModelRewrite {
        let text = format!(
            "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n- type: \
             queue-scorer\n- type: model-rewrite\n  parameters: {{rules: {yaml}}}\n"
        );
        crate::config::load(&text).unwrap().plan.rewrite
    }

    fn shares(rewrite: &ModelRewrite, model: &str, target: &str) -> usize {
        let mut rng = fastrand::Rng::with_seed(3);
        let drawn = (0..1_000).filter(|_| rewrite.target(model, &mut rng) == Some(target));
        drawn.count()
    }

    #[test]
    fn targets_are_drawn_by_weight() {
        let weighted = rules(
            "[{models: [a], targets: [{model: x, weight: 9}, {model: y, weight: 1}, {model: z}]}]",
        );
        let x = shares(&weighted, "a", "x");
        assert!((850..950).contains(&x), "{x}");
        assert_eq!(shares(&weighted, "a", "z"), 0, "no weight beside others");
        assert_eq!(shares(&weighted, "b", "x") + shares(&weighted, "b", "y"), 0);
        let even = rules("[{models: [a], targets: [{model: x}, {model: y}]}]");
        let x = shares(&even, "a", "x");
        assert!((450..550).contains(&x), "{x}");
    }

    #[test]
    fn a_rule_for_the_model_takes_precedence_over_one_for_all() {
        let both = rules("[{targets: [{model: other}]}, {models: [a], targets: [{model: x}]}]");
        assert_eq!(shares(&both, "a", "x"), 1_000);
        assert_eq!(shares(&both, "b", "other"), 1_000);
    }

    #[test]
    fn missing_fields_are_reported_with_their_location() {
        let text = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n- type: \
                    model-rewrite\n  parameters: {rules: [{models: [a]}]}\n";
        let rejected = crate::config::load(text).unwrap_err();
        let errors = rejected.errors.iter().map(ToString::to_string);
        let found: Vec<String> = errors
            .filter(|line| line.contains("rules[0].targets"))
            .collect();
        assert_eq!(found.len(), 1, "{rejected:?}");
    }
}

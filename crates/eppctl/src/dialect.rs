//! Checks whether an Endpoint Picker of a given dialect would accept a document: Gateway API Inference
//! Extension v1.0 (`gie`), or llm-d-router of 2026 (`llm-d`).

use clap::ValueEnum;
use epp_core::config;
use epp_core::config::value::moved::place_of;
use epp_core::config::value::Node;
use epp_core::plugins::{self, Dialect, FormerName, Standing};

use crate::page::name_of;

/// A dialect to check a document against, or to convert it to.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TargetDialect {
    /// Gateway API Inference Extension v1.0 (`inference.networking.x-k8s.io/v1alpha1`).
    #[value(name = "gie")]
    GieV1,
    /// llm-d-router of 2026 (`llm-d.ai/v1` and `llm-d.ai/v1alpha1`; converted to the former).
    LlmD,
}

/// The plugin types that GIE v1.0 registers.
const GIE_TYPES: [&str; 9] = [
    "header-based-testing-filter",
    "kv-cache-utilization-scorer",
    "lora-affinity-scorer",
    "max-score-picker",
    "prefix-cache-scorer",
    "queue-scorer",
    "random-picker",
    "single-profile-handler",
    "weighted-random-picker",
];

/// Parameters that GIE releases v1.1 to v1.5 added to those types.
const LATER_PARAMETERS: [&str; 4] = [
    "autoTune",
    "blockSize",
    "blockSizeTokens",
    "maxPrefixTokensToMatch",
];

/// Feature gates of those releases that llm-d-router does not have.
pub const FORMER_GATES: [&str; 3] = ["dataLayer", "enableLegacyMetrics", "prepareDataPlugins"];

/// The section whose thresholds became a plugin's parameters in llm-d-router.
pub const DETECTOR: &str = "saturationDetector";

/// Types whose parameters llm-d-router never reads.
const TYPES_WITHOUT_PARAMETERS: [&str; 5] = [
    "single-profile-handler",
    "queue-scorer",
    "kv-cache-utilization-scorer",
    "running-requests-size-scorer",
    "lora-affinity-scorer",
];

/// Returns whether an Endpoint Picker of this dialect has a plugin type. The types that only epp-wasm
/// has count as known: they are harmless in a document that is written for it.
pub fn knows(dialect: TargetDialect, kind: &str) -> bool {
    is_own(kind)
        || match dialect {
            TargetDialect::GieV1 => GIE_TYPES.contains(&kind),
            TargetDialect::LlmD => {
                former_name(kind).is_none_or(|former| former.dialect == Dialect::LlmD)
            }
        }
}

/// Returns the former name of a plugin type that this is, if it is one.
pub fn former_name(kind: &str) -> Option<&'static FormerName> {
    let former = plugins::TYPES.iter().flat_map(|plugin| plugin.former_names);
    former.into_iter().find(|former| former.name == kind)
}

/// Returns whether a plugin type exists in epp-wasm only.
fn is_own(kind: &str) -> bool {
    let found = plugins::find(kind).filter(|found| found.name == kind);
    found.is_some_and(|found| matches!(found.parity.plugin, Standing::Ours(_)))
}

/// The parts of a document that an Endpoint Picker would reject or ignore.
#[derive(Default)]
pub struct Objections {
    /// Reasons to refuse the document.
    pub refused: Vec<String>,
    /// Settings that would be ignored without a message.
    pub ignored: Vec<String>,
}

/// Returns what an Endpoint Picker would object to in a document that loads here.
pub fn objections(dialect: TargetDialect, document: &Node) -> Objections {
    let mut found = Objections::default();
    match dialect {
        TargetDialect::GieV1 => found.check_gie_fields(document),
        TargetDialect::LlmD => found.check_llm_d_fields(document),
    }
    for (index, plugin) in list(document, "plugins").iter().enumerate() {
        found.check_plugin(dialect, plugin, &format!("plugins[{index}]"));
    }
    if dialect == TargetDialect::GieV1 {
        found.check_weights(document);
    }
    found
}

impl Objections {
    fn check_gie_fields(&mut self, document: &Node) {
        let expected = Node::String("inference.networking.x-k8s.io/v1alpha1".to_owned());
        if document.get("apiVersion") != Some(&expected) {
            self.refused.push(
                "apiVersion: only inference.networking.x-k8s.io/v1alpha1 is supported".to_owned(),
            );
        }
        let Node::Map(entries) = document else {
            return;
        };
        let known = ["apiVersion", "kind", "plugins", "schedulingProfiles"];
        let unknown = entries
            .iter()
            .filter(|(key, _)| !known.contains(&key.as_str()));
        self.refused
            .extend(unknown.map(|(key, _)| format!("{key}: unknown field")));
    }

    fn check_llm_d_fields(&mut self, document: &Node) {
        if document.get("data").is_some() {
            self.refused.push("data: unknown field".to_owned());
        }
        if let Some(Node::Map(fields)) = document.get(DETECTOR) {
            let unknown = fields.iter().filter(|(field, _)| field != "pluginRef");
            let unknown = unknown.map(|(field, _)| format!("{DETECTOR}.{field}: unknown field"));
            self.refused.extend(unknown);
        }
        for (index, gate) in list(document, "featureGates").iter().enumerate() {
            if matches!(gate, Node::String(gate) if FORMER_GATES.contains(&gate_name(gate))) {
                self.refused
                    .push(format!("featureGates[{index}]: unknown feature gate"));
            }
        }
    }

    /// GIE v1.0 declares weights as integers.
    fn check_weights(&mut self, document: &Node) {
        for (index, profile) in list(document, "schedulingProfiles").iter().enumerate() {
            for (entry, reference) in list(profile, "plugins").iter().enumerate() {
                if matches!(reference.get("weight"), Some(Node::Number(weight)) if weight.fract() != 0.0)
                {
                    let path = format!("schedulingProfiles[{index}].plugins[{entry}].weight");
                    self.refused.push(format!("{path}: must be a whole number"));
                }
            }
        }
    }

    fn check_plugin(&mut self, dialect: TargetDialect, plugin: &Node, path: &str) {
        let Some(Node::String(kind)) = plugin.get("type") else {
            return;
        };
        if is_own(kind) || !knows(dialect, kind) {
            self.refused
                .push(format!("{path}.type: unknown plugin type {kind}"));
            return;
        }
        let (Some(found), Some(Node::Map(given))) = (plugins::find(kind), plugin.get("parameters"))
        else {
            return;
        };
        let known = plugins::questions(found, dialect.into());
        for (name, _) in given {
            let theirs = known.iter().any(|question| name_of(question) == *name)
                && !matches!(found.parity.of_parameter(name), Standing::Ours(_))
                && !(dialect == TargetDialect::GieV1 && LATER_PARAMETERS.contains(&name.as_str()));
            if theirs {
                continue;
            }
            let path = format!("{path}.parameters.{name}");
            let is_strict = dialect == TargetDialect::LlmD
                && !TYPES_WITHOUT_PARAMETERS.contains(&kind.as_str());
            let place = place_of(name).map(|place| format!("; {place}"));
            match is_strict {
                true => self.refused.push(format!(
                    "{path}: unknown parameter of {kind}{}",
                    place.unwrap_or_default()
                )),
                false => self.ignored.push(format!("{path}: silently ignored")),
            }
        }
    }
}

impl From<TargetDialect> for Dialect {
    fn from(dialect: TargetDialect) -> Self {
        match dialect {
            TargetDialect::GieV1 => Self::GieV1,
            TargetDialect::LlmD => Self::LlmD,
        }
    }
}

/// Returns a feature gate without its value.
pub fn gate_name(gate: &str) -> &str {
    gate.split('=').next().unwrap_or_default()
}

fn list<'n>(node: &'n Node, key: &str) -> &'n [Node] {
    match node.get(key) {
        Some(Node::List(entries)) => entries,
        _ => &[],
    }
}

/// Returns the syntax tree of a text that parses.
pub fn tree(text: &str) -> Option<Node> {
    config::parse(text).ok()
}

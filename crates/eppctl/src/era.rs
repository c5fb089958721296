//! Which Endpoint Picker would accept a document: Gateway API Inference Extension v1.0 ("seed"), or
//! llm-d-router of August 2026 ("today").

use clap::ValueEnum;
use epp_core::config;
use epp_core::document::Node;
use epp_core::plugins::source::core_metrics_extractor::FORMER_NAME;
use epp_core::plugins::{self, Dialect, Standing};

use crate::page::name_of;

/// An Endpoint Picker.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Era {
    /// Gateway API Inference Extension v1.0.
    Seed,
    /// llm-d-router of 2026.
    Today,
}

/// What the seed registers.
const SEED_TYPES: [&str; 9] = [
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

/// Parameters that the seed's later releases, up to v1.5, gave to its types.
const LATER: [&str; 4] = [
    "autoTune",
    "blockSize",
    "blockSizeTokens",
    "maxPrefixTokensToMatch",
];

/// Gates of those releases that today's Endpoint Picker does not know.
pub const FORMER_GATES: [&str; 3] = ["dataLayer", "enableLegacyMetrics", "prepareDataPlugins"];

/// The section whose thresholds are a plugin's parameters today.
pub const DETECTOR: &str = "saturationDetector";

/// Whose parameters today's Endpoint Picker never looks at.
const UNREAD: [&str; 5] = [
    "single-profile-handler",
    "queue-scorer",
    "kv-cache-utilization-scorer",
    "running-requests-size-scorer",
    "lora-affinity-scorer",
];

/// Whether an Endpoint Picker knows a type, or it is one of ours, which are there for us alone.
pub fn knows(era: Era, kind: &str) -> bool {
    let found = plugins::find(kind);
    let ours = found.is_some_and(|found| matches!(found.parity.plugin, Standing::Ours(_)));
    ours || match era {
        Era::Seed => SEED_TYPES.contains(&kind),
        Era::Today => kind != FORMER_NAME,
    }
}

/// Why it would not, and what it would silently ignore.
#[derive(Default)]
pub struct Word {
    /// Each makes it refuse the document.
    pub refused: Vec<String>,
    /// Each has no effect there.
    pub ignored: Vec<String>,
}

/// What an Endpoint Picker would say of a document that loads here.
pub fn word(era: Era, document: &Node) -> Word {
    let mut word = Word::default();
    let version = document.get("apiVersion");
    if era == Era::Seed && version != Some(&text("inference.networking.x-k8s.io/v1alpha1")) {
        word.refused
            .push("apiVersion: it knows inference.networking.x-k8s.io/v1alpha1 only".to_owned());
    }
    if let (Era::Seed, Node::Map(entries)) = (era, document) {
        let known = ["apiVersion", "kind", "plugins", "schedulingProfiles"];
        let unknown = entries
            .iter()
            .filter(|(key, _)| !known.contains(&key.as_str()));
        word.refused
            .extend(unknown.map(|(key, _)| format!("{key}: unknown field")));
    }
    if era == Era::Today {
        if document.get("data").is_some() {
            word.refused.push("data: unknown field".to_owned());
        }
        if let Some(Node::Map(fields)) = document.get(DETECTOR) {
            let unknown = fields.iter().filter(|(field, _)| field != "pluginRef");
            let unknown = unknown.map(|(field, _)| format!("{DETECTOR}.{field}: unknown field"));
            word.refused.extend(unknown);
        }
        for (index, gate) in list(document, "featureGates").iter().enumerate() {
            if matches!(gate, Node::String(gate) if FORMER_GATES.contains(&gate_name(gate))) {
                let place = format!("featureGates[{index}]");
                word.refused.push(format!("{place}: unknown feature gate"));
            }
        }
    }
    for (index, plugin) in list(document, "plugins").iter().enumerate() {
        judge(era, plugin, &format!("plugins[{index}]"), &mut word);
    }
    for (index, profile) in list(document, "schedulingProfiles").iter().enumerate() {
        for (entry, reference) in list(profile, "plugins").iter().enumerate() {
            let whole = !matches!(reference.get("weight"), Some(Node::Number(weight)) if weight.fract() != 0.0);
            if era == Era::Seed && !whole {
                let place = format!("schedulingProfiles[{index}].plugins[{entry}].weight");
                word.refused
                    .push(format!("{place}: it takes whole numbers only"));
            }
        }
    }
    word
}

fn judge(era: Era, plugin: &Node, place: &str, word: &mut Word) {
    let Some(Node::String(kind)) = plugin.get("type") else {
        return;
    };
    let found = plugins::find(kind);
    let ours = found.is_some_and(|found| matches!(found.parity.plugin, Standing::Ours(_)));
    if ours || !knows(era, kind) {
        word.refused
            .push(format!("{place}.type: it knows no {kind}"));
        return;
    }
    let (Some(found), Some(Node::Map(given))) = (found, plugin.get("parameters")) else {
        return;
    };
    let dialect = match era {
        Era::Seed => Dialect::GieV1,
        Era::Today => Dialect::LlmD,
    };
    let known = plugins::questions(found, dialect);
    for (name, _) in given {
        let theirs = known.iter().any(|question| name_of(question) == *name)
            && !matches!(found.parity.of_parameter(name), Standing::Ours(_))
            && !(era == Era::Seed && LATER.contains(&name.as_str()));
        let place = format!("{place}.parameters.{name}");
        match era {
            _ if theirs => {}
            Era::Today if !UNREAD.contains(&kind.as_str()) => {
                word.refused
                    .push(format!("{place}: unknown parameter of {kind}"));
            }
            _ => word.ignored.push(format!("{place}: silently ignored")),
        }
    }
}

/// A gate without its value.
pub fn gate_name(gate: &str) -> &str {
    gate.split('=').next().unwrap_or_default()
}

fn text(text: &str) -> Node {
    Node::String(text.to_owned())
}

fn list<'n>(node: &'n Node, key: &str) -> &'n [Node] {
    match node.get(key) {
        Some(Node::List(entries)) => entries,
        _ => &[],
    }
}

/// The tree of a text that loads.
pub fn tree(text: &str) -> Option<Node> {
    config::parse(text).ok()
}

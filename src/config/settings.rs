//! The document's fields beside plugins and profiles: each works, is refused with what to use
//! instead, or has no effect in a proxy and says so.

use super::known::{NO_QUEUE, NO_SHEDDING};
use crate::document::fields::no_effect;
use crate::document::nearest::nearest;
use crate::document::{Fields, Node, Path};
use crate::plugins::Generation;

/// A reference to a plugin and where it stands.
pub type Named = (String, Path);

/// `dataLayer`: where endpoints and metrics come from; `data` is its name in the Gateway API Inference
/// Extension v1.3 and v1.4, where it has sources only.
pub fn read_data_layer(
    fields: &mut Fields<'_>,
    declared: Generation,
) -> (Option<Named>, Vec<Named>) {
    let mut sources = Vec::new();
    match declared {
        Generation::Seed => {
            if let Some(mut layer) = fields.section("data") {
                read_sources(&mut layer, &mut sources);
                layer.finish();
            }
        }
        Generation::Today if fields.has("data") => {
            fields.unsupported("data", "renamed; use dataLayer");
        }
        Generation::Today => {}
    }
    let Some(mut layer) = fields.section("dataLayer") else {
        return (None, sources);
    };
    // The default source and extractor are those that a plan has anyway.
    layer.boolean("injectDefaults", true);
    read_sources(&mut layer, &mut sources);
    let discovery = layer.section("discovery").and_then(|mut discovery| {
        let named = read_named(&mut discovery);
        discovery.finish();
        named
    });
    for name in [
        "peerDiscovery",
        "crossReplicaSyncerPluginRef",
        "crossReplicaSyncInterval",
    ] {
        layer.no_effect(name, "Envoys need not know of each other");
    }
    layer.finish();
    (discovery, sources)
}

fn read_sources(layer: &mut Fields<'_>, sources: &mut Vec<Named>) {
    for (source, path) in layer.list("sources") {
        let mut source = Fields::new(Some(source), path, layer.problems());
        sources.extend(read_named(&mut source));
        for (extractor, path) in source.list("extractors") {
            let mut extractor = Fields::new(Some(extractor), path, source.problems());
            sources.extend(read_named(&mut extractor));
            extractor.finish();
        }
        source.finish();
    }
}

/// Everything that changes no decision here.
pub fn read_inert(fields: &mut Fields<'_>, parsers: &mut Vec<Named>, declared: Generation) {
    read_gates(fields, declared);
    fields.no_effect("flowControl", NO_QUEUE);
    fields.no_effect("saturationDetector", NO_SHEDDING);
    if let Some(mut handler) = fields.section("requestHandler") {
        for (parser, path) in handler.list("parsers") {
            let mut parser = Fields::new(Some(parser), path, handler.problems());
            parsers.extend(read_named(&mut parser));
            parser.finish();
        }
        handler.finish();
    }
    if fields.deprecated("parser", "requestHandler.parsers") {
        if let Some(mut parser) = fields.section("parser") {
            parsers.extend(read_named(&mut parser));
            parser.finish();
        }
    }
}

/// Gates of the Gateway API Inference Extension v1.2 to v1.5 that today's Endpoint Picker does not know,
/// and why they change nothing here.
const FORMER_GATES: [(&str, &str); 3] = [
    ("dataLayer", METRICS_READ),
    ("enableLegacyMetrics", METRICS_READ),
    ("prepareDataPlugins", "what scorers need is always prepared"),
];

const METRICS_READ: &str = "metrics are always read, in one way";

const FLOW_CONTROL: &str = "flowControl";

/// The gates that today's Endpoint Picker knows.
const GATES: [&str; 2] = [FLOW_CONTROL, "haPopulateNonLeaderDatastore"];

/// Whether a document has a gate that only the Gateway API Inference Extension knows.
pub fn has_former_gate(node: &Node) -> bool {
    let Some(Node::List(entries)) = node.get("featureGates") else {
        return false;
    };
    let former = |entry: &Node| match entry {
        Node::String(text) => former_gate(split(text).0).is_some(),
        _ => false,
    };
    entries.iter().any(former)
}

fn former_gate(name: &str) -> Option<&'static str> {
    let found = FORMER_GATES.iter().find(|(known, _)| *known == name)?;
    Some(found.1)
}

/// A gate's name and value.
fn split(text: &str) -> (&str, &str) {
    text.split_once('=').unwrap_or((text, "true"))
}

/// `featureGates`: `name`, `name=true` or `name=false`.
fn read_gates(fields: &mut Fields<'_>, declared: Generation) {
    for (text, path) in fields.texts("featureGates") {
        let (name, value) = split(text);
        let on = match value.trim().to_lowercase().as_str() {
            "1" | "t" | "true" => Some(true),
            "0" | "f" | "false" => Some(false),
            _ => None,
        };
        let problems = fields.problems();
        let message = match (on, former_gate(name)) {
            (None, _) => "the value behind = must be true or false".to_owned(),
            (Some(false), Some(_)) => continue,
            (Some(true), Some(why)) => {
                problems.warn(&path, no_effect(why));
                continue;
            }
            (Some(true), None) if name == FLOW_CONTROL => {
                // An experiment of the seed's releases, and a part of today's.
                if declared == Generation::Seed {
                    problems.warn(&path, no_effect(NO_QUEUE));
                    continue;
                }
                "flow control queues requests, which is not supported here; put a queue in front of the proxy".to_owned()
            }
            (Some(_), None) if GATES.contains(&name) => continue,
            (Some(_), None) => {
                let all = || FORMER_GATES.iter().map(|(name, _)| *name).chain(GATES);
                match nearest(name, all()) {
                    Some(near) => format!("unknown feature gate; did you mean {near}?"),
                    None => format!(
                        "unknown feature gate; known: {}",
                        all().collect::<Vec<_>>().join(", ")
                    ),
                }
            }
        };
        problems.error(&path, format!("found {text:?}: {message}"));
    }
}

fn read_named(fields: &mut Fields<'_>) -> Option<Named> {
    let name = fields.required_string("pluginRef");
    let path = fields.path().key("pluginRef");
    (!name.is_empty()).then_some((name, path))
}

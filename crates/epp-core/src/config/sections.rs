//! The document's fields beside plugins and profiles: each works, is refused with what to use
//! instead, or has no effect in a proxy and says so.

use super::known::{NO_QUEUE, NO_SHEDDING};
use crate::config::value::fields::no_effect;
use crate::config::value::nearest::no_such;
use crate::config::value::{Fields, Path};
use crate::plugins::Dialect;

/// A reference to a plugin, and its location.
pub type Named = (String, Path);

/// `dataLayer`: where endpoints and metrics come from; `data` is its name in the Gateway API Inference
/// Extension v1.3 and v1.4, where it has sources only.
pub fn read_data_layer(fields: &mut Fields<'_>, declared: Dialect) -> (Option<Named>, Vec<Named>) {
    let mut sources = Vec::new();
    if declared == Dialect::GieV1 || fields.problems().is_recording() {
        if let Some(mut layer) = fields.section("data") {
            read_sources(&mut layer, &mut sources);
            layer.finish();
        }
    } else if fields.has("data") {
        fields.unsupported("data", "renamed; use dataLayer");
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
        layer.no_effect(name, "Envoys do not coordinate");
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
pub fn read_inert(fields: &mut Fields<'_>, parsers: &mut Vec<Named>) {
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

/// The gates that are known, with the reason why each that is on changes nothing here, if that is worth a
/// warning. The first three are those of the Gateway API Inference Extension v1.2 to v1.5 that
/// llm-d-router does not know.
const GATES: [(&str, &str); 5] = [
    ("dataLayer", METRICS_READ),
    ("enableLegacyMetrics", METRICS_READ),
    ("prepareDataPlugins", "what scorers need is always prepared"),
    (FLOW_CONTROL, NO_QUEUE),
    ("haPopulateNonLeaderDatastore", ""),
];
const FORMER: usize = 3;
const METRICS_READ: &str = "metrics are always read, in one way";
const FLOW_CONTROL: &str = "flowControl";

/// `featureGates`: `name`, `name=true` or `name=false`. Returns whether one of them shows that the
/// document was written for the Gateway API Inference Extension v1.2 to v1.5.
pub fn read_gates(fields: &mut Fields<'_>, declared: Dialect) -> bool {
    let mut former = false;
    for (text, path) in fields.texts("featureGates") {
        let (name, value) = text.split_once('=').unwrap_or((text, "true"));
        let on = match value.trim().to_lowercase().as_str() {
            "1" | "t" | "true" => Some(true),
            "0" | "f" | "false" => Some(false),
            _ => None,
        };
        let known = GATES.iter().position(|(known, _)| *known == name);
        // Where llm-d-router's document has it, it does not load.
        let flow = name == FLOW_CONTROL && on == Some(true);
        former |= flow || known.is_some_and(|gate| gate < FORMER);
        let why = known.and_then(|gate| GATES.get(gate)).map(|(_, why)| *why);
        let problems = fields.problems();
        match (on, why) {
            // Flow control is an experiment in GIE v1, and a part of llm-d-router.
            (_, Some(_)) if flow && declared == Dialect::LlmD => {
                let message = format!("found {text:?}: flow control queues requests, which is not supported here; put a queue in front of the proxy");
                problems.error(&path, message);
            }
            (Some(true), Some(why)) if !why.is_empty() => problems.warn(&path, no_effect(why)),
            (Some(_), Some(_)) => {}
            (None, _) => {
                let message = format!("found {value:?}, expected true or false behind =");
                problems.error(&path, message);
            }
            (_, None) => {
                let known = GATES.map(|(known, _)| known);
                problems.error(&path, no_such(name, "a feature gate", &known));
            }
        }
    }
    former
}

fn read_named(fields: &mut Fields<'_>) -> Option<Named> {
    let name = fields.required_string("pluginRef");
    let path = fields.path().key("pluginRef");
    (!name.is_empty()).then_some((name, path))
}

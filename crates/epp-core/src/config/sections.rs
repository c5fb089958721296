//! The document's fields beside plugins and profiles: each works, is refused with what to use
//! instead, or has no effect in a proxy and says so.

use super::document::Version;
use super::flow_control::{self, FlowSection};
use crate::config::value::fields::no_effect;
use crate::config::value::nearest::no_such;
use crate::config::value::{Fields, Kind, Node, Path};
use crate::plugins::saturation::utilization_detector::STALENESS;
use crate::plugins::Dialect;

/// A reference to a plugin, and its location.
pub type Named = (String, Path);

/// The reason why what Endpoint Pickers share with each other has no effect.
const NO_PEERS: &str = "Envoys do not coordinate";

/// `dataLayer`: where endpoints and metrics come from; `data` is its name in the Gateway API Inference
/// Extension v1.3 and v1.4, where it has sources only.
pub fn read_data_layer(fields: &mut Fields<'_>, version: Version) -> (Option<Named>, Vec<Named>) {
    let mut sources = Vec::new();
    let recording = fields.problems().is_recording();
    if version == Version::GieV1 || recording {
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
    let discovery = layer
        .section("discovery")
        .and_then(|discovery| read_discovery(discovery, version));
    const FORMER: [&str; 4] = [
        "peerDiscovery",
        "crossReplicaSyncerPluginRef",
        "crossReplicaSyncInterval",
        "crossReplicaPublishTimeout",
    ];
    if version == Version::LlmDV1 || recording {
        layer.no_effect("crossReplica", NO_PEERS);
    }
    for name in FORMER {
        match version {
            Version::LlmDV1 => {
                layer.unsupported(name, "moved; use crossReplica or discovery.peers")
            }
            _ => layer.no_effect(name, NO_PEERS),
        }
    }
    layer.finish();
    (discovery, sources)
}

/// `dataLayer.discovery`: a reference, which is `endpoints` from v1 on.
fn read_discovery(mut discovery: Fields<'_>, version: Version) -> Option<Named> {
    let named = if version == Version::LlmDV1 || discovery.problems().is_recording() {
        let named = discovery.section("endpoints").and_then(|mut endpoints| {
            let named = read_named(&mut endpoints);
            endpoints.finish();
            named
        });
        discovery.no_effect("peers", NO_PEERS);
        // Not required in the schema, which is that of all versions.
        discovery.ask("pluginRef", Kind::String, None);
        discovery.unsupported("pluginRef", "moved; use endpoints.pluginRef");
        named
    } else {
        read_named(&mut discovery)
    };
    discovery.finish();
    named
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

/// What measures how full the pool is.
#[derive(Debug, Default)]
pub struct DetectorSection {
    /// The plugin.
    pub named: Option<Named>,
    /// The thresholds of queue and KV-cache utilization that the Gateway API Inference Extension had here before there
    /// were plugins.
    pub thresholds: Option<(f64, f64)>,
}

/// Reads `flowControl`, and the saturation detector that it names.
pub fn read_flow_control(
    fields: &mut Fields<'_>,
    gates: Gates,
    dialect: Dialect,
) -> (FlowSection, Option<Named>) {
    let path = fields.path().key(FLOW_CONTROL);
    let only_detector = match fields.node(FLOW_CONTROL) {
        Some(Node::Map(entries)) => entries.iter().all(|(key, _)| key == DETECTOR),
        flow => flow.is_none(),
    };
    let read = match fields.section(FLOW_CONTROL) {
        Some(section) => flow_control::read(section, dialect),
        None => flow_control::read(Fields::new(None, path.clone(), fields.problems()), dialect),
    };
    if !only_detector && !gates.flow_control {
        let message =
            "has no effect, except for saturationDetector: the feature gate flowControl is off";
        fields.problems().warn(&path, message);
    }
    read
}

/// Reads `requestHandler`. Returns whether it has priorities written into bodies.
pub fn read_request_handler(fields: &mut Fields<'_>, parsers: &mut Vec<Named>) -> bool {
    let Some(mut handler) = fields.section("requestHandler") else {
        return false;
    };
    for (parser, path) in handler.list("parsers") {
        let mut parser = Fields::new(Some(parser), path, handler.problems());
        parsers.extend(read_named(&mut parser));
        parser.finish();
    }
    let propagates = handler.boolean("propagatePriority", false);
    if propagates {
        handler.approximated("propagatePriority", PROPAGATION);
    }
    handler.finish();
    propagates
}

/// How priorities are written into bodies.
const PROPAGATION: &str =
    "a priority other than 0 is written behind the model of a body that is read, and a priority that its client has \
     written further back counts instead";

/// Reads the former places of parts of `requestHandler` and `flowControl`.
pub fn read_former_places(
    fields: &mut Fields<'_>,
    version: Version,
    detector: Option<Named>,
    parsers: &mut Vec<Named>,
) -> DetectorSection {
    let mut detector = DetectorSection {
        named: detector,
        thresholds: None,
    };
    if version == Version::LlmDV1 {
        fields.unsupported(
            "saturationDetector",
            "moved; use flowControl.saturationDetector",
        );
        fields.unsupported("parser", "moved; use requestHandler.parsers");
        return detector;
    }
    let former = read_former_detector(fields, version);
    if detector.named.is_none() {
        detector = former;
    }
    if fields.deprecated("parser", "requestHandler.parsers") {
        if let Some(mut parser) = fields.section("parser") {
            parsers.extend(read_named(&mut parser));
            parser.finish();
        }
    }
    detector
}

const DETECTOR: &str = "saturationDetector";

/// `saturationDetector` at the top of the document: a reference, and in the Gateway API Inference Extension's own
/// documents before v1.4 thresholds.
fn read_former_detector(fields: &mut Fields<'_>, version: Version) -> DetectorSection {
    let mut detector = DetectorSection::default();
    if version == Version::LlmDAlpha {
        fields.deprecated(DETECTOR, "flowControl.saturationDetector");
    }
    let recording = fields.problems().is_recording();
    let Some(mut section) = fields.section(DETECTOR) else {
        return detector;
    };
    detector.named = flow_control::read_reference(&mut section, "pluginRef");
    if version == Version::GieV1 || recording {
        let given = section.has(QUEUE) || section.has(KV_USAGE);
        // Any other value means the default, as there.
        let queue = f64::from(section.positive_or_default(QUEUE, 5));
        let kv_usage = section
            .optional_number(KV_USAGE)
            .filter(|usage| *usage > 0.0 && *usage < 1.0);
        section.no_effect("metricsStalenessThreshold", STALENESS);
        detector.thresholds = given.then_some((queue, kv_usage.unwrap_or(0.8)));
    }
    section.finish();
    detector
}

const QUEUE: &str = "queueDepthThreshold";
const KV_USAGE: &str = "kvCacheUtilThreshold";

/// The gates that are known, with the reason why each that is on changes nothing here, if that is worth a
/// warning. The first three are those of the Gateway API Inference Extension v1.2 to v1.5 that
/// llm-d-router does not know.
const GATES: [(&str, &str); 5] = [
    ("dataLayer", METRICS_READ),
    ("enableLegacyMetrics", METRICS_READ),
    ("prepareDataPlugins", "what scorers need is always prepared"),
    (FLOW_CONTROL, ""),
    ("haPopulateNonLeaderDatastore", ""),
];
const FORMER: usize = 3;
const METRICS_READ: &str = "metrics are always read, in one way";
const FLOW_CONTROL: &str = "flowControl";

/// What the gates of a document show.
#[derive(Clone, Copy, Default)]
pub struct Gates {
    /// It was written for the Gateway API Inference Extension v1.2 to v1.5.
    pub former: bool,
    /// It turns flow control on.
    pub flow_control: bool,
}

/// `featureGates`: `name`, `name=true` or `name=false`.
pub fn read_gates(fields: &mut Fields<'_>) -> Gates {
    let mut gates = Gates::default();
    for (text, path) in fields.texts("featureGates") {
        let (name, value) = text.split_once('=').unwrap_or((text, "true"));
        let on = match value.trim().to_lowercase().as_str() {
            "1" | "t" | "true" => Some(true),
            "0" | "f" | "false" => Some(false),
            _ => None,
        };
        let known = GATES.iter().position(|(known, _)| *known == name);
        let flow = name == FLOW_CONTROL && on == Some(true);
        if name == FLOW_CONTROL {
            gates.flow_control = flow;
        }
        // Under llm-d-router's own version this says nothing; there flow control is a part as well.
        gates.former |= flow || known.is_some_and(|gate| gate < FORMER);
        let why = known.and_then(|gate| GATES.get(gate)).map(|(_, why)| *why);
        let problems = fields.problems();
        match (on, why) {
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
    gates
}

/// A reference to a plugin that must be given.
pub fn read_named(fields: &mut Fields<'_>) -> Option<Named> {
    let name = fields.required_string("pluginRef");
    let path = fields.path().key("pluginRef");
    (!name.is_empty()).then_some((name, path))
}

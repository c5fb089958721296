//! The document's fields beside plugins and profiles: each works, is refused with what to use
//! instead, or has no effect in a proxy and says so.

use crate::document::{Fields, Path};

/// A reference to a plugin and where it stands.
pub type Named = (String, Path);

/// `dataLayer`: where endpoints and metrics come from.
pub fn read_data_layer(fields: &mut Fields<'_>) -> (Option<Named>, Vec<Named>) {
    let Some(mut layer) = fields.section("dataLayer") else {
        return (None, Vec::new());
    };
    // The default source and extractor are those that a plan has anyway.
    layer.boolean("injectDefaults", true);
    let mut sources = Vec::new();
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

/// Everything that changes no decision here.
pub fn read_inert(fields: &mut Fields<'_>, parsers: &mut Vec<Named>) {
    read_gates(fields);
    fields.no_effect("flowControl", "requests are never queued in the proxy, as in the Endpoint Picker without the flowControl gate");
    fields.no_effect(
        "saturationDetector",
        "requests have no priority in the proxy, so that none is shed",
    );
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

/// `featureGates`: `name`, `name=true` or `name=false`.
fn read_gates(fields: &mut Fields<'_>) {
    for (text, path) in fields.texts("featureGates") {
        let (name, value) = text.split_once('=').unwrap_or((text, "true"));
        let on = match value.trim().to_lowercase().as_str() {
            "1" | "t" | "true" => Some(true),
            "0" | "f" | "false" => Some(false),
            _ => None,
        };
        let message = match (name, on) {
            ("flowControl", Some(true)) => "flow control queues requests, which is not supported here; put a queue in front of the proxy",
            ("flowControl" | "haPopulateNonLeaderDatastore", Some(_)) => continue,
            (_, None) => "the value behind = must be true or false",
            _ => "unknown feature gate; known: flowControl, haPopulateNonLeaderDatastore",
        };
        fields
            .problems()
            .error(&path, format!("found {text:?}: {message}"));
    }
}

fn read_named(fields: &mut Fields<'_>) -> Option<Named> {
    let name = fields.required_string("pluginRef");
    let path = fields.path().key("pluginRef");
    (!name.is_empty()).then_some((name, path))
}

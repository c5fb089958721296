//! What `llm-d.ai/v1` arranges or names differently from the versions before it.

use std::collections::BTreeMap;
use std::path::Path;

use epp_core::config::value::Node;
use epp_core::config::{self, moved_block_settings};
use epp_core::plugins::scorer::prefix_cache::CUTTING;
use epp_core::plugins::{self, Capability};
use serde_json::{json, Map, Value};

use super::{handlers, kind, name, plugins_of, PREFIX, PRODUCER};
use crate::dialect::{former_name, DETECTOR};
use crate::schema::value;

/// Arranges a document as v1 does. Fields that are arranged so already are left alone.
pub fn arrange(document: &mut Value, notes: &mut Vec<String>) {
    let Some(top) = document.as_object_mut() else {
        return;
    };
    if let Some(parser) = top.shift_remove("parser") {
        let handler = top.entry("requestHandler").or_insert_with(|| json!({}));
        put(handler, "parsers", json!([parser]));
    }
    if let Some(detector) = top.shift_remove(DETECTOR) {
        let flow = top.entry("flowControl").or_insert_with(|| json!({}));
        put(flow, DETECTOR, detector);
    }
    if let Some(layer) = top.get_mut("dataLayer").and_then(Value::as_object_mut) {
        arrange_layer(layer);
    }
    split_precise_scorers(top, notes);
    for plugin in plugins_of(document) {
        rename_parameters(plugin, notes);
    }
    handlers::rewrite(document, notes);
    rename_types(document, notes);
}

fn arrange_layer(layer: &mut Map<String, Value>) {
    const SHARED: [(&str, &str); 3] = [
        ("crossReplicaSyncerPluginRef", "syncerPluginRef"),
        ("crossReplicaSyncInterval", "syncInterval"),
        ("crossReplicaPublishTimeout", "publishTimeout"),
    ];
    let discovery = layer.get_mut("discovery").and_then(Value::as_object_mut);
    if let Some(named) = discovery.and_then(|discovery| discovery.shift_remove("pluginRef")) {
        put_below(layer, "discovery", "endpoints", json!({"pluginRef": named}));
    }
    if let Some(peers) = layer.shift_remove("peerDiscovery") {
        put_below(layer, "discovery", "peers", peers);
    }
    for (former, now) in SHARED {
        if let Some(value) = layer.shift_remove(former) {
            put_below(layer, "crossReplica", now, value);
        }
    }
}

fn put_below(parent: &mut Map<String, Value>, section: &str, key: &str, value: Value) {
    let section = parent.entry(section).or_insert_with(|| json!({}));
    put(section, key, value);
}

/// Sets a field that is absent or empty.
fn put(section: &mut Value, key: &str, value: Value) {
    if section.is_null() {
        *section = json!({});
    }
    let Some(section) = section.as_object_mut() else {
        return;
    };
    let given = section.get(key);
    if given.is_none_or(|given| given.is_null() || given == &json!([])) {
        section.insert(key.to_owned(), value);
    }
}

/// Moves the settings by which a scorer would split prompts to a producer, as the loader does. Beside a
/// declared producer they are ignored, and dropped.
pub fn move_block_settings(document: &mut Value) {
    let provides = |plugin: &Value| {
        let found = plugins::find(kind(plugin));
        found.is_some_and(|found| found.provides.contains(&Capability::PrefixProducer))
    };
    let declared = plugins_of(document).any(|plugin| provides(plugin));
    let mut moved = Vec::new();
    for plugin in plugins_of(document).filter(|plugin| kind(plugin) == PREFIX) {
        let Some(given) = plugin.get_mut("parameters").and_then(Value::as_object_mut) else {
            continue;
        };
        let (cutting, kept): (Map<_, _>, Map<_, _>) = std::mem::take(given)
            .into_iter()
            .partition(|(name, _)| CUTTING.contains(&name.as_str()));
        *given = kept;
        moved.extend(cutting);
    }
    if declared || moved.is_empty() {
        return;
    }
    let text = Value::Object(moved.into_iter().collect()).to_string();
    let Ok(Node::Map(settings)) = config::parse(&text) else {
        return;
    };
    let parameters = value(&Node::Map(moved_block_settings(settings)));
    let plugins = document.get_mut("plugins").and_then(Value::as_array_mut);
    if let Some(plugins) = plugins {
        plugins.push(json!({"type": PRODUCER, "parameters": parameters}));
    }
}

/// Makes a producer and a scorer that names it of each plugin that is both.
fn split_precise_scorers(top: &mut Map<String, Value>, notes: &mut Vec<String>) {
    const BOTH: &str = "precise-prefix-cache-scorer";
    const PRECISE: &str = "precise-prefix-cache-producer";
    let mut layer = top.get("dataLayer").cloned();
    let Some(plugins) = top.get_mut("plugins").and_then(Value::as_array_mut) else {
        return;
    };
    let mut split = Vec::new();
    let taken = plugins.iter().any(|plugin| name(plugin) == PRECISE);
    let several = plugins.iter().filter(|plugin| kind(plugin) == BOTH).count() > 1;
    let mut producers = Vec::new();
    for plugin in plugins.iter_mut().filter(|plugin| kind(plugin) == BOTH) {
        let scorer = name(plugin).to_owned();
        let own = match taken || several {
            true => format!("{scorer}-producer"),
            false => PRECISE.to_owned(),
        };
        let mut producer = Map::new();
        if own != PRECISE {
            producer.insert("name".to_owned(), json!(own));
        }
        producer.insert("type".to_owned(), json!(PRECISE));
        if let Some(parameters) = plugin.get("parameters") {
            producer.insert("parameters".to_owned(), parameters.clone());
        }
        producers.push(Value::Object(producer));
        notes.push(format!(
            "{scorer}: {BOTH} is a {PRECISE} and a prefix-cache-scorer now"
        ));
        split.push((scorer.clone(), own.clone()));
        *plugin = json!({
            "name": scorer,
            "type": PREFIX,
            "parameters": {"prefixMatchInfoProducerName": own},
        });
    }
    plugins.extend(producers);
    for (scorer, own) in split {
        // What watches endpoints and what matches prompts is the producer now.
        for plugin in plugins.iter_mut() {
            let named = plugin.pointer_mut("/parameters/prefixMatchInfoProducerName");
            if let Some(named) = named.filter(|named| **named == json!(scorer)) {
                *named = json!(own);
            }
        }
        if let Some(layer) = &mut layer {
            rename_references(layer, &BTreeMap::from([(scorer.as_str(), own.as_str())]));
        }
    }
    if let Some(layer) = layer {
        top.insert("dataLayer".to_owned(), layer);
    }
}

/// Renames a plugin's own parameters.
fn rename_parameters(plugin: &mut Value, notes: &mut Vec<String>) {
    const FORMER: [(&str, &str, &str); 3] = [
        (
            "mm-embeddings-cache-producer",
            "cacheSizeInMB",
            "cacheSizeInMBPerServer",
        ),
        (
            "approx-prefix-cache-producer",
            "blockSize",
            "blockSizeTokens",
        ),
        (
            "precise-prefix-cache-producer",
            "tokenProcessorConfig/blockSize",
            "tokenProcessorConfig/blockSizeTokens",
        ),
    ];
    let (kind, name) = (kind(plugin).to_owned(), name(plugin).to_owned());
    for (_, former, now) in FORMER.iter().filter(|(of, _, _)| *of == kind) {
        let (section, former) = former.rsplit_once('/').unwrap_or(("", former));
        let now = now.rsplit_once('/').map_or(*now, |(_, now)| now);
        let path = match section {
            "" => "/parameters".to_owned(),
            section => format!("/parameters/{section}"),
        };
        let section = plugin.pointer_mut(&path).and_then(Value::as_object_mut);
        let Some(section) = section else { continue };
        if let Some(value) = section.shift_remove(former) {
            section.entry(now).or_insert(value);
            notes.push(format!("{name}: {former} is {now} now"));
        }
    }
}

/// Gives plugins the present names of their types, and references to those named like them, too.
fn rename_types(document: &mut Value, notes: &mut Vec<String>) {
    let mut own_names = Vec::new();
    for plugin in plugins_of(document) {
        let former = kind(plugin).to_owned();
        let given = plugin.get("name").and_then(Value::as_str);
        own_names.extend(given.map(str::to_owned));
        let found = former_name(&former).and_then(|_| plugins::find(&former));
        if let (Some(found), Some(entry)) = (found, plugin.as_object_mut()) {
            entry.insert("type".to_owned(), json!(found.name));
            notes.push(format!("{former} is {} now", found.name));
        }
    }
    let types = plugins::TYPES.iter();
    let former = types.flat_map(|now| {
        now.former_names
            .iter()
            .map(|former| (former.name, now.name))
    });
    let renamed = former.filter(|(former, _)| own_names.iter().all(|name| name != former));
    rename_references(document, &renamed.collect());
}

/// Renames what fields of any depth refer to: those named `…Ref` or `…Name`, and what is below `deciders`.
fn rename_references(value: &mut Value, renamed: &BTreeMap<&str, &str>) {
    match value {
        Value::Object(entries) => {
            for (key, entry) in entries {
                let refers = key.ends_with("Ref") || key.ends_with("Name");
                if key == "deciders" {
                    for decider in entry.as_object_mut().into_iter().flatten() {
                        rename_reference(decider.1, renamed);
                    }
                } else if refers {
                    rename_reference(entry, renamed);
                } else {
                    rename_references(entry, renamed);
                }
            }
        }
        Value::Array(entries) => {
            for entry in entries {
                rename_references(entry, renamed);
            }
        }
        _ => {}
    }
}

fn rename_reference(entry: &mut Value, renamed: &BTreeMap<&str, &str>) {
    if let Some(now) = entry.as_str().and_then(|name| renamed.get(name)) {
        *entry = json!(now);
    }
}

/// Writes the endpoints of the file of a `file-discovery` into the document, where it has none. Returns whether
/// there was such a file.
pub fn inline_endpoints(
    document: &mut Value,
    folder: &Path,
    notes: &mut Vec<String>,
) -> Result<bool, String> {
    let mut inlined = false;
    for plugin in plugins_of(document) {
        if kind(plugin) != "file-discovery" || plugin.pointer("/parameters/endpoints").is_some() {
            continue;
        }
        let name = name(plugin).to_owned();
        let path = plugin.pointer("/parameters/path").and_then(Value::as_str);
        let Some(path) = path.map(str::to_owned) else {
            continue;
        };
        let endpoints = endpoints_of(&path, folder)?;
        if let Some(parameters) = plugin.get_mut("parameters").and_then(Value::as_object_mut) {
            parameters.shift_remove("path");
            parameters.shift_remove("watchFile");
            parameters.insert("endpoints".to_owned(), endpoints);
        }
        notes.push(format!("{name}: the endpoints of {path} are in the document; convert it again when they change"));
        inlined = true;
    }
    Ok(inlined)
}

/// Reads a file of endpoints, at its path or, as documents name paths of a container, beside the document.
fn endpoints_of(path: &str, folder: &Path) -> Result<Value, String> {
    let beside = Path::new(path).file_name().map(|file| folder.join(file));
    let read = |path: &Path| {
        let regular = path.is_file().then(|| path.to_str()).flatten()?;
        crate::input::read_text(regular).ok()
    };
    let text = read(Path::new(path)).or_else(|| read(&folder.join(path)));
    let text = text.or_else(|| read(&beside?));
    let text = text.ok_or_else(|| {
        format!("{path}: the document's file of endpoints is neither there nor beside the document")
    })?;
    let file: Value = serde_yaml::from_str(&text).map_err(|error| format!("{path}: {error}"))?;
    match file.get("endpoints") {
        Some(endpoints) => Ok(endpoints.clone()),
        None => Err(format!("{path}: found no endpoints")),
    }
}

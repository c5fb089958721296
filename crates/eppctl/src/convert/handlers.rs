//! Deprecated profile handlers and filters, and flat parameters, in their present form.

use serde_json::{json, Map, Value};

use super::{kind, name, plugins_of};

const HANDLER: &str = "disagg-profile-handler";
const HEADERS: [&str; 2] = ["disagg-headers-handler", "prefill-header-handler"];

/// The flat parameters, and the sections that they moved to. Of several names the first counts.
const FLAT: [(&str, &str, &str); 6] = [
    ("decodeProfile", "profiles", "decode"),
    ("prefillProfile", "profiles", "prefill"),
    ("encodeProfile", "profiles", "encode"),
    ("prefillDeciderPluginName", "deciders", "prefill"),
    ("deciderPluginName", "deciders", "prefill"),
    ("encodeDeciderPluginName", "deciders", "encode"),
];

/// Rewrites them.
pub fn rewrite(document: &mut Value, notes: &mut Vec<String>) {
    let sets_headers = plugins_of(document).any(|plugin| HEADERS.contains(&kind(plugin)));
    for plugin in plugins_of(document) {
        match kind(plugin) {
            "pd-profile-handler" => replace_pd_handler(plugin, sets_headers, notes),
            "by-label" => replace_by_label(plugin, notes),
            _ => {}
        }
        if kind(plugin) == HANDLER {
            nest(plugin);
        }
    }
    if plugins_of(document).any(|plugin| kind(plugin) == HANDLER) {
        drop_headers_handlers(document, notes);
    }
}

fn parameters(plugin: &mut Value) -> Map<String, Value> {
    let given = plugin.get_mut("parameters").map(Value::take);
    match given {
        Some(Value::Object(given)) => given,
        _ => Map::new(),
    }
}

fn set_parameters(plugin: &mut Value, given: Map<String, Value>) {
    let Some(plugin) = plugin.as_object_mut() else {
        return;
    };
    plugin.shift_remove("parameters");
    if !given.is_empty() {
        plugin.insert("parameters".to_owned(), Value::Object(given));
    }
}

/// Moves flat parameters to their sections.
fn nest(plugin: &mut Value) {
    let mut given = parameters(plugin);
    for (former, section, now) in FLAT {
        let Some(value) = given.shift_remove(former) else {
            continue;
        };
        if value.as_str().is_none_or(str::is_empty) {
            continue;
        }
        let section = given.entry(section).or_insert_with(|| json!({}));
        if let Some(section) = section.as_object_mut() {
            section.entry(now).or_insert(value);
        }
    }
    set_parameters(plugin, given);
}

fn replace_pd_handler(plugin: &mut Value, sets_headers: bool, notes: &mut Vec<String>) {
    let own = name(plugin).to_owned();
    let port = plugin.pointer("/parameters/primaryPort");
    if port.and_then(Value::as_f64).is_some_and(|port| port != 0.0) {
        notes.push(format!(
            "{own}: primaryPort has no successor but an endpoint for each rank; left as it is"
        ));
        return;
    }
    let mut given = parameters(plugin);
    for unused in [
        "primaryPort",
        "prefixPluginType",
        "prefixPluginName",
        "prefixMatchInfoProducerName",
    ] {
        given.shift_remove(unused);
    }
    given
        .entry("deciderPluginName")
        .or_insert_with(|| json!("prefix-based-pd-decider"));
    set_parameters(plugin, given);
    if let Some(entry) = plugin.as_object_mut() {
        entry.insert("type".to_owned(), json!(HANDLER));
    }
    notes.push(format!("{own}: pd-profile-handler is {HANDLER} now"));
    notes.push(format!(
        "{own}: a request that no endpoint can compute the prompt of fails now, unless envoy-proxy has missingPrefill: decodeOnly"
    ));
    if !sets_headers {
        notes.push(format!(
            "{own}: the endpoint that computes the prompt is named in a header now"
        ));
    }
}

/// A label that may also be absent has no selector.
fn replace_by_label(plugin: &mut Value, notes: &mut Vec<String>) {
    let own = name(plugin).to_owned();
    // So does an empty value.
    let values = plugin.pointer("/parameters/validValues");
    let mut values = values.and_then(Value::as_array).into_iter().flatten();
    if plugin.pointer("/parameters/allowsNoLabel") == Some(&json!(true))
        || values.any(|value| value.as_str() == Some(""))
    {
        notes.push(format!(
            "{own}: no selector keeps endpoints without a label, too; left as it is"
        ));
        return;
    }
    let mut given = parameters(plugin);
    let label = given.shift_remove("label").unwrap_or_default();
    let values = given.shift_remove("validValues").unwrap_or_default();
    let requirement = json!({"key": label, "operator": "In", "values": values});
    if let Some(entry) = plugin.as_object_mut() {
        // References name it by its type's former name.
        entry.insert("name".to_owned(), json!(own));
        entry.insert("type".to_owned(), json!("label-selector-filter"));
    }
    let selector = json!({"matchExpressions": [requirement]});
    set_parameters(plugin, selector.as_object().cloned().unwrap_or_default());
    notes.push(format!("{own}: by-label is label-selector-filter now"));
}

/// Drops plugins that set headers which the handler sets itself.
fn drop_headers_handlers(document: &mut Value, notes: &mut Vec<String>) {
    let mut gone = Vec::new();
    let plugins = document.get_mut("plugins").and_then(Value::as_array_mut);
    if let Some(plugins) = plugins {
        plugins.retain(|plugin| {
            let drop = HEADERS.contains(&kind(plugin));
            if drop {
                gone.push(name(plugin).to_owned());
            }
            !drop
        });
    }
    let profiles = document.get_mut("schedulingProfiles");
    let profiles = profiles.and_then(Value::as_array_mut);
    for profile in profiles.into_iter().flatten() {
        let references = profile.get_mut("plugins").and_then(Value::as_array_mut);
        if let Some(references) = references {
            references.retain(|reference| {
                let named = reference.get("pluginRef").and_then(Value::as_str);
                !gone.iter().any(|gone| Some(gone.as_str()) == named)
            });
        }
    }
    let gone = gone.iter();
    notes.extend(gone.map(|gone| format!("{gone}: {HANDLER} sets the headers itself; left out")));
}

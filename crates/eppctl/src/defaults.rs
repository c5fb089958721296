//! Writes a plan as a document with every default spelled out.

use epp_core::config::value::Node;
use epp_core::config::{Instance, Plan};
use epp_core::plugins::{self, Dialect, Discovery};
use serde_json::{json, Map, Value};

use crate::page::name_of;
use crate::schema::value;

/// Plugins that are always in force, even if a document does not list them.
const ALWAYS: [&str; 3] = [
    "metrics-data-source",
    "core-metrics-extractor",
    "envoy-proxy",
];

/// Returns the document. It loads to an equal plan.
pub fn written_out(plan: &Plan) -> Value {
    let version = match plan.dialect {
        Dialect::GieV1 => "inference.networking.x-k8s.io/v1alpha1",
        Dialect::LlmD => "llm-d.ai/v1alpha1",
    };
    let mut entries: Vec<Value> = plan.instances.iter().map(|one| entry(one)).collect();
    let has = |kind: &str| plan.instances.iter().any(|instance| instance.kind == kind);
    for kind in ALWAYS.into_iter().filter(|kind| !has(kind)) {
        entries.push(default_entry(kind, plan.dialect));
    }
    let mut instances = plan.instances.iter();
    let discovery = instances
        .find(|instance| instance.capabilities.discovery.as_ref() == Some(&plan.discovery));
    let discovery = match (discovery, &plan.discovery) {
        (Some(instance), _) => instance.name.as_str(),
        (None, Discovery::Static(_)) => "static-discovery",
        (None, Discovery::EnvoyCluster(_)) => {
            entries.push(default_entry("envoy-cluster-discovery", plan.dialect));
            "envoy-cluster-discovery"
        }
    };
    let profiles: Vec<Value> = plan
        .profiles
        .iter()
        .map(|profile| {
            let mut references: Vec<Value> = profile
                .plugins
                .iter()
                .map(|(instance, weight)| match instance.capabilities.scorer {
                    Some(_) => {
                        json!({"pluginRef": instance.name, "weight": value(&Node::Number(*weight))})
                    }
                    None => json!({"pluginRef": instance.name}),
                })
                .collect();
            references.extend(
                profile
                    .picker
                    .iter()
                    .map(|picker| json!({"pluginRef": picker.name})),
            );
            json!({"name": profile.name, "plugins": references})
        })
        .collect();
    json!({
        "apiVersion": version,
        "kind": "EndpointPickerConfig",
        "plugins": entries,
        "schedulingProfiles": profiles,
        "dataLayer": {"discovery": {"pluginRef": discovery}},
    })
}

fn entry(instance: &Instance) -> Value {
    let mut entry = Map::new();
    if instance.name != instance.kind {
        entry.insert("name".to_owned(), json!(instance.name));
    }
    entry.insert("type".to_owned(), json!(instance.kind));
    if !instance.parameters.is_empty() {
        entry.insert(
            "parameters".to_owned(),
            value(&Node::Map(instance.parameters.clone())),
        );
    }
    Value::Object(entry)
}

fn default_entry(kind: &str, dialect: Dialect) -> Value {
    let mut parameters = Map::new();
    for question in plugins::find(kind)
        .map(|found| plugins::questions(found, dialect))
        .unwrap_or_default()
    {
        let name = name_of(&question);
        // The default of a deprecated name would count as given.
        if let Some(default) = question
            .default
            .filter(|_| !name.contains(['.', '[']) && name != "blockSize")
        {
            parameters.insert(name, value(&default));
        }
    }
    json!({"type": kind, "parameters": parameters})
}

//! Writes a plan as a document with every default spelled out.

use std::sync::Arc;
use std::time::Duration;

use epp_core::config::value::Node;
use epp_core::config::{Instance, Plan};
use epp_core::flow::{BandSpec, FlowControl};
use epp_core::plugins::{self, Capabilities, Dialect, Discovery};
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
    let mut document = json!({
        "apiVersion": version,
        "kind": "EndpointPickerConfig",
        "plugins": entries,
        "schedulingProfiles": profiles,
        "dataLayer": {"discovery": {"pluginRef": discovery}},
    });
    if let (Some(flow), Some(top)) = (&plan.flow, document.as_object_mut()) {
        top.insert("featureGates".to_owned(), json!(["flowControl"]));
        top.insert("flowControl".to_owned(), flow_control(plan, flow));
    }
    document
}

/// Returns the section `flowControl`.
fn flow_control(plan: &Plan, flow: &FlowControl) -> Value {
    let limit = |plugin: &Capabilities| plugin.usage_limit == Some(flow.usage_limit);
    let detects = |plugin: &Capabilities| {
        let detector = plugin.saturation_detector.as_ref();
        detector.is_some_and(|detector| Arc::ptr_eq(detector, &flow.detector))
    };
    let bands: Vec<Value> = flow.bands.iter().map(|spec| band(plan, spec)).collect();
    let mut section = json!({
        "maxRequests": flow.max_requests.unwrap_or(0),
        "maxBytes": flow.max_bytes.unwrap_or(0),
        "defaultRequestTTL": ttl(flow.ttl),
        "noEndpointRequestTTL": ttl(flow.empty_pool_ttl),
        "defaultPriorityBand": band(plan, &flow.default_band),
        "defaultNegativePriorityBand": band(plan, &flow.negative_band),
        "priorityBands": bands,
        "usageLimitPolicyPluginRef": name_where(plan, &limit, "static-usage-limit-policy"),
        "enableEviction": flow.eviction,
    });
    let detector = plan.instances.iter();
    let mut detector = detector.filter(|plugin| detects(&plugin.capabilities));
    if let (Some(detector), Some(section)) = (detector.next(), section.as_object_mut()) {
        let reference = json!({"pluginRef": detector.name});
        section.insert("saturationDetector".to_owned(), reference);
    }
    section
}

fn band(plan: &Plan, spec: &BandSpec) -> Value {
    let ordering = |plugin: &Capabilities| plugin.ordering == Some(spec.ordering);
    let fairness = |plugin: &Capabilities| plugin.fairness == Some(spec.fairness);
    let mut band = json!({
        "priority": spec.priority,
        "maxRequests": spec.max_requests.unwrap_or(0),
        "maxBytes": spec.max_bytes.unwrap_or(0),
        "orderingPolicyRef": name_where(plan, &ordering, "fcfs-ordering-policy"),
        "fairnessPolicyRef": name_where(plan, &fairness, "global-strict-fairness-policy"),
    });
    if let (Some(own), Some(band)) = (spec.ttl, band.as_object_mut()) {
        band.insert("defaultRequestTTL".to_owned(), ttl(own));
    }
    band
}

/// Returns the name of the plugin that does what is in force, or else of the default.
fn name_where(plan: &Plan, does: &dyn Fn(&Capabilities) -> bool, default: &str) -> String {
    let mut instances = plan.instances.iter();
    let found = instances.find(|instance| does(&instance.capabilities));
    found.map_or(default.to_owned(), |instance| instance.name.clone())
}

fn ttl(limit: Option<Duration>) -> Value {
    json!(format!("{}ms", limit.unwrap_or_default().as_millis()))
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

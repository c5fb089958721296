//! Documents of `llm-d.ai/v1`, and what every version of a document says without effect.

use super::dialect_tests::{loaded, warned};
use super::tests::{llm_d, refused};

fn llm_d_v1(rest: &str) -> String {
    format!("apiVersion: llm-d.ai/v1\nkind: EndpointPickerConfig\n{rest}")
}

const LISTED: &str =
    "plugins: [{name: pods, type: static-discovery, parameters: {endpoints: []}}]\n";

#[test]
fn v1_has_its_own_data_layer() {
    let new = "dataLayer: {discovery: {endpoints: {pluginRef: pods}, peers: {pluginRef: p}}, crossReplica: {syncerPluginRef: s, syncInterval: 1s, publishTimeout: 1s}}\n";
    let old = "dataLayer: {discovery: {pluginRef: pods}, peerDiscovery: {pluginRef: p}, crossReplicaSyncerPluginRef: s}\n";
    let text = llm_d_v1(&format!("{LISTED}{new}"));
    warned(
        &text,
        &[
            &["dataLayer.discovery.peers", "no effect"],
            &["dataLayer.crossReplica", "no effect"],
        ],
    );
    let former = llm_d(&format!("{LISTED}{old}"));
    assert_eq!(loaded(&text).plan, loaded(&former).plan);
    refused(
        &llm_d(&format!("{LISTED}{new}")),
        &["dataLayer.discovery.endpoints", "unknown field"],
    );
    let text = llm_d_v1(&format!("{LISTED}{old}"));
    refused(&text, &["discovery.pluginRef", "use endpoints.pluginRef"]);
    refused(&text, &["dataLayer.peerDiscovery", "use crossReplica"]);
    refused(
        &llm_d_v1("dataLayer: {discovery: {endpoints: {pluginRef: nowhere}}}\n"),
        &["dataLayer.discovery.endpoints.pluginRef", "nowhere"],
    );
}

#[test]
fn v1_has_no_former_places_of_fields() {
    for (field, plugin, instead) in [
        (
            "saturationDetector",
            "utilization-detector",
            "flowControl.saturationDetector",
        ),
        ("parser", "openai-parser", "requestHandler.parsers"),
    ] {
        let text = format!("{field}: {{pluginRef: {plugin}}}\n");
        refused(&llm_d_v1(&text), &[field, instead]);
        loaded(&llm_d(&text));
    }
    refused(&llm_d_v1("data: {sources: []}\n"), &["use dataLayer"]);
    let plugins = "plugins: [{type: prefix-cache-scorer, parameters: {matchLengthWeight: 0.5}}]\n";
    let plan = loaded(&llm_d_v1(plugins)).plan;
    assert_eq!(plan, loaded(&llm_d(plugins)).plan);
}

#[test]
fn the_shape_of_flow_control_is_checked() {
    let band = "maxBytes: 5Gi, maxRequests: 10, defaultRequestTTL: 9000s, fairnessPolicyRef: f, orderingPolicyRef: o";
    warned(
        &llm_d_v1(&format!("flowControl: {{maxBytes: 0, maxRequests: 9, defaultRequestTTL: 0s, noEndpointRequestTTL: 1m, defaultPriorityBand: {{{band}}}, defaultNegativePriorityBand: {{}}, priorityBands: [{{priority: -5, {band}}}], usageLimitPolicyPluginRef: u, saturationDetector: {{pluginRef: utilization-detector}}, enableEviction: true}}\nrequestHandler: {{propagatePriority: true}}\n")),
        &[&["flowControl", "feature gate flowControl is off"], &["propagatePriority", "approximated here"]],
    );
    for (inside, place) in [
        ("maxByte: 1", "flowControl.maxByte"),
        (
            "priorityBands: [{ttl: 1s}]",
            "flowControl.priorityBands[0].ttl",
        ),
        ("defaultRequestTTL: soon", "flowControl.defaultRequestTTL"),
        (
            "saturationDetector: {threshold: 1}",
            "flowControl.saturationDetector.threshold",
        ),
    ] {
        refused(&llm_d(&format!("flowControl: {{{inside}}}\n")), &[place]);
    }
}

#[test]
fn a_strict_document_loads_only_without_approximations() {
    let strict = "plugins: [{type: envoy-proxy, parameters: {strict: true}}]\n";
    loaded(&llm_d(strict));
    // What has no effect changes no decision.
    loaded(&llm_d(&format!("{strict}flowControl: {{maxBytes: 1}}\n")));
    let approximated = "plugins: [{type: dcgm-data-source}]\n";
    let both = strict.replace("[", "[{type: dcgm-data-source}, ");
    refused(
        &llm_d(&both),
        &["plugins[0].type", "GPU metrics", "which `strict` refuses"],
    );
    let plan = loaded(&llm_d(approximated)).plan;
    assert_eq!(plan.approximations.len(), 1);
    assert!(plan.approximations[0].starts_with("plugins[0].type (line 3"));
}

#[test]
fn other_warnings_leave_room_for_approximations() {
    // Each gate is a warning; plugins are looked up after all of them.
    let gates = format!("featureGates: [{}]\n", "dataLayer, ".repeat(1_500));
    let text = format!("{gates}plugins: [{{type: dcgm-data-source}}]\n");
    assert_eq!(loaded(&llm_d(&text)).plan.approximations.len(), 1);
    let strict =
        "plugins: [{type: envoy-proxy, parameters: {strict: true}}, {type: dcgm-data-source}]\n";
    refused(&llm_d(&format!("{gates}{strict}")), &["plugins[1].type"]);
    assert!(loaded(&llm_d(&gates)).warnings.len() < 1_500);
}

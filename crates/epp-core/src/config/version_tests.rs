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
    for (field, instead) in [
        ("saturationDetector", "flowControl.saturationDetector"),
        ("parser", "requestHandler.parsers"),
    ] {
        let text = format!("{field}: {{pluginRef: openai-parser}}\n");
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
        &llm_d_v1(&format!("flowControl: {{maxBytes: 0, maxRequests: 9, defaultRequestTTL: 0s, noEndpointRequestTTL: 1m, defaultPriorityBand: {{{band}}}, defaultNegativePriorityBand: {{}}, priorityBands: [{{priority: -5, {band}}}], usageLimitPolicyPluginRef: u, saturationDetector: {{pluginRef: d}}, enableEviction: true}}\nrequestHandler: {{propagatePriority: true}}\n")),
        &[&["flowControl", "never queued"], &["propagatePriority", "no priority"]],
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
    let gate = "featureGates: [flowControl]\n";
    refused(
        &llm_d(&format!("{strict}{gate}")),
        &["featureGates[0]", "never queued", "which `strict` refuses"],
    );
    let plan = loaded(&llm_d(gate)).plan;
    assert_eq!(plan.approximations.len(), 1);
    assert!(plan.approximations[0].starts_with("featureGates[0] (line 3"));
}

#[test]
fn an_approximation_names_the_detector_that_does_not_filter() {
    let gate = "featureGates: [flowControl]\n";
    let plan = loaded(&llm_d(gate)).plan;
    let detector = "the saturation detector would filter";
    assert!(plan.approximations[0].contains(detector));
}

#[test]
fn other_warnings_leave_room_for_approximations() {
    // Each entry is a warning; the gate comes after all of them.
    let gates = "dataLayer, ".repeat(1_500);
    let text = format!("featureGates: [{gates}flowControl]\n");
    assert_eq!(loaded(&llm_d(&text)).plan.approximations.len(), 1);
    let strict = "plugins: [{type: envoy-proxy, parameters: {strict: true}}]\n";
    refused(&llm_d(&format!("{strict}{text}")), &["featureGates[1500]"]);
    let text = format!("featureGates: [{}]\n", "flowControl, ".repeat(1_500));
    assert_eq!(loaded(&llm_d(&text)).warnings.len(), 1_000);
}

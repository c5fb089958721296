//! The same of an Envoy that runs the dynamic module.

use super::tests::{dump_of, pages, report, text};
use super::*;

/// The document of the filter.
pub const DOCUMENT: &str = "{kind: EndpointPickerConfig, apiVersion: llm-d.ai/v1alpha1, plugins: [{type: queue-scorer}, {type: envoy-cluster-discovery, parameters: {clusters: [pool]}}], schedulingProfiles: [{name: default, plugins: [{pluginRef: queue-scorer}]}], dataLayer: {discovery: {pluginRef: envoy-cluster-discovery}}}";

#[test]
fn a_dynamic_module_is_read_under_either_name_of_its_metrics() {
    let filter = format!("{{'@type': type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter, filter_name: epp, filter_config: {{'@type': type.googleapis.com/google.protobuf.StringValue, value: '{DOCUMENT}'}}}}");
    let mut pages = pages();
    pages.dump = Some(dump_of(&filter));
    let with = |pages: &Pages| {
        let report = report(pages);
        assert_eq!(report.verdict, Verdict::Healthy, "{:?}", report.findings);
        (report.envoy.filters, text(&report))
    };
    let plain = with(&pages);
    assert_eq!(plain.0, Some(1));
    let prefixed = |name: &str| format!("\n{}{name}", "envoy_dynamicmodulescustom_");
    for name in ["epp_wasm_", "llm_d_epp_"] {
        pages.statistics = pages
            .statistics
            .replace(&format!("\n{name}"), &prefixed(name));
    }
    assert!(!pages.statistics.contains("\nepp_wasm_"));
    assert_eq!(with(&pages), plain);
}

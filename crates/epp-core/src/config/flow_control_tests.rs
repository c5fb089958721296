//! The section `flowControl`, as documents of each version write it.

use std::time::Duration;

use super::dialect_tests::{gie_v1, loaded, warned, warnings};
use super::load;
use super::tests::{llm_d, refused};
use crate::flow::{BandSpec, Fairness, FlowControl, Ordering, UsageLimit};

const GATE: &str = "featureGates: [flowControl]\n";

fn flow(text: &str) -> FlowControl {
    loaded(text).plan.flow.unwrap()
}

/// Flow control of a document with these plugins and this section.
fn with(plugins: &str, section: &str) -> FlowControl {
    let plugins = format!("plugins: [{plugins}{{type: random-picker}}]\n");
    flow(&llm_d(&format!(
        "{GATE}{plugins}flowControl: {{{section}}}\n"
    )))
}

fn seconds(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds))
}

fn band(priority: i32) -> BandSpec {
    BandSpec {
        priority,
        max_requests: Some(5_000),
        max_bytes: Some(1_000_000_000),
        ttl: None,
        ordering: Ordering::Fcfs,
        fairness: Fairness::GlobalStrict,
    }
}

#[test]
fn the_summary_says_that_requests_wait() {
    let waits = |gate: &str, dry_run: bool| {
        let plugins = format!("plugins: [{{type: random-picker}}, {{type: envoy-proxy, parameters: {{dryRun: {dry_run}}}}}]\n");
        let summary = loaded(&llm_d(&format!("{gate}{plugins}"))).plan.summary();
        summary.ends_with("; requests wait while the pool is full")
    };
    assert!(waits(GATE, false));
    assert!(!waits("", false));
    assert!(!waits(GATE, true), "a dry run holds nothing");
}

#[test]
fn without_its_gate_the_section_has_no_effect() {
    let section = "flowControl: {maxRequests: 10}\n";
    for gates in [
        "",
        "featureGates: [flowControl=false]\n",
        "featureGates: [flowControl, flowControl=f]\n",
    ] {
        let text = llm_d(&format!("{gates}{section}"));
        warned(
            &text,
            &[&["flowControl", "the feature gate flowControl is off"]],
        );
        assert_eq!(loaded(&text).plan.flow, None);
        assert_eq!(loaded(&llm_d(gates)).plan.flow, None);
    }
    // Its policies are not looked up, but its shape is checked.
    let text = llm_d("flowControl: {usageLimitPolicyPluginRef: nowhere, priorityBands: [{fairnessPolicyRef: f}]}\n");
    assert_eq!(warnings(&text).len(), 1);
    let text = llm_d("flowControl: {maxBytes: much}\n");
    refused(
        &text,
        &[
            "flowControl.maxBytes",
            "found \"much\"",
            "such as 500, 10k or 5Gi",
        ],
    );
}

#[test]
fn the_gate_alone_has_the_endpoint_pickers_defaults() {
    for section in [
        "",
        "flowControl: {}\n",
        "flowControl: {maxBytes: 0, maxRequests: 0, saturationDetector: {pluginRef: ''}}\n",
    ] {
        let found = flow(&llm_d(&format!("{GATE}{section}")));
        assert_eq!((found.max_requests, found.max_bytes), (None, None));
        assert_eq!(
            (found.ttl, found.empty_pool_ttl),
            (seconds(60), seconds(60))
        );
        assert_eq!(found.bands, [band(0)]);
        assert_eq!(
            (found.default_band, found.negative_band),
            (band(0), band(0))
        );
        assert_eq!(found.usage_limit, UsageLimit::Static(1.0));
        assert!(!found.eviction && !found.counts_tokens());
    }
    assert!(warnings(&llm_d(GATE)).is_empty());
}

#[test]
fn the_gateway_api_inference_extension_limits_less() {
    let found = flow(&gie_v1(GATE));
    assert_eq!((found.ttl, found.empty_pool_ttl), (None, None));
    assert_eq!(found.bands[0].max_requests, None);
    assert_eq!(found.bands[0].max_bytes, Some(1_000_000_000));
    let found = flow(&gie_v1(&format!(
        "{GATE}flowControl: {{defaultRequestTTL: 5s}}\n"
    )));
    assert_eq!((found.ttl, found.empty_pool_ttl), (seconds(5), seconds(5)));
}

#[test]
fn times_to_wait_follow_each_other() {
    for (section, ttl, empty_pool) in [
        (
            "defaultRequestTTL: 1m, noEndpointRequestTTL: 5m",
            seconds(60),
            seconds(300),
        ),
        ("defaultRequestTTL: 10s", seconds(10), seconds(10)),
        ("noEndpointRequestTTL: 10s", seconds(60), seconds(10)),
        ("defaultRequestTTL: 0s", None, None),
        (
            "defaultRequestTTL: 0s, noEndpointRequestTTL: 9000s",
            None,
            seconds(9_000),
        ),
        ("noEndpointRequestTTL: 0s", seconds(60), None),
        ("defaultRequestTTL: null", seconds(60), seconds(60)),
    ] {
        let found = with("", section);
        assert_eq!(
            (found.ttl, found.empty_pool_ttl),
            (ttl, empty_pool),
            "{section}"
        );
    }
}

#[test]
fn bands_have_their_own_settings_and_no_others() {
    let plugins = "{type: round-robin-fairness-policy, name: rr}, {type: edf-ordering-policy}, {type: program-aware-fairness}, ";
    let found = with(
        plugins,
        "maxBytes: 1Gi, maxRequests: 1k, \
         priorityBands: [{priority: -10, maxRequests: 0, defaultRequestTTL: 0s}, {priority: 100, maxBytes: 500Mi, \
         maxRequests: 300, defaultRequestTTL: 9000s, fairnessPolicyRef: rr, orderingPolicyRef: edf-ordering-policy}], \
         defaultPriorityBand: {priority: 3, maxRequests: 7, fairnessPolicyRef: program-aware-fairness}",
    );
    assert_eq!(
        (found.max_requests, found.max_bytes),
        (Some(1_000), Some(1 << 30))
    );
    assert_eq!(
        found
            .bands
            .iter()
            .map(|band| band.priority)
            .collect::<Vec<_>>(),
        [100, 0, -10]
    );
    let high = BandSpec {
        max_bytes: Some(524_288_000),
        max_requests: Some(300),
        ttl: Some(seconds(9_000)),
        ordering: Ordering::Edf,
        fairness: Fairness::RoundRobin,
        ..band(100)
    };
    assert_eq!(found.bands[0], high);
    let low = BandSpec {
        ttl: Some(None),
        ..band(-10)
    };
    assert_eq!(found.bands[2], low);
    // That of requests without a priority is made of the template, and so are negative ones without their own.
    assert_eq!(found.bands[1].max_requests, Some(7));
    assert!(matches!(found.bands[1].fairness, Fairness::ProgramAware(_)));
    assert_eq!(found.negative_band.max_requests, Some(7));
    assert!(found.counts_tokens());
    let found = with(
        "",
        "defaultNegativePriorityBand: {maxRequests: 2}, priorityBands: [{}]",
    );
    assert_eq!(
        (found.default_band, found.negative_band.max_requests),
        (band(0), Some(2))
    );
    assert_eq!(found.bands, [band(0)]);
}

#[test]
fn policies_are_found_by_name() {
    let static_limit = "{type: static-usage-limit-policy, parameters: {threshold: 0.8}}, ";
    // The one named like the default's type is the default.
    assert_eq!(with(static_limit, "").usage_limit, UsageLimit::Static(0.8));
    let holdback = "{name: h, type: priority-holdback-policy, parameters: {minCeiling: 0.5}}, ";
    let found = with(holdback, "usageLimitPolicyPluginRef: h").usage_limit;
    assert!(matches!(
        found,
        UsageLimit::Holdback {
            min: 0.5,
            max: 1.0,
            by_value: false
        }
    ));
    assert_eq!(with(holdback, "").usage_limit, UsageLimit::Static(1.0));
    let soft = "{type: soft-reflective-ceiling-policy}, ";
    let found = with(
        soft,
        "usageLimitPolicyPluginRef: soft-reflective-ceiling-policy",
    );
    assert_eq!(found.usage_limit, UsageLimit::SoftReflective);
    // The defaults need not be declared.
    let defaults = "usageLimitPolicyPluginRef: static-usage-limit-policy, defaultPriorityBand: {orderingPolicyRef: fcfs-ordering-policy, fairnessPolicyRef: global-strict-fairness-policy}";
    assert_eq!(with("", defaults).default_band, band(0));
}

/// Sections, and what the error of each says.
#[rustfmt::skip]
const REFUSED: &[(&str, [&str; 2])] = &[
    ("maxRequests: -1", ["flowControl.maxRequests", "found -1, expected a quantity of at least 0"]),
    ("maxBytes: '-1Gi'", ["flowControl.maxBytes", "found \"-1Gi\""]),
    ("defaultPriorityBand: {maxBytes: -1}", ["flowControl.defaultPriorityBand.maxBytes", "found -1"]),
    ("defaultNegativePriorityBand: {maxRequests: -5}", ["flowControl.defaultNegativePriorityBand.maxRequests", "found -5"]),
    ("priorityBands: [{priority: 1}, {priority: 2, maxRequests: x}]", ["flowControl.priorityBands[1].maxRequests", "found \"x\""]),
    ("priorityBands: [{priority: 1}, {priority: 1}]", ["flowControl.priorityBands[1].priority", "a second band of priority 1"]),
    ("priorityBands: [{priority: high}]", ["flowControl.priorityBands[0].priority", "found \"high\", expected a whole number"]),
    ("priorityBands: [{priority: 3000000000}]", ["flowControl.priorityBands[0].priority", "2147483647"]),
    ("defaultRequestTTL: -5s", ["flowControl.defaultRequestTTL", "found \"-5s\", expected a duration"]),
    ("noEndpointRequestTTL: 60", ["flowControl.noEndpointRequestTTL", "found 60, expected a duration"]),
    ("priorityBands: [{defaultRequestTTL: soon}]", ["flowControl.priorityBands[0].defaultRequestTTL", "found \"soon\""]),
    ("priorityBands: [{orderingPolicyRef: nowhere}]", ["flowControl.priorityBands[0].orderingPolicyRef", "nowhere"]),
    ("priorityBands: [{orderingPolicyRef: queue-scorer}]", ["flowControl.priorityBands[0].orderingPolicyRef", "found \"queue-scorer\", a queue-scorer, expected an ordering policy"]),
    ("priorityBands: [{fairnessPolicyRef: round-robin-fairness-policy}]", ["flowControl.priorityBands[0].fairnessPolicyRef", "a fairness policy"]),
    ("usageLimitPolicyPluginRef: queue-scorer", ["flowControl.usageLimitPolicyPluginRef", "expected a usage limit policy"]),
    ("enableEviction: maybe", ["flowControl.enableEviction", "true or false"]),
    ("saturationDetector: {pluginRef: queue-scorer}", ["flowControl.saturationDetector.pluginRef", "expected a saturation detector"]),
];

#[test]
fn errors_name_what_was_found_and_expected() {
    let plugins = "plugins: [{type: queue-scorer}]\n";
    for (section, expected) in REFUSED {
        let text = llm_d(&format!("{GATE}{plugins}flowControl: {{{section}}}\n"));
        refused(&text, expected);
    }
}

#[test]
fn bands_are_bounded() {
    let bands = |count: usize| {
        let bands: Vec<String> = (0..count)
            .map(|band| format!("{{priority: {band}}}"))
            .collect();
        llm_d(&format!(
            "{GATE}flowControl: {{priorityBands: [{}]}}\n",
            bands.join(", ")
        ))
    };
    assert_eq!(flow(&bands(100)).bands.len(), 100);
    refused(
        &bands(101),
        &[
            "flowControl.priorityBands",
            "found 101 bands, expected at most 100",
        ],
    );
}

#[test]
fn the_detector_says_how_long_evictions_take_to_show() {
    let plugins = "plugins: [{type: concurrency-detector}, {type: metrics-data-source, parameters: {interval: 500ms, stalenessThreshold: 3s}}]\n";
    let detector = |name: &str| {
        flow(&llm_d(&format!("{GATE}{plugins}flowControl: {{enableEviction: true, saturationDetector: {{pluginRef: {name}}}}}\n")))
    };
    let grace = detector("concurrency-detector");
    assert!(grace.eviction);
    assert_eq!(grace.eviction_grace, Duration::from_millis(10));
    let grace = detector("utilization-detector").eviction_grace;
    assert_eq!(grace, Duration::from_millis(3_750));
}

#[test]
fn plans_differ_by_their_flow_control() {
    let plan = |section: &str, detector: &str| {
        let detector = format!("plugins: [{{type: utilization-detector{detector}}}]\n");
        loaded(&llm_d(&format!(
            "{GATE}{detector}flowControl: {{{section}}}\n"
        )))
        .plan
    };
    let plain = plan("", "");
    assert_eq!(plain, plan("maxBytes: 0, defaultRequestTTL: 1m", ""));
    assert_ne!(plain, plan("maxBytes: 1", ""));
    assert_ne!(plain, plan("priorityBands: [{priority: 1}]", ""));
    assert_ne!(plain, plan("", ", parameters: {queueDepthThreshold: 9}"));
    assert_ne!(
        plain,
        loaded(&llm_d("plugins: [{type: utilization-detector}]\n")).plan
    );
}

#[test]
fn documents_that_people_run_have_flow_control() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/configs");
    let mut gated = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let Ok(text) = std::fs::read_to_string(&path) else {
            continue;
        };
        if text.contains("featureGates: [flowControl]") {
            let loaded =
                load(&text).unwrap_or_else(|rejected| panic!("{path:?}: {:?}", rejected.errors));
            assert!(loaded.plan.flow.is_some(), "{path:?}");
            gated += 1;
        }
    }
    assert!(gated >= 5, "{gated}");
}

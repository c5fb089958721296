//! Documents with saturation detectors, objectives, and the feature gate `flowControl`.

use super::dialect_tests::{gie_v1, loaded, warned, PROFILE};
use super::tests::{llm_d, refused};
use crate::scheduling::{HeaderValues, ProfileId};
use crate::testing::pool_with_loads;

#[test]
fn the_saturation_detector_is_found_in_either_section() {
    let plugins = "plugins: [{type: concurrency-detector, name: c}, {type: prefix-cache-scorer}, {type: static-objectives, parameters: {objectives: [{name: batch, priority: -1}]}}]\n";
    let detector = |text: &str| format!("{:?}", loaded(text).plan.admission.shed.unwrap());
    for section in [
        "saturationDetector: {pluginRef: c}\n",
        "flowControl: {saturationDetector: {pluginRef: c}}\n",
        "saturationDetector: {pluginRef: prefix-cache-scorer}\nflowControl: {saturationDetector: {pluginRef: c}}\n",
    ] {
        let text = llm_d(&format!("{plugins}{PROFILE}{section}"));
        assert!(detector(&text).starts_with("ConcurrencyDetector"), "{section}");
        let only = !section.starts_with("flowControl");
        assert_eq!(loaded(&text).warnings.len(), usize::from(only), "the former place is deprecated");
    }
    let text = gie_v1(&format!(
        "{plugins}{PROFILE}saturationDetector: {{pluginRef: c}}\n"
    ));
    assert!(detector(&text).starts_with("ConcurrencyDetector"));
    warned(&text, &[]);
    for (section, place) in [
        (
            "saturationDetector: {pluginRef: d}",
            "saturationDetector.pluginRef",
        ),
        (
            "saturationDetector: {pluginRef: prefix-cache-scorer}",
            "expected a saturation detector",
        ),
        (
            "flowControl: {saturationDetector: {pluginRef: d}}",
            "flowControl.saturationDetector.pluginRef",
        ),
    ] {
        refused(&llm_d(&format!("{plugins}{PROFILE}{section}\n")), &[place]);
    }
}

#[test]
fn the_default_detector_is_that_of_the_dialect() {
    let plugins = "plugins: [{type: prefix-cache-scorer}, {type: static-objectives, parameters: {objectives: [{name: batch, priority: -1}]}}]\n";
    let detector = |of: fn(&str) -> String, section: &str| {
        let plan = loaded(&of(&format!("{plugins}{PROFILE}{section}"))).plan;
        format!("{:?}", plan.admission.shed.unwrap())
    };
    assert!(detector(llm_d, "").starts_with("UtilizationDetector { queue: 5.0, kv_usage: 0.8"));
    let named = "saturationDetector: {pluginRef: utilization-detector}\n";
    assert!(detector(llm_d, named).starts_with("UtilizationDetector"));
    let of = |queue: &str, kv_usage: &str| {
        format!("AnyCapacity {{ queue: {queue}, kv_usage: {kv_usage} }}")
    };
    assert_eq!(detector(gie_v1, ""), of("5.0", "0.8"));
    let thresholds = "saturationDetector: {queueDepthThreshold: 9, kvCacheUtilThreshold: 0.5, metricsStalenessThreshold: 200ms}\n";
    assert_eq!(detector(gie_v1, thresholds), of("9.0", "0.5"));
    // As its predecessor reads what is out of bounds.
    let odd = "saturationDetector: {queueDepthThreshold: -1, kvCacheUtilThreshold: 1.5}\n";
    assert_eq!(detector(gie_v1, odd), of("5.0", "0.8"));
    let text = llm_d(&format!("{plugins}{PROFILE}{thresholds}"));
    refused(
        &text,
        &["saturationDetector.queueDepthThreshold", "unknown field"],
    );
}

#[test]
fn a_plan_that_drops_nothing_measures_nothing() {
    let objectives =
        "{type: static-objectives, parameters: {objectives: [{name: batch, priority: 0}]}}, ";
    for objectives in ["", objectives] {
        let text = llm_d(&format!("plugins: [{objectives}{{type: random-picker}}, {{type: probabilistic-admitter}}]\nflowControl: {{saturationDetector: {{pluginRef: utilization-detector}}}}\n"));
        let plan = loaded(&text).plan;
        assert!(!plan.admission.may_drop() && !plan.needs.any_metric() && plan.load.is_none());
        assert_eq!(plan.headers, [""; 0]);
    }
    let sheddable = objectives.replace("priority: 0", "priority: -1");
    let plan = loaded(&llm_d(&format!(
        "plugins: [{sheddable}{{type: random-picker}}]\n"
    )))
    .plan;
    assert!(
        plan.admission.may_drop()
            && plan.needs.waiting
            && plan.needs.running
            && plan.needs.kv_usage
    );
    assert!(plan.load.is_some(), "what is in flight is counted");
    assert_eq!(plan.headers.len(), 2);
    let untrusted = sheddable.replace("parameters: {", "parameters: {objectiveHeader: false, ");
    let plan = loaded(&llm_d(&format!(
        "plugins: [{untrusted}{{type: random-picker}}]\n"
    )))
    .plan;
    assert!(!plan.admission.may_drop());
    assert_eq!(plan.headers, [""; 0], "no request can have a priority");
}

#[test]
fn only_the_headers_that_are_of_use_are_read() {
    let read = |plugins: &str| {
        let text = llm_d(&format!(
            "featureGates: [flowControl]\nplugins: [{{type: random-picker}}{plugins}]\n"
        ));
        loaded(&text).plan.headers
    };
    let always = [
        "x-llm-d-inference-ttl",
        "x-llm-d-inference-fairness-id",
        "x-gateway-inference-fairness-id",
    ];
    assert_eq!(read(""), always);
    let objectives =
        ", {type: static-objectives, parameters: {objectives: [{name: a, priority: 1}]}}";
    let found = read(objectives);
    assert_eq!(
        found[..2],
        [
            "x-llm-d-inference-objective",
            "x-gateway-inference-objective"
        ]
    );
    assert_eq!(found[2..], always);
    let untrusted = objectives.replace(
        "parameters: {",
        "parameters: {objectiveHeader: false, fairnessIdHeader: false, ",
    );
    assert_eq!(read(&untrusted), always[..1]);
    let agents =
        read(", {type: agent-identity, parameters: {additionalSessionHeaders: [x-agent]}}");
    assert_eq!(agents.len(), 8);
    let text = llm_d("featureGates: [flowControl]\nplugins: [{type: agent-identity}]\n");
    let plan = loaded(&text).plan;
    let order = plan
        .admission
        .headers
        .fairness_id
        .iter()
        .map(|id| plan.headers[id.0].as_str());
    let order: Vec<&str> = order.collect();
    assert_eq!(
        order[..3],
        [always[1], always[2], "x-claude-code-session-id"]
    );
}

#[test]
fn with_flow_control_the_detector_filters_in_all_profiles() {
    let gated = |plugins: &str, section: &str| {
        let text = llm_d(&format!("featureGates: [flowControl]\nplugins: [{plugins}{{type: queue-scorer}}, {{type: decode-filter}}, {{type: prefill-filter}}, {{type: always-disagg-pd-decider}}, {{type: disagg-profile-handler, parameters: {{deciders: {{prefill: always-disagg-pd-decider}}}}}}]\nschedulingProfiles: [{{name: prefill, plugins: [{{pluginRef: prefill-filter}}, {{pluginRef: queue-scorer}}]}}, {{name: decode, plugins: [{{pluginRef: decode-filter}}, {{pluginRef: queue-scorer}}]}}]\n{section}"));
        let plan = loaded(&text).plan;
        let profiles = [ProfileId(0), ProfileId(1)]
            .map(|id| plan.scheduler.profiles().get(id).unwrap().clone());
        profiles.map(|profile| {
            profile
                .filters
                .iter()
                .map(|named| named.name.clone())
                .collect::<Vec<_>>()
        })
    };
    let filters = |detector: Option<&str>| {
        ["prefill-filter", "decode-filter"].map(|own| {
            let names = [Some(own), detector].into_iter().flatten();
            names.map(str::to_owned).collect::<Vec<_>>()
        })
    };
    assert_eq!(gated("", ""), filters(Some("utilization-detector")));
    let named = "flowControl: {saturationDetector: {pluginRef: c}}\n";
    let detector = "{name: c, type: concurrency-detector}, ";
    assert_eq!(gated(detector, named), filters(Some("c")));
    let combined = "{name: c, type: max-saturation-detector, parameters: {detectors: [utilization-detector]}}, {type: utilization-detector}, ";
    assert_eq!(gated(combined, named), filters(None), "it is not a filter");
    let text = llm_d("featureGates: [flowControl]\nplugins: [{name: c, type: concurrency-detector}, {type: queue-scorer}]\nflowControl: {saturationDetector: {pluginRef: c}}\n");
    let plan = loaded(&text).plan;
    assert_eq!(
        plan.scheduler
            .profiles()
            .get(ProfileId(0))
            .unwrap()
            .filters
            .len(),
        1,
        "not twice"
    );
}

#[test]
fn each_of_several_admitters_has_to_admit_a_request_and_draws_for_itself() {
    // 0.2^5 × 300: each drops 9.6 % of the requests.
    let pool = pool_with_loads(&[(1.0, 0.0)]);
    for (names, expected) in [
        (&["a"][..], 0.096),
        (&["a", "b"], 0.183),
        (&["a", "b", "c"], 0.261),
    ] {
        let admitters = names
            .iter()
            .map(|name| format!("{{name: {name}, type: probabilistic-admitter}}, "));
        let text = llm_d(&format!(
            "plugins: [{}{{type: static-objectives, parameters: {{objectives: [{{name: batch, priority: -1}}]}}}}, {{type: random-picker}}]
",
            admitters.collect::<String>()
        ));
        let plan = loaded(&text).plan;
        assert!(plan.needs.random);
        let mut random = fastrand::Rng::with_seed(1);
        let mut dropped = |objective: &str| {
            let mut headers = HeaderValues::default();
            headers.set([Some(objective.as_bytes()); 8]);
            let draws = (0..20_000).map(|_| plan.admission.drops(&headers, random.u64(..), &pool));
            draws.flatten().count() as f64 / 20_000.0
        };
        let share = dropped("batch");
        assert!((share - expected).abs() < 0.015, "{names:?}: {share}");
        assert_eq!(dropped("usual"), 0.0);
    }
}

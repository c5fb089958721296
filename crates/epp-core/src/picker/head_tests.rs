use super::super::testing::{begin, decision, exchange, show};
use super::super::{Effect, Picker};
use super::*;
use crate::time::Timestamp;

const TICK: Timestamp = Timestamp::from_nanos(1_000_000_000);

/// A plan of three endpoints, p0 to p2, with these plugins in its profile.
fn plan(plugins: &str, proxy: &str) -> Plan {
    let names = plugins.lines().filter_map(|line| {
        let name = line.split_once("name: ")?.1;
        Some(format!("{{pluginRef: {}}}", name.split_once(',')?.0))
    });
    let names = names.collect::<Vec<_>>().join(", ");
    let members =
        (0..3).map(|number| format!("{{name: p{number}, address: 10.0.0.{number}, port: 8000}}"));
    let members = members.collect::<Vec<_>>().join(", ");
    let text = format!(
        "apiVersion: llm-d.ai/v1alpha1\n\
         kind: EndpointPickerConfig\n\
         plugins:\n\
         {plugins}\n\
         - {{type: envoy-proxy, parameters: {{fallbackEndpoints: 0{proxy}}}}}\n\
         - {{name: pods, type: static-discovery, parameters: {{endpoints: [{members}]}}}}\n\
         schedulingProfiles: [{{name: default, plugins: [{names}]}}]\n\
         dataLayer: {{discovery: {{pluginRef: pods}}}}\n"
    );
    crate::config::load(&text).unwrap().plan
}

fn picker(plan: Plan) -> Picker {
    let mut picker = Picker::new(plan, 1);
    picker.tick(TICK);
    picker
}

const WANTED: &str = "- {name: wanted, type: test-header-affinity, parameters: {header: X-Wanted}}";

/// The bytes of header names and values.
fn bytes<'a>(pairs: &'a [(&str, &str)]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    let bytes = pairs.iter();
    bytes.map(|(name, value)| (name.as_bytes(), value.as_bytes()))
}

/// Returns where a request without a body is sent.
fn sent(picker: &mut Picker, headers: &[(&str, &str)]) -> Option<String> {
    let plan = picker.plan().clone();
    let mut values = Vec::new();
    let head = Head::read(&plan, bytes(headers), true, &mut values);
    match begin(picker, 1, &head) {
        Some(Effect::Forward { route, .. }) => route.endpoints().next().map(str::to_owned),
        _ => None,
    }
}

#[test]
fn a_plugin_decides_by_a_header_that_it_names() {
    let mut picker = picker(plan(WANTED, ""));
    for number in 0..3 {
        let wanted = format!("default/p{number}");
        let sent = sent(&mut picker, &[(":path", "/"), ("x-wanted", &wanted)]);
        assert_eq!(sent, Some(format!("10.0.0.{number}:8000")));
    }
    assert!(sent(&mut picker, &[(":path", "/")]).is_some());
    assert_eq!(sent(&mut picker, &[("x-wanted", "default/p9")]), None);
    assert_eq!(sent(&mut picker, &[("x-wanted", "")]), None);
    let twice = [("x-wanted", "default/p0"), ("x-wanted", "default/p2")];
    let sent = sent(&mut picker, &twice);
    assert_eq!(
        sent.as_deref(),
        Some("10.0.0.2:8000"),
        "the last one counts"
    );
}

#[test]
fn a_header_that_only_a_picker_may_set_is_not_read() {
    let destination = WANTED.replace("X-Wanted", "x-gateway-destination-endpoint");
    for name in ["x-gateway-destination-endpoint", "x-prefiller-host-port"] {
        let mut picker = picker(plan(
            &destination.replace("x-gateway-destination-endpoint", name),
            "",
        ));
        // Not the reply that a name without an endpoint gets.
        assert!(
            sent(&mut picker, &[(name, "default/p9")]).is_some(),
            "{name}"
        );
    }
    let rewrite = WANTED.replace("X-Wanted", "x-llm-d-model-name-rewrite");
    let headers = [("x-llm-d-model-name-rewrite", "default/p9")];
    assert!(sent(&mut picker(plan(&rewrite, "")), &headers).is_some());
    let mut obeyed = picker(plan(&rewrite, ", rewriteHeader: true"));
    assert_eq!(sent(&mut obeyed, &headers), None);
}

#[test]
fn a_held_request_keeps_its_headers_for_an_early_decision_and_through_a_new_plan() {
    let model = "- {name: lora, type: lora-affinity-scorer}";
    let both = format!("{model}\n{WANTED}");
    let other = WANTED
        .replace("wanted", "other")
        .replace("X-Wanted", "x-other");
    for new in [None, Some(format!("{model}\n{other}\n{WANTED}"))] {
        let mut picker = picker(plan(&both, ""));
        let headers = [
            (":path", "/v1/chat/completions"),
            (":method", "POST"),
            ("content-type", "application/json"),
            ("content-length", "60000"),
            ("x-wanted", "default/p1"),
            ("x-other", "default/p2"),
        ];
        let plan_before = picker.plan().clone();
        let mut values = Vec::new();
        let head = Head::read(&plan_before, bytes(&headers), false, &mut values);
        assert!(
            begin(&mut picker, 1, &head).is_none(),
            "it waits for the model"
        );
        assert!(exchange(&picker, 1).headers.allocated() > 0);
        if let Some(new) = &new {
            picker.install(plan(new, ""));
            picker.tick(TICK);
        }
        assert!(decision(&mut picker).is_none());
        let decided = show(&mut picker, 1, br#"{"model": "m", "messages": ["#, false);
        let Some(Effect::Forward { route, .. }) = decided else {
            panic!("{new:?}: {decided:?}");
        };
        assert_eq!(route.endpoints().next(), Some("10.0.0.1:8000"), "{new:?}");
    }
}

#[test]
fn a_plan_that_reads_no_header_copies_none() {
    let plan = plan("- {name: queue, type: queue-scorer}", "");
    let mut values = Vec::new();
    let headers = [
        ("x-wanted", "default/p1"),
        ("upgrade", "websocket"),
        ("content-length", "x"),
    ];
    let head = Head::read(&plan, bytes(&headers), false, &mut values);
    assert!(head.headers.is_empty() && head.upgrade && head.content_length.is_none());
    assert_eq!(values.capacity(), 0);
}

/// What a client could raise its priority with, where something else is to set it, reaches neither a plugin nor an endpoint.
#[test]
fn headers_that_are_not_trusted_are_removed_and_not_read() {
    let headers = [
        "x-llm-d-inference-objective",
        "x-gateway-inference-objective",
        "x-llm-d-inference-fairness-id",
        "x-gateway-inference-fairness-id",
    ];
    let plan = |settings: &str| {
        let text = format!(
            "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nfeatureGates: [flowControl]\nplugins:\n\
             - {{type: static-objectives, parameters: {{objectives: [{{name: a, priority: 1}}]{settings}}}}}\n\
             - {{type: header-label-affinity-scorer, parameters: {{headerName: {}, labelKey: tenant}}}}\n",
            headers[2]
        );
        crate::config::load(&text).unwrap().plan
    };
    let removed = |settings: &str| {
        let plan = plan(settings);
        headers.map(|name| plan.owned_header(name.as_bytes()).is_some())
    };
    assert_eq!(removed(""), [false; 4]);
    assert_eq!(
        removed(", objectiveHeader: false"),
        [true, true, false, false]
    );
    assert_eq!(
        removed(", fairnessIdHeader: false"),
        [false, false, true, true]
    );
    let read = |settings: &str| {
        let plan = plan(settings);
        let sent = headers.map(|name| (name.as_bytes(), &b"a"[..]));
        let mut values = Vec::new();
        let head = Head::read(&plan, sent.into_iter(), true, &mut values);
        head.headers.iter().flatten().count()
    };
    assert_eq!(read(""), 4);
    // A plugin asks for one of them as well.
    assert_eq!(read(", objectiveHeader: false, fairnessIdHeader: false"), 0);
}

//! Dry runs: what is decided, and what follows from where the host sends requests.

use super::super::testing::{begin, close, decisions, pass, NOW};
use super::super::{ExchangeId, Head, Picker, ResponseOrigin};
use super::*;
use crate::config;
use crate::metrics::definitions::FALLBACKS;
use crate::scheduling::Slot;

/// Returns a picker of the endpoints 10.0.0.1 to 10.0.0.3.
fn picker(dry_run: bool) -> Picker {
    let members = (1..4).map(|n| format!("{{name: p{n}, address: 10.0.0.{n}, port: 80}}"));
    let members = members.collect::<Vec<_>>().join(", ");
    let text = format!(
        "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{{type: max-score-picker}}, {{type: prefix-cache-scorer}},
  {{type: envoy-proxy, parameters: {{dryRun: {dry_run}}}}},
  {{name: pods, type: static-discovery, parameters: {{endpoints: [{members}]}}}}]
schedulingProfiles: [{{name: default, plugins: [{{pluginRef: prefix-cache-scorer}}, {{pluginRef: max-score-picker}}]}}]
dataLayer: {{discovery: {{pluginRef: pods}}}}
"
    );
    let mut picker = Picker::new(config::load(&text).unwrap().plan, 1);
    picker.tick(NOW);
    picker
}

fn body() -> Vec<u8> {
    let prompt = "A prompt of several blocks. ".repeat(200);
    format!(r#"{{"model": "m", "prompt": "{prompt}"}}"#).into_bytes()
}

/// Shows a request. Returns whether it was held, and its outcomes.
fn send(picker: &mut Picker, id: u32) -> (bool, Vec<Effect>) {
    let body = body();
    let head = Head::post_json("/v1/completions", Some(body.len()));
    picker.request_headers(NOW, ExchangeId(id), &head);
    let effects: Vec<Effect> = std::iter::from_fn(|| picker.poll_effect()).collect();
    let holds = effects
        .iter()
        .any(|effect| matches!(effect, Effect::Hold { .. }));
    let outcome = pass(picker, id, 0, &body, true);
    (holds, outcome.into_iter().collect())
}

/// The endpoint at this address responds.
fn respond(picker: &mut Picker, id: u32, server: Option<&str>, status: u16) {
    assert!(picker.wants_upstream(ExchangeId(id)));
    let upstream = Upstream {
        server: server.map(|server| server.as_bytes().to_vec()),
        status: Some(status),
        origin: ResponseOrigin::Endpoint,
        ..Upstream::default()
    };
    picker.response_headers(NOW, ExchangeId(id), Some(&upstream));
}

fn counted(picker: &Picker) -> u64 {
    picker
        .dispatcher
        .statistics
        .registry
        .total(&DRY_RUN_DECISIONS)
}

fn in_flight(picker: &Picker) -> [usize; 3] {
    [0, 1, 2].map(|slot| picker.dispatcher.endpoints.loads.in_flight(Slot(slot)))
}

#[test]
fn nothing_is_held_and_the_host_chooses() {
    let mut picker = picker(true);
    let (held, outcomes) = send(&mut picker, 1);
    assert!(!held);
    assert!(
        matches!(outcomes[..], [Effect::Bypass { rewrite: None, .. }]),
        "{outcomes:?}"
    );
    assert_eq!(in_flight(&picker), [0; 3], "it is nowhere yet");
    let mut picker = self::picker(false);
    assert!(send(&mut picker, 1).0);
}

#[test]
fn what_is_known_follows_where_requests_went() {
    let mut picker = picker(true);
    send(&mut picker, 1);
    respond(&mut picker, 1, Some("10.0.0.2:80"), 200);
    assert_eq!(in_flight(&picker), [0, 1, 0]);
    close(&mut picker, 1);
    assert_eq!(in_flight(&picker), [0; 3]);
    // The same prompt would be sent where it was served.
    for id in 2..6 {
        send(&mut picker, id);
        let exchange = picker.exchanges.get(ExchangeId(id)).unwrap();
        assert_eq!(exchange.picked(), Some(Some("10.0.0.2:80")));
        close(&mut picker, id);
    }
    assert_eq!(counted(&picker), 1, "what had no response is not counted");
}

#[test]
fn a_failed_response_proves_nothing_and_ejects_nobody() {
    let mut picker = picker(true);
    for id in 0..20 {
        send(&mut picker, id);
        respond(&mut picker, id, Some("10.0.0.2:80"), 500);
        close(&mut picker, id);
    }
    let outliers = &picker.dispatcher.endpoints.monitor.outliers;
    assert_eq!([0, 1, 2].map(|slot| outliers.reason(Slot(slot))), [None; 3]);
    assert_eq!(picker.dispatcher.prefixes.fill().entries, 0);
    assert_eq!(counted(&picker), 20);
}

#[test]
fn a_request_that_no_endpoint_of_the_pool_has_served_counts_nowhere() {
    for server in [None, Some("10.9.9.9:80")] {
        let mut picker = picker(true);
        send(&mut picker, 1);
        respond(&mut picker, 1, server, 503);
        assert_eq!(in_flight(&picker), [0; 3]);
        close(&mut picker, 1);
        assert_eq!(counted(&picker), 1);
    }
}

#[test]
fn a_response_before_the_decision_has_it_made_with_what_was_read() {
    let mut picker = picker(true);
    let head = Head::post_json("/v1/completions", Some(100_000));
    assert!(begin(&mut picker, 1, &head).is_none());
    respond(&mut picker, 1, Some("10.0.0.1:80"), 400);
    assert_eq!(decisions(&mut picker).len(), 1);
    assert_eq!(counted(&picker), 1);
    close(&mut picker, 1);
    assert_eq!(in_flight(&picker), [0; 3]);
}

#[test]
fn an_empty_pool_refuses_nobody() {
    let mut picker = picker(true);
    picker.dispatcher.plan.settings.failure_mode = config::settings::FailureMode::FailClose;
    let changes = picker.dispatcher.endpoints.monitor.store.set_members(&[]);
    picker.dispatcher.apply_changes(&changes);
    let (_, outcomes) = send(&mut picker, 1);
    assert!(
        matches!(outcomes[..], [Effect::Bypass { .. }]),
        "{outcomes:?}"
    );
}

#[test]
fn a_request_before_the_members_are_known_is_no_fallback() {
    for (dry_run, fallbacks) in [(true, 0), (false, 1)] {
        let text = format!(
            "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{{type: queue-scorer}}, {{type: envoy-proxy, parameters: {{dryRun: {dry_run}}}}},
  {{name: pods, type: envoy-cluster-discovery, parameters: {{clusters: [pool]}}}}]
schedulingProfiles: [{{name: default, plugins: [{{pluginRef: queue-scorer}}]}}]
dataLayer: {{discovery: {{pluginRef: pods}}}}
"
        );
        let mut picker = Picker::new(config::load(&text).unwrap().plan, 1);
        picker.tick(NOW);
        send(&mut picker, 1);
        let registry = &picker.dispatcher.statistics.registry;
        assert_eq!(registry.total(&FALLBACKS), fallbacks, "{dry_run}");
    }
}

use super::*;
use crate::config;
use crate::picker::status::DecisionBasis;
use crate::picker::testing::{begin, close, NOW};
use crate::picker::{Effect, ExchangeId, Head};
use crate::scheduling::Health;
use crate::testing::waiting;

const PLAN: &str = "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: queue-scorer}
- {type: envoy-proxy, parameters: {explain: true}}
- name: pods
  type: static-discovery
  parameters: {endpoints: [{name: a, address: 10.0.0.1, port: 80}, {name: b, address: 10.0.0.2, port: 80}]}
schedulingProfiles: [{name: default, plugins: [{pluginRef: queue-scorer, weight: 3}]}]
dataLayer: {discovery: {pluginRef: pods}}
";

/// A picker of two endpoints: the first one has a queue, the second none.
fn picker(plan: &str) -> Picker {
    let plan = config::load(plan).unwrap().plan;
    let mut picker = Picker::new(plan, 1);
    picker.tick(NOW);
    for (slot, queue) in [(Slot(0), 4.0), (Slot(1), 0.0)] {
        picker
            .dispatcher
            .endpoints
            .monitor
            .store
            .set_metrics(slot, waiting(queue), false, NOW);
    }
    picker.tick(NOW);
    picker
}

fn decide(picker: &mut Picker, id: u32, explain: bool) -> Effect {
    let head = Head {
        model: b"llama",
        explain,
        end: true,
        ..Head::default()
    };
    begin(picker, id, &head).expect("nothing to wait for")
}

#[test]
fn no_decision_is_recorded_before_the_status_is_requested() {
    let mut picker = picker(PLAN);
    decide(&mut picker, 1, false);
    (0..100).for_each(|_| picker.tick(NOW));
    assert!(picker.dispatcher.view.decisions.is_empty());
    assert!(picker.status().decisions.is_empty());
}

#[test]
fn decisions_are_recorded_with_their_scores_until_they_are_no_longer_observed() {
    let mut picker = picker(PLAN);
    picker.status();
    decide(&mut picker, 1, false);
    let status = picker.status();
    assert_eq!(
        status.legends[0].scorers,
        [("queue-scorer".to_owned(), 3.0)]
    );
    let shown = &status.decisions[0];
    assert_eq!((shown.candidates, shown.picks, shown.number), (2, 1, 1));
    let best: Vec<_> = shown.best.iter().map(|one| (one.slot, one.sum)).collect();
    assert_eq!(best, [(Some(1), 3.0), (Some(0), 0.0)]);
    assert_eq!(shown.best[0].scores, [1.0]);
    assert_eq!((status.counts.decided, status.picks), (1, vec![(1, 1)]));
    assert_eq!(
        (status.decision_basis, status.polls, status.under_way.0),
        (DecisionBasis::Metrics, true, 1)
    );
    let plugins = picker.peers().plan_summary().plugins;
    assert_eq!(plugins[0].weight, Some(3.0));
    assert_eq!(plugins[0].profile, "default");

    picker.stop_recording();
    assert!(picker.dispatcher.view.decisions.is_empty());
    decide(&mut picker, 2, false);
    assert!(picker.dispatcher.view.decisions.is_empty());
}

#[test]
fn under_load_no_more_is_noted_than_is_shown() {
    let mut picker = picker(PLAN);
    picker.status();
    for id in 0..500 {
        decide(&mut picker, id, false);
        close(&mut picker, id);
    }
    assert_eq!(picker.dispatcher.view.decisions.len(), MAX_DECISIONS);
    assert!(!picker.dispatcher.view.wants());
    let report = picker.status();
    assert_eq!(
        report.decisions.last().unwrap().number,
        MAX_DECISIONS as u64
    );
    assert_eq!(report.counts.decided, 500);
    decide(&mut picker, 1, false);
    let last = picker.dispatcher.view.decisions.back().unwrap();
    assert_eq!(
        (picker.dispatcher.view.decisions.len(), last.number),
        (MAX_DECISIONS, 501)
    );
    let size = serde_json::to_vec(&report).unwrap().len();
    assert!(size < 16 << 10, "{size}");
}

#[test]
fn only_a_client_that_requests_the_scores_gets_them() {
    let mut picker = picker(PLAN);
    picker.status();
    decide(&mut picker, 1, false);
    decide(&mut picker, 2, true);
    for id in [1, 2].map(ExchangeId) {
        picker.response_headers(NOW, id, None);
    }
    let explained = std::iter::from_fn(|| picker.poll_effect());
    let explained: Vec<Effect> = explained.collect();
    assert!(matches!(
        explained[..],
        [Effect::SetResponseHeader {
            id: ExchangeId(2),
            ..
        }]
    ));
    assert_eq!(picker.dispatcher.view.decisions.len(), 2);
}

#[test]
fn an_endpoint_that_left_passes_its_name_to_no_other() {
    let mut view = View {
        wanted: 1,
        ..View::default()
    };
    let mut explanation = Explanation::default();
    for slot in [0, 1].map(Slot) {
        let scored = crate::scheduling::Scored { slot, score: 1.0 };
        explanation.ranking.push(scored);
    }
    let shown = RecentDecision {
        best: best(&explanation),
        ..RecentDecision::default()
    };
    view.record(shown, &explanation);
    view.forget(Slot(1));
    let slots: Vec<_> = view.decisions[0].best.iter().map(|one| one.slot).collect();
    assert_eq!(slots, [Some(0), None]);
}

#[test]
fn a_refused_endpoint_is_shown_with_the_reason() {
    let mut picker = picker(PLAN);
    picker.status();
    for slot in [0, 1].map(Slot) {
        picker.fixture().pool().get_mut(slot).unwrap().health = Health::Unhealthy;
    }
    let decision = decide(&mut picker, 1, false);
    assert!(matches!(decision, Effect::Reply { .. }));
    let shown = picker.dispatcher.view.decisions.back().unwrap();
    assert!(shown.best.is_empty() && shown.error.is_some(), "{shown:?}");
}

#[test]
fn long_names_are_cut_between_characters() {
    assert_eq!(beginning("ab", 2), "ab");
    assert_eq!(beginning("aé", 2), "a…");
    assert_eq!(beginning("日本", 4), "日…");
}

#[test]
fn requests_before_discovery_are_not_counted_as_fallbacks() {
    const UNDISCOVERED: &str = "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: queue-scorer}, {type: envoy-proxy, parameters: {failureMode: FailOpen}}]
schedulingProfiles: [{name: default, plugins: [{pluginRef: queue-scorer}]}]
";
    let plan = config::load(UNDISCOVERED).unwrap().plan;
    let mut picker = Picker::new(plan, 1);
    let effect = decide(&mut picker, 1, false);
    assert!(matches!(effect, Effect::Bypass { .. }), "{effect:?}");
    assert_eq!(picker.status().counts.fallbacks, 0);
    // A defect is counted as the failure mode says.
    picker.recovery().count_defect();
    assert_eq!(picker.status().counts.fallbacks, 1);
}

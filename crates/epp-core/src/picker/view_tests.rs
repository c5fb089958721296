use super::*;
use crate::config;
use crate::picker::testing::{begin, close, show};
use crate::picker::{meter, Effect, ExchangeId, Head};
use crate::testing::waiting;
use crate::worker::report::watch;
use crate::worker::Local;

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

/// A picker that is alone and has a seat: the first endpoint has a queue, the second none.
pub fn picker(plan: &str, memory: &mut Local) -> Picker {
    let plan = config::load(plan).unwrap().plan;
    let meter = Box::new(meter::Unmetered);
    let mut picker = Picker::new("epp", plan.clone(), 1, meter, || 1_000_000_000_000);
    picker.install(plan, 1);
    ticks(&mut picker, memory, 2);
    for (slot, queue) in [(Slot(0), 4.0), (Slot(1), 0.0)] {
        picker
            .watch
            .store
            .set_metrics(slot, waiting(queue), false, 1_000_000);
    }
    ticks(&mut picker, memory, 1);
    picker
}

pub fn ticks(picker: &mut Picker, memory: &mut Local, count: u32) {
    (0..count).for_each(|_| drop(picker.tick(1, memory)));
}

pub fn ask(picker: &mut Picker, id: u32, explain: bool) -> Effect {
    let head = Head {
        model: b"llama",
        explain,
        end: true,
        ..Head::default()
    };
    begin(picker, id, &head).expect("nothing to wait for")
}

fn told(picker: &Picker, memory: &mut Local) -> Option<Report> {
    report::read(&picker.watch.share.seat()?.0, memory)
}

#[test]
fn nothing_is_kept_or_told_while_nobody_looks() {
    let mut memory = Local::default();
    let mut picker = picker(PLAN, &mut memory);
    ask(&mut picker, 1, false);
    let count = memory.count();
    ticks(&mut picker, &mut memory, 100);
    assert!(picker.view.decisions.is_empty());
    assert_eq!((told(&picker, &mut memory), memory.count()), (None, count));
}

#[test]
fn decisions_are_told_with_their_scores_until_the_audience_leaves() {
    let mut memory = Local::default();
    let mut picker = picker(PLAN, &mut memory);
    watch(&mut memory);
    ticks(&mut picker, &mut memory, 1);
    ask(&mut picker, 1, false);
    ticks(&mut picker, &mut memory, REPORT_EACH);
    let report = told(&picker, &mut memory).unwrap();
    assert_eq!(
        report.legends[0].scorers,
        [("queue-scorer".to_owned(), 3.0)]
    );
    let shown = &report.decisions[0];
    assert_eq!((shown.candidates, shown.picks, shown.number), (2, 1, 1));
    let best: Vec<_> = shown.best.iter().map(|one| (one.slot, one.sum)).collect();
    assert_eq!(best, [(Some(1), 3.0), (Some(0), 0.0)]);
    assert_eq!(shown.best[0].scores, [1.0]);
    assert_eq!((report.counts.decided, report.picks), (1, vec![(1, 1)]));
    assert_eq!(
        (report.rung, report.polls, report.under_way.0),
        (2, true, 1)
    );
    let plan = report::plan(picker.watch.share.base(), &mut memory).unwrap();
    assert_eq!((plan.plan, plan.parts[0].weight), (report.plan, Some(3.0)));
    assert_eq!(plan.parts[0].profile, "default");

    ticks(&mut picker, &mut memory, 300);
    assert!(!picker.view.is_watched() && picker.view.decisions.is_empty());
    ask(&mut picker, 2, false);
    assert!(picker.view.decisions.is_empty());
}

#[test]
fn under_load_no_more_is_noted_than_is_shown() {
    let mut memory = Local::default();
    let mut picker = picker(PLAN, &mut memory);
    watch(&mut memory);
    ticks(&mut picker, &mut memory, 1);
    for id in 0..500 {
        ask(&mut picker, id, false);
        close(&mut picker, id);
    }
    assert_eq!(picker.view.decisions.len(), KEPT);
    assert!(!picker.view.wants());
    ticks(&mut picker, &mut memory, REPORT_EACH);
    let report = told(&picker, &mut memory).unwrap();
    assert_eq!(report.decisions.last().unwrap().number, KEPT as u64);
    assert_eq!(report.counts.decided, 500);
    ask(&mut picker, 1, false);
    let last = picker.view.decisions.back().unwrap();
    assert_eq!((picker.view.decisions.len(), last.number), (KEPT, 501));
    let size = serde_json::to_vec(&report).unwrap().len();
    assert!(size < 16 << 10, "{size}");
}

#[test]
fn only_a_client_that_asks_is_told_why() {
    let mut memory = Local::default();
    let mut picker = picker(PLAN, &mut memory);
    watch(&mut memory);
    ticks(&mut picker, &mut memory, 1);
    ask(&mut picker, 1, false);
    ask(&mut picker, 2, true);
    for id in [1, 2].map(ExchangeId) {
        picker.answered(id, None, &mut memory);
    }
    let explained = std::iter::from_fn(|| picker.poll_effect());
    let explained: Vec<Effect> = explained.collect();
    assert!(matches!(
        explained[..],
        [Effect::Explain {
            id: ExchangeId(2),
            ..
        }]
    ));
    assert_eq!(picker.view.decisions.len(), 2);
}

#[test]
fn an_endpoint_that_left_lends_its_name_to_nobody() {
    let mut view = View {
        wanted: 1,
        ..View::default()
    };
    let mut explanation = Explanation::default();
    for slot in [0, 1].map(Slot) {
        let scored = crate::scheduling::Scored { slot, score: 1.0 };
        explanation.ranking.push(scored);
    }
    let shown = Shown {
        best: best(&explanation),
        ..Shown::default()
    };
    view.note(shown, &explanation);
    view.forget(Slot(1));
    let slots: Vec<_> = view.decisions[0].best.iter().map(|one| one.slot).collect();
    assert_eq!(slots, [Some(0), None]);
}

#[test]
fn who_is_refused_is_shown_with_the_reason() {
    let mut memory = Local::default();
    let mut picker = picker(PLAN, &mut memory);
    watch(&mut memory);
    ticks(&mut picker, &mut memory, 1);
    for slot in [0, 1].map(Slot) {
        picker.watch.store.pool.get_mut(slot).unwrap().available = false;
    }
    let decision = ask(&mut picker, 1, false);
    assert!(matches!(decision, Effect::Reply { .. }));
    let shown = picker.view.decisions.back().unwrap();
    assert!(shown.best.is_empty() && shown.error.is_some(), "{shown:?}");
}

#[test]
fn long_names_are_cut_between_characters() {
    assert_eq!(beginning("ab", 2), "ab");
    assert_eq!(beginning("aé", 2), "a…");
    assert_eq!(beginning("日本", 4), "日…");
}

#[test]
fn all_that_is_shared_has_a_mark_and_a_checksum() {
    let mut memory = Local::default();
    let plan = PLAN.replace("queue-scorer", "prefix-cache-scorer");
    let mut first = picker(&plan, &mut memory);
    watch(&mut memory);
    for id in 0..3 {
        let text = format!(r#"{{"model": "m", "prompt": "{}"}}"#, "p".repeat(2_000));
        let head = Head {
            path: b"/v1/completions",
            method: b"POST",
            content_type: b"application/json",
            content_length: Some(text.len()),
            ..Head::default()
        };
        begin(&mut first, id, &head);
        show(&mut first, id, text.as_bytes(), true);
        ticks(&mut first, &mut memory, REPORT_EACH);
    }
    let mut kinds = std::collections::BTreeSet::new();
    for (key, value) in memory.values() {
        // What is no longer needed is emptied.
        let sealed = value.is_empty() || crate::worker::pack::Reader::open(value).is_some();
        assert!(sealed, "{key}: {value:?}");
        let kind = key.rsplit('/').find(|part| part.parse::<u32>().is_err());
        kinds.extend(kind.map(str::to_owned));
    }
    let expected = [
        "lease", "members", "plan", "pools", "report", "seat", "watched",
    ];
    for kind in expected {
        assert!(kinds.contains(kind), "{kind}: {kinds:?}");
    }
}

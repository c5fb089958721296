use std::time::Duration;

use super::super::peers::{EndpointLoad, IndexPeer};
use super::super::testing::{close, NOW};
use super::super::{Picker, ResponseOrigin};
use super::*;
use crate::config;
use crate::endpoints::store::Condition;
use crate::scheduling::Slot;
use crate::time::Timestamp;

const PAGE: &[u8] =
    b"vllm:num_requests_waiting 7\nvllm:num_requests_running 5\nvllm:kv_cache_usage_perc 0.5\n";

const REPORT: &str =
    "TEXT named_metrics.kv_cache_usage_perc=0.25, named_metrics.num_requests_waiting=2.0";

fn at(millis: u64) -> Timestamp {
    NOW.after(Duration::from_millis(millis))
}

/// A picker of two endpoints whose pages were read.
fn picker(scorer: &str, parameters: &str) -> Picker {
    let text = format!(
        "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{{type: {scorer}}}, {{type: envoy-proxy, parameters: {parameters}}},
  {{name: pods, type: static-discovery, parameters: {{endpoints: [{{name: a, address: 10.0.0.1, port: 80}},
    {{name: b, address: 10.0.0.2, port: 80}}]}}}}]
schedulingProfiles: [{{name: default, plugins: [{{pluginRef: {scorer}}}]}}]
dataLayer: {{discovery: {{pluginRef: pods}}}}
"
    );
    let mut picker = Picker::new(config::load(&text).unwrap().plan, 1);
    picker.tick(NOW);
    for slot in [0, 1].map(Slot) {
        picker.fixture().read_page(NOW, slot, PAGE);
    }
    picker
}

/// Sends a request with a body. Returns where to, and the headers that are set on it.
fn send(picker: &mut Picker, id: u32, asks_load: bool) -> (Slot, Vec<(&'static str, String)>) {
    let head = Head {
        path: b"/v1/completions",
        method: b"POST",
        asks_load,
        ..Head::default()
    };
    picker.request_headers(NOW, ExchangeId(id), &head);
    let mut sent = None;
    while let Some(effect) = picker.poll_effect() {
        if let Effect::Forward { route, .. } = effect {
            let address = route.endpoints().next().unwrap().to_owned();
            let slot = picker.pool().find_by(|one| *one.address == *address);
            sent = Some((slot.unwrap(), route.headers));
        }
    }
    sent.unwrap()
}

/// Responds with this report from the endpoint in a slot. Returns the headers that are removed from the response.
fn report(
    picker: &mut Picker,
    now: Timestamp,
    id: u32,
    slot: Slot,
    value: &str,
) -> Vec<&'static str> {
    let upstream = Upstream {
        server: Some(format!("10.0.0.{}:80", slot.0 + 1).into_bytes()),
        status: Some(200),
        origin: ResponseOrigin::Endpoint,
        load_report: Some(value.as_bytes().to_vec()),
        ..Upstream::default()
    };
    picker.response_headers(now, ExchangeId(id), Some(&upstream));
    let effects = std::iter::from_fn(|| picker.poll_effect());
    let removed = effects.filter_map(|effect| match effect {
        Effect::RemoveResponseHeader { name, .. } => Some(name),
        _ => None,
    });
    removed.collect()
}

/// The waiting and running requests and the KV-cache utilization of the endpoint in a slot.
fn values(picker: &Picker, slot: Slot) -> [Option<f64>; 3] {
    let metrics = &picker.pool().get(slot).unwrap().metrics;
    [metrics.waiting, metrics.running, metrics.kv_usage]
}

const OF_PAGE: [Option<f64>; 3] = [Some(7.0), Some(5.0), Some(0.5)];
const REPORTED: [Option<f64>; 3] = [Some(2.0), Some(5.0), Some(0.25)];

#[test]
fn a_report_takes_the_place_of_what_the_page_said_until_the_next_page() {
    let mut picker = picker("queue-scorer", "{}");
    let (slot, headers) = send(&mut picker, 1, true);
    assert_eq!(headers, [], "the client's own header is passed on as it is");
    assert!(picker.wants_load_report(ExchangeId(1)));
    let removed = report(&mut picker, at(10), 1, slot, REPORT);
    assert_eq!(removed, [""; 0], "the client has asked for it");
    assert_eq!(values(&picker, slot), REPORTED);
    assert_eq!(values(&picker, Slot(1 - slot.0)), OF_PAGE);
    picker.fixture().read_page(at(20), slot, PAGE);
    assert_eq!(values(&picker, slot), OF_PAGE);
}

#[test]
fn a_report_is_asked_for_where_the_document_says_so_and_removed() {
    let mut picker = picker("queue-scorer", "{requestLoadMetrics: true}");
    let (slot, headers) = send(&mut picker, 1, false);
    assert_eq!(headers, [(LOAD_FORMAT_HEADER, "text".to_owned())]);
    assert!(picker.wants_load_report(ExchangeId(1)));
    assert_eq!(report(&mut picker, NOW, 1, slot, REPORT), [LOAD_HEADER]);
    assert_eq!(values(&picker, slot), REPORTED);
    // Also one that says nothing that is known here.
    let (slot, _) = send(&mut picker, 2, false);
    let before = values(&picker, slot);
    assert_eq!(
        report(&mut picker, NOW, 2, slot, "TEXT cpu=1"),
        [LOAD_HEADER]
    );
    assert_eq!(values(&picker, slot), before);
    let (slot, headers) = send(&mut picker, 3, true);
    assert_eq!(headers, []);
    assert_eq!(report(&mut picker, NOW, 3, slot, REPORT), [""; 0]);
}

#[test]
fn no_response_is_searched_that_was_not_asked_for_or_whose_report_nobody_reads() {
    for (scorer, parameters, asks_load) in [
        ("queue-scorer", "{}", false),
        ("active-request-scorer", "{requestLoadMetrics: true}", true),
    ] {
        let mut picker = picker(scorer, parameters);
        let (_, headers) = send(&mut picker, 1, asks_load);
        assert_eq!(headers, []);
        assert!(!picker.wants_load_report(ExchangeId(1)), "{scorer}");
    }
    let mut picker = picker("queue-scorer", "{requestLoadMetrics: true}");
    let head = Head {
        path: b"/v1/models",
        method: b"GET",
        end: true,
        ..Head::default()
    };
    picker.request_headers(NOW, ExchangeId(1), &head);
    assert!(
        !picker.wants_load_report(ExchangeId(1)),
        "it takes no engine"
    );
}

#[test]
fn a_report_is_about_the_server_that_has_sent_it() {
    let mut picker = picker("queue-scorer", "{}");
    let (slot, _) = send(&mut picker, 1, true);
    let other = Slot(1 - slot.0);
    report(&mut picker, NOW, 1, other, REPORT);
    assert_eq!(values(&picker, slot), OF_PAGE);
    assert_eq!(values(&picker, other), REPORTED);
    send(&mut picker, 2, true);
    report(&mut picker, NOW, 2, Slot(7), REPORT);
    assert_eq!(values(&picker, slot), OF_PAGE);
}

#[test]
fn reports_are_counted_by_whether_they_are_used() {
    let mut picker = picker("queue-scorer", "{requestLoadMetrics: true}");
    let counts = |picker: &mut Picker| {
        let registry = &mut picker.dispatcher.statistics.registry;
        [ReportStatus::Used, ReportStatus::Unused].map(|status| {
            let counter = registry.counter(LOAD_REPORTS, status);
            registry.counted(counter)
        })
    };
    let (slot, _) = send(&mut picker, 1, false);
    report(&mut picker, NOW, 1, slot, REPORT);
    assert_eq!(counts(&mut picker), [1, 0]);
    // Triton's.
    let of_cache = "TEXT named_metrics.kv_cache_utilization=0.2";
    for (id, slot, value, expected) in [
        (2, slot, of_cache, [2, 0]),
        (3, slot, "TEXT cpu=1", [2, 1]),
        (4, Slot(7), REPORT, [2, 2]),
    ] {
        send(&mut picker, id, false);
        report(&mut picker, NOW, id, slot, value);
        assert_eq!(counts(&mut picker), expected);
    }
    send(&mut picker, 5, false);
    close(&mut picker, 5);
    assert_eq!(counts(&mut picker), [2, 2], "no report came");
}

/// A page of another picker's that was read then.
fn adopt(picker: &mut Picker, slot: Slot, read: Timestamp) {
    let condition = Condition {
        scraped: Some(read),
        ..Condition::default()
    };
    let mut page = picker.pool().get(slot).unwrap().metrics.clone();
    [page.waiting, page.running, page.kv_usage] = OF_PAGE;
    picker.peers().adopt_metrics(vec![(slot, condition, page)]);
}

#[test]
fn a_page_that_was_read_before_a_report_comes_too_late() {
    let mut picker = picker("queue-scorer", "{}");
    picker.peers().set_polling(false);
    let (slot, _) = send(&mut picker, 1, true);
    report(&mut picker, at(100), 1, slot, REPORT);
    // The same page once more, because that of another endpoint has changed.
    adopt(&mut picker, slot, NOW);
    assert_eq!(values(&picker, slot), REPORTED);
    adopt(&mut picker, slot, at(90));
    assert_eq!(values(&picker, slot), REPORTED);
    adopt(&mut picker, slot, at(110));
    assert_eq!(values(&picker, slot), OF_PAGE);
    // The clock is set back by an hour after the next report.
    let (slot, _) = send(&mut picker, 2, true);
    report(&mut picker, at(7_200_000), 2, slot, REPORT);
    adopt(&mut picker, slot, at(3_600_000));
    assert_eq!(values(&picker, slot), OF_PAGE);
}

#[test]
fn requests_that_a_report_shows_are_not_added_to_it() {
    let mut picker = picker("queue-scorer", "{}");
    let unseen = |picker: &Picker, slot| picker.pool().load(slot).unseen;
    let published = |picker: &mut Picker| {
        let mut loads = Vec::new();
        picker.peers().own_loads(&mut loads);
        loads.iter().map(|load| load.unseen).sum::<u32>()
    };
    let mut at_first = Vec::new();
    for id in 1..=8 {
        if send(&mut picker, id, true).0 == Slot(0) {
            at_first.push(id);
        }
    }
    let [first, second, third, rest @ ..] = at_first.as_slice() else {
        panic!("{at_first:?}");
    };
    let before = at_first.len() as u32;
    assert_eq!(unseen(&picker, Slot(0)), before);
    report(&mut picker, NOW, *first, Slot(0), REPORT);
    assert_eq!(unseen(&picker, Slot(0)), 0);
    // The others have the page alone.
    assert_eq!(published(&mut picker), 7);
    // One that was sent before the report ends, and another one after it.
    close(&mut picker, *second);
    assert_eq!(unseen(&picker, Slot(0)), 0);
    let mut later = 20;
    while send(&mut picker, later, true).0 != Slot(0) {
        later += 1;
    }
    assert_eq!(unseen(&picker, Slot(0)), 1);
    close(&mut picker, *third);
    assert_eq!(unseen(&picker, Slot(0)), 1);
    close(&mut picker, later);
    assert_eq!(unseen(&picker, Slot(0)), 0);
    rest.iter().for_each(|id| close(&mut picker, *id));
    assert_eq!(unseen(&picker, Slot(0)), 0);
    // None of those that have ended makes a later one seen.
    later += 1;
    while send(&mut picker, later, true).0 != Slot(0) {
        later += 1;
    }
    assert_eq!(unseen(&picker, Slot(0)), 1);
}

#[test]
fn requests_that_other_pickers_send_after_a_report_are_added_to_it() {
    let mut picker = picker("queue-scorer", "{}");
    let (slot, _) = send(&mut picker, 1, true);
    let mut own = Vec::new();
    picker.peers().own_loads(&mut own);
    let unseen_with = |picker: &mut Picker, unseen: u32| {
        let others = own.iter().map(|load| EndpointLoad {
            requests: unseen,
            unseen,
            ..*load
        });
        let others: Vec<EndpointLoad> = others.collect();
        let mut lists = std::iter::once(others.as_slice());
        picker.peers().set_peer_loads(&mut lists);
        picker.pool().load(slot).unseen
    };
    assert_eq!(unseen_with(&mut picker, 5), 6, "its own is one of them");
    report(&mut picker, NOW, 1, slot, REPORT);
    assert_eq!(unseen_with(&mut picker, 5), 0);
    assert_eq!(unseen_with(&mut picker, 7), 2);
    assert_eq!(unseen_with(&mut picker, 3), 0, "some have ended");
    assert_eq!(unseen_with(&mut picker, 5), 2);
    assert_eq!(unseen_with(&mut picker, 0), 0, "all have ended");
    assert_eq!(unseen_with(&mut picker, 5), 5);
}

#[test]
fn after_the_next_page_requests_are_added_as_before() {
    let mut picker = picker("queue-scorer", "{}");
    let sent = |picker: &mut Picker, ids: std::ops::Range<u32>| {
        let slots: Vec<Slot> = ids.map(|id| send(picker, id, true).0).collect();
        [0, 1].map(|slot| slots.iter().filter(|one| one.0 == slot).count() as u32)
    };
    let unseen = |picker: &Picker| [0, 1].map(|slot| picker.pool().load(Slot(slot)).unseen);
    let before = sent(&mut picker, 1..9);
    assert_eq!(unseen(&picker), before);
    for slot in [0, 1].map(Slot) {
        report(&mut picker, NOW, slot.0 + 1, slot, REPORT);
    }
    assert_eq!(unseen(&picker), [0, 0]);
    picker.peers().set_polling(false);
    (0..2).for_each(|slot| adopt(&mut picker, Slot(slot), at(10)));
    let after = sent(&mut picker, 11..19);
    assert_eq!(unseen(&picker), after);
    // Those that were sent before the page are in it.
    (1..9).for_each(|id| close(&mut picker, id));
    assert_eq!(unseen(&picker), after);
    (11..19).for_each(|id| close(&mut picker, id));
    assert_eq!(unseen(&picker), [0, 0]);
}

//! Endpoints that hang: found among many requests under way, while those that respond cost nothing.

use std::time::Duration;

use super::super::testing::{begin, close, respond, NOW};
use super::super::{ExchangeId, Head};
use super::*;
use crate::body::SliceBody;
use crate::config;
use crate::endpoints::outlier::Reason;
use crate::scheduling::Health;

const PAGE: &[u8] = b"vllm:num_requests_waiting 7\n";

const HEAD: Head<'static> = Head::post_json("/v1/completions", None);

/// Creates a picker with this many endpoints, whose metrics pages have been read.
fn picker(endpoints: u32) -> Picker {
    let listed = (1..=endpoints).map(|n| format!("{{name: p{n}, address: 10.0.0.{n}, port: 80}}"));
    let listed: Vec<String> = listed.collect();
    let text = format!(
        "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{{type: random-picker}}, {{type: queue-scorer}},
  {{name: pods, type: static-discovery, parameters: {{endpoints: [{}]}}}}]
schedulingProfiles: [{{name: default, plugins: [{{pluginRef: queue-scorer, weight: 0}}, {{pluginRef: random-picker}}]}}]
dataLayer: {{discovery: {{pluginRef: pods}}}}
",
        listed.join(", ")
    );
    let plan = config::load(&text).unwrap().plan;
    let mut picker = Picker::new(plan, 1);
    picker.tick(NOW);
    read_pages(&mut picker, 0..endpoints, 0);
    picker
}

fn later(seconds: u64) -> Timestamp {
    Timestamp::from_nanos(NOW.as_nanos() + seconds * 1_000_000_000)
}

fn read_pages(picker: &mut Picker, slots: std::ops::Range<u32>, seconds: u64) {
    for slot in slots.map(Slot) {
        assert!(picker.fixture().read_page(later(seconds), slot, PAGE));
    }
}

/// Ticks from one second after the other to the other.
fn wait(picker: &mut Picker, from: u64, to: u64) {
    (from + 1..=to).for_each(|seconds| picker.tick(later(seconds)));
}

fn send(picker: &mut Picker, id: u32) {
    let head = Head { end: true, ..HEAD };
    assert!(begin(picker, id, &head).is_some());
}

/// Returns the reason why each endpoint is ejected.
fn ejected(picker: &Picker) -> Vec<Option<Reason>> {
    let slots = (0..picker.dispatcher.endpoints.records.len() as u32).map(Slot);
    let reason = |slot| picker.dispatcher.endpoints.monitor.outliers.reason(slot);
    slots.map(reason).collect()
}

fn looks(picker: &Picker) -> Vec<usize> {
    let records = picker.dispatcher.endpoints.records.iter();
    records.map(|record| record.unanswered.looks).collect()
}

#[test]
fn an_upload_that_never_ends_is_not_waited_for() {
    let mut picker = picker(1);
    assert!(begin(&mut picker, 1, &HEAD).is_some());
    wait(&mut picker, 0, 60);
    assert_eq!(ejected(&picker), [None]);
    let mut body = SliceBody::whole(b"{}");
    picker.request_body(later(60), ExchangeId(1), &mut body);
    picker.tick(later(61));
    assert_eq!(ejected(&picker), [None], "it has a moment's time");
    wait(&mut picker, 61, 120);
    assert_eq!(ejected(&picker), [Some(Reason::Hung)]);
}

#[test]
fn an_endpoint_hangs_only_while_a_request_waits_there() {
    let mut picker = picker(1);
    for (id, end) in [(1, true), (2, false)] {
        send(&mut picker, id);
        match end {
            true => close(&mut picker, id),
            false => respond(&mut picker, id),
        }
    }
    wait(&mut picker, 0, 60);
    assert_eq!(ejected(&picker), [None]);
}

/// Many requests that never end, at four endpoints of which one hangs.
#[test]
fn a_hung_endpoint_is_found_without_a_look_at_requests_elsewhere() {
    const REQUESTS: u32 = 20_000;
    let mut picker = picker(4);
    (0..REQUESTS).for_each(|id| send(&mut picker, id));
    for seconds in 1..=3 {
        read_pages(&mut picker, 1..4, seconds);
        picker.tick(later(seconds));
    }
    let hung = Some(Reason::Hung);
    assert_eq!(ejected(&picker), [hung, None, None, None]);
    assert_eq!(looks(&picker), [1, 0, 0, 0]);
}

/// Those that went before it hangs are looked at once, then the first that waits is known.
#[test]
fn looks_at_a_hung_endpoint_are_bounded_by_its_requests() {
    const REQUESTS: u32 = 10_000;
    let mut picker = picker(1);
    for id in 0..REQUESTS {
        send(&mut picker, id);
    }
    (0..REQUESTS - 1).for_each(|id| close(&mut picker, id));
    wait(&mut picker, 0, 40);
    assert_eq!(ejected(&picker), [Some(Reason::Hung)]);
    let [looks] = looks(&picker)[..] else {
        panic!("one endpoint");
    };
    assert!(looks <= REQUESTS as usize + 40, "{looks} looks");
}

#[test]
fn a_request_with_a_response_costs_two_looks_at_most_and_leaves_nothing() {
    const REQUESTS: u32 = 100_000;
    const UNDER_WAY: u32 = 100;
    let mut picker = picker(2);
    for id in 0..REQUESTS {
        send(&mut picker, id);
        if let Some(former) = id.checked_sub(UNDER_WAY) {
            respond(&mut picker, former);
            close(&mut picker, former);
        }
        if id % 1_000 == 0 {
            read_pages(&mut picker, 0..2, 1);
            picker.tick(later(1));
        }
    }
    picker.tick(later(1));
    let entries = picker
        .dispatcher
        .endpoints
        .records
        .iter()
        .map(|record| record.unanswered.len());
    let entries: usize = entries.sum();
    assert!(entries < 500, "{entries} entries");
    let looks: usize = looks(&picker).iter().sum();
    assert!(looks <= 2 * REQUESTS as usize, "{looks} looks");
}

/// The wall clock is set forward or back while requests wait at endpoints whose pages keep coming.
#[test]
fn a_wall_clock_that_is_set_ejects_nothing() {
    for to in [0, 2_000_000] {
        let mut picker = picker(2);
        (0..2).for_each(|id| send(&mut picker, id));
        // A long generation: nothing of the response comes yet.
        for seconds in 1..=60 {
            read_pages(&mut picker, 0..2, seconds);
            picker.tick(later(seconds));
        }
        let set = Timestamp::from_nanos(to * 1_000_000_000);
        for millis in (0..3_000).step_by(50) {
            let now = set.after(Duration::from_millis(millis));
            picker.tick(now);
            assert_eq!(ejected(&picker), [None, None], "{millis} ms");
            if millis % 200 == 150 {
                for slot in [Slot(0), Slot(1)] {
                    assert!(picker.fixture().read_page(now, slot, PAGE));
                }
            }
        }
    }
}

#[test]
fn an_endpoint_that_came_into_the_slot_does_not_hang_for_its_predecessor() {
    let mut picker = picker(1);
    send(&mut picker, 1);
    let address = picker.pool().get(Slot(0)).unwrap().address.to_string();
    let member = crate::endpoints::store::Member {
        name: "new".to_owned(),
        address,
        labels: Vec::new(),
        health: Health::Healthy,
    };
    picker.peers().adopt_members(vec![(Slot(0), member)]);
    read_pages(&mut picker, 0..1, 1);
    wait(&mut picker, 0, 60);
    assert_eq!(ejected(&picker), [None]);
    assert_eq!(looks(&picker), [0]);
}

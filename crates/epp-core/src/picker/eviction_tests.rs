//! Requests in flight that give way to others.

use std::time::Duration;

use super::super::flow_testing::Outcome::{self, Evicted, Forwarded, Held};
use super::super::flow_testing::{control, plan, Host};
use crate::scheduling::{Health, Slot};

/// A host of one endpoint that takes this many requests, and evicts.
fn evicting(capacity: f64) -> Host {
    let mut plan = plan(1, "");
    let mut control = control(capacity);
    control.eviction = true;
    plan.flow = Some(control);
    Host::new(plan)
}

/// Returns the requests that are evicted within a second.
fn evicted(host: &mut Host) -> Vec<u32> {
    let outcomes = host.wait(Duration::from_secs(1)).into_iter();
    let evicted = outcomes.filter_map(|(_, outcome)| match outcome {
        Evicted(id) => Some(id),
        _ => None,
    });
    evicted.collect()
}

fn fill(host: &mut Host, objectives: &[&str]) {
    for (id, objective) in (1..).zip(objectives) {
        host.tick();
        let outcomes: Vec<Outcome> = host.get_with(id, objective, "");
        assert_eq!(outcomes.last(), Some(&Forwarded(id)));
    }
}

#[test]
fn the_newest_sheddable_requests_give_way_two_at_a_time() {
    let mut host = evicting(4.0);
    fill(&mut host, &["low", "", "low", "low"]);
    assert_eq!(evicted(&mut host), [0; 0], "nothing waits");
    assert_eq!(host.get(10), [Held(10)]);
    host.get_with(11, "high", "");
    let victims = evicted(&mut host);
    assert!(
        victims.starts_with(&[4]) && victims.len() <= 2,
        "{victims:?}"
    );
    let sent: Vec<Outcome> = victims.iter().flat_map(|id| host.end(*id)).collect();
    assert_eq!(sent[0], Forwarded(11));
    assert_eq!(host.in_flight(), 4);
}

#[test]
fn a_sheddable_request_that_waits_evicts_none() {
    let mut host = evicting(1.0);
    fill(&mut host, &["low"]);
    assert_eq!(host.get_with(2, "low", ""), [Held(2)]);
    assert_eq!(evicted(&mut host), [0; 0]);
}

#[test]
fn an_eviction_that_the_host_does_not_confirm_is_taken_for_done_after_ten_seconds() {
    let mut host = evicting(1.0);
    fill(&mut host, &["low"]);
    host.get(2);
    assert_eq!(evicted(&mut host), [1]);
    assert_eq!(evicted(&mut host), [0; 0], "once");
    assert_eq!(host.end(1), [Forwarded(2)]);
    host.end(2);
    assert!(host.is_idle());
}

#[test]
fn a_request_that_waits_for_endpoints_evicts_none() {
    let mut host = evicting(1.0);
    fill(&mut host, &["low"]);
    host.get_with(2, "high", "");
    let pool = host.picker.fixture().pool();
    pool.note(Slot(0), |endpoint| &mut endpoint.health, Health::Unhealthy);
    assert_eq!(evicted(&mut host), [0; 0]);
}

#[test]
fn without_eviction_none_is() {
    let mut host = Host::with_capacity(1, 1.0);
    fill(&mut host, &["low"]);
    host.get_with(2, "high", "");
    assert_eq!(evicted(&mut host), [0; 0]);
}

//! Queued requests: when they go on, and what becomes of them otherwise.

use std::time::Duration;

use super::super::flow_testing::Outcome::{Bypassed, Forwarded, Held, Replied};
use super::super::flow_testing::{control, plan, Host};
use super::super::peers::{IndexPeer, WaitingBand};
use super::super::{ExchangeId, Head};
use super::*;
use crate::body::SliceBody;
use crate::flow::Fairness;
use crate::scheduling::{Health, Slot};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn requests_wait_while_the_pool_is_full_and_go_on_with_each_that_ends() {
    let mut host = Host::with_capacity(2, 1.0);
    assert_eq!(
        host.get(1),
        [Held(1), Forwarded(1)],
        "the first of its band"
    );
    assert_eq!(host.get(2), [Forwarded(2)], "nothing waits");
    assert_eq!(host.get(3), [Held(3)]);
    assert_eq!(host.get(4), [Held(4)]);
    assert!(host.picker.holds(ExchangeId(3)));
    assert!(!host.picker.awaits_body(ExchangeId(3)));
    assert_eq!((host.in_flight(), host.waiting()), (2, 2));
    assert_eq!(host.end(1), [Forwarded(3)]);
    assert_eq!(host.tick(), []);
    assert_eq!(host.end(3), [Forwarded(4)]);
    assert_eq!(host.get(5), [Held(5)], "two are in flight");
    for id in [2, 4, 5] {
        host.end(id);
    }
    assert!(host.is_idle());
    assert_eq!(host.counted("Dispatched"), 5);
}

#[test]
fn one_that_joins_lets_requests_go_on_and_no_more_than_it_takes() {
    let mut host = Host::with_capacity(1, 2.0);
    for id in 1..=5 {
        host.get(id);
    }
    assert_eq!(host.waiting(), 3);
    let mut more = plan(2, "");
    more.flow = Some(control(2.0));
    host.picker.install(more);
    let outcomes = host.tick();
    assert_eq!(outcomes, [Forwarded(3), Forwarded(4)]);
}

#[test]
fn a_body_is_read_on_in_the_queue_and_the_request_sent_with_its_prompt() {
    let mut plan = plan(1, "");
    plan.flow = Some(control(1.0));
    let mut host = Host::new(plan);
    host.get(1);
    let body = format!(r#"{{"model": "m", "prompt": "{}"}}"#, "word ".repeat(400));
    let head = Head::post_json("/v1/completions", Some(body.len()));
    let mut outcomes = host.begin(2, &head);
    for end in [1_000, body.len()] {
        let mut part = SliceBody::passing(&body.as_bytes()[..end], 0, end == body.len());
        host.picker.request_body(host.now, ExchangeId(2), &mut part);
        outcomes.extend(host.outcomes());
    }
    assert_eq!(outcomes, [Held(2)]);
    assert_eq!(host.end(1), [Forwarded(2)]);
    host.end(2);
    assert!(host.is_idle());
}

#[test]
fn each_waits_as_long_as_it_may_and_not_a_tick_longer() {
    let mut host = Host::with_capacity(1, 1.0);
    host.get(1);
    host.get(2);
    host.tick();
    host.get(3);
    let outcomes = host.wait(11 * SECOND);
    let expected = [
        (10 * SECOND - Duration::from_millis(50), Replied(2, 429)),
        (10 * SECOND, Replied(3, 429)),
    ];
    assert_eq!(outcomes, expected);
    for id in 1..=3 {
        assert_eq!(host.end(id), []);
    }
    assert!(host.is_idle());
    assert_eq!(host.counted("EvictedTTL"), 2);
    assert_eq!(host.counted("EvictedContextCancelled"), 0);
}

#[test]
fn an_empty_pool_holds_requests_until_an_endpoint_comes_or_they_have_waited_long_enough() {
    let mut host = Host::with_capacity(1, 1.0);
    let set = |host: &mut Host, available| {
        let pool = host.picker.fixture().pool();
        let health = match available {
            true => Health::Healthy,
            false => Health::Unhealthy,
        };
        pool.note(Slot(0), |endpoint| &mut endpoint.health, health);
    };
    set(&mut host, false);
    assert_eq!(host.get(1), [Held(1)]);
    assert_eq!(host.wait(15 * SECOND), []);
    set(&mut host, true);
    assert_eq!(host.tick(), [Forwarded(1)]);
    host.end(1);
    set(&mut host, false);
    host.tick();
    host.get(2);
    let outcomes = host.wait(21 * SECOND);
    assert_eq!(outcomes, [(20 * SECOND, Replied(2, 503))]);
    host.end(2);
    assert!(host.is_idle());
    assert_eq!(host.counted("EvictedNoEndpoints"), 1);
}

#[test]
fn in_a_pool_that_flaps_no_request_waits_for_longer_than_both_limits() {
    let mut host = Host::with_capacity(1, 1.0);
    host.get(1);
    host.get(2);
    let mut waited = Duration::ZERO;
    let replied = (0..10_000).find_map(|flap| {
        let health = [Health::Unhealthy, Health::Healthy][flap % 2];
        let pool = host.picker.fixture().pool();
        pool.note(Slot(0), |endpoint| &mut endpoint.health, health);
        let outcomes = host.wait(Duration::from_millis(100));
        waited += Duration::from_millis(100);
        outcomes.first().copied()
    });
    // Ten seconds with endpoints, and as many without.
    assert!(matches!(replied, Some((_, Replied(2, 429)))), "{replied:?}");
    assert!(
        waited.abs_diff(20 * SECOND) <= Duration::from_millis(200),
        "{waited:?}"
    );
}

#[test]
fn a_client_that_leaves_takes_its_request_along() {
    let mut host = Host::with_capacity(1, 1.0);
    host.get(1);
    host.get(2);
    assert_eq!(host.end(2), []);
    assert_eq!(
        (host.waiting(), host.counted("EvictedContextCancelled")),
        (0, 1)
    );
    assert_eq!(host.end(1), []);
    assert!(host.is_idle());
}

#[test]
fn beyond_capacity_requests_are_refused_at_once() {
    let mut plan = plan(1, "failureMode: FailOpen");
    let mut control = control(1.0);
    control.max_requests = Some(2);
    plan.flow = Some(control);
    let mut host = Host::new(plan);
    host.get(1);
    for id in 2..=3 {
        assert_eq!(host.get(id), [Held(id)]);
    }
    assert_eq!(host.get(4), [Replied(4, 429)], "even under FailOpen");
    assert_eq!(host.counted("RejectedCapacity"), 1);
}

#[test]
fn without_flow_control_those_that_wait_go_on_a_bounded_number_at_a_time() {
    let mut host = Host::with_capacity(1, 1.0);
    for id in 1..=300 {
        host.get(id);
    }
    let mut off = plan(1, "maxHeld: 10");
    off.flow = None;
    host.picker.install(off);
    let numbers: Vec<usize> = (0..4).map(|_| host.tick().len()).collect();
    assert_eq!(numbers, [128, 128, 43, 0]);
    assert_eq!(host.get(301), [Forwarded(301)]);
    for id in 1..=301 {
        host.end(id);
    }
    assert!(host.is_idle());
}

#[test]
fn under_another_plan_requests_keep_their_time() {
    let mut host = Host::with_capacity(1, 1.0);
    host.get(1);
    host.get(2);
    host.wait(6 * SECOND);
    let mut longer = plan(1, "maxHeld: 10");
    let mut control = control(1.0);
    control.ttl = Some(9 * SECOND);
    longer.flow = Some(control);
    host.picker.install(longer);
    let outcomes = host.wait(5 * SECOND);
    assert_eq!(outcomes, [(4 * SECOND, Replied(2, 429))]);
}

#[test]
fn a_dry_run_counts_what_would_wait_and_holds_nothing() {
    let mut plan = plan(1, "dryRun: true");
    plan.flow = Some(control(1.0));
    let mut host = Host::new(plan);
    assert_eq!(host.get(1), [Bypassed(1)]);
    assert_eq!((host.counted("Dispatched"), host.waiting()), (1, 0));
    // The host has sent it to the endpoint.
    let upstream = super::super::Upstream {
        server: Some(b"10.0.0.1:80".to_vec()),
        status: Some(200),
        origin: super::super::ResponseOrigin::Endpoint,
        ..Default::default()
    };
    host.picker
        .response_headers(host.now, ExchangeId(1), Some(&upstream));
    assert_eq!(host.get(2), [Bypassed(2)]);
    assert_eq!((host.counted("WouldWait"), host.waiting()), (1, 0));
}

#[test]
fn before_discovery_has_responded_requests_are_left_to_the_host() {
    let text = "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: queue-scorer}, {name: pods, type: envoy-cluster-discovery, parameters: {clusters: [pool]}}]
dataLayer: {discovery: {pluginRef: pods}}
";
    let mut plan = crate::config::load(text).unwrap().plan;
    plan.flow = Some(control(1.0));
    let mut host = Host::new(plan);
    assert_eq!(host.get(1), [Bypassed(1)]);
}

/// Another picker has these requests waiting, of flows with these hashes. Returns what becomes of the host's own.
fn peers(
    host: &mut Host,
    waiting: &[WaitingBand],
    sample: &[u32],
) -> Vec<super::super::flow_testing::Outcome> {
    let backlog = Backlog {
        bands: waiting.to_vec(),
        flows: sample.len() as u32,
        sample: sample.to_vec(),
    };
    let mut backlogs = [&backlog].into_iter();
    host.picker.peers().set_peer_waiting(&mut backlogs);
    host.outcomes()
}

fn band(priority: i32, requests: u32) -> WaitingBand {
    WaitingBand {
        priority,
        requests,
        bytes: 0,
    }
}

/// A host of one endpoint that takes eight requests and serves as many, with four more that wait. Flows matter or not.
fn full_with_four(fairness: Fairness) -> Host {
    let mut plan = plan(1, "");
    let mut control = control(8.0);
    control.default_band.fairness = fairness;
    plan.flow = Some(control);
    let mut host = Host::new(plan);
    for id in 1..=12 {
        host.get(id);
    }
    assert_eq!(host.waiting(), 4);
    host
}

#[test]
fn each_picker_sends_its_share_between_two_looks_at_the_others() {
    let mut host = full_with_four(Fairness::GlobalStrict);
    assert_eq!(peers(&mut host, &[band(0, 12)], &[]), []);
    // Of eight places this picker, with a quarter of those that wait, takes two.
    for id in 1..=8 {
        host.picker.closed(host.now, ExchangeId(id));
    }
    let sent = host.outcomes();
    assert_eq!(sent, [Forwarded(9), Forwarded(10)], "{sent:?}");
    // Of the six that are left it takes one and a half, and so two.
    assert_eq!(peers(&mut host, &[band(0, 6)], &[]).len(), 2);
}

#[test]
fn a_picker_leaves_the_places_to_others_that_are_more_than_its_share() {
    let mut host = full_with_four(Fairness::GlobalStrict);
    // Eight in flight here and none elsewhere, four that wait here and twelve elsewhere: half of the places are its share.
    assert_eq!(peers(&mut host, &[band(0, 12)], &[]), []);
    let sent: Vec<usize> = (1..=5).map(|id| host.end(id).len()).collect();
    assert_eq!(sent, [0, 0, 0, 0, 1]);
    assert_eq!(peers(&mut host, &[], &[]).len(), 3, "no others wait");
}

#[test]
fn where_flows_take_turns_the_share_is_that_of_the_flows_however_many_requests_wait() {
    let mut host = full_with_four(Fairness::RoundRobin);
    let own = host.picker.peers().own_waiting();
    assert_eq!((own.flows, own.sample.len()), (1, 1));
    // One flow of four.
    assert_eq!(peers(&mut host, &[band(0, 9_000)], &[1, 2, 3]), []);
    let sent: Vec<usize> = (1..=7).map(|id| host.end(id).len()).collect();
    assert_eq!(sent, [0, 0, 0, 0, 0, 0, 1]);
    // The same flow waits there: half of its places are there, and so a quarter of all.
    let mut host = full_with_four(Fairness::RoundRobin);
    let mut sample = [own.sample[0], 2];
    sample.sort_unstable();
    assert_eq!(peers(&mut host, &[band(0, 9_000)], &sample), []);
    let sent: Vec<usize> = (1..=7).map(|id| host.end(id).len()).collect();
    assert_eq!(sent, [0, 0, 0, 0, 0, 0, 1]);
}

#[test]
fn a_band_below_one_that_waits_elsewhere_stays() {
    let mut host = Host::with_capacity(1, 1.0);
    assert_eq!(peers(&mut host, &[band(5, 1)], &[]), []);
    assert_eq!(host.get(1), [Held(1)]);
    assert_eq!(host.tick(), []);
    assert_eq!(peers(&mut host, &[band(-5, 9)], &[]), [Forwarded(1)]);
}

#[test]
fn whatever_claims_that_requests_wait_keeps_none_waiting_where_there_is_room() {
    for (priority, requests, sample) in [(i32::MAX, 1, &[][..]), (0, u32::MAX, &[1, 2, 3])] {
        let mut host = Host::with_capacity(1, 4.0);
        let claim = [band(priority, requests)];
        peers(&mut host, &claim, sample);
        for id in 1..=4 {
            host.get(id);
        }
        for _ in 0..24 {
            peers(&mut host, &claim, sample);
            host.tick();
            peers(&mut host, &claim, sample);
        }
        assert_eq!((host.in_flight(), host.waiting()), (4, 0), "{priority}");
        // Nor each time again that the pool has been full.
        host.get(5);
        assert_eq!(peers(&mut host, &claim, sample), []);
        assert_eq!(host.end(1), [Forwarded(5)]);
        // Later, the others come first again.
        for _ in 0..200 {
            peers(&mut host, &claim, sample);
            host.tick();
        }
        host.get(6);
        assert_eq!(peers(&mut host, &claim, sample), []);
        assert_eq!(host.end(2), []);
        assert_eq!(peers(&mut host, &claim, sample), []);
        assert_eq!(host.waiting(), 1);
    }
}

#[test]
fn a_claim_of_a_higher_band_that_never_ends_costs_a_pool_little_of_what_it_completes() {
    let claim = [band(i32::MAX, 1)];
    let mut host = Host::with_capacity(1, 4.0);
    let (mut last, mut sent, mut in_flight) = (0, 0, Vec::new());
    // A minute in which requests always wait, and each that is sent ends before the next tick.
    for _ in 0..1_200 {
        let mut outcomes = peers(&mut host, &claim, &[]);
        for id in std::mem::take(&mut in_flight) {
            outcomes.extend(host.end(id));
        }
        while host.waiting() < 8 {
            last += 1;
            outcomes.extend(host.get(last));
        }
        outcomes.extend(host.tick());
        let forwarded = outcomes.iter().filter_map(|outcome| match outcome {
            Forwarded(id) => Some(*id),
            _ => None,
        });
        in_flight.extend(forwarded);
        sent += in_flight.len();
    }
    // Of 4,800.
    assert!(sent > 4_200, "{sent}");
}

#[test]
fn what_waits_is_told_by_band() {
    let mut host = Host::with_capacity(1, 1.0);
    host.get(1);
    for (id, objective) in [(2, "low"), (3, ""), (4, "high"), (5, "low")] {
        host.get_with(id, objective, "");
    }
    let backlog = host.picker.peers().own_waiting();
    assert_eq!(backlog.bands, [band(10, 1), band(0, 1), band(-10, 2)]);
    assert_eq!(host.end(1), [Forwarded(4)]);
    assert_eq!(host.end(4), [Forwarded(3)]);
    assert_eq!(host.end(3), [Forwarded(2)]);
}

#[test]
fn an_explanation_says_how_a_request_waited() {
    let mut plan = plan(1, "explain: true");
    plan.flow = Some(control(1.0));
    let mut host = Host::new(plan);
    host.get(1);
    host.get(2);
    let head = Head {
        explain: true,
        method: b"GET",
        end: true,
        ..Head::default()
    };
    assert_eq!(host.begin(3, &head), [Held(3)]);
    host.end(2);
    host.tick();
    assert_eq!(host.end(1), [Forwarded(3)]);
    let explanation = host.picker.explanation(ExchangeId(3)).unwrap();
    let text = explanation.text(host.picker.pool());
    let expected = "; queue: waited 50 ms with priority 0, 1 waiting before";
    assert!(text.ends_with(expected), "{text}");
}

#[test]
fn a_request_that_left_the_queue_in_a_panic_is_known_to_be_lost() {
    let mut host = Host::with_capacity(1, 1.0);
    host.get(1);
    host.get(2);
    let now = host.picker.dispatcher.clock.now();
    host.picker
        .dispatcher
        .flow
        .queues
        .remove(ExchangeId(2), now);
    assert!(!host.picker.holds(ExchangeId(2)));
    host.picker.recovery().drop_exchange(ExchangeId(2));
    host.end(1);
    assert!(host.is_idle());
}

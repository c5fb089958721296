//! Queued requests: whose callback lets one go on, and when one gets its reply.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::Arc;
use std::time::Duration;

use super::abi::{Action, BodyAction};
use super::fake_host::host;
use super::filter_tests::{destination, listed, post, request, tick, vm, wait, ROOT};
use super::vm::Vm;
use epp_core::config;
use epp_core::flow::{BandSpec, Fairness, FlowControl, Ordering, SaturationDetector, UsageLimit};
use epp_core::scheduling::{Endpoint, InFlight, Needs};

/// Requests that the pool takes.
#[derive(Debug, Clone)]
struct Capacity(Arc<AtomicUsize>);

/// The endpoints of the pool.
const ENDPOINTS: f64 = 2.0;

impl SaturationDetector for Capacity {
    fn value(&self, _: &Endpoint, load: InFlight) -> Option<f64> {
        Some(f64::from(load.requests))
    }

    fn saturation_at(&self, mean: f64) -> f64 {
        let in_flight = mean * ENDPOINTS;
        let capacity = self.0.load(SeqCst);
        f64::from(u8::from(in_flight as usize >= capacity))
    }

    fn needs(&self) -> Needs {
        Needs::default()
    }
}

/// A VM whose pool takes this many requests, and has others wait for ten seconds.
fn queueing(capacity: usize) -> (Vm, Capacity) {
    queueing_by(capacity, "")
}

fn queueing_by(capacity: usize, plugins: &str) -> (Vm, Capacity) {
    let mut vm = vm(&listed("prefix-cache-scorer", ""));
    let extra = format!("- {{type: envoy-proxy, parameters: {{maxHeld: 100}}}}\n{plugins}");
    let mut plan = config::load(&listed("queue-scorer", &extra)).unwrap().plan;
    let capacity = Capacity(Arc::new(AtomicUsize::new(capacity)));
    let band = BandSpec {
        priority: 0,
        max_requests: None,
        max_bytes: None,
        ttl: None,
        ordering: Ordering::Fcfs,
        fairness: Fairness::GlobalStrict,
    };
    let ttl = Some(Duration::from_secs(10));
    plan.flow = Some(FlowControl {
        max_requests: None,
        max_bytes: None,
        ttl,
        empty_pool_ttl: ttl,
        bands: Vec::new(),
        default_band: band,
        negative_band: band,
        usage_limit: UsageLimit::Static(1.0),
        detector: Arc::new(capacity.clone()),
        detector_name: "capacity".to_owned(),
        eviction: false,
        eviction_grace: Duration::ZERO,
    });
    let pool = vm.pools_mut().next().unwrap();
    pool.picker.install(plan);
    tick(&mut vm);
    (vm, capacity)
}

/// A request without a body comes.
fn get(vm: &mut Vm, id: u32) -> Action {
    request(&[(":path", "/v1/models"), (":method", "GET")]);
    host(|host| host.context = id);
    vm.request_headers(id, true)
}

/// A request ends.
fn end(vm: &mut Vm, id: u32) {
    host(|host| host.context = id);
    vm.delete(id);
}

fn resumed() -> Vec<u32> {
    host(|host| std::mem::take(&mut host.resumed))
}

fn replied() -> Vec<u32> {
    host(|host| std::mem::take(&mut host.replied))
}

#[test]
fn the_end_of_a_request_resumes_one_that_waits() {
    let (mut vm, _) = queueing(1);
    assert_eq!(get(&mut vm, 10), Action::Continue);
    assert_eq!(get(&mut vm, 11), Action::Pause);
    assert_eq!(destination(), None);
    end(&mut vm, 10);
    assert_eq!(resumed(), [11]);
    assert!(destination().is_some());
    assert_eq!(host(|host| host.context), 10, "the callback's own context");
}

#[test]
fn a_callout_and_a_request_that_comes_resume_one_that_waits() {
    let (mut vm, capacity) = queueing(0);
    assert_eq!(get(&mut vm, 10), Action::Pause);
    assert_eq!(get(&mut vm, 11), Action::Pause);
    capacity.0.store(1, SeqCst);
    assert_eq!(get(&mut vm, 12), Action::Pause, "those before it go first");
    assert_eq!(resumed(), [10]);
    assert_eq!(host(|host| host.context), 12);
}

#[test]
fn a_body_waits_in_envoy_and_goes_on_as_a_whole() {
    let (mut vm, _) = queueing(1);
    get(&mut vm, 10);
    post();
    host(|host| host.context = 11);
    assert_eq!(vm.request_headers(11, false), Action::Pause);
    let body = br#"{"model": "m", "prompt": "hello"}"#;
    host(|host| host.body = body.to_vec());
    assert_eq!(vm.request_body(11, body.len(), true), BodyAction::Buffer);
    end(&mut vm, 10);
    assert_eq!(resumed(), [11]);
    assert_eq!(host(|host| host.body.clone()), body, "untouched");
}

#[test]
fn one_that_has_waited_long_enough_gets_its_reply_from_a_tick() {
    let (mut vm, _) = queueing(1);
    get(&mut vm, 10);
    get(&mut vm, 11);
    wait(&mut vm, 11);
    assert_eq!(replied(), [11]);
    // The code of the dialect in which the document is.
    assert_eq!(host(|host| host.local_replies[0].0), 503);
    assert!(resumed().is_empty());
    end(&mut vm, 11);
    end(&mut vm, 10);
    assert!(resumed().is_empty());
}

#[test]
fn a_reply_to_another_request_waits_for_a_tick_unless_that_request_has_ended() {
    // No endpoint is left for a third request, whatever the pool takes.
    let filter = "- {type: concurrency-detector, parameters: {maxConcurrency: 1, failOpen: false}}";
    for (gone, expected) in [(false, vec![12]), (true, vec![])] {
        let (mut vm, capacity) = queueing_by(2, filter);
        for (id, action) in [
            (10, Action::Continue),
            (11, Action::Continue),
            (12, Action::Pause),
        ] {
            assert_eq!(get(&mut vm, id), action);
        }
        capacity.0.store(9, SeqCst);
        assert_eq!(get(&mut vm, 13), Action::Pause);
        assert_eq!(replied(), [13], "only the one whose callback it is");
        if gone {
            end(&mut vm, 12);
            host(|host| host.gone = Some(12));
        }
        tick(&mut vm);
        assert_eq!(replied(), expected);
        assert!(resumed().is_empty());
    }
}

#[test]
fn a_request_whose_decision_is_lost_in_a_panic_is_released_by_the_next_tick() {
    let (mut vm, capacity) = queueing(1);
    get(&mut vm, 10);
    get(&mut vm, 11);
    capacity.0.store(2, SeqCst);
    // It leaves the queue, and the callback that let it go on panics.
    let mut pools = vm.pools_mut();
    let pool = pools.next().unwrap();
    pool.picker
        .closed(pool.now(), epp_core::picker::ExchangeId(10));
    while pool.picker.poll_effect().is_some() {}
    pool.count_panic(super::guard::Callback::RequestBody);
    drop(pools);
    vm.on_timer(ROOT);
    assert_eq!(replied(), [11], "by the failure mode");
}

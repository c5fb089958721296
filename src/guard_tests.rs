//! Panics in callbacks, over a host in the same process.

use std::borrow::Cow;
use std::ops::Range;

use super::*;
use crate::fake_host::host;
use crate::filter_tests::{destination, listed, post, vm, ROOT};
use epp_core::body::{BodyView, OutOfMemory};
use epp_core::picker::ExchangeId;
use epp_core::picker::MAX_FAILED_TICKS;
use epp_core::protocol::{OWNED_HEADERS, REWRITE_HEADERS};

thread_local! {
    /// The places at which panics are injected, with the number of calls before the first, and of panics.
    static FAULTS: RefCell<Vec<(&'static str, usize, usize)>> = const { RefCell::new(Vec::new()) };
}

/// Panics here if a test injects a fault.
pub fn inject(place: &str) {
    let faults = FAULTS.with_borrow_mut(|faults| {
        let found = faults.iter_mut().find(|fault| fault.0 == place);
        found.is_some_and(|(_, before, left)| match *before {
            0 => std::mem::replace(left, left.saturating_sub(1)) > 0,
            _ => {
                *before -= 1;
                false
            }
        })
    });
    assert!(!faults, "on purpose, at {place}");
}

fn inject_at(faults: &[(&'static str, usize, usize)]) {
    FAULTS.set(faults.to_vec());
}

/// Injects panics from now on.
const ALWAYS: usize = usize::MAX;

const OPEN: &str = "- {type: envoy-proxy, parameters: {failureMode: FailOpen}}";

/// A VM behind the net whose requests are held for their bodies.
fn guarded(extra: &str) -> Guarded {
    Guarded(RefCell::new(vm(&listed("prefix-cache-scorer", extra))))
}

fn begin(vm: &Guarded, id: u32) -> Action {
    post();
    vm.decide(Callback::RequestHeaders, id, HEADERS, |vm| {
        vm.request_headers(id, false)
    })
}

fn fail<T>(_: &mut Vm) -> T {
    panic!("on purpose")
}

fn counted(name: &str) -> i64 {
    host(|host| {
        let metrics = host.metrics.iter();
        let own = metrics.filter(|(known, _)| known.starts_with(name));
        own.map(|(_, value)| value).sum()
    })
}

fn tick(vm: &Guarded) {
    host(|host| host.now += 50_000_000);
    vm.call(Callback::Tick, ROOT, (), |vm| vm.on_timer(ROOT));
}

/// Ticks once a second for this many seconds.
fn wait(vm: &Guarded, seconds: u64) {
    for _ in 0..seconds {
        host(|host| host.now += 950_000_000);
        tick(vm);
    }
}

#[test]
fn a_panicking_request_is_handled_by_the_failure_mode_and_others_are_not_affected() {
    for (extra, action, replies) in [
        ("", BodyAction::Buffer, vec![500]),
        (OPEN, BodyAction::Continue, vec![]),
    ] {
        let vm = guarded(extra);
        for id in [10, 11] {
            assert_eq!(begin(&vm, id), Action::Pause);
        }
        let body = br#"{"model": "m", "prompt": "hello"}"#;
        host(|host| host.body = body.to_vec());
        assert_eq!(vm.decide(Callback::RequestBody, 10, BODY, fail), action);
        assert_eq!(destination(), None, "not even one that it would have named");
        let codes = host(|host| {
            host.local_replies
                .iter()
                .map(|(code, _)| *code)
                .collect::<Vec<_>>()
        });
        assert_eq!(codes, replies);
        let of_other = vm.decide(Callback::RequestBody, 11, BODY, |vm| {
            vm.request_body(11, body.len(), true)
        });
        assert_eq!(of_other, BodyAction::Continue);
        assert!(destination().is_some());
        vm.call(Callback::Delete, 10, (), |vm| vm.delete(10));
        for _ in 0..21 {
            tick(&vm);
        }
        let name = "epp_wasm_caught_panics_total;pool=inference-pool;callback=request_body";
        assert_eq!(counted(name), 1);
        assert_eq!(counted("epp_wasm_held_requests"), 0);
    }
}

#[test]
fn a_client_cannot_choose_an_endpoint_at_the_headers_either() {
    let vm = guarded(OPEN);
    post();
    assert!(destination().is_some(), "the client's own");
    let action = vm.decide(Callback::RequestHeaders, 10, HEADERS, fail);
    assert_eq!((action, destination()), (Action::Continue, None));
}

#[test]
fn a_response_in_progress_is_not_changed() {
    for callback in [
        Callback::ResponseHeaders,
        Callback::ResponseBody,
        Callback::RequestTrailers,
        Callback::Delete,
    ] {
        let vm = guarded("");
        begin(&vm, 10);
        host(|host| host.body = br#"{"model": "m", "prompt": "hello"}"#.to_vec());
        let size = host(|host| host.body.len());
        vm.call(Callback::RequestBody, 10, BodyAction::Continue, |vm| {
            vm.request_body(10, size, true)
        });
        vm.call(callback, 10, (), fail);
        assert!(host(|host| host.local_replies.is_empty()), "{callback:?}");
    }
}

#[test]
fn a_request_whose_end_panics_is_counted_nowhere() {
    for sent in [true, false] {
        let vm = guarded("");
        begin(&vm, 10);
        if sent {
            host(|host| host.body = br#"{"model": "m", "prompt": "hello"}"#.to_vec());
            let size = host(|host| host.body.len());
            vm.call(Callback::RequestBody, 10, BodyAction::Continue, |vm| {
                vm.request_body(10, size, true)
            });
        }
        inject_at(&[("close", 0, 1)]);
        vm.call(Callback::Delete, 10, (), |vm| vm.delete(10));
        inject_at(&[]);
        assert!(host(|host| host.local_replies.is_empty()), "it has ended");
        (0..21).for_each(|_| tick(&vm));
        let panics = "epp_wasm_caught_panics_total;pool=inference-pool;callback=delete";
        assert_eq!(counted(panics), 1);
        assert_eq!(counted("llm_d_epp_inflight_requests"), 0);
        assert_eq!(counted("epp_wasm_held_requests"), 0);
    }
}

#[test]
fn ticks_that_always_panic_do_not_hold_requests_forever() {
    let vm = guarded(OPEN);
    begin(&vm, 10);
    for number in 1..=MAX_FAILED_TICKS {
        assert!(host(|host| host.resumed.is_empty()), "{number}");
        vm.call(Callback::Tick, ROOT, (), fail);
    }
    assert_eq!(host(|host| host.resumed.clone()), [10]);
    // What Envoy has sent it shows once more: the stream is still known.
    host(|host| host.body = b"sent".to_vec());
    let more = vm.decide(Callback::RequestBody, 10, BODY, |vm| {
        vm.request_body(10, 4, true)
    });
    assert_eq!(more, BodyAction::Continue);
}

#[test]
fn the_body_of_another_request_is_not_detached_for_one_that_cannot_be_reached() {
    let vm = guarded(OPEN);
    begin(&vm, 10);
    host(|host| host.body = BODY_TEXT[..5].to_vec());
    vm.decide(Callback::RequestBody, 10, BODY, |vm| {
        vm.request_body(10, 5, false)
    });
    host(|host| {
        host.gone = Some(10);
        host.body = b"another's".to_vec();
    });
    (0..MAX_FAILED_TICKS).for_each(|_| vm.call(Callback::Tick, ROOT, (), fail));
    assert_eq!(host(|host| host.body.clone()), b"another's");
    assert!(host(|host| host.resumed.is_empty()));
}

#[test]
fn a_part_that_panics_follows_what_was_detach() {
    for (end, resumed) in [(false, vec![]), (true, vec![10])] {
        let vm = guarded("");
        begin(&vm, 10);
        let part = |shown: &[u8], end: bool| {
            host(|host| host.body = shown.to_vec());
            vm.decide(Callback::RequestBody, 10, BODY, |vm| {
                vm.request_body(10, shown.len(), end)
            })
        };
        part(&BODY_TEXT[..5], false);
        wait(&vm, 6);
        assert_eq!(host(|host| std::mem::take(&mut host.resumed)), [10]);
        assert!(host(|host| host.body.is_empty()));
        inject_at(&[("feed", 0, 1)]);
        let action = part(&BODY_TEXT[5..], end);
        inject_at(&[]);
        assert_eq!(action, BodyAction::Buffer);
        tick(&vm);
        assert_eq!(host(|host| host.resumed.clone()), resumed);
        assert_eq!(host(|host| host.body.clone()), BODY_TEXT);
        assert!(codes().is_empty());
        if !end {
            assert_eq!(part(BODY_TEXT, true), BodyAction::Continue);
            assert_eq!(host(|host| host.body.clone()), BODY_TEXT);
        }
    }
}

#[test]
fn one_tick_that_fails_releases_no_request() {
    let vm = guarded("");
    begin(&vm, 10);
    for _ in 0..MAX_FAILED_TICKS {
        vm.call(Callback::Tick, ROOT, (), fail);
        tick(&vm);
    }
    assert!(host(|host| host.local_replies.is_empty()));
}

#[test]
fn a_configuration_that_panics_is_refused() {
    let vm = guarded("");
    assert!(!vm.call(Callback::Configure, 2, false, fail));
    vm.call(Callback::CalloutResponse, ROOT, (), fail);
    assert_eq!(begin(&vm, 10), Action::Pause);
}

#[test]
fn each_place_is_logged_once() {
    let vm = guarded("");
    for _ in 0..3 {
        vm.call(Callback::CalloutResponse, ROOT, (), fail);
    }
    let lines = host(|host| host.log.clone());
    let logged = lines
        .iter()
        .filter(|line| line.contains("internal error"))
        .count();
    assert_eq!(logged, 1, "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("guard_tests.rs")));
}

const BODY_TEXT: &[u8] = br#"{"model": "m", "prompt": "hello"}"#;

fn send_body(vm: &Guarded, id: u32) -> BodyAction {
    host(|host| host.body = BODY_TEXT.to_vec());
    vm.decide(Callback::RequestBody, id, BODY, |vm| {
        vm.request_body(id, BODY_TEXT.len(), true)
    })
}

fn codes() -> Vec<u32> {
    host(|host| host.local_replies.iter().map(|(code, _)| *code).collect())
}

#[test]
fn a_panic_within_recovery_obeys_the_failure_mode() {
    for (extra, action, replies) in [
        ("", BodyAction::Buffer, vec![500]),
        (OPEN, BodyAction::Continue, vec![]),
    ] {
        let vm = guarded(extra);
        begin(&vm, 10);
        host(|host| {
            host.request.push((
                "x-gateway-destination-endpoint".to_owned(),
                "6.6.6.6:6".to_owned(),
            ))
        });
        inject_at(&[("count", 0, ALWAYS)]);
        assert_eq!(vm.decide(Callback::RequestBody, 10, BODY, fail), action);
        assert_eq!((codes(), destination()), (replies, None));
        inject_at(&[]);
    }
    // If not even the local reply can be sent, the request does not continue.
    let vm = guarded("");
    begin(&vm, 10);
    inject_at(&[("count", 0, ALWAYS), ("carry out", 0, ALWAYS)]);
    assert_eq!(send_body(&vm, 10), BodyAction::Buffer);
    inject_at(&[]);
}

#[test]
fn a_decision_that_panics_halfway_is_not_left_to_envoy() {
    for (extra, action, replies) in [
        ("", BodyAction::Buffer, vec![500]),
        (OPEN, BodyAction::Continue, vec![]),
    ] {
        let vm = guarded(extra);
        begin(&vm, 10);
        // The picker has decided, and holds it no longer.
        inject_at(&[("carry out", 0, 1)]);
        assert_eq!(send_body(&vm, 10), action);
        assert_eq!((codes(), destination()), (replies, None));
        inject_at(&[]);
    }
}

#[test]
fn a_request_whose_pool_is_unknown_fails_closed_where_any_pool_does() {
    for (extra, action, replies) in [
        ("", Action::Pause, vec![500]),
        (OPEN, Action::Continue, vec![]),
    ] {
        let vm = guarded(extra);
        inject_at(&[("place of request", 0, ALWAYS)]);
        assert_eq!(begin(&vm, 10), action);
        assert_eq!((codes(), destination()), (replies, None));
        inject_at(&[]);
    }
    // Found at the second try: not a request of ours.
    let vm = guarded("");
    host(|host| {
        host.properties
            .insert("xds.cluster_name".to_owned(), "theirs".to_owned())
    });
    inject_at(&[("place of request", 0, 1)]);
    post();
    host(|host| {
        host.request.push((
            "x-gateway-destination-endpoint".to_owned(),
            "6.6.6.6:6".to_owned(),
        ))
    });
    let act = |vm: &mut Vm| vm.request_headers(10, false);
    let action = vm.decide(Callback::RequestHeaders, 10, HEADERS, act);
    assert_eq!((action, destination()), (Action::Continue, None));
    assert!(codes().is_empty());
}

#[test]
fn a_request_that_panics_keeps_no_header_that_only_a_picker_may_set() {
    let vm = guarded(OPEN);
    inject_at(&[("place of request", 0, ALWAYS)]);
    post();
    let spoofed = OWNED_HEADERS.iter().chain(&REWRITE_HEADERS);
    let spoofed = spoofed.map(|name| ((*name).to_owned(), "theirs".to_owned()));
    host(|host| host.request.extend(spoofed));
    let act = |vm: &mut Vm| vm.request_headers(10, false);
    let action = vm.decide(Callback::RequestHeaders, 10, HEADERS, act);
    inject_at(&[]);
    assert_eq!((action, destination()), (Action::Continue, None));
    let left = host(|host| host.request.clone());
    assert!(left.iter().all(|(_, value)| value != "theirs"), "{left:?}");
}

#[test]
fn decisions_of_a_tick_that_panics_are_carried_out_or_fail() {
    for (extra, resumed, replies) in [("", vec![11], 1), (OPEN, vec![11, 10], 0)] {
        let vm = guarded(extra);
        let part = |id: u32, size: usize| {
            host(|host| host.body = BODY_TEXT[..size].to_vec());
            vm.decide(Callback::RequestBody, id, BODY, |vm| {
                vm.request_body(id, size, false)
            });
        };
        // This host has one buffer: of the two one has sent nothing.
        begin(&vm, 10);
        begin(&vm, 11);
        part(11, 5);
        wait(&vm, 3);
        // The third comes later than the others.
        begin(&vm, 12);
        part(12, 5);
        wait(&vm, 1);
        tick(&vm);
        host(|host| host.now += 950_000_000);
        inject_at(&[("carry out", 0, 1)]);
        tick(&vm);
        inject_at(&[]);
        // Only the first one's decision is lost.
        assert_eq!(host(|host| host.resumed.clone()), resumed);
        assert_eq!(codes(), vec![500; replies]);
        // These two get no further effects, and the third is still held.
        (0..10).for_each(|_| tick(&vm));
        assert_eq!(host(|host| host.resumed.clone()), resumed);
        assert_eq!(send_body(&vm, 12), BodyAction::Continue);
        assert!(destination().is_some());
    }
}

/// A body whose reading panics.
struct BrokenBody;

impl BodyView for BrokenBody {
    fn available(&self) -> Range<usize> {
        0..1
    }

    fn read(&mut self, _: Range<usize>) -> Result<Cow<'_, [u8]>, OutOfMemory> {
        panic!("on purpose")
    }

    fn ended(&self) -> bool {
        true
    }
}

#[test]
fn the_request_that_a_tick_was_about_when_it_panicked_fails_and_others_stay() {
    for (extra, resumed, replies) in [("", vec![], 1), (OPEN, vec![10], 0)] {
        let vm = guarded(extra);
        for id in [10, 11] {
            assert_eq!(begin(&vm, id), Action::Pause);
        }
        vm.call(Callback::Tick, ROOT, (), |vm| {
            for pool in vm.pools_mut() {
                let now = pool.now();
                pool.picker
                    .request_body(now, ExchangeId(10), &mut BrokenBody);
            }
        });
        assert_eq!(host(|host| host.resumed.clone()), resumed);
        assert_eq!(codes(), vec![500; replies]);
        (0..3).for_each(|_| tick(&vm));
        assert_eq!(host(|host| host.resumed.clone()), resumed);
        assert_eq!(send_body(&vm, 11), BodyAction::Continue);
        assert!(destination().is_some());
    }
}

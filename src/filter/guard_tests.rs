//! Panics in callbacks, over a host in the same process.

use super::*;
use crate::filter::fake_host::host;
use crate::filter::filter_tests::{destination, listed, post, vm, ROOT};
use crate::filter::vm::FAILED_TICKS;

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
    vm.call(Callback::Tick, ROOT, (), |vm| vm.strike(ROOT));
}

#[test]
fn a_request_goes_on_under_the_failure_mode_and_the_others_notice_nothing() {
    for (extra, action, answers) in [
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
            host.answers
                .iter()
                .map(|(code, _)| *code)
                .collect::<Vec<_>>()
        });
        assert_eq!(codes, answers);
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
fn at_the_headers_a_client_may_not_choose_either() {
    let vm = guarded(OPEN);
    post();
    assert!(destination().is_some(), "the client's own");
    let action = vm.decide(Callback::RequestHeaders, 10, HEADERS, fail);
    assert_eq!((action, destination()), (Action::Continue, None));
}

#[test]
fn an_answer_on_its_way_is_not_touched() {
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
        assert!(host(|host| host.answers.is_empty()), "{callback:?}");
    }
}

#[test]
fn a_clock_that_never_gets_through_holds_nobody_for_ever() {
    let vm = guarded(OPEN);
    begin(&vm, 10);
    for number in 1..=FAILED_TICKS {
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
fn one_tick_that_fails_lets_nobody_go() {
    let vm = guarded("");
    begin(&vm, 10);
    for _ in 0..FAILED_TICKS {
        vm.call(Callback::Tick, ROOT, (), fail);
        tick(&vm);
    }
    assert!(host(|host| host.answers.is_empty()));
}

#[test]
fn a_configuration_that_panics_is_refused() {
    let vm = guarded("");
    assert!(!vm.call(Callback::Configure, 2, false, fail));
    vm.call(Callback::CalloutAnswer, ROOT, (), fail);
    assert_eq!(begin(&vm, 10), Action::Pause);
}

#[test]
fn each_place_is_logged_once() {
    let vm = guarded("");
    for _ in 0..3 {
        vm.call(Callback::CalloutAnswer, ROOT, (), fail);
    }
    let lines = host(|host| host.log.clone());
    let told = lines
        .iter()
        .filter(|line| line.contains("a defect"))
        .count();
    assert_eq!(told, 1, "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("guard_tests.rs")));
}

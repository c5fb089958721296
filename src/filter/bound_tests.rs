//! What is held is bounded, and a VM that begins knows what it can know.

use super::abi::{Action, BodyAction};
use super::fake_host::host;
use super::filter_tests::{destination, listed, post, tick, vm, SECOND};
use super::vm::Vm;

#[test]
fn a_vm_that_is_made_anew_knows_what_the_others_know() {
    let plan = listed("queue-scorer", "");
    vm(&plan);
    let mut new = Vm::default();
    assert!(new.configure(7));
    post();
    assert_eq!(new.request_headers(10, true), Action::Continue);
    assert!(destination().unwrap().contains("10.0.0.1:80"));
}

#[test]
fn no_more_requests_are_held_than_may_be() {
    let extra = "- {type: envoy-proxy, parameters: {maxHeld: 2}}";
    let mut vm = vm(&listed("prefix-cache-scorer", extra));
    let open = |vm: &mut Vm, id| {
        post();
        vm.request_headers(id, false)
    };
    for (id, action) in [
        (10, Action::Pause),
        (11, Action::Pause),
        (12, Action::Continue),
    ] {
        assert_eq!(open(&mut vm, id), action, "{id}");
    }
    assert!(destination().is_some(), "decided with what is known");
    vm.delete(10);
    assert_eq!(open(&mut vm, 13), Action::Pause);
    assert_eq!(open(&mut vm, 14), Action::Continue);
    host(|host| host.body = br#"{"model": "m", "prompt": "x"}"#.to_vec());
    vm.request_body(11, 29, true);
    assert_eq!(open(&mut vm, 15), Action::Pause);
}

#[test]
fn a_body_that_comes_in_drops_is_not_held_for_ever() {
    let mut vm = vm(&listed("prefix-cache-scorer", ""));
    post();
    vm.request_headers(10, false);
    let mut held = 0;
    while host(|host| host.resumed.is_empty()) {
        host(|host| {
            host.now += SECOND;
            host.body.push(b' ');
        });
        let size = host(|host| host.body.len());
        vm.request_body(10, size, false);
        tick(&mut vm);
        held += 1;
        assert!(held < 60);
    }
    assert!((25..=31).contains(&held), "{held} s");
}

#[test]
fn headers_that_there_is_no_memory_for_go_on_under_the_failure_mode() {
    let open = "- {type: envoy-proxy, parameters: {failureMode: FailOpen}}";
    for (extra, action, answers) in [
        ("", Action::Pause, vec![500]),
        (open, Action::Continue, vec![]),
    ] {
        let mut vm = vm(&listed("prefix-cache-scorer", extra));
        post();
        assert!(destination().is_some(), "the client's own");
        host(|host| host.no_memory = true);
        assert_eq!(vm.request_headers(10, false), action);
        assert_eq!(destination(), None);
        let codes: Vec<u32> = host(|host| host.answers.drain(..).map(|(code, _)| code).collect());
        assert_eq!(codes, answers);
        host(|host| host.no_memory = false);
        post();
        assert_eq!(vm.request_headers(11, false), Action::Pause);
        assert_eq!(host(|host| host.answers.len()), 0, "it is held");
    }
}

#[test]
fn a_body_that_there_is_no_memory_for_is_decided_with_what_is_known() {
    let mut vm = vm(&listed("prefix-cache-scorer", ""));
    post();
    assert_eq!(vm.request_headers(10, false), Action::Pause);
    host(|host| {
        host.body = b"{\"model\": \"m\", ".to_vec();
        host.no_memory = true;
    });
    assert_eq!(vm.request_body(10, 15, false), BodyAction::Continue);
    assert!(destination().is_some_and(|picked| picked.starts_with("10.0.0.")));
}

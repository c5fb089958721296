//! Bounds on held requests, and the state of a VM after its start.

use super::abi::{Action, BodyAction};
use super::fake_host::host;
use super::filter_tests::{destination, listed, post, request, tick, vm, wait, SECOND};
use super::pool::Pool;
use super::vm::Vm;

#[test]
fn a_recreated_vm_has_the_state_of_the_others() {
    let plan = listed("queue-scorer", "");
    vm(&plan);
    let mut new = Vm::default();
    assert!(new.configure(7));
    post();
    assert_eq!(new.request_headers(10, true), Action::Continue);
    assert!(destination().unwrap().contains("10.0.0.1:80"));
}

/// A request's headers come.
fn open(vm: &mut Vm, id: u32) -> Action {
    post();
    vm.request_headers(id, false)
}

/// Sends this many bytes of a body, none of which matters to the decision; its declared length is 40 bytes.
fn send(vm: &mut Vm, id: u32, size: usize) {
    host(|host| host.body = vec![b' '; size]);
    vm.request_body(id, size, false);
}

/// Returns the requests that the next tick releases.
fn released(vm: &mut Vm) -> Vec<u32> {
    host(|host| host.resumed.clear());
    tick(vm);
    host(|host| std::mem::take(&mut host.resumed))
}

fn counted(name: &str) -> i64 {
    host(|host| {
        let metrics = host.metrics.iter();
        let own = metrics.filter(|(known, _)| known.contains(name));
        own.map(|(_, value)| value).sum()
    })
}

#[test]
fn the_request_that_was_silent_longest_makes_room_for_a_new_one() {
    let extra = "- {type: envoy-proxy, parameters: {maxHeld: 2}}";
    let mut vm = vm(&listed("prefix-cache-scorer", extra));
    for id in [10, 11] {
        assert_eq!(open(&mut vm, id), Action::Pause);
        assert!(released(&mut vm).is_empty());
    }
    // The older one has brought more since.
    send(&mut vm, 10, 200);
    assert_eq!(open(&mut vm, 12), Action::Pause, "the newcomer is held");
    assert_eq!(released(&mut vm), [11]);
    assert!(
        destination().is_some(),
        "decided with the part that has arrived"
    );
    assert_eq!(open(&mut vm, 13), Action::Pause);
    assert_eq!(released(&mut vm), [10]);
    vm.delete(12);
    assert_eq!(open(&mut vm, 14), Action::Pause);
    assert!(released(&mut vm).is_empty(), "there was room");
    host(|host| host.body = br#"{"model": "m", "prompt": "x"}"#.to_vec());
    vm.request_body(13, 29, true);
    assert_eq!(open(&mut vm, 15), Action::Pause);
    // Until the statistics are flushed.
    for _ in 0..21 {
        assert!(released(&mut vm).is_empty(), "there was room");
    }
    assert_eq!(counted("reason=held"), 2);
}

#[test]
fn between_two_ticks_at_most_twice_as_many_are_held() {
    let extra = "- {type: envoy-proxy, parameters: {maxHeld: 2}}";
    let mut vm = vm(&listed("prefix-cache-scorer", extra));
    for id in 10..14 {
        assert_eq!(open(&mut vm, id), Action::Pause);
    }
    assert_eq!(open(&mut vm, 14), Action::Continue);
    assert_eq!(released(&mut vm), [10, 11]);
    let nothing = "- {type: envoy-proxy, parameters: {maxHeld: 0}}";
    let mut vm = super::filter_tests::vm(&listed("prefix-cache-scorer", nothing));
    assert_eq!(open(&mut vm, 10), Action::Continue);
}

/// A thousand bodies that come a byte at a time; of the newcomers' as many are honest.
#[test]
fn trickling_bodies_do_not_keep_places_from_complete_ones() {
    let extra = "- {type: envoy-proxy, parameters: {maxHeld: 1000}}";
    let mut vm = vm(&listed("prefix-cache-scorer", extra));
    let (drops, mut honest) = (0..1_000, 0);
    drops.clone().for_each(|id| {
        open(&mut vm, 10 + id);
    });
    for round in 1_u32..20 {
        assert_eq!(counted("reason=timeout"), 0);
        for id in drops.clone() {
            if vm_holds(&mut vm, 10 + id) {
                send(&mut vm, 10 + id, round as usize);
            }
        }
        // Fifty, whose bodies come two ticks after their headers.
        let newcomers = (0..50).map(|number| 10_000 + 100 * round + number);
        for id in newcomers.clone() {
            assert_eq!(open(&mut vm, id), Action::Pause);
        }
        for _ in 0..2 {
            let gone = released(&mut vm);
            assert!(gone.iter().all(|id| *id < 10_000), "{round}: {gone:?}");
        }
        for id in newcomers {
            host(|host| host.body = br#"{"model": "m", "prompt": "x"}"#.to_vec());
            assert_eq!(vm.request_body(id, 29, true), BodyAction::Continue);
            honest += 1;
        }
    }
    assert_eq!(honest, 19 * 50);
}

/// Returns whether Envoy still holds a request: it shows its body otherwise.
fn vm_holds(vm: &mut Vm, id: u32) -> bool {
    host(|host| host.body.clear());
    vm.request_body(id, 0, false) != BodyAction::Continue
}

/// The headers of request 10 come, whose body has still to come.
fn begin(vm: &mut Vm) {
    request(&[
        (":path", "/v1/completions"),
        (":method", "POST"),
        ("content-type", "application/json"),
    ]);
    vm.request_headers(10, false);
}

/// A kilobyte a second is what a request is waited for, beyond the five that one without any is.
#[test]
fn a_trickling_body_is_held_as_long_as_one_that_has_stopped() {
    for (a_second, expected) in [(1, 5..=6), (512, 9..=11), (2_048, 29..=31)] {
        let mut vm = vm(&listed("prefix-cache-scorer", ""));
        begin(&mut vm);
        let mut held = 0;
        while host(|host| host.resumed.is_empty()) {
            // Shown in passing.
            host(|host| {
                host.now += SECOND - 50_000_000;
                host.body = vec![b' '; a_second];
            });
            vm.request_body(10, a_second, false);
            tick(&mut vm);
            held += 1;
            assert!(held < 60);
        }
        assert!(expected.contains(&held), "{a_second} B/s: {held} s");
    }
}

/// 100 KB over a slow mobile network: 32 kbit/s, with a pause of four seconds.
#[test]
fn a_slow_client_is_waited_for() {
    let mut vm = vm(&listed("prefix-cache-scorer", ""));
    begin(&mut vm);
    for second in 0..25 {
        let pauses = (10..13).contains(&second);
        (0..20).for_each(|_| tick(&mut vm));
        if !pauses {
            send(&mut vm, 10, 4_000);
        }
        assert!(host(|host| host.resumed.is_empty()), "after {second} s");
    }
}

#[test]
fn a_clock_that_is_set_back_holds_no_request_longer() {
    let mut vm = vm(&listed("prefix-cache-scorer", ""));
    open(&mut vm, 10);
    tick(&mut vm);
    host(|host| host.now -= 500 * SECOND);
    for _ in 0..98 {
        assert!(released(&mut vm).is_empty());
    }
    assert_eq!((0..4).flat_map(|_| released(&mut vm)).count(), 1);
}

/// A plan that needs the model alone leaves bodies unread until they end or pause.
#[test]
fn a_body_that_is_left_unread_counts_as_delivered() {
    let mut vm = vm(&listed("lora-affinity-scorer", ""));
    open(&mut vm, 10);
    for size in 1..40 {
        send(&mut vm, 10, size);
        host(|host| host.received = size);
        assert!(released(&mut vm).is_empty(), "{size}");
        assert_eq!(counted("epp_wasm_reads_bodies"), 1);
    }
}

/// A thousand bodies, each a megabyte of which nothing was read, pause at the same time.
#[test]
fn unread_parts_are_read_over_several_ticks() {
    const SIZE: usize = 1 << 20;
    let mut vm = vm(&listed("lora-affinity-scorer", ""));
    for id in 10..1_010 {
        post();
        host(|host| {
            host.body = vec![b' '; SIZE];
            host.request[3].1 = SIZE.to_string();
        });
        vm.request_headers(id, false);
        vm.request_body(id, SIZE - 1, false);
    }
    let mut total = 0;
    for _ in 0..10 {
        host(|host| host.given = 0);
        tick(&mut vm);
        let given = host(|host| host.given);
        assert!(given <= 5 * SIZE, "{given} bytes in one tick");
        total += given;
    }
    // The first tick may still wait for more to come.
    assert!(total >= 9 * 4 * SIZE, "{total} bytes in ten ticks");
}

#[test]
fn requests_that_are_overdue_together_are_released_in_portions() {
    let extra = "- {type: envoy-proxy, parameters: {readBody: always}}";
    let mut vm = vm(&listed("prefix-cache-scorer", extra));
    (0..1_000).for_each(|id| {
        open(&mut vm, 10 + id);
    });
    wait(&mut vm, 4);
    tick(&mut vm);
    host(|host| host.now += SECOND - 50_000_000);
    let portions: Vec<usize> = (0..8).map(|_| released(&mut vm).len()).collect();
    assert_eq!(portions.iter().sum::<usize>(), 1_000);
    assert!(portions.iter().all(|size| *size <= 128), "{portions:?}");
}

#[test]
fn a_tick_queries_envoy_for_few_requests_without_a_byte() {
    let mut vm = vm(&listed("prefix-cache-scorer", ""));
    (0..1_000).for_each(|id| {
        open(&mut vm, 10 + id);
    });
    for _ in 0..40 {
        let queries = |host: &mut super::fake_host::Host| host.calls["proxy_get_property"];
        let before = host(queries);
        assert!(released(&mut vm).is_empty());
        assert!(host(queries) - before <= 64);
    }
    assert_eq!(counted("epp_wasm_reads_bodies"), 1);
}

/// Envoy does not show a body before its request is released. `received`: what it says it has.
fn waits(vm: &mut Vm, id: u32, received: usize) -> usize {
    open(vm, id);
    host(|host| host.received = received);
    (1..200).find(|_| !released(vm).is_empty()).unwrap()
}

#[test]
fn three_bodies_that_come_with_their_release_end_the_waiting() {
    let mut vm = vm(&listed("prefix-cache-scorer", ""));
    for id in 10..13 {
        assert_eq!(waits(&mut vm, id, 40), 6, "300 ms");
        send(&mut vm, id, 40);
    }
    assert_eq!(open(&mut vm, 13), Action::Continue);
    assert!(host(|host| host
        .log
        .iter()
        .any(|line| line.contains("allow_on_headers"))));
}

#[test]
fn a_body_that_comes_later_than_its_release_proves_nothing() {
    let mut vm = vm(&listed("prefix-cache-scorer", ""));
    for id in 10..20 {
        // A client that sends nothing is waited for as long as any.
        assert!((100..=101).contains(&waits(&mut vm, id, 0)), "5 s");
        send(&mut vm, id, 40);
        // One of which another filter holds back the body.
        waits(&mut vm, 100 + id, 40);
        tick(&mut vm);
        send(&mut vm, 100 + id, 40);
        // And one of which less comes than there was.
        waits(&mut vm, 200 + id, 40);
        send(&mut vm, 200 + id, 39);
    }
    assert_eq!(open(&mut vm, 30), Action::Pause);
}

#[test]
fn headers_without_memory_for_them_are_handled_by_the_failure_mode() {
    let open = "- {type: envoy-proxy, parameters: {failureMode: FailOpen}}";
    for (extra, action, replies) in [
        ("", Action::Pause, vec![500]),
        (open, Action::Continue, vec![]),
    ] {
        let mut vm = vm(&listed("prefix-cache-scorer", extra));
        post();
        assert!(destination().is_some(), "the client's own");
        host(|host| host.no_memory = true);
        assert_eq!(vm.request_headers(10, false), action);
        assert_eq!(destination(), None);
        let codes: Vec<u32> =
            host(|host| host.local_replies.drain(..).map(|(code, _)| code).collect());
        assert_eq!(codes, replies);
        host(|host| host.no_memory = false);
        post();
        assert_eq!(vm.request_headers(11, false), Action::Pause);
        assert_eq!(host(|host| host.local_replies.len()), 0, "it is held");
    }
}

#[test]
fn a_body_without_memory_for_it_is_decided_with_the_part_read() {
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

#[test]
fn callouts_whose_end_is_lost_do_not_pile_up() {
    let mut vm = vm(&listed("queue-scorer", ""));
    wait(&mut vm, 100);
    let begun = host(|host| host.callouts.len());
    assert!(begun > 20, "{begun} callouts");
    let callouts = vm.pools().map(Pool::callouts);
    assert!(callouts.sum::<usize>() <= 2, "one for each endpoint");
}

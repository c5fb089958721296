//! Engines that stand still, and others that look alike.

use self::world::{Server, World, FINE, HUNG};
use super::super::ExchangeId;
use crate::scheduling::{Metrics, Slot};

#[path = "stalls_world.rs"]
mod world;

#[test]
fn an_engine_that_stands_still_gets_nothing_until_it_works_again() {
    let mut world = World::new(&[FINE; 4]);
    world.run(3_000);
    world.servers[0] = HUNG;
    world.run(2_500);
    assert_eq!(world.hung(), [true, false, false, false]);
    // Nothing, not even a probe, while nothing moves.
    assert_eq!(world.run(20_000)[0], 0);
    world.servers[0] = FINE;
    // The page shows work: a probe.
    assert!(world.run(3_000)[0] > 10);
    assert_eq!(world.hung(), [false; 4]);
}

#[test]
fn a_response_to_a_request_that_was_stuck_ends_the_ejection() {
    let mut world = World::new(&[FINE; 4]);
    world.run(3_000);
    world.servers[0] = HUNG;
    world.run(2_500);
    world.servers[0].response = FINE.response;
    world.finish(0);
    world.run(100);
    assert_eq!(world.hung(), [false; 4]);
}

#[test]
fn a_page_that_moves_without_responses_gets_single_probes() {
    let mut world = World::new(&[FINE; 4]);
    world.run(3_000);
    world.servers[0] = HUNG;
    world.run(2_500);
    assert!(world.hung()[0]);
    // One page moves, and nothing more: a probe is sent and gets no response.
    world.generated[0] += 1;
    assert_eq!(world.run(10_000)[0], 1);
    assert!(world.hung()[0]);
    assert_eq!(world.run(40_000)[0], 0);
}

#[test]
fn an_engine_that_works_is_not_ejected_however_long_its_responses_take() {
    let mut world = World::new(&[FINE; 4]);
    world.run(3_000);
    // Whole responses that take two minutes.
    world.servers[0].response = Some(120_000);
    for _ in 0..120 {
        world.run(1_000);
        assert_eq!(world.hung(), [false; 4]);
    }
}

#[test]
fn an_endpoint_that_responds_is_not_ejected_whatever_its_page_shows() {
    let mut world = World::new(&[FINE; 4]);
    world.run(3_000);
    // A relay repeats an old page.
    world.servers[0].step = None;
    world.run(60_000);
    assert_eq!(world.hung(), [false; 4]);
}

#[test]
fn rejected_requests_do_not_hide_an_engine_that_stands_still() {
    let mut world = World::new(&[FINE; 4]);
    world.run(3_000);
    world.servers[0] = HUNG;
    world.run(1_500);
    // Every second request from now on is rejected at once.
    for turn in 0..100 {
        world.servers[0] = match turn % 2 {
            0 => HUNG,
            _ => Server {
                response: Some(10),
                status: 400,
                ..HUNG
            },
        };
        world.run(20);
    }
    assert!(world.hung()[0]);
}

/// FastAPI responds with the headers of a stream before it asks the engine.
#[test]
fn headers_of_streams_do_not_hide_an_engine_that_stands_still() {
    let streams = |server| Server {
        streams: true,
        ..server
    };
    let mut world = World::new(&[streams(FINE); 4]);
    world.run(3_000);
    assert_eq!(world.hung(), [false; 4]);
    world.servers[0] = streams(HUNG);
    world.run(2_500);
    assert_eq!(world.hung(), [true, false, false, false]);
    // The headers of a probe prove nothing.
    world.generated[0] += 1;
    assert_eq!(world.run(10_000)[0], 1);
    assert!(world.hung()[0]);
    world.servers[0] = streams(FINE);
    world.finish(0);
    world.run(3_000);
    assert_eq!(world.hung(), [false; 4]);
}

/// Returns whether an engine is found to stand still, while every second request has this path and gets this status.
fn is_found_behind(path: &'static str, status: u16) -> bool {
    let mut world = World::new(&[FINE; 4]);
    world.interval = 10;
    world.run(3_000);
    for turn in 0..300 {
        (world.path, world.servers[0]) = match turn % 2 {
            0 => ("/v1/completions", HUNG),
            _ => (
                path,
                Server {
                    response: Some(10),
                    status,
                    ..HUNG
                },
            ),
        };
        world.run(10);
    }
    let found = world.hung()[0];
    // Nor does such a probe end the ejection.
    world.generated[0] += 1;
    world.path = path;
    world.servers[0] = Server {
        response: Some(10),
        status,
        ..HUNG
    };
    world.run(3_000);
    assert_eq!(world.hung()[0], found);
    found
}

#[test]
fn what_takes_no_engine_does_not_hide_one_that_stands_still() {
    for path in [
        "/tokenize",
        "/v1/messages/count_tokens",
        "/v1/chat/completions/render",
        "/v1/conversations",
    ] {
        assert!(is_found_behind(path, 200), "{path}");
    }
    assert!(is_found_behind("/v1/completions", 404));
    assert!(!is_found_behind("/v1/completions", 200));
    assert!(!is_found_behind("/v1/rerank", 200));
}

#[test]
fn one_or_two_requests_that_wait_for_something_else_eject_nothing() {
    let mut world = World::new(&[FINE; 2]);
    world.run(3_000);
    // The images of these two do not come, and the engine is idle.
    world.servers[0] = HUNG;
    while world
        .under_way
        .iter()
        .filter(|it| it.due == u64::MAX)
        .count()
        < 2
    {
        world.send();
    }
    world.interval = u64::MAX;
    for _ in 0..100 {
        // The peer serves.
        world.servers[0].response = None;
        let server = world.send().unwrap();
        if server == 0 {
            let last = world.under_way.pop().unwrap();
            let now = world.at();
            world.picker.closed(now, ExchangeId(last.id));
        }
        world.run(200);
        assert_eq!(world.hung(), [false; 2]);
    }
    assert!(world.under_way.len() >= 2);
    // A third one waits.
    while world
        .under_way
        .iter()
        .filter(|it| it.due == u64::MAX)
        .count()
        < 3
    {
        world.send();
    }
    world.run(1_500);
    while world.send() != Some(1) {}
    world.run(1_500);
    assert_eq!(world.hung(), [true, false]);
}

/// Images that do not come end with an error, and the engine is idle: its page shows no work.
#[test]
fn an_endpoint_is_probed_once_the_requests_have_ended_that_it_was_ejected_for() {
    let mut world = World::new(&[FINE; 4]);
    world.run(3_000);
    world.servers[0] = Server {
        status: 400,
        ..HUNG
    };
    world.run(2_500);
    assert!(world.hung()[0]);
    world.servers[0] = Server { step: None, ..FINE };
    assert_eq!(world.run(10_000)[0], 0);
    world.finish(0);
    assert!(world.run(1_000)[0] > 3);
    assert_eq!(world.hung(), [false; 4]);
}

#[test]
fn nothing_is_ejected_where_no_peer_serves() {
    let mut world = World::new(&[FINE; 4]);
    world.run(3_000);
    world.servers = vec![HUNG; 4];
    world.run(60_000);
    assert_eq!(world.hung(), [false; 4]);
    world.servers = vec![FINE, HUNG, HUNG, HUNG];
    world.finish(0);
    world.run(10_000);
    assert_eq!(
        world.hung(),
        [false; 4],
        "three of four: something behind them"
    );
}

#[test]
fn a_pool_whose_engines_are_silent_for_long_is_given_more_time() {
    // Steps of two and a half seconds, as with long prompts that are computed in one.
    let slow = Server {
        response: Some(2_600),
        ..FINE
    };
    let mut world = World::new(&[slow; 4]);
    let stand = |world: &mut World, millis: u64| {
        world.servers[0].step = None;
        world.servers[0].response = None;
        let at_once = world.under_way.iter_mut().filter(|it| it.server == 0);
        at_once.for_each(|it| it.due = u64::MAX);
        world.run(millis);
        let hung = world.hung()[0];
        world.servers[0] = slow;
        world.finish(0);
        hung
    };
    world.run(5_000);
    // Each time a little longer than the time before.
    for millis in [1_800, 3_000, 5_000] {
        assert!(!stand(&mut world, millis), "{millis}");
        world.run(3_000);
    }
    assert!(stand(&mut world, 20_000));
    // Half an hour later all of it is forgotten.
    world.run(1_300_000);
    assert!(stand(&mut world, 3_000));
}

#[test]
fn without_the_counter_of_tokens_more_time_is_given() {
    let mut world = World::new(&[FINE; 4]);
    world.counts = false;
    world.run(3_000);
    world.servers[0] = HUNG;
    world.run(10_000);
    assert_eq!(world.hung(), [false; 4]);
    world.run(6_000);
    assert_eq!(world.hung(), [true, false, false, false]);
}

#[test]
fn another_source_of_the_load_is_no_work() {
    let mut world = World::new(&[FINE; 4]);
    world.counts = false;
    world.run(3_000);
    world.servers[0] = HUNG;
    world.run(8_000);
    // The next page is of the former source again.
    let now = world.at();
    let store = &mut world.picker.dispatcher.endpoints.monitor.store;
    let loads = Metrics {
        from_loads: true,
        waiting: Some(0.0),
        kv_usage: Some(0.95),
        ..store.page(Slot(0)).unwrap().into_owned()
    };
    store.set_metrics(Slot(0), loads, false, now);
    world.run(8_000);
    assert_eq!(world.hung(), [true, false, false, false]);
}

#[test]
fn a_value_that_only_some_pages_have_is_no_work() {
    let mut world = World::new(&[FINE; 4]);
    world.run(3_000);
    world.servers[0] = HUNG;
    world.flickers = true;
    world.run(3_000);
    assert_eq!(world.hung(), [true, false, false, false]);
}

#[test]
fn an_endpoint_without_history_is_given_more_time() {
    let mut world = World::new(&[HUNG, FINE, FINE, FINE]);
    world.run(14_000);
    assert_eq!(world.hung(), [false; 4]);
    world.run(3_000);
    assert_eq!(world.hung(), [true, false, false, false]);
}

/// Returns after how many milliseconds an engine is found that stands still, in a pool whose pages come as they are
/// fetched for this scorer.
fn found_after(scorer: &str, response: u64, interval: u64) -> u64 {
    let server = Server {
        response: Some(response),
        ..FINE
    };
    let mut world = World::with(&[server; 4], scorer);
    (world.fetches, world.interval) = (true, interval);
    world.run(130_000);
    assert_eq!(world.hung(), [false; 4]);
    let begun = world.now;
    world.servers[0] = HUNG;
    let stuck = world.under_way.iter_mut().filter(|it| it.server == 0);
    stuck.for_each(|it| it.due = u64::MAX);
    while !world.hung()[0] {
        world.run(50);
    }
    world.now - begun
}

#[test]
fn a_plan_that_needs_only_constants_finds_an_engine_that_stands_still_as_soon() {
    for (response, interval) in [
        (20, 20),
        (20, 100),
        (12_000, 700),
        (12_000, 100),
        (3_000, 200),
    ] {
        for scorer in ["queue-scorer", "prefix-cache-scorer"] {
            let after = found_after(scorer, response, interval);
            assert!(after < 3_000, "{scorer} {response} {interval}: {after}");
        }
    }
}

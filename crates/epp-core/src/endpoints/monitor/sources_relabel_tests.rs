//! Servers whose label names another engine by now.

use super::*;
use crate::endpoints::store::Member;

/// Returns what a server leads to whose label changes to that of vLLM after so many seconds, and as many later.
fn relabel(server: Server, before: u64, after: u64) -> World {
    let mut world = World::new(&queue(), server);
    world.run(before);
    let mut member = Member::from(world.endpoint());
    let label = ("llm-d.ai/engine-type".to_owned(), "vllm".to_owned());
    member.labels = vec![label];
    world.monitor.store.set_member(Slot(0), &member);
    world.server.page = Some("vllm:num_requests_waiting 3\n".to_owned());
    world.asked = [0, 0];
    world.run(after);
    world
}

#[test]
fn an_endpoint_of_another_engine_by_now_is_known_by_its_page() {
    let world = relabel(both(), 5, 10);
    assert_eq!(world.asked[1], 0);
    assert_eq!(world.known().0, Some(3.0));
}

#[test]
fn an_endpoint_of_another_engine_by_now_is_not_polled_with_each_tick() {
    // Five in a second.
    let world = relabel(both(), 5, 10);
    assert!(world.asked[0] <= 60, "{:?}", world.asked);
}

#[test]
fn an_endpoint_that_never_served_loads_is_not_polled_with_each_tick_once_its_engine_is_another() {
    let server = Server {
        page: page(7, 100),
        loads: None,
    };
    let world = relabel(server, 58, 40);
    assert!(world.asked[0] <= 240, "{:?}", world.asked);
}

#[test]
fn a_dead_endpoint_of_another_engine_by_now_is_backed_off_from() {
    let mut world = relabel(both(), 5, 0);
    world.server = Server::default();
    world.run(20);
    assert!(world.asked[0] <= 20, "{:?}", world.asked);
    assert!(world.monitor.store.condition(Slot(0)).failures > 0);
}

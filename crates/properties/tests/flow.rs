//! Several simulated workers that are one gate: requests of random bands come and go, workers crash and get other plans.
//! No request is lost or sent twice, none waits beyond its time, the pool takes no more than one look's arrivals too many,
//! and no lower band goes on where a higher one has waited for longer than two looks.
//!
//! `SEEDS` is the number of seeds of each pool. The time is simulated, in steps of 10 ms.

// A test fails loudly.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use self::world::{World, CAPACITY};

#[path = "flow/world.rs"]
mod world;

fn seeds() -> std::ops::Range<u64> {
    let seeds = std::env::var("SEEDS").ok();
    0..seeds.map_or(2, |seeds| seeds.parse().unwrap())
}

#[test]
fn workers_are_one_gate() {
    for seed in seeds() {
        for (workers, endpoints) in [(1, 2), (2, 2), (4, 3), (16, 8)] {
            let mut world = World::new(endpoints, workers, "global-strict-fairness-policy", seed);
            // At 300 ms each, the pool serves 27 in a hundred steps for each place.
            let capacity = (endpoints * CAPACITY * 100 / 31) as u64;
            let mut full = 0;
            for _ in 0..1_000 {
                world.step(capacity * 2);
                full += usize::from(world.in_flight() >= CAPACITY * endpoints * 3 / 4);
            }
            assert!(
                world.waiting() > 0 && world.done.expired > 0,
                "{:?}",
                world.done
            );
            assert!(full > 900, "{workers} workers keep the pool busy: {full}");
            world.check_waits();
            world.drain();
        }
    }
}

#[test]
fn crashes_and_reloads_lose_no_other_request() {
    for seed in seeds() {
        let mut world = World::new(3, 4, "round-robin-fairness-policy", seed);
        world.checks = false;
        for step in 0..3_000 {
            // Of a worker that has crashed, the others forget after a second what was in flight and waited there.
            match step % 300 {
                100 => world.crash(),
                200 => world.reload(step % 600 == 200),
                _ => {}
            }
            world.step(200);
        }
        world.reload(true);
        world.drain();
        assert!(world.done.crashed > 0, "{:?}", world.done);
    }
}

/// How many requests of a tenant wait in each of its workers, and these workers.
type Tenant<'a> = (usize, &'a [usize]);

/// Lets tenants, each with so many requests that wait in each of its workers, have their turns. Returns how many requests
/// of each tenant were sent, in multiples of their mean.
fn parts(world: &mut World, tenants: &[Tenant<'_>]) -> Vec<f64> {
    let mut begun = Vec::new();
    for step in 0..700 {
        let waiting = world.waiting_by_tenant();
        for (tenant, (most, workers)) in tenants.iter().enumerate() {
            for worker in *workers {
                let waiting = waiting.get(&(*worker, tenant)).copied();
                for _ in waiting.unwrap_or(0)..*most {
                    world.arrive_of(*worker, ("usual", 0), tenant);
                }
            }
        }
        world.step(0);
        if step == 200 {
            begun = (0..tenants.len())
                .map(|tenant| world.sent[&tenant])
                .collect();
        }
    }
    let sent = begun
        .iter()
        .enumerate()
        .map(|(tenant, begun)| world.sent[&tenant] - begun);
    let sent: Vec<u64> = sent.collect();
    let mean = sent.iter().sum::<u64>() as f64 / tenants.len() as f64;
    sent.iter().map(|sent| *sent as f64 / mean).collect()
}

#[test]
fn tenants_get_equal_parts_in_whichever_workers_their_requests_wait() {
    let all: Vec<usize> = (0..16).collect();
    let cases: [(usize, &[Tenant<'_>]); 6] = [
        (1, &[(300, &[0]), (20, &[0])]),
        (2, &[(300, &[0]), (20, &[1])]),
        (2, &[(300, &[0, 1]), (40, &[1])]),
        (
            4,
            &[(100, &[0, 1, 2, 3]), (30, &[0]), (30, &[0]), (30, &[3])],
        ),
        (16, &[(100, &all), (60, &[5])]),
        (16, &[(100, &all), (20, &all), (60, &[0]), (60, &[15])]),
    ];
    // It takes longer than the others.
    for seed in seeds().step_by(2) {
        for (workers, tenants) in cases {
            let mut world = World::new(16, workers, "round-robin-fairness-policy", seed);
            world.checks = false;
            let parts = parts(&mut world, tenants);
            let fair = parts.iter().all(|part| (0.9..1.1).contains(part));
            assert!(fair, "{workers} workers, {tenants:?}: {parts:?}");
        }
    }
}

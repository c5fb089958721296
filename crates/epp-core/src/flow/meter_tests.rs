use super::*;
use crate::scheduling::{Endpoint, Freshness, Health, InFlight};
use crate::testing::detector;

const DETECTORS: &str = "
- {name: queues, type: utilization-detector, parameters: {queueDepthThreshold: 3}}
- {name: fresh, type: utilization-detector, parameters: {stalenessPolicy: ignore}}
- {name: requests, type: concurrency-detector, parameters: {maxConcurrency: 7}}
- {name: tokens, type: concurrency-detector, parameters: {concurrencyMode: tokens, maxTokenConcurrency: 900}}
- {name: hybrid, type: concurrency-detector, parameters: {concurrencyMode: hybrid, maxConcurrency: 3, maxTokenConcurrency: 700}}
- {name: inner, type: max-saturation-detector, parameters: {detectors: [queues, requests], stages: {queues: [decode]}}}
- {name: all, type: max-saturation-detector, parameters: {detectors: [inner, tokens], stages: {inner: [decode], tokens: [prefill]}}}
";

fn change(pool: &mut Pool, rng: &mut fastrand::Rng) {
    let slot = Slot(rng.u32(..40));
    let role = |role: &str| [("llm-d.ai/role".to_owned(), role.to_owned())];
    match rng.u8(..100) {
        0..80 => {
            let load = InFlight {
                requests: rng.u32(..9),
                tokens: rng.u64(..2_000),
                unreported: rng.u32(..3),
                unseen: 0,
            };
            pool.set_load(slot, load);
        }
        80..84 => drop(pool.remove(slot)),
        84..90 => pool.set(
            slot,
            Endpoint {
                health: Health::Healthy,
                freshness: Freshness::Fresh,
                ..Endpoint::default()
            },
        ),
        90..93 => pool.set_labels(slot, &role(["prefill", "decode", "both"][rng.usize(..3)])),
        93..95 => pool.note(slot, |endpoint| &mut endpoint.freshness, Freshness::Stale),
        95..97 => pool.note(slot, |endpoint| &mut endpoint.ejected, rng.bool()),
        _ => pool.note(
            slot,
            |endpoint| &mut endpoint.metrics.waiting,
            Some(rng.f64() * 9.0),
        ),
    }
}

#[test]
fn what_is_kept_up_to_date_is_what_the_whole_pool_has() {
    let names = [
        "queues", "fresh", "requests", "tokens", "hybrid", "inner", "all",
    ];
    for (seed, name) in (0..).zip(names) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let detector = detector(DETECTORS, name);
        let (mut pool, mut meter) = (Pool::default(), Meter::new(&detector));
        for _ in 0..20_000 {
            // Once in a while more at once than the pool remembers.
            let changes = if rng.u8(..20) == 0 { 50 } else { rng.u32(..4) };
            (0..changes).for_each(|_| change(&mut pool, &mut rng));
            assert_eq!(
                meter.measure(&pool),
                Saturation::of(&*detector, &pool),
                "{name}"
            );
        }
    }
}

use super::*;
use crate::scheduling::{DecisionMode, Freshness, Health, Metrics};
use crate::testing::{detector, pool};

/// An endpoint of a vector: its waiting count, KV-cache utilization, requests and tokens in flight, and running count.
#[derive(Clone, Copy, Default)]
struct At {
    waiting: f64,
    kv_usage: f64,
    requests: u32,
    tokens: u64,
    running: f64,
    unreported: u32,
    is_stale: bool,
}

fn load(waiting: f64, kv_usage: f64) -> At {
    At {
        waiting,
        kv_usage,
        ..At::default()
    }
}

fn stale() -> At {
    At {
        is_stale: true,
        ..load(1.0, 0.1)
    }
}

fn in_flight(requests: u32, tokens: u64) -> At {
    At {
        requests,
        tokens,
        ..At::default()
    }
}

fn of(endpoints: &[At]) -> Pool {
    let mut pool = pool(endpoints.iter().map(|at| Metrics {
        waiting: Some(at.waiting),
        running: Some(at.running),
        kv_usage: Some(at.kv_usage),
        ..Metrics::default()
    }));
    for (slot, at) in (0..).map(Slot).zip(endpoints) {
        if at.is_stale {
            pool.get_mut(slot).unwrap().freshness = Freshness::Stale;
        }
        let load = InFlight {
            requests: at.requests,
            tokens: at.tokens,
            unreported: at.unreported,
            ..InFlight::default()
        };
        pool.set_load(slot, load);
    }
    pool
}

fn built(kind: &str, parameters: &str) -> std::sync::Arc<dyn SaturationDetector> {
    let plugin = format!("- {{type: {kind}, parameters: {parameters}}}\n");
    detector(&plugin, kind)
}

fn check(kind: &str, parameters: &str, vectors: &[(&[At], f64)]) {
    let detector = built(kind, parameters);
    for (number, (endpoints, expected)) in vectors.iter().enumerate() {
        let found = detector.saturation(&of(endpoints), Partition::All);
        assert!(
            (found - expected).abs() < 1e-9,
            "{kind} {parameters}, vector {number}: {found}"
        );
    }
}

#[test]
fn an_endpoint_that_was_never_scraped_counts_as_full() {
    let mut pool = of(&[load(0.0, 0.0), load(0.0, 0.0)]);
    pool.get_mut(Slot(1)).unwrap().freshness = Freshness::Unknown;
    pool.mode = DecisionMode::LocalOnly;
    let saturation = |parameters| {
        let detector = built("utilization-detector", parameters);
        detector.saturation(&pool, Partition::All)
    };
    assert_eq!(saturation("{}"), 0.5);
    assert_eq!(saturation("{stalenessPolicy: ignore}"), 0.0);
}

#[test]
fn stale_endpoints_can_be_left_out() {
    check(
        "utilization-detector",
        "{stalenessPolicy: ignore}",
        &[
            (&[], 1.0),
            (&[stale()], 0.0),
            (&[stale(), load(10.0, 0.1)], 2.0),
            (&[stale(), load(10.0, 0.1), load(5.0, 0.1)], 1.5),
        ],
    );
}

/// What no page shows yet counts as waiting; what runs, and what waits on the page, is not counted twice.
#[test]
fn requests_count_as_waiting_from_when_they_are_sent() {
    let at = |waiting, running, requests| At {
        running,
        requests,
        ..load(waiting, 0.0)
    };
    let unreported = At {
        unreported: 3,
        ..at(0.0, 4.0, 5)
    };
    check(
        "utilization-detector",
        "{}",
        &[
            (&[at(0.0, 0.0, 5)], 1.0),
            (&[at(0.0, 4.0, 5)], 0.2),
            (&[at(2.0, 4.0, 6)], 0.4),
            (&[at(2.0, 4.0, 9)], 1.0),
            // Another proxy's requests run there, too.
            (&[at(1.0, 40.0, 3)], 0.2),
            (&[unreported], 0.8),
        ],
    );
}

#[test]
fn concurrency_is_what_is_in_flight_of_what_may_be() {
    let two = [in_flight(9, 100), in_flight(3, 1_500)];
    let limits = |mode: &str| {
        format!("{{concurrencyMode: {mode}, maxConcurrency: 10, maxTokenConcurrency: 1000}}")
    };
    for (mode, expected) in [("requests", 0.6), ("tokens", 0.8), ("hybrid", 1.2)] {
        let vectors = [(two.as_slice(), expected), (&[], 1.0)];
        check("concurrency-detector", &limits(mode), &vectors);
    }
    let unreported = At {
        unreported: 2,
        ..in_flight(4, 100)
    };
    check(
        "concurrency-detector",
        &limits("requests"),
        &[(&[unreported], 0.6)],
    );
    check(
        "concurrency-detector",
        &limits("tokens"),
        &[(&[unreported], 0.15)],
    );
}

/// The gate is shut at 1: a full pool must not come out a hair below it, whatever the numbers.
#[test]
fn a_pool_that_is_just_full_is_at_one() {
    for limit in [1, 3, 7, 49, 132] {
        for endpoints in [1, 3, 10, 41, 100] {
            let mut all = vec![in_flight(limit, 0); endpoints];
            let parameters = format!("{{maxConcurrency: {limit}}}");
            let saturation = |all: &[At]| {
                built("concurrency-detector", &parameters).saturation(&of(all), Partition::All)
            };
            assert_eq!(saturation(&all), 1.0, "{limit} × {endpoints}");
            all[0].requests -= 1;
            assert!(saturation(&all) < 1.0, "{limit} × {endpoints}");
        }
    }
}

/// Endpoints with these roles and as many requests in flight, of at most 10.
fn measured(endpoints: &[(&str, u32)]) -> Saturation {
    let mut pool = of(&endpoints
        .iter()
        .map(|(_, requests)| in_flight(*requests, 0))
        .collect::<Vec<_>>());
    for (slot, (role, _)) in (0..).map(Slot).zip(endpoints) {
        if !role.is_empty() {
            let label = ("llm-d.ai/role".to_owned(), (*role).to_owned());
            pool.set_labels(slot, &[label]);
        }
    }
    let detector = built("concurrency-detector", "{maxConcurrency: 10}");
    Saturation::of(&*detector, &pool)
}

#[test]
fn the_stages_of_a_pool_are_measured_apart() {
    let stages = |prefill, decode, effective| Saturation {
        prefill,
        decode,
        effective,
    };
    let both = [("prefill", 8), ("decode", 2), ("", 4), ("encode", 10)];
    assert_eq!(measured(&both), stages(Some(0.8), Some(0.3), 0.8));
    assert_eq!(measured(&[("", 5), ("", 7)]), stages(None, Some(0.6), 0.6));
    assert_eq!(measured(&[("prefill", 5)]), stages(Some(0.5), None, 0.5));
    let mixed = [("both", 4), ("prefill", 8), ("decode", 0)];
    assert_eq!(measured(&mixed), stages(Some(0.6), Some(0.2), 0.6));
    assert_eq!(measured(&[("encode", 5)]), stages(None, None, 0.5));
    assert_eq!(measured(&[("unheard-of", 5)]), stages(None, None, 0.5));
    assert_eq!(measured(&[]), stages(None, None, 1.0));
}

#[test]
fn endpoints_that_get_no_requests_do_not_count() {
    let detector = built("concurrency-detector", "{maxConcurrency: 10}");
    let mut pool = of(&[in_flight(8, 0), in_flight(2, 0), in_flight(0, 0)]);
    pool.get_mut(Slot(1)).unwrap().ejected = true;
    pool.get_mut(Slot(2)).unwrap().health = Health::Unhealthy;
    assert_eq!(detector.saturation(&pool, Partition::All), 0.8);
    pool.get_mut(Slot(0)).unwrap().ejected = true;
    let found = detector.saturation(&pool, Partition::All);
    assert_eq!(
        found, 0.5,
        "ejected ones are used where there are no others"
    );
    pool.get_mut(Slot(0)).unwrap().health = Health::Unhealthy;
    pool.get_mut(Slot(1)).unwrap().health = Health::Unhealthy;
    assert_eq!(detector.saturation(&pool, Partition::All), 1.0);
}

#[test]
fn labels_that_change_change_the_stage() {
    let detector = built("concurrency-detector", "{maxConcurrency: 10}");
    let mut pool = of(&[in_flight(5, 0)]);
    let role = |role: &str| [("llm-d.ai/role".to_owned(), role.to_owned())];
    pool.set_labels(Slot(0), &role("prefill"));
    assert_eq!(Saturation::of(&*detector, &pool).decode, None);
    pool.set_labels(Slot(0), &role("both"));
    assert_eq!(Saturation::of(&*detector, &pool).decode, Some(0.5));
    pool.set_labels(Slot(0), &[]);
    assert_eq!(Saturation::of(&*detector, &pool).prefill, None);
}

use super::*;
use crate::plugins::role::{build_default, Role};
use crate::scheduling::profile::Observer;
use crate::scheduling::{
    DecisionMode, Freshness, Load, Metrics, Pool, PrefixMatch, Profile, Request, Scheduler,
    Scratch, Slot, WeightedScorer,
};
use crate::testing::{endpoint, lora};

/// Who is there has the scores made for the request.
struct Onlooker;

impl Observer for Onlooker {
    fn filtered(&mut self, _: &str, _: &[Slot], _: &[Slot]) {}
    fn scored(&mut self, _: &WeightedScorer, _: &[Slot], _: &[f64]) {}
}

fn scheduler(random: &mut fastrand::Rng) -> Scheduler {
    let mut names = [
        "prefix-cache-scorer",
        "queue-scorer",
        "kv-cache-utilization-scorer",
        "lora-affinity-scorer",
        "running-requests-size-scorer",
        "active-request-scorer",
    ];
    random.shuffle(&mut names);
    let scorers = names.iter().take(random.usize(1..=6)).map(|name| {
        let Role::Scorer(scorer) = build_default(name) else {
            panic!("{name} is no scorer");
        };
        let weight = f64::from(random.u32(0..30)) / 7.0;
        WeightedScorer {
            name: (*name).to_owned(),
            scorer,
            weight,
        }
    });
    let scorers = scorers.collect();
    let (Role::Picker(picker), Role::ProfileHandler(handler)) = (
        build_default("max-score-picker"),
        build_default("single-profile-handler"),
    ) else {
        panic!("no picker or no profile handler");
    };
    let profile = Profile {
        name: "default".to_owned(),
        filters: vec![],
        scorers,
        picker,
    };
    Scheduler::new(vec![profile], handler)
}

fn metrics(random: &mut fastrand::Rng) -> Metrics {
    let adapters = ["", "a", "a b", "c"];
    Metrics {
        waiting: random.bool().then(|| f64::from(random.u32(..9))),
        running: random.bool().then(|| f64::from(random.u32(..9))),
        kv_usage: random.bool().then(|| random.f64() * 1.2),
        lora: lora(
            adapters[random.usize(..4)],
            adapters[random.usize(..4)],
            random.u32(..4),
        ),
        ..Metrics::default()
    }
}

/// Anything that can happen to a pool between two requests.
fn change(pool: &mut Pool, random: &mut fastrand::Rng) {
    let slot = Slot(random.u32(..12));
    let load = Load {
        requests: random.u32(..5),
        unseen: random.u32(..3),
        tokens: 0,
    };
    match (random.u8(..8), pool.get(slot).is_some()) {
        (0, _) => pool.set(slot, endpoint(&slot.0.to_string(), metrics(random))),
        (1, _) => drop(pool.remove(slot)),
        (2, _) => pool.mode = [DecisionMode::Metrics, DecisionMode::LocalOnly][random.usize(..2)],
        (3.., true) if random.bool() => pool.set_load(slot, load),
        (kind, true) => {
            let metrics = metrics(random);
            let endpoint = pool.get_mut(slot).unwrap();
            match kind {
                3 => endpoint.available = random.bool(),
                4 => endpoint.avoided = random.bool(),
                5 => {
                    use Freshness::{Fresh, Stale, Unknown};
                    endpoint.freshness = [Fresh, Fresh, Stale, Unknown][random.usize(..4)];
                }
                _ => endpoint.metrics = metrics,
            }
        }
        _ => {}
    }
}

#[test]
fn what_is_kept_is_what_would_be_made() {
    let mut random = fastrand::Rng::with_seed(11);
    // One for all plans: what was kept for another plan must not count.
    let mut keeping = Scratch::new(fastrand::Rng::with_seed(1));
    let models: Vec<String> = (0..40).map(|number| number.to_string()).collect();
    let models = models.iter().map(String::as_str).chain(["a", "b", "c"]);
    let models: Vec<&str> = models.collect();
    for _ in 0..150 {
        let scheduler = scheduler(&mut random);
        let mut pool = Pool::default();
        for _ in 0..200 {
            for _ in 0..random.u32(..4) {
                change(&mut pool, &mut random);
            }
            let matched: Vec<u32> = (0..random.usize(..12)).map(|_| random.u32(..9)).collect();
            let prefix = [PrefixMatch {
                matched: &matched,
                total: 8.0,
                block_tokens: 0,
            }];
            let request = Request {
                model: models[random.usize(..models.len())],
                prefix: &prefix,
                ..Request::default()
            };
            let cycle = Cycle {
                pool: &pool,
                request,
            };
            let sums = |scratch: &mut Scratch, observer: Option<&mut dyn Observer>| {
                let decision = scheduler.schedule(&cycle, 2, scratch, observer)?;
                let scored = decision.ranking.scored.iter();
                let mut sums: Vec<(Slot, u64)> = scored
                    .map(|scored| (scored.slot, scored.score.to_bits()))
                    .collect();
                sums.sort_unstable();
                Ok::<_, crate::scheduling::ScheduleError>(sums)
            };
            let mut made = Scratch::new(fastrand::Rng::with_seed(1));
            let expected = sums(&mut made, Some(&mut Onlooker));
            assert_eq!(sums(&mut keeping, None), expected);
        }
    }
    assert_eq!(keeping.buffers.cache.columns.len(), MOST);
}

//! Cached scores are those that would be computed.

use super::*;
use crate::scheduling::profile::Observer;
use crate::scheduling::{
    Conclusion, DecisionMode, Freshness, Health, InFlight, Left, Metrics, NamedFilter, Pool,
    PrefixMatch, Profile, ProfileHandler, ProfileSet, Profiles, RequestView, Results,
    ScheduleError, Scheduler, Scratch, Slot, Stage, Stages, WeightedScorer,
};
use crate::testing::{endpoint, lora, picker, scorer, TestFilter};

/// Notes all that it is shown.
#[derive(Default, PartialEq, Debug)]
struct Noted {
    filtered: Vec<(String, Vec<Slot>, Vec<Slot>)>,
    scored: Vec<(String, Vec<Slot>, Vec<u64>)>,
}

impl Observer for Noted {
    fn filtered(&mut self, name: &str, before: &[Slot], after: &[Slot]) {
        self.filtered
            .push((name.to_owned(), before.to_vec(), after.to_vec()));
    }

    fn scored(&mut self, scorer: &WeightedScorer, candidates: &[Slot], scores: &[f64]) {
        let scores = scores.iter().map(|score| score.to_bits()).collect();
        self.scored
            .push((scorer.name.clone(), candidates.to_vec(), scores));
    }
}

/// Runs all profiles; the last one that left any endpoint serves the request, the first one's pick
/// computes the prompt.
#[derive(Debug)]
struct AllProfiles;

impl ProfileHandler for AllProfiles {
    fn check(&self, _: Profiles<'_>) -> Result<(), String> {
        Ok(())
    }

    fn next(&self, _: &Cycle<'_>, profiles: Profiles<'_>, _: &Results, run: &mut ProfileSet) {
        profiles.ids().for_each(|profile| run.insert(profile));
    }

    fn conclude(
        &self,
        _: &Cycle<'_>,
        profiles: Profiles<'_>,
        done: &Results,
    ) -> Result<Conclusion, ScheduleError> {
        let mut found = profiles
            .ids()
            .filter(|profile| matches!(done.get(*profile), Some(Ok(_))));
        let first = found.next().ok_or(ScheduleError::AllFiltered)?;
        Ok(Conclusion {
            stages: Some(Stages {
                prefill: Stage::Picked(first),
                encode: Stage::NoProfile,
            }),
            ..Conclusion::of(found.last().unwrap_or(first))
        })
    }

    fn settled(&self, _: &Cycle<'_>, _: &Cycle<'_>, _: Profiles<'_>, _: &mut Left<'_>) -> bool {
        true
    }
}

fn filters(random: &mut fastrand::Rng) -> Arc<[NamedFilter]> {
    let any = [
        TestFilter::Remainder(2, random.u32(..2)),
        TestFilter::Remainder(3, random.u32(..3)),
        TestFilter::Adapter,
        TestFilter::Length,
        TestFilter::Busy(2),
    ];
    (0..random.usize(..3))
        .map(|_| {
            let filter = any[random.usize(..any.len())];
            NamedFilter {
                name: format!("{filter:?}"),
                filter: Arc::new(filter),
            }
        })
        .collect()
}

fn scheduler(random: &mut fastrand::Rng) -> Scheduler {
    let names = [
        "prefix-cache-scorer",
        "queue-scorer",
        "kv-cache-utilization-scorer",
        "lora-affinity-scorer",
        "running-requests-size-scorer",
        "active-request-scorer",
    ];
    let shared: Vec<Arc<dyn Scorer>> = names.iter().map(|name| scorer(name)).collect();
    let profiles = (0..random.usize(1..=3)).map(|number| {
        let mut order: Vec<usize> = (0..names.len()).collect();
        random.shuffle(&mut order);
        order.truncate(random.usize(1..=names.len()));
        let scorers = order.iter().map(|place| WeightedScorer {
            name: names[*place].to_owned(),
            scorer: shared[*place].clone(),
            weight: f64::from(random.u32(0..30)) / 7.0,
        });
        Profile {
            name: number.to_string(),
            scorers: scorers.collect(),
            filters: filters(random),
            picker: picker("max-score-picker"),
        }
    });
    Scheduler::new(profiles.collect(), Arc::new(AllProfiles))
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
    let load = InFlight {
        requests: random.u32(..5),
        unseen: random.u32(..3),
        ..InFlight::default()
    };
    match (random.u8(..8), pool.get(slot).is_some()) {
        (0, _) => pool.set(slot, endpoint(&slot.0.to_string(), metrics(random))),
        (1, _) => drop(pool.remove(slot)),
        (2, _) => {
            pool.mode = [DecisionMode::Metrics, DecisionMode::LocalOnly][random.usize(..2)];
        }
        (3.., true) if random.bool() => pool.set_load(slot, load),
        (kind, true) => {
            let metrics = metrics(random);
            let endpoint = pool.get_mut(slot).unwrap();
            match kind {
                3 => {
                    endpoint.health = match random.bool() {
                        true => Health::Healthy,
                        false => Health::Draining,
                    }
                }
                4 => endpoint.ejected = random.bool(),
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

/// All that a decision came to: the scores to the bit, and the order of those that were picked.
#[derive(PartialEq, Debug)]
struct Found {
    profile: usize,
    picks: Vec<Slot>,
    prefill: Option<Vec<Slot>>,
    sums: Vec<(Slot, u64)>,
}

fn decide(
    scheduler: &Scheduler,
    cycle: &Cycle<'_>,
    fallbacks: usize,
    scratch: &mut Scratch,
    observer: Option<&mut dyn Observer>,
) -> Result<Found, ScheduleError> {
    *scratch.rng() = fastrand::Rng::with_seed(7);
    let decision = scheduler.schedule(cycle, fallbacks, scratch, observer)?;
    let scored = decision.ranking.scored.iter();
    let mut sums: Vec<(Slot, u64)> = scored
        .map(|scored| (scored.slot, scored.score.to_bits()))
        .collect();
    sums.sort_unstable();
    Ok(Found {
        profile: decision.profile.0,
        picks: decision.picks().collect(),
        prefill: decision.prefill.map(|ranking| ranking.picks().collect()),
        sums,
    })
}

fn models() -> Vec<String> {
    let models = (0..40).map(|number: u32| number.to_string());
    models.chain(["a", "b", "c"].map(str::to_owned)).collect()
}

/// A run of random requests to random plans: what is found with caches that have seen all requests
/// before is what is found with empty ones, whether an observer looks on or not.
#[test]
fn cached_results_are_those_that_would_be_computed() {
    let mut random = fastrand::Rng::with_seed(11);
    // One for all plans: what was cached for another plan must not count.
    let mut caching = Scratch::new(fastrand::Rng::with_seed(1));
    let models = models();
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
                block_tokens: None,
            }];
            let request = RequestView {
                model: &models[random.usize(..models.len())],
                prefix: &prefix,
                ..RequestView::default()
            };
            let cycle = Cycle::new(&pool, request);
            let (mut seen, mut expected_seen) = (Noted::default(), Noted::default());
            let mut computing = Scratch::new(fastrand::Rng::with_seed(1));
            let observer = Some(&mut expected_seen as &mut dyn Observer);
            let expected = decide(&scheduler, &cycle, 2, &mut computing, observer);
            if random.bool() {
                assert_eq!(decide(&scheduler, &cycle, 2, &mut caching, None), expected);
            } else {
                let observer = Some(&mut seen as &mut dyn Observer);
                assert_eq!(
                    decide(&scheduler, &cycle, 2, &mut caching, observer),
                    expected
                );
                assert_eq!(seen, expected_seen);
            }
        }
    }
    assert_eq!(caching.buffers.cache.columns.len(), MAX_COLUMNS);
}

/// A request with this prompt.
fn prompted<'a>(pool: &'a Pool, prefix: &'a [PrefixMatch<'a>]) -> Cycle<'a> {
    let request = RequestView {
        model: "a",
        prefix,
        ..RequestView::default()
    };
    Cycle::new(pool, request)
}

/// Wherever the scheduler says that a prompt's length does not matter any more, every length between
/// the two ends gives the same picks.
#[test]
fn early_decisions_are_the_late_ones_with_filters_and_profiles() {
    let mut random = fastrand::Rng::with_seed(5);
    let mut scratch = Scratch::new(fastrand::Rng::with_seed(1));
    let (mut settled, mut open) = (0, 0);
    for _ in 0..1_500 {
        let scheduler = scheduler(&mut random);
        let mut pool = Pool::default();
        for _ in 0..60 {
            change(&mut pool, &mut random);
        }
        let matched: Vec<u32> = (0..12).map(|_| random.u32(..4)).collect();
        let least = f64::from(random.u32(3..12));
        let most = least + f64::from(random.u32(..9));
        let prefix = |total| {
            [PrefixMatch {
                matched: &matched,
                total,
                block_tokens: Some(64),
            }]
        };
        let found = |total: f64, scratch: &mut Scratch| {
            // Retry targets draw from the same randomness, and may be others.
            let prefix = prefix(total);
            let found = decide(&scheduler, &prompted(&pool, &prefix), 0, scratch, None);
            found.map(|found| (found.profile, found.picks, found.prefill))
        };
        let (low, high) = (prefix(least), prefix(most));
        if !scheduler.same_choice(
            &prompted(&pool, &low),
            &prompted(&pool, &high),
            &mut scratch,
        ) {
            open += 1;
            continue;
        }
        settled += 1;
        let expected = found(least, &mut scratch);
        let mut total = least;
        while total <= most {
            assert_eq!(found(total, &mut scratch), expected, "{least} to {most}");
            total += 0.5;
        }
    }
    assert!(
        settled > 200 && open > 200,
        "{settled} settled, {open} open"
    );
}

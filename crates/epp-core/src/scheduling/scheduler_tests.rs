//! Scheduling cycles: filters, weights, ties, and handlers.

use std::sync::Arc;

use super::*;
use crate::scheduling::{
    Filter, Freshness, Health, Metrics, NamedFilter, Pool, PrefixMatch, RequestView, Scorer,
    WeightedScorer,
};
use crate::testing::{handler, lora, picker, pool, scorer, scores};

/// Gives every candidate the same score.
#[derive(Debug)]
struct Constant(f64);

impl Scorer for Constant {
    fn score(&self, _: &Cycle<'_>, _: &[Slot], scores: &mut [f64]) {
        scores.fill(self.0);
    }

    fn needs(&self) -> Needs {
        Needs::default()
    }
}

/// Keeps these slots.
#[derive(Debug)]
struct Keep(&'static [u32]);

impl Filter for Keep {
    fn filter(&self, _: &Cycle<'_>, candidates: &mut Vec<Slot>) {
        candidates.retain(|slot| self.0.contains(&slot.0));
    }
}

fn weighted(scorers: Vec<(Arc<dyn Scorer>, f64)>) -> Vec<WeightedScorer> {
    let named = scorers.into_iter().map(|(scorer, weight)| WeightedScorer {
        name: format!("{scorer:?}"),
        scorer,
        weight,
    });
    named.collect()
}

fn scheduler(filters: Vec<Keep>, scorers: Vec<(Arc<dyn Scorer>, f64)>) -> Scheduler {
    let named = filters.into_iter().map(|filter| NamedFilter {
        name: "keep".to_owned(),
        filter: Arc::new(filter),
    });
    let profile = Profile {
        name: "default".to_owned(),
        filters: named.collect(),
        scorers: weighted(scorers),
        picker: picker("max-score-picker"),
    };
    Scheduler::new(vec![profile], handler("single-profile-handler"))
}

fn scratch() -> Scratch {
    Scratch::new(fastrand::Rng::with_seed(1))
}

/// The ranking: slots with their sums, best first.
fn run(scheduler: &Scheduler, pool: &Pool, request: RequestView<'_>) -> Vec<(u32, f64)> {
    let mut scratch = scratch();
    let cycle = Cycle::new(pool, request);
    let decision = scheduler.schedule(&cycle, 9, &mut scratch, None).unwrap();
    let scored = decision.ranking.scored.iter();
    scored.map(|scored| (scored.slot.0, scored.score)).collect()
}

fn idle(endpoints: usize) -> Pool {
    pool((0..endpoints).map(|_| Metrics::default()))
}

#[test]
fn the_reference_cycle_prefers_the_loaded_adapter() {
    let metrics = [
        (0.0, 0.2, "foo bar"),
        (0.0, 0.2, "foo critical"),
        (10.0, 0.8, "foo"),
    ];
    let metrics = metrics.map(|(waiting, kv_usage, active)| Metrics {
        waiting: Some(waiting),
        kv_usage: Some(kv_usage),
        lora: lora(active, "", 2),
        ..Metrics::default()
    });
    let names = [
        "kv-cache-utilization-scorer",
        "queue-scorer",
        "lora-affinity-scorer",
    ];
    let scheduler = scheduler(vec![], names.map(|name| (scorer(name), 1.0)).to_vec());
    let request = RequestView {
        model: "critical",
        ..RequestView::default()
    };
    let ranking = run(&scheduler, &pool(metrics), request);
    let (best, sum) = ranking[0];
    assert_eq!(best, 1);
    assert!((sum - 2.8).abs() < 1e-9, "{sum}");
}

#[test]
fn weights_multiply_and_sums_are_not_divided() {
    for (weights, expected) in [([1.0, 1.0], 1.1), ([60.0, 40.0], 50.0)] {
        let scorers: Vec<(Arc<dyn Scorer>, f64)> = vec![
            (Arc::new(Constant(0.3)), weights[0]),
            (Arc::new(Constant(0.8)), weights[1]),
        ];
        let ranking = run(
            &scheduler(vec![], scorers),
            &idle(2),
            RequestView::default(),
        );
        assert!(ranking.iter().all(|(_, sum)| (sum - expected).abs() < 1e-9));
    }
}

#[test]
fn scores_outside_0_to_1_count_as_the_nearer_end_and_no_number_as_0() {
    for (score, expected) in [(-0.5, 0.0), (1.5, 1.0), (f64::NAN, 0.0)] {
        let scheduler = scheduler(vec![], vec![(Arc::new(Constant(score)), 1.0)]);
        assert_eq!(
            run(&scheduler, &idle(1), RequestView::default()),
            [(0, expected)]
        );
    }
}

#[test]
fn filters_run_in_order_and_scorers_see_the_survivors_only() {
    let metrics = [0.0, 4.0, 8.0].map(crate::testing::waiting);
    let scheduler = scheduler(
        vec![Keep(&[1, 2]), Keep(&[0, 1, 2])],
        vec![(scorer("queue-scorer"), 1.0)],
    );
    // The survivors' queues are 4 and 8: normalised among themselves, not over the whole pool.
    assert_eq!(
        run(&scheduler, &pool(metrics), RequestView::default()),
        [(1, 1.0), (2, 0.0)]
    );
}

#[test]
fn ejected_endpoints_are_candidates_if_no_other_candidate_remains() {
    let mut pool = idle(3);
    pool.get_mut(Slot(1)).unwrap().ejected = true;
    let picked = |scheduler: Scheduler, pool: &Pool| {
        let ranked = run(&scheduler, pool, RequestView::default());
        let mut slots: Vec<u32> = ranked.into_iter().map(|(slot, _)| slot).collect();
        slots.sort_unstable();
        slots
    };
    assert_eq!(picked(scheduler(vec![], vec![]), &pool), [0, 2]);
    // A filter leaves it alone: better it than none.
    assert_eq!(picked(scheduler(vec![Keep(&[1])], vec![]), &pool), [1]);
    for slot in [0, 2] {
        pool.get_mut(Slot(slot)).unwrap().health = Health::Unhealthy;
    }
    assert_eq!(picked(scheduler(vec![], vec![]), &pool), [1]);
}

#[test]
fn no_candidate_and_no_endpoint_are_distinguished() {
    let mut scratch = scratch();
    let mut fails = |scheduler: Scheduler, pool: &Pool| {
        let cycle = Cycle::new(pool, RequestView::default());
        let outcome = scheduler.schedule(&cycle, 2, &mut scratch, None);
        outcome.map(|_| ()).unwrap_err()
    };
    assert_eq!(
        fails(scheduler(vec![Keep(&[])], vec![]), &idle(2)),
        ScheduleError::AllFiltered
    );
    assert_eq!(
        fails(scheduler(vec![], vec![]), &idle(0)),
        ScheduleError::NoCandidates
    );
    let mut ejected = idle(1);
    ejected.get_mut(Slot(0)).unwrap().health = Health::Unhealthy;
    assert_eq!(
        fails(scheduler(vec![], vec![]), &ejected),
        ScheduleError::NoCandidates
    );
}

#[test]
fn retry_targets_follow_the_picks_in_order_of_score() {
    let metrics = [9.0, 0.0, 3.0, 6.0].map(crate::testing::waiting);
    let scheduler = scheduler(vec![], vec![(scorer("queue-scorer"), 1.0)]);
    let mut scratch = scratch();
    let pool = pool(metrics);
    let cycle = Cycle::new(&pool, RequestView::default());
    let decision = scheduler.schedule(&cycle, 2, &mut scratch, None).unwrap();
    assert_eq!(decision.picks().collect::<Vec<_>>(), [Slot(1)]);
    let targets: Vec<Slot> = decision.targets().collect();
    assert_eq!(targets, [Slot(1), Slot(2), Slot(3)]);
}

#[test]
fn a_length_that_can_still_change_the_winner_keeps_the_choice_open() {
    let prefix = |total| {
        [PrefixMatch {
            matched: &[4, 0],
            total,
            block_tokens: Some(64),
        }]
    };
    let metrics = [0.9, 0.2].map(|kv_usage| Metrics {
        kv_usage: Some(kv_usage),
        ..Metrics::default()
    });
    let pool = pool(metrics);
    let same = |scheduler: &Scheduler, least: f64, most: f64| {
        let (low, high) = (prefix(least), prefix(most));
        let cycle = |prefix| {
            Cycle::new(
                &pool,
                RequestView {
                    model: "m",
                    prefix,
                    ..RequestView::default()
                },
            )
        };
        scheduler.same_choice(&cycle(&low), &cycle(&high), &mut scratch())
    };
    let by = |weight| {
        scheduler(
            vec![],
            vec![
                (scorer("prefix-cache-scorer"), weight),
                (scorer("kv-cache-utilization-scorer"), 1.0),
            ],
        )
    };
    // 4 of 4 to 4 of 5 blocks beat a cache that is emptier by 0.7; 4 of 100 do not.
    assert!(same(&by(1.0), 4.0, 5.0));
    assert!(!same(&by(1.0), 4.0, 100.0));
    assert!(same(&by(1.0), 50.0, f64::INFINITY));
}

#[test]
fn an_unscraped_endpoint_does_not_win_by_looking_idle() {
    let mut pool = pool([(2.0, 0.3), (0.0, 0.1)].map(|(waiting, kv_usage)| Metrics {
        waiting: Some(waiting),
        kv_usage: Some(kv_usage),
        ..Metrics::default()
    }));
    let mut unknown = crate::testing::endpoint("new", Metrics::default());
    unknown.freshness = Freshness::Unknown;
    pool.set(Slot(2), unknown);
    let queue = scores(&*scorer("queue-scorer"), &pool, RequestView::default());
    assert_eq!(queue, [0.0, 1.0, 0.5]);
}

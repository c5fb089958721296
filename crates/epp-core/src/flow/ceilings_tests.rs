use std::time::Duration;

use super::*;

/// The ceilings of bands of these priorities, the highest first.
fn ceilings(limit: UsageLimit, saturation: f64, priorities: &[i32]) -> Vec<f64> {
    let ends = (priorities[0], *priorities.last().unwrap());
    let bands = priorities.iter().zip(0..);
    let ceiling = |(priority, rank): (&i32, usize)| {
        limit.ceiling(saturation, (*priority, rank), priorities.len(), ends)
    };
    bands.map(ceiling).collect()
}

fn assert_near(found: &[f64], expected: &[f64]) {
    let near = |(found, expected): (&f64, &f64)| (found - expected).abs() < 1e-4;
    assert_eq!(found.len(), expected.len());
    assert!(
        found.iter().zip(expected).all(near),
        "{found:?} {expected:?}"
    );
}

#[test]
fn holdback_by_rank_has_the_ceilings_of_the_endpoint_picker() {
    let holdback = |min, max| UsageLimit::Holdback {
        min,
        max,
        by_value: false,
    };
    let half = holdback(0.5, 1.0);
    assert_near(&ceilings(half, 0.0, &[7]), &[1.0]);
    assert_near(&ceilings(half, 0.0, &[9, 1]), &[1.0, 0.5]);
    assert_near(&ceilings(half, 0.9, &[100, 2, 1]), &[1.0, 0.75, 0.5]);
    assert_near(
        &ceilings(half, 0.0, &[4, 3, 2, 1]),
        &[1.0, 0.8333, 0.6667, 0.5],
    );
    assert_near(
        &ceilings(holdback(0.8, 0.9), 0.0, &[3, 2, 1]),
        &[0.9, 0.85, 0.8],
    );
}

#[test]
fn holdback_by_value_has_the_ceilings_of_the_endpoint_picker() {
    let limit = UsageLimit::Holdback {
        min: 0.5,
        max: 1.0,
        by_value: true,
    };
    assert_near(&ceilings(limit, 0.0, &[90, 50, 10]), &[1.0, 0.75, 0.5]);
    assert_near(&ceilings(limit, 0.0, &[100, 50, 10]), &[1.0, 0.7222, 0.5]);
    assert_near(&ceilings(limit, 0.0, &[100, 2, 1]), &[1.0, 0.50505, 0.5]);
    assert_near(&ceilings(limit, 0.0, &[5]), &[1.0]);
    let extremes = ceilings(limit, 0.0, &[i32::MAX, 0, i32::MIN]);
    assert_near(&extremes, &[1.0, 0.75, 0.5]);
}

#[test]
fn soft_reflective_ceilings_fall_with_the_saturation() {
    let limit = UsageLimit::SoftReflective;
    assert_near(&ceilings(limit, 0.7, &[0]), &[1.0]);
    assert_near(&ceilings(limit, 0.0, &[2, 1, 0]), &[1.0, 1.0, 1.0]);
    assert_near(&ceilings(limit, 0.4, &[2, 1, 0]), &[1.0, 0.8, 0.6]);
    assert_near(
        &ceilings(limit, 0.75, &[3, 2, 1, 0]),
        &[1.0, 0.75, 0.5, 0.25],
    );
}

#[test]
fn a_static_ceiling_is_the_same_for_all() {
    assert_near(
        &ceilings(UsageLimit::Static(0.8), 0.9, &[2, 1]),
        &[0.8, 0.8],
    );
}

/// How many of these attempts, so many milliseconds apart, have a turn.
fn turns(saturation: f64, attempts: u64, apart: u64) -> usize {
    let mut turns = Turns::default();
    let at = |attempt| Instant::default().after(Duration::from_millis(attempt * apart));
    (0..attempts)
        .filter(|attempt| turns.attempt(saturation, at(*attempt)))
        .count()
}

#[test]
fn yielding_bands_have_a_turn_in_so_many_opportunities() {
    assert_eq!(turns(0.5, 12, 0), 12);
    assert_eq!(turns(0.667, 12, 0), 6);
    assert_eq!(turns(0.8, 12, 0), 3);
    assert_eq!(turns(0.9, 90, 1), 10);
    // Below that none yields, and in a full pool none has a turn.
    for saturation in [0.0, 0.49, 1.0, 1.5, f64::NAN, f64::INFINITY, -1.0] {
        assert_eq!(turns(saturation, 100, 10), 0);
    }
}

#[test]
fn the_time_between_attempts_counts() {
    // The fourth opportunity is due at each attempt but the first.
    assert_eq!(turns(0.8, 12, 50), 11);
    let mut turns = Turns::default();
    turns.attempt(0.8, Instant::default());
    let late = Instant::default().after(Duration::from_secs(86_400));
    let burst = (0..100).filter(|_| turns.attempt(0.8, late)).count();
    assert_eq!(burst, 37, "12 for the last 50 ms, and 25 for the attempts");
}

#[test]
fn nearly_full_pools_have_rare_turns() {
    let mut turns = Turns::default();
    let saturation = 1.0 - f64::EPSILON;
    let open = (0..1_000_000).any(|_| turns.attempt(saturation, Instant::default()));
    assert!(!open);
}

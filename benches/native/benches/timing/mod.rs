//! Criterion's settings: how long and how often each benchmark runs.

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion};

/// Returns a run of 1 s per benchmark, much shorter than criterion's default: every iteration does
/// the same work here, so that more of them would not show rarer cases.
pub fn criterion() -> Criterion {
    Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args()
}

/// Adds one benchmark to a group.
pub fn measure<T>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    mut run: impl FnMut() -> T,
) {
    group.bench_function(name, |bencher| bencher.iter(|| black_box(run())));
}

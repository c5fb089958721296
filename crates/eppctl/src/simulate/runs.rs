//! The runs of all policies under all seeds, on all cores.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use pool_sim::{simulate, Kind, Outcome, PoolModel, Progress, Trace};

use crate::output::Error;

/// A policy over a pool.
pub struct Setting {
    /// Its name in the result.
    pub name: String,
    /// The policy.
    pub kind: Kind,
    /// The pool.
    pub pool: PoolModel,
}

/// Runs each policy under each seed. Returns the outcomes by policy, each in the order of the seeds: which core ran
/// what does not matter.
pub fn run_all(settings: &[Setting], traces: &[(u64, Trace)]) -> Result<Vec<Vec<Outcome>>, Error> {
    let jobs: Vec<_> = settings
        .iter()
        .flat_map(|setting| traces.iter().map(move |trace| (setting, trace)))
        .collect();
    let requests: Vec<usize> = jobs
        .iter()
        .map(|(_, (_, trace))| trace.requests.len())
        .collect();
    let progress: Vec<Progress> = jobs.iter().map(|_| Progress::default()).collect();
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    let work = || {
        while let Some(number) = Some(next.fetch_add(1, Ordering::Relaxed)) {
            let (Some((setting, (seed, trace))), Some(progress)) =
                (jobs.get(number), progress.get(number))
            else {
                return;
            };
            let outcome = simulate(trace, &setting.kind, &setting.pool, *seed, progress);
            let outcome = outcome.map_err(|error| format!("{}: {error}", setting.name));
            // Only a panic in another thread poisons it, and that ends the program.
            if let Ok(mut done) = done.lock() {
                done.push((number, outcome));
            }
        }
    };
    let bar = bar(requests.iter().sum());
    std::thread::scope(|scope| {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads: Vec<_> = (0..cores.min(jobs.len()))
            .map(|_| scope.spawn(work))
            .collect();
        while !threads
            .iter()
            .all(std::thread::ScopedJoinHandle::is_finished)
        {
            let arrived = progress.iter().map(|one| one.load(Ordering::Relaxed));
            bar.set_position(arrived.sum::<usize>() as u64);
            // Frequent enough for a smooth bar, and negligible in a run of seconds.
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    bar.finish_and_clear();
    let mut done = done.into_inner().unwrap_or_default();
    done.sort_by_key(|(number, _)| *number);
    let outcomes: Result<Vec<Outcome>, String> =
        done.into_iter().map(|(_, outcome)| outcome).collect();
    let outcomes = outcomes.map_err(Error::new)?;
    let by_policy = outcomes.chunks(traces.len().max(1));
    Ok(by_policy.map(<[Outcome]>::to_vec).collect())
}

/// Returns a progress bar on standard error, hidden unless that is a terminal.
fn bar(length: usize) -> ProgressBar {
    let bar = ProgressBar::new(length as u64);
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} requests, {per_sec}, {eta}");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar
}

//! The CPU time of a process, by thread: Envoy's workers serve the requests, its main thread polls, and V8 compiles on
//! threads of its own.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::BoxError;

/// How the name of a worker's thread begins.
const WORKER: &str = "wrk:worker_";

/// The CPU time of each thread of a process so far.
#[derive(Debug)]
pub struct Threads(HashMap<String, Thread>);

#[derive(Debug, Clone, Copy)]
struct Thread {
    is_worker: bool,
    spent: Duration,
}

/// CPU time by the kind of thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spent {
    /// Of Envoy's workers.
    pub workers: Duration,
    /// Of all other threads.
    pub others: Duration,
}

impl Threads {
    /// Reads the times of a process.
    pub fn of(pid: u32) -> Result<Self, BoxError> {
        Self::read(Path::new(&format!("/proc/{pid}/task")))
    }

    /// Reads the times below a folder such as `/proc/1/task`.
    fn read(folder: &Path) -> Result<Self, BoxError> {
        let mut threads = HashMap::new();
        for task in fs::read_dir(folder)? {
            let task = task?;
            let text = |name| fs::read_to_string(task.path().join(name));
            // schedstat counts nanoseconds; stat only hundredths of a second. A thread may end meanwhile.
            let (Ok(name), Ok(times)) = (text("comm"), text("schedstat")) else {
                continue;
            };
            let spent = times.split_whitespace().next().unwrap_or_default();
            let thread = Thread {
                is_worker: name.starts_with(WORKER),
                spent: Duration::from_nanos(spent.parse()?),
            };
            let id = task.file_name().to_string_lossy().into_owned();
            threads.insert(id, thread);
        }
        Ok(Self(threads))
    }

    /// Returns the time since an earlier reading, of the threads that there are now.
    pub fn since(&self, earlier: &Self) -> Spent {
        let mut spent = Spent {
            workers: Duration::ZERO,
            others: Duration::ZERO,
        };
        for (id, thread) in &self.0 {
            let before = earlier.0.get(id).map_or(Duration::ZERO, |one| one.spent);
            let kind = match thread.is_worker {
                true => &mut spent.workers,
                false => &mut spent.others,
            };
            *kind += thread.spent.saturating_sub(before);
        }
        spent
    }
}

impl Spent {
    /// Returns the time of all threads.
    pub fn total(self) -> Duration {
        self.workers + self.others
    }
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::sync::mpsc;
    use std::thread;

    use envoy_harness::Folder;

    use super::*;

    fn task(folder: &Path, id: u32, name: &str, times: &str) {
        let task = folder.join(id.to_string());
        fs::create_dir_all(&task).unwrap();
        fs::write(task.join("comm"), format!("{name}\n")).unwrap();
        fs::write(task.join("schedstat"), times).unwrap();
    }

    #[test]
    fn workers_count_apart_from_all_other_threads() {
        let folder = Folder::new("bench-threads");
        task(folder.path(), 1, "envoy", "1000 7 3\n");
        task(folder.path(), 2, "wrk:worker_0", "20000 7 3\n");
        task(folder.path(), 3, "wrk:worker_1", "30000 7 3\n");
        task(folder.path(), 4, "dog:main_thread", "500000 7 3\n");
        let before = Threads::read(folder.path()).unwrap();
        task(folder.path(), 1, "envoy", "1200 8 4\n");
        task(folder.path(), 2, "wrk:worker_0", "20030 8 4\n");
        task(folder.path(), 3, "wrk:worker_1", "30004 8 4\n");
        // One thread has ended, another one begun.
        fs::remove_dir_all(folder.path().join("4")).unwrap();
        task(folder.path(), 5, "V8 DefaultWorke", "50 1 1\n");
        let spent = Threads::read(folder.path()).unwrap().since(&before);
        assert_eq!(spent.workers, Duration::from_nanos(34));
        assert_eq!(spent.others, Duration::from_nanos(250));
        assert_eq!(spent.total(), Duration::from_nanos(284));
    }

    #[test]
    fn times_that_cannot_be_read_are_an_error() {
        let folder = Folder::new("bench-no-times");
        task(folder.path(), 1, "envoy", "now 7 3\n");
        assert!(Threads::read(folder.path()).is_err());
        assert!(Threads::read(&folder.path().join("absent")).is_err());
    }

    #[test]
    fn a_busy_thread_of_a_workers_name_counts_as_a_worker() {
        let before = Threads::of(std::process::id()).unwrap();
        let (done, is_done) = mpsc::channel();
        let (end, is_over) = mpsc::channel::<()>();
        let worker = thread::Builder::new().name("wrk:worker_0".to_owned());
        let worker = worker.spawn(move || {
            (0..5_000_000_u64).for_each(|number| {
                black_box(number);
            });
            done.send(()).unwrap();
            let _ = is_over.recv();
        });
        is_done.recv().unwrap();
        let spent = Threads::of(std::process::id()).unwrap().since(&before);
        drop(end);
        worker.unwrap().join().unwrap();
        assert!(spent.workers > Duration::from_millis(1), "{spent:?}");
    }
}

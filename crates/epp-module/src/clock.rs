//! The thread that drives the pickers of a pool: Envoy has no timers for modules of its HTTP filters.
//!
//! It wakes no thread of Envoy's by itself: a worker is woken only for a stream that a tick has decided about, and the
//! main thread only for callouts.

use std::sync::mpsc::{channel, RecvTimeoutError, Sender};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use super::pool::Pool;
use epp_sync::Timer;

/// A running thread.
pub struct Clock {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Clock {
    /// Starts a thread for a pool.
    pub fn start(pool: Arc<Pool>) -> Option<Self> {
        let (stop, stopped) = channel();
        let run = move || {
            let mut timer = Timer::default();
            let mut due = Instant::now();
            loop {
                let period = Duration::from_millis(timer.period().into());
                // After a pause of the whole process what was missed is not made up for.
                due = (due + period).max(Instant::now());
                let wait = due.saturating_duration_since(Instant::now());
                if stopped.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
                if timer.fire() {
                    timer.adjust(pool.tick());
                } else {
                    pool.exchange();
                }
            }
        };
        match Builder::new().name("epp-clock".to_owned()).spawn(run) {
            Ok(thread) => Some(Self { stop, thread }),
            Err(error) => {
                log::error!("no thread for ticks, endpoints are never found: {error}");
                None
            }
        }
    }

    /// Ends the thread, and waits until it has: the module may be unloaded after this.
    pub fn stop(self) {
        drop(self.stop);
        // It ends with a panic only where ticks do, which are guarded.
        let _: std::thread::Result<()> = self.thread.join();
    }
}

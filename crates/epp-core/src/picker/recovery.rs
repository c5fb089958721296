//! Recovery of a picker one of whose calls has panicked.

use super::reply::LocalReply;
use super::{ExchangeId, Picker};
use crate::config::settings::FailureMode;
use crate::config::Plan;
use crate::metrics::definitions::CAUGHT_PANICS;
use crate::metrics::labels::Callback;

/// Consecutive ticks that may panic before held requests are released: no longer than a body is waited for (five
/// seconds, with the default `bodyTimeout`).
pub const MAX_FAILED_TICKS: u32 = 100;

/// Effects of one failed tick that may panic, each by itself, before the rest is given up: where that many do, all
/// will, and a panic takes far longer than an effect.
pub const MAX_LOST_EFFECTS: u32 = 8;

/// The ticks in a row that have panicked.
#[derive(Debug, Default)]
pub struct FailedTicks(u32);

impl FailedTicks {
    /// Counts one that panicked. Returns whether all held requests are to be released, once in
    /// [`MAX_FAILED_TICKS`].
    pub fn add(&mut self) -> bool {
        self.0 = (self.0 + 1) % MAX_FAILED_TICKS;
        self.0 == 0
    }

    /// Counts one that did not panic.
    pub fn reset(&mut self) {
        self.0 = 0;
    }
}

/// A picker one of whose calls has panicked, for a host that catches panics. The exchange that the call was
/// about is to be closed, or dropped if that panics as well; all others continue.
///
/// Returned by [`Picker::recovery`].
pub struct Recovery<'a>(&'a mut Picker);

impl Picker {
    /// Returns what a host that has caught a panic can still do.
    pub fn recovery(&mut self) -> Recovery<'_> {
        Recovery(self)
    }
}

impl Recovery<'_> {
    /// Counts a caught panic under the callback in which it happened.
    pub fn count_panic(self, callback: &str) {
        let metrics = &mut self.0.dispatcher.statistics.registry;
        metrics.add(CAUGHT_PANICS, Callback(callback), 1);
    }

    /// Counts a request whose decision was cut short by a panic.
    pub fn count_defect(self) {
        let dispatcher = &mut self.0.dispatcher;
        let code = LocalReply::defect(dispatcher.plan.dialect).code;
        let mode = dispatcher.plan.settings.failure_mode;
        dispatcher.statistics.count_failure(mode, code, false);
    }

    /// Returns the exchange that was being changed when a call about several panicked, once: the same may panic again
    /// each time.
    pub fn take_broken(self) -> Option<ExchangeId> {
        self.0.exchanges.take_broken()
    }

    /// Forgets an exchange that cannot be closed. Nothing that it was counted in counts it any more.
    pub fn drop_exchange(self, id: ExchangeId) {
        if let Some(mut exchange) = self.0.exchanges.remove(id) {
            self.0.dispatcher.release_counts(&mut exchange);
        }
    }
}

impl LocalReply {
    /// Returns the reply to a request whose decision was cut short by a panic; `None` where the plan leaves
    /// such requests to the host's own load balancing. It depends on the plan only, so that it can be
    /// prepared before anything panics.
    pub fn on_defect(plan: &Plan) -> Option<Self> {
        let settings = &plan.settings;
        let closes = settings.failure_mode == FailureMode::FailClose && !settings.dry_run;
        closes.then(|| Self::defect(plan.dialect))
    }
}

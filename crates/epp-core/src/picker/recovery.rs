//! What is left to do with a picker after one of its calls has panicked.

use super::answer::LocalReply;
use super::{ExchangeId, Picker};
use crate::config::settings::FailureMode;
use crate::config::Plan;
use crate::metrics::definitions::CAUGHT_PANICS;
use crate::metrics::labels::Callback;

/// A picker one of whose calls has panicked, for a host that catches panics. The exchange that the call was
/// about is to be closed, or dropped if that panics as well; all others go on.
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
        self.0.metrics.add(CAUGHT_PANICS, Callback(callback), 1);
    }

    /// Counts a request whose decision was cut short by a panic.
    pub fn count_defect(self) {
        let code = LocalReply::defect(self.0.plan.dialect).code;
        self.0.count_failure(code);
    }

    /// Forgets an exchange that cannot be closed. Nothing that it was counted in counts it any more.
    pub fn drop_exchange(self, ExchangeId(id): ExchangeId) {
        if let Some(mut exchange) = self.0.exchanges.remove(&id) {
            self.0.release_counts(&mut exchange);
        }
    }
}

impl LocalReply {
    /// Returns the reply to a request whose decision was cut short by a panic; `None` where the plan leaves
    /// such requests to the host's own load balancing. It depends on the plan only, so that it can be
    /// prepared before anything panics.
    pub fn on_defect(plan: &Plan) -> Option<Self> {
        let closes = plan.settings.failure_mode == FailureMode::FailClose;
        closes.then(|| Self::defect(plan.dialect))
    }
}

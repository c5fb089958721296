//! Endpoints that hang: nothing comes from them, or their engine stands still while their metrics page comes.

use super::{Failure, OutlierDetector, Reason};
use crate::scheduling::{Freshness, Slot};
use crate::time::Timestamp;

impl OutlierDetector {
    /// Ejects an endpoint that shows no sign of life.
    pub fn mark_hung(&mut self, slot: Slot, now: Timestamp) {
        let state = self.state(slot);
        if self.is_enabled() && state.is_some_and(|state| !state.is_ejected()) {
            let failure = Failure {
                reason: Reason::Hung,
                certain: true,
            };
            self.eject(slot, failure, Freshness::Stale, false, now);
        }
    }

    /// Ejects an endpoint whose page comes while its engine stands still, or prolongs its ejection if a probe has got no
    /// response. A request may have stopped the engine.
    pub fn mark_stalled(&mut self, slot: Slot, now: Timestamp) {
        let Some(state) = self.state(slot).filter(|_| self.is_enabled()) else {
            return;
        };
        let probed = state.probe.is_overdue(now);
        if state.is_ejected() && !probed {
            return;
        }
        let failure = Failure {
            reason: Reason::Hung,
            certain: false,
        };
        self.eject(slot, failure, Freshness::Fresh, probed, now);
        if let Some(state) = self.state_mut(slot) {
            state.stalled = true;
        }
    }

    /// Records that the page of an endpoint shows work: it may be probed.
    pub fn mark_working(&mut self, slot: Slot) {
        if let Some(state) = self.state_mut(slot) {
            state.stalled = false;
        }
    }
}

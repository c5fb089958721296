//! Dry runs (`envoy-proxy.dryRun`): requests are decided and left as they are, and responses tell what the proxy did
//! instead.
//!
//! The prefix index and what is in flight follow what has happened, not what was decided: a decision is what this
//! picker would do in the pool as it is.

use super::decide::Selection;
use super::dispatcher::Dispatcher;
use super::exchange::Exchange;
use super::response::Recording;
use super::{Effect, Upstream};
use crate::metrics::definitions::DRY_RUN_DECISIONS;
use crate::metrics::labels::DryRun;
use crate::prefix::walk::Walk;
use crate::scheduling::{ByRole, Endpoint, ScheduleError};

impl Dispatcher {
    /// Counts a decision, and leaves its request to the host.
    #[cold]
    pub(super) fn try_out(
        &mut self,
        exchange: &mut Exchange,
        decided: Result<Selection, ScheduleError>,
    ) -> Effect {
        let mut picked = None;
        if let Ok(selection) = decided {
            if let Some(stages) = selection.stages {
                self.statistics.count_stages(&stages);
            }
            let primary = selection.slots.primary;
            self.statistics.count_pick(primary, selection.hit);
            for record in selection.additions.records {
                self.bind(record);
            }
            picked = selection.endpoints.into_iter().next();
        }
        exchange.leave_picked(picked);
        Effect::Bypass {
            id: exchange.id,
            rewrite: None,
        }
    }

    /// Compares where the response to a request of a dry run comes from with what was decided. From now on the
    /// request counts where it is.
    #[cold]
    pub(super) fn compare(&mut self, exchange: &mut Exchange, upstream: Option<&Upstream>) {
        // It was answered before enough of its body was read.
        self.decide(exchange);
        let Some(picked) = exchange.picked() else {
            return;
        };
        let server = upstream.and_then(|upstream| upstream.server.as_deref());
        let by_address = |endpoint: &Endpoint| Some(endpoint.address.as_bytes()) == server;
        let served = self.endpoints.pool().find_by(by_address);
        let outcome = match (picked, served) {
            (None, _) => DryRun::NotPicked,
            (Some(_), None) => DryRun::NotServed,
            (Some(picked), Some(_)) if Some(picked.as_bytes()) == server => DryRun::Same,
            (Some(_), Some(_)) => DryRun::Other,
        };
        self.statistics.registry.add(DRY_RUN_DECISIONS, outcome, 1);
        let Some(slot) = served else {
            return self.leave(exchange);
        };
        let target = self.begin_target(exchange, slot);
        if let Err(targets) = exchange.serve(ByRole::primary(target)) {
            self.endpoints.end_targets(targets);
        }
        exchange.response.prompt = exchange.walks.first().and_then(Walk::first);
        exchange.response.recording = Some(Recording {
            model: self.statistics_of(exchange, slot),
            // The index expected it of another endpoint, perhaps.
            predicted: None,
            corrects: false,
        });
        self.prefixes.learn(exchange, &self.endpoints);
    }
}

#[cfg(test)]
#[path = "dry_run_tests.rs"]
mod tests;

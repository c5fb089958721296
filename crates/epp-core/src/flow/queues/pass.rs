//! Requests that are sent without waiting, as most are while the pool has headroom.

use std::time::Duration;

use super::{Arrival, Departure, Queues};
use crate::flow::band::fits;
use crate::flow::flows::UNNAMED;
use crate::flow::{FlowControl, UsageLimit};
use crate::time::Instant;

impl Queues {
    /// Counts a request that goes without waiting; `None` where it has to be queued, because others wait, the gate is
    /// not open for it, or it is the first of its band. That comes to the same as queueing and dispatching it.
    pub fn pass(
        &mut self,
        control: &FlowControl,
        arrival: &Arrival<'_>,
        saturation: f64,
        now: Instant,
    ) -> Option<Departure> {
        // This policy also counts how often the gate was tried.
        let counts_tries = matches!(control.usage_limit, UsageLimit::SoftReflective);
        if !self.is_empty() || self.usage_limit.is_none() || counts_tries {
            return None;
        }
        let priority = arrival.priority;
        let place = self.find(priority).ok()?;
        self.saturation = saturation;
        if saturation >= self.ceiling(control.usage_limit, priority)
            || !fits(0, 1, control.max_requests)
            || !fits(0, arrival.bytes, control.max_bytes)
        {
            return None;
        }
        let band = self.bands.get_mut(place)?;
        if !band.has_room(arrival.bytes) {
            return None;
        }
        let flow = band.flows.find_or_add(arrival.fairness_id, &self.key, now);
        let mut label = band.pass(flow, now);
        if label == UNNAMED {
            label = self.name_flow(place, flow);
        }
        Some(Departure {
            id: arrival.id,
            priority,
            waited: Duration::ZERO,
            bytes: arrival.bytes,
            label,
        })
    }
}

#[cfg(test)]
#[path = "pass_tests.rs"]
mod tests;

//! Admission: the priority of a request, the flow that it belongs to, and whether it is dropped.

use std::sync::Arc;
use std::time::Duration;

use super::{Dropped, Partition, SaturationDetector};
use crate::config::value::parse_duration;
use crate::plugins::admission::probabilistic_admitter::ProbabilisticAdmitter;
use crate::plugins::admission::static_objectives::Objectives;
use crate::scheduling::{HeaderId, HeaderValues, Pool};

/// The fairness id of requests that have none.
pub const DEFAULT_FAIRNESS_ID: &str = "default-flow";

/// The label that names the engine of an endpoint.
const ENGINE_LABEL: &str = "llm-d.ai/engine-type";

/// How requests are admitted.
#[derive(Debug, Clone, Default)]
pub struct Admission {
    /// The objectives that requests name.
    pub objectives: Objectives,
    /// The headers that are read; only those whose values are of use under the plan.
    pub headers: AdmissionHeaders,
    /// Drops requests below priority 0 while it finds the pool full, in a plan without flow control.
    pub shed: Option<Arc<dyn SaturationDetector>>,
    /// Drop some requests below priority 0, more of them the fuller the pool is. All have to admit a request.
    pub admitters: Vec<ProbabilisticAdmitter>,
    /// Whether the priority of a request is written into its body.
    pub propagates: bool,
}

/// The headers that say how a request is admitted. Of several for one purpose the first counts that has a value.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AdmissionHeaders {
    /// Name the objective.
    pub objective: Vec<HeaderId>,
    /// Name the flow.
    pub fairness_id: Vec<HeaderId>,
    /// Say how soon the first token is due, in milliseconds.
    pub slo_ttft: Vec<HeaderId>,
    /// Says how long the client lets the request wait.
    pub ttl: Vec<HeaderId>,
}

/// What a request's headers say of its admission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing<'a> {
    /// Its priority; one below 0 is sheddable.
    pub priority: i32,
    /// The flow that it belongs to, as its client names it.
    pub fairness_id: &'a str,
    /// How soon after its arrival its first token is due.
    pub slo_ttft: Option<Duration>,
    /// How long its client lets it wait.
    pub ttl: Option<Duration>,
}

impl Admission {
    /// Reads the standing of a request.
    pub fn read<'a>(&self, headers: &'a HeaderValues) -> Standing<'a> {
        let text = |ids: &[HeaderId]| headers.first(ids).map(text_of);
        let fairness_id = text(&self.headers.fairness_id).filter(|id| !id.is_empty());
        let slo = text(&self.headers.slo_ttft).and_then(|text| text.parse().ok());
        let ttl = text(&self.headers.ttl).and_then(parse_duration);
        Standing {
            priority: self.priority(headers),
            fairness_id: fairness_id.unwrap_or(DEFAULT_FAIRNESS_ID),
            slo_ttft: slo.map(Duration::from_millis),
            ttl: ttl.filter(|ttl| !ttl.is_zero()),
        }
    }

    /// Returns the priority of a request.
    pub fn priority(&self, headers: &HeaderValues) -> i32 {
        let objective = headers.first(&self.headers.objective);
        let priority = objective.and_then(|name| self.objectives.priority(name));
        priority.unwrap_or(0)
    }

    /// Returns the priority to be written into the body of a request, if any is. vLLM serves the lowest number first,
    /// SGLang the highest.
    pub fn propagated(&self, headers: &HeaderValues, pool: &Pool) -> Option<i32> {
        let priority = if self.propagates {
            self.priority(headers)
        } else {
            0
        };
        let mut endpoints = pool.iter();
        let mut highest_first = || {
            let engine = endpoints.find_map(|(_, endpoint)| endpoint.label(ENGINE_LABEL));
            engine == Some("sglang")
        };
        match priority {
            0 => None,
            _ if highest_first() => Some(priority),
            _ => Some(priority.saturating_neg()),
        }
    }

    /// Returns whether any request may be dropped for its priority.
    pub fn may_drop(&self) -> bool {
        self.shed.is_some() || !self.admitters.is_empty()
    }

    /// Returns why a request with these headers and random bits is dropped at once, if it is. Requests of priority 0 and
    /// above never are.
    #[cold]
    pub fn drops(&self, headers: &HeaderValues, draw: u64, pool: &Pool) -> Option<Dropped> {
        if self.priority(headers) >= 0 {
            return None;
        }
        let mut shed = self.shed.iter();
        if shed.any(|detector| detector.saturation(pool, Partition::All) >= 1.0) {
            return Some(Dropped::Shed);
        }
        // Each admitter uses other bits of the same random number.
        let mut admitters = (0..).zip(&self.admitters);
        admitters.find_map(|(place, admitter)| admitter.drops(draw.rotate_left(place), pool))
    }
}

/// Returns as much of a value as is text.
fn text_of(value: &[u8]) -> &str {
    match std::str::from_utf8(value) {
        Ok(text) => text,
        Err(error) => {
            let valid = value.get(..error.valid_up_to());
            valid
                .and_then(|valid| std::str::from_utf8(valid).ok())
                .unwrap_or_default()
        }
    }
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;

//! Who gets a request.

use crate::pod::Pod;
use crate::trace::Request;

/// Chooses servers. Requests go by their number in the trace.
pub trait Policy {
    /// How often it looks around, in nanoseconds; never, if it does not.
    fn ticks_each(&self) -> Option<u64> {
        None
    }

    /// It looks around.
    fn tick(&mut self, _now: u64, _pods: &[Pod]) {}

    /// The server for a request; none: it is refused.
    fn pick(&mut self, now: u64, number: usize, request: &Request, pods: &[Pod]) -> Option<usize>;

    /// A request's first token is there.
    fn first_token(&mut self, _now: u64, _number: usize) {}

    /// A request has ended.
    fn ended(&mut self, _now: u64, _number: usize) {}
}

/// What to route by.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// One after the other.
    RoundRobin,
    /// The one of two, drawn at random, that answers fewer: Envoy's `least_request` as it is set by
    /// default, in one Envoy.
    LeastRequest,
    /// Any.
    Random,
    /// As this EndpointPickerConfig says; its discovery aside.
    Picker(String),
}

impl Kind {
    /// A policy that has seen nothing yet.
    pub fn start(
        &self,
        pods: usize,
        block_tokens: u32,
        seed: u64,
    ) -> Result<Box<dyn Policy>, String> {
        let rng = fastrand::Rng::with_seed(seed);
        Ok(match self {
            Self::RoundRobin => Box::new(RoundRobin { next: 0 }),
            Self::LeastRequest => Box::new(LeastRequest { rng }),
            Self::Random => Box::new(Random { rng }),
            Self::Picker(config) => Box::new(crate::picker::PickerPolicy::new(
                config,
                pods,
                block_tokens,
                seed,
            )?),
        })
    }
}

struct RoundRobin {
    next: usize,
}

impl Policy for RoundRobin {
    fn pick(&mut self, _: u64, _: usize, _: &Request, pods: &[Pod]) -> Option<usize> {
        let picked = self.next % pods.len().max(1);
        self.next = picked + 1;
        Some(picked)
    }
}

struct LeastRequest {
    rng: fastrand::Rng,
}

impl Policy for LeastRequest {
    fn pick(&mut self, _: u64, _: usize, _: &Request, pods: &[Pod]) -> Option<usize> {
        let drawn = [0, 1].map(|_| self.rng.usize(0..pods.len().max(1)));
        let active = |pod: &usize| pods.get(*pod).map(|pod| pod.waiting() + pod.running());
        drawn.into_iter().min_by_key(active)
    }
}

struct Random {
    rng: fastrand::Rng,
}

impl Policy for Random {
    fn pick(&mut self, _: u64, _: usize, _: &Request, pods: &[Pod]) -> Option<usize> {
        Some(self.rng.usize(0..pods.len().max(1)))
    }
}

//! The policies: which server a request goes to.

use crate::pod::{Pod, Usage};
use crate::trace::Request;

/// The servers of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Picked {
    /// The server that responds.
    pub server: usize,
    /// Another server, which computes the prompt for it.
    pub prefiller: Option<usize>,
}

impl Picked {
    /// Returns one server that does all.
    pub fn whole(server: usize) -> Self {
        Self {
            server,
            prefiller: None,
        }
    }
}

/// The servers of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Servers {
    /// How many there are.
    pub all: usize,
    /// How many of them, the first ones, have the role prefill, if any; the others then have the role decode. The
    /// roles are labels: what they mean is up to the configuration.
    pub prefill: usize,
}

/// Chooses servers. A request is identified by its number in the trace.
pub trait Policy {
    /// Returns the time between two ticks in nanoseconds; `None` if it needs none.
    fn tick_interval(&self) -> Option<u64> {
        None
    }

    /// Lets time pass.
    fn tick(&mut self, _now: u64, _pods: &[Pod]) {}

    /// Returns the servers for a request; `None` if the request is refused.
    fn pick(&mut self, now: u64, number: usize, request: &Request, pods: &[Pod]) -> Option<Picked>;

    /// A server has sent a request's first token, and reports the prompt's token counts if it has computed the prompt.
    fn first_token(&mut self, _now: u64, _number: usize, _usage: Option<Usage>) {}

    /// A request has ended.
    fn ended(&mut self, _now: u64, _number: usize) {}
}

/// A kind of policy.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// Every server in turn.
    RoundRobin,
    /// The less busy of two random servers: Envoy's `least_request` with its default, in a single Envoy.
    LeastRequest,
    /// A random server.
    Random,
    /// The picker, with this EndpointPickerConfig except for its discovery.
    Picker(String),
}

impl Kind {
    /// Creates a policy of this kind.
    pub fn start(
        &self,
        servers: Servers,
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
                servers,
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
    fn pick(&mut self, _: u64, _: usize, _: &Request, pods: &[Pod]) -> Option<Picked> {
        let picked = self.next % pods.len().max(1);
        self.next = picked + 1;
        Some(Picked::whole(picked))
    }
}

struct LeastRequest {
    rng: fastrand::Rng,
}

impl Policy for LeastRequest {
    fn pick(&mut self, _: u64, _: usize, _: &Request, pods: &[Pod]) -> Option<Picked> {
        let drawn = [0, 1].map(|_| self.rng.usize(0..pods.len().max(1)));
        let active = |pod: &usize| pods.get(*pod).map(|pod| pod.waiting() + pod.running());
        let picked = drawn.into_iter().min_by_key(active);
        picked.map(Picked::whole)
    }
}

struct Random {
    rng: fastrand::Rng,
}

impl Policy for Random {
    fn pick(&mut self, _: u64, _: usize, _: &Request, pods: &[Pod]) -> Option<Picked> {
        Some(Picked::whole(self.rng.usize(0..pods.len().max(1))))
    }
}

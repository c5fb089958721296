//! The policies: which server a request goes to.

use std::collections::HashMap;

use crate::pod::{Pod, Usage};
use crate::ring;
use crate::trace::{Request, Trace};

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

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// These servers get it.
    Send(Picked),
    /// Its client gets an error.
    Refuse(Refusal),
    /// Its client gets an error although servers have begun with it, which abort it.
    Evict,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Its pool is full, or has no endpoint for it.
    Shed,
    /// It has waited as long as it may.
    Expired,
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

    /// A request arrives. Returns its servers where they are known at once; otherwise [`Self::decided`] returns what
    /// becomes of it, after this event or a later one.
    fn pick(&mut self, now: u64, number: usize, request: &Request, pods: &[Pod]) -> Option<Picked>;

    /// Returns the next request about which something was decided, asked for until there is none after every event.
    fn decided(&mut self) -> Option<(usize, Decision)> {
        None
    }

    /// A server has sent a request's first token, and reports the prompt's token counts if it has computed the prompt.
    fn first_token(&mut self, _now: u64, _number: usize, _usage: Option<Usage>) {}

    /// A request has ended.
    fn ended(&mut self, _now: u64, _number: usize) {}
}

/// A kind of policy. Each gateway has one of its own, which knows nothing of what the others send.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// Every server in turn.
    RoundRobin,
    /// Of two random servers the one with fewer requests from this gateway: Envoy's `least_request` with its default.
    LeastRequest,
    /// A random server.
    Random,
    /// The server to which a hash of the conversation points on a ring: Envoy's `ring_hash` over a header by which clients
    /// identify their conversations.
    RingHash,
    /// The picker, with this EndpointPickerConfig except for its discovery.
    Picker(String),
}

impl Kind {
    /// Creates the policies of this many gateways, among which requests are spread at random.
    pub fn start(
        &self,
        servers: Servers,
        gateways: usize,
        trace: &Trace,
        seed: u64,
    ) -> Result<Box<dyn Policy>, String> {
        if gateways <= 1 {
            return self.start_one(servers, trace, seed);
        }
        let policies = (0..gateways as u64)
            .map(|number| self.start_one(servers, trace, seed.wrapping_add(number << 32)));
        Ok(Box::new(Gateways {
            policies: policies.collect::<Result<_, _>>()?,
            by_request: HashMap::new(),
            rng: fastrand::Rng::with_seed(!seed),
        }))
    }

    fn start_one(
        &self,
        servers: Servers,
        trace: &Trace,
        seed: u64,
    ) -> Result<Box<dyn Policy>, String> {
        let rng = fastrand::Rng::with_seed(seed);
        Ok(match self {
            Self::RoundRobin => Box::new(RoundRobin { next: 0 }),
            Self::LeastRequest => Box::new(LeastRequest {
                rng,
                active: vec![0; servers.all],
                by_request: HashMap::new(),
            }),
            Self::Random => Box::new(Random { rng }),
            Self::RingHash => Box::new(ring::RingHash::new(servers, trace)),
            Self::Picker(config) => Box::new(crate::picker::PickerPolicy::new(
                config, servers, trace, seed,
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
    /// The requests that this gateway has at each server.
    active: Vec<usize>,
    by_request: HashMap<usize, usize>,
}

impl Policy for LeastRequest {
    fn pick(&mut self, _: u64, number: usize, _: &Request, pods: &[Pod]) -> Option<Picked> {
        let drawn = [0, 1].map(|_| self.rng.usize(0..pods.len().max(1)));
        let active = |pod: &usize| self.active.get(*pod).copied();
        let picked = drawn.into_iter().min_by_key(active)?;
        *self.active.get_mut(picked)? += 1;
        self.by_request.insert(number, picked);
        Some(Picked::whole(picked))
    }

    fn ended(&mut self, _: u64, number: usize) {
        let picked = self.by_request.remove(&number);
        if let Some(active) = picked.and_then(|picked| self.active.get_mut(picked)) {
            *active -= 1;
        }
    }
}

/// Several gateways over one pool.
struct Gateways {
    policies: Vec<Box<dyn Policy>>,
    /// The gateway of each request that has not ended.
    by_request: HashMap<usize, usize>,
    rng: fastrand::Rng,
}

impl Gateways {
    fn of(&mut self, number: usize) -> Option<&mut Box<dyn Policy>> {
        self.policies.get_mut(*self.by_request.get(&number)?)
    }
}

impl Policy for Gateways {
    fn tick_interval(&self) -> Option<u64> {
        self.policies.first()?.tick_interval()
    }

    fn tick(&mut self, now: u64, pods: &[Pod]) {
        for policy in &mut self.policies {
            policy.tick(now, pods);
        }
    }

    fn pick(&mut self, now: u64, number: usize, request: &Request, pods: &[Pod]) -> Option<Picked> {
        let drawn = self.rng.usize(0..self.policies.len());
        self.by_request.insert(number, drawn);
        self.of(number)?.pick(now, number, request, pods)
    }

    fn decided(&mut self) -> Option<(usize, Decision)> {
        self.policies.iter_mut().find_map(|policy| policy.decided())
    }

    fn first_token(&mut self, now: u64, number: usize, usage: Option<Usage>) {
        if let Some(policy) = self.of(number) {
            policy.first_token(now, number, usage);
        }
    }

    fn ended(&mut self, now: u64, number: usize) {
        if let Some(policy) = self.of(number) {
            policy.ended(now, number);
        }
        self.by_request.remove(&number);
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

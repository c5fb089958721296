//! A picker under flow control whose endpoints take a number of requests each, for tests.

use std::sync::Arc;
use std::time::Duration;

use super::{Effect, ExchangeId, Head, Picker};
use crate::config::{self, Plan};
use crate::flow::{BandSpec, Fairness, FlowControl, Ordering, SaturationDetector, UsageLimit};
use crate::metrics::labels::FlowOutcome;
use crate::scheduling::{Endpoint, InFlight, Needs};
use crate::time::Timestamp;

/// The time at which the picker begins.
pub const START: Timestamp = Timestamp::from_nanos(1_000_000_000_000);

/// Requests that an endpoint takes.
#[derive(Debug)]
struct Capacity(f64);

impl SaturationDetector for Capacity {
    fn value(&self, _: &Endpoint, load: InFlight) -> Option<f64> {
        Some(f64::from(load.requests + load.unreported))
    }

    fn saturation_at(&self, mean: f64) -> f64 {
        mean / self.0
    }

    fn needs(&self) -> Needs {
        Needs {
            in_flight: true,
            ..Needs::default()
        }
    }
}

/// Returns a plan of this many endpoints. Requests name their objective in a header; `high` has priority 10, `low` has
/// -10.
pub fn plan(endpoints: usize, settings: &str) -> Plan {
    let members =
        (0..endpoints).map(|n| format!("{{name: p{n}, address: 10.0.0.{}, port: 80}}", n + 1));
    let members = members.collect::<Vec<_>>().join(", ");
    let text = format!(
        "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
featureGates: [flowControl]
plugins: [{{type: static-objectives, parameters: {{objectives: [{{name: high, priority: 10}}, {{name: low, priority: -10}}]}}}},
  {{type: active-request-scorer}}, {{type: prefix-cache-scorer}},
  {{type: envoy-proxy, parameters: {{{settings}}}}},
  {{name: pods, type: static-discovery, parameters: {{endpoints: [{members}]}}}}]
schedulingProfiles: [{{name: default, plugins: [{{pluginRef: active-request-scorer}}]}}]
dataLayer: {{discovery: {{pluginRef: pods}}}}
"
    );
    config::load(&text).unwrap().plan
}

/// Returns flow control for endpoints that take this many requests each. Requests wait for ten seconds, and for twenty
/// in an empty pool.
pub fn control(capacity: f64) -> FlowControl {
    let band = BandSpec {
        priority: 0,
        max_requests: Some(1_000),
        max_bytes: None,
        ttl: None,
        ordering: Ordering::Fcfs,
        fairness: Fairness::RoundRobin,
    };
    FlowControl {
        max_requests: None,
        max_bytes: None,
        ttl: Some(Duration::from_secs(10)),
        empty_pool_ttl: Some(Duration::from_secs(20)),
        bands: Vec::new(),
        default_band: band,
        negative_band: band,
        usage_limit: UsageLimit::Static(1.0),
        detector: Arc::new(Capacity(capacity)),
        detector_name: "capacity".to_owned(),
        eviction: false,
        eviction_grace: Duration::from_millis(10),
    }
}

/// What became of a request in an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It was held.
    Held(u32),
    /// It was forwarded to an endpoint.
    Forwarded(u32),
    /// It was left to the host.
    Bypassed(u32),
    /// It got a local reply of this status.
    Replied(u32, u32),
    /// It was evicted.
    Evicted(u32),
}

use Outcome::{Bypassed, Evicted, Forwarded, Held, Replied};

/// A host of few lines with a clock.
pub struct Host {
    pub picker: Picker,
    pub now: Timestamp,
}

impl Host {
    /// Returns a host whose endpoints are known.
    pub fn new(plan: Plan) -> Self {
        let mut host = Self {
            picker: Picker::new(plan, 1),
            now: START,
        };
        host.tick();
        host
    }

    /// Returns a host of this many endpoints that take this many requests each.
    pub fn with_capacity(endpoints: usize, capacity: f64) -> Self {
        let mut plan = plan(endpoints, "");
        plan.flow = Some(control(capacity));
        Self::new(plan)
    }

    /// A request without a body and of no objective comes.
    pub fn get(&mut self, id: u32) -> Vec<Outcome> {
        self.get_with(id, "", "")
    }

    /// A request without a body comes, with these values in the headers of its objective and fairness id.
    pub fn get_with(&mut self, id: u32, objective: &str, fairness_id: &str) -> Vec<Outcome> {
        let headers = [
            (":path", "/v1/models"),
            (":method", "GET"),
            ("x-llm-d-inference-objective", objective),
            ("x-llm-d-inference-fairness-id", fairness_id),
        ];
        let headers = headers.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let (plan, mut values) = (self.picker.plan().clone(), Vec::new());
        let head = Head::read(&plan, headers.into_iter(), true, &mut values);
        self.begin(id, &head)
    }

    /// A request comes.
    pub fn begin(&mut self, id: u32, head: &Head<'_>) -> Vec<Outcome> {
        self.picker.request_headers(self.now, ExchangeId(id), head);
        self.outcomes()
    }

    /// A request ends.
    pub fn end(&mut self, id: u32) -> Vec<Outcome> {
        self.picker.closed(self.now, ExchangeId(id));
        self.outcomes()
    }

    /// A tick's time passes.
    pub fn tick(&mut self) -> Vec<Outcome> {
        self.now = self.now.after(Duration::from_millis(50));
        self.picker.tick(self.now);
        self.outcomes()
    }

    /// Ticks for this time. Returns what became of requests, with when it did.
    pub fn wait(&mut self, time: Duration) -> Vec<(Duration, Outcome)> {
        let begun = self.now;
        let mut seen = Vec::new();
        while self.now.since(begun) < time {
            let outcomes = self.tick();
            let waited = self.now.since(begun);
            seen.extend(outcomes.into_iter().map(|outcome| (waited, outcome)));
        }
        seen
    }

    /// Returns what became of requests since the last call.
    pub fn outcomes(&mut self) -> Vec<Outcome> {
        let effects = std::iter::from_fn(|| self.picker.poll_effect());
        let outcomes = effects.filter_map(|effect| {
            Some(match effect {
                Effect::Hold { id, .. } => Held(id.0),
                Effect::Forward { id, .. } => Forwarded(id.0),
                Effect::Bypass { id, .. } => Bypassed(id.0),
                Effect::Reply { id, reply } => Replied(id.0, reply.status),
                Effect::Evict { id, .. } => Evicted(id.0),
                _ => return None,
            })
        });
        outcomes.collect()
    }

    /// Returns how many requests of this picker are in flight.
    pub fn in_flight(&self) -> u32 {
        let pool = self.picker.pool();
        let slots = pool.iter().map(|(slot, _)| pool.load(slot).requests);
        slots.sum()
    }

    /// Returns how many wait.
    pub fn waiting(&self) -> usize {
        self.picker.dispatcher.flow.queues.len()
    }

    /// Returns whether nothing is left of any request.
    pub fn is_idle(&self) -> bool {
        let dispatcher = &self.picker.dispatcher;
        self.picker.exchanges.len() == 0
            && self.waiting() == 0
            && self.in_flight() == 0
            && dispatcher.readers.memory.use_and_bound().0 == 0
    }

    /// Returns how many requests had this outcome.
    pub fn counted(&self, outcome: &str) -> u64 {
        let metrics = &self.picker.dispatcher.statistics;
        let outcomes = [
            FlowOutcome::Dispatched,
            FlowOutcome::RejectedCapacity,
            FlowOutcome::RejectedNoEndpoints,
            FlowOutcome::EvictedTtl,
            FlowOutcome::EvictedNoEndpoints,
            FlowOutcome::EvictedContextCancelled,
            FlowOutcome::WouldWait,
        ];
        let known = outcomes.into_iter().find(|known| known.name() == outcome);
        metrics.flow_counted(known.unwrap())
    }
}

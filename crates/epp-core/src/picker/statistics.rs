//! Statistics: the metrics that a picker counts with each request.

use std::time::Duration;

use super::admission::Admission;
use super::flow_metrics::FlowMetrics;
use super::left_alone::LeftAlone;
use super::models::ModelNames;
use super::status::Counts;
use crate::config::settings::FailureMode;
use crate::endpoints::outlier::Reason;
use crate::metrics::definitions::{
    CACHED_TOKENS, DECISION_TIME, DISAGGREGATED, EARLY_RELEASES, EJECTED, ENDPOINT_GAUGES,
    FALLBACKS, FORCED_RELEASES, INPUT_TOKENS, LOOKUP_TIME, NORMALIZED_TIME_PER_TOKEN,
    OUTPUT_TOKENS, PICKS, PREDICTED_CACHED_TOKENS, PREFIX_HIT_BLOCKS, PREFIX_HIT_RATIO,
    PREFIX_INDEX_CORRECTIONS, PREFIX_QUERIED_BLOCKS, REPORTED_CACHED_TOKENS,
    REPORTING_INPUT_TOKENS, REQUEST_ERRORS, SERVED_ELSEWHERE, TIME_PER_TOKEN, TIME_TO_FIRST_TOKEN,
    UNREAD_RESPONSES,
};
use crate::metrics::labels::{
    self, Disaggregated, Ejection, Endpoint, ErrorCode, ForcedRelease, NoLabels, Picked,
};
use crate::metrics::{CounterHandle, HistogramHandle, Registry};
use crate::scheduling::{ExpectedHit, Slot, Stages};

/// One decision or look-up of this many is timed: reading a clock costs the host a call. An odd number, so that
/// of requests that are looked up in two parts not always the same one is.
pub(super) const EVENTS_PER_TIMING: u64 = 17;

/// The consequences of one event.
#[derive(Debug, Clone, Copy, Default)]
struct Event {
    /// A request was decided whose decision is to be timed.
    decided: bool,
    /// Blocks were looked up, which is to be timed.
    looked_up: bool,
}

/// The statistics of one model at one endpoint.
#[derive(Debug, Clone, Copy)]
pub struct ModelStatistics {
    pub(super) first_token: HistogramHandle,
    pub(super) per_token: HistogramHandle,
    pub(super) normalized: HistogramHandle,
    pub(super) input: HistogramHandle,
    pub(super) output: HistogramHandle,
    pub(super) cached: HistogramHandle,
    pub(super) reporting_input: CounterHandle,
    pub(super) predicted: CounterHandle,
    pub(super) reported: CounterHandle,
}

impl ModelStatistics {
    /// Returns the statistics with these labels.
    fn new(metrics: &mut Registry, labels: labels::Model<'_>) -> Self {
        Self {
            first_token: metrics.histogram(TIME_TO_FIRST_TOKEN, labels),
            per_token: metrics.histogram(TIME_PER_TOKEN, labels),
            normalized: metrics.histogram(NORMALIZED_TIME_PER_TOKEN, labels),
            input: metrics.histogram(INPUT_TOKENS, labels),
            output: metrics.histogram(OUTPUT_TOKENS, labels),
            cached: metrics.histogram(CACHED_TOKENS, labels),
            reporting_input: metrics.counter(REPORTING_INPUT_TOKENS, labels),
            predicted: metrics.counter(PREDICTED_CACHED_TOKENS, labels),
            reported: metrics.counter(REPORTED_CACHED_TOKENS, labels),
        }
    }
}

/// The statistics of the endpoint in a slot.
#[derive(Debug)]
struct EndpointStatistics {
    /// Its address, which is a label of them. It is needed once more when the endpoint has left.
    address: String,
    /// Its picks.
    picks: CounterHandle,
    /// Why it is ejected, as the gauges have it.
    reported_ejection: Option<Reason>,
    /// The statistics of its models.
    models: Vec<(String, ModelStatistics)>,
}

/// The statistics of a picker.
#[derive(Debug)]
pub struct Statistics {
    /// The metrics themselves.
    pub registry: Registry,
    early: CounterHandle,
    decision: HistogramHandle,
    hit: HistogramHandle,
    queried_blocks: CounterHandle,
    hit_blocks: CounterHandle,
    unread: CounterHandle,
    look_up: HistogramHandle,
    /// The statistics of all models without statistics of their own.
    other: ModelStatistics,
    /// The models that have statistics of their own.
    pub models: ModelNames,
    /// The component that admits others.
    pub admission: Admission,
    /// The endpoints' statistics by slot; `None` while the slot is free.
    endpoints: Vec<Option<EndpointStatistics>>,
    /// Decisions and look-ups so far, one in seventeen of which is timed.
    decisions: u64,
    look_ups: u64,
    /// The consequences of the current event.
    event: Event,
    /// Requests without an endpoint: those refused, and those left to the host once the endpoints were discovered.
    refused: u64,
    unrouted: u64,
    /// Responses in a row that should have had cached tokens and did not say how many.
    silent_on_cache: u64,
    /// Requests that are not the pool's.
    pub left_alone: LeftAlone,
    /// The series of flow control.
    pub flow: FlowMetrics,
}

impl Statistics {
    /// Returns the statistics of the pool of this name, all of them zero.
    pub fn new(pool: &str) -> Self {
        let mut registry = Registry::new(pool);
        let other = labels::Model {
            endpoint: None,
            name: "other",
        };
        Self {
            early: registry.counter(EARLY_RELEASES, NoLabels),
            decision: registry.histogram(DECISION_TIME, NoLabels),
            hit: registry.histogram(PREFIX_HIT_RATIO, NoLabels),
            queried_blocks: registry.counter(PREFIX_QUERIED_BLOCKS, NoLabels),
            hit_blocks: registry.counter(PREFIX_HIT_BLOCKS, NoLabels),
            unread: registry.counter(UNREAD_RESPONSES, NoLabels),
            other: ModelStatistics::new(&mut registry, other),
            look_up: registry.histogram(LOOKUP_TIME, NoLabels),
            registry,
            models: ModelNames::default(),
            admission: Admission::default(),
            endpoints: Vec::new(),
            decisions: 0,
            look_ups: 0,
            event: Event::default(),
            refused: 0,
            unrouted: 0,
            silent_on_cache: 0,
            left_alone: LeftAlone::default(),
            flow: FlowMetrics::default(),
        }
    }

    /// Another event begins.
    pub fn begin_event(&mut self) {
        self.event = Event::default();
    }

    /// Returns whether the next event is to be timed; `looks_up`: whether requests are looked up in an index.
    pub fn wants_timing(&self, looks_up: bool) -> bool {
        self.decisions % EVENTS_PER_TIMING == 0
            || looks_up && self.look_ups % EVENTS_PER_TIMING == 0
    }

    /// Records the duration of the current event.
    pub fn observe_event(&mut self, taken: Duration) {
        let histogram = match self.event {
            Event { decided: true, .. } => self.decision,
            Event {
                looked_up: true, ..
            } => self.look_up,
            Event { .. } => return,
        };
        self.registry.observe(histogram, taken.as_secs_f64());
    }

    /// A request is decided.
    pub fn count_decision(&mut self) {
        self.event.decided |= self.decisions % EVENTS_PER_TIMING == 0;
        self.decisions += 1;
    }

    /// A request was looked up in the indexes; `found`: whether new blocks of it were.
    pub fn count_look_up(&mut self, found: bool) {
        self.event.looked_up |= found && self.look_ups % EVENTS_PER_TIMING == 0;
        self.look_ups += 1;
    }

    /// A request was released before its body had ended, since nothing could change its decision.
    pub fn count_early_release(&mut self) {
        self.registry.count(self.early, 1);
    }

    /// A request was released with what was known of it.
    pub fn count_forced_release(&mut self, reason: ForcedRelease) {
        self.registry.add(FORCED_RELEASES, reason, 1);
    }

    /// A response is not read: too many are.
    pub fn count_unread_response(&mut self) {
        self.registry.count(self.unread, 1);
    }

    /// Returns how many entries of the prefix index were dropped because of responses.
    #[cfg(test)]
    pub fn corrections(&self) -> u64 {
        self.registry.total(&PREFIX_INDEX_CORRECTIONS)
    }

    /// Returns how many responses were not read.
    #[cfg(test)]
    pub fn unread_responses(&self) -> u64 {
        self.registry.counted(self.unread)
    }

    /// A request is sent to the endpoint in this slot, which is expected to hold this part of its prompt.
    pub fn count_pick(&mut self, slot: Slot, hit: Option<ExpectedHit>) {
        if let Some(Some(endpoint)) = self.endpoints.get(slot.index()) {
            self.registry.count(endpoint.picks, 1);
        }
        if let Some(hit) = hit {
            self.registry.observe(self.hit, hit.share());
            self.registry.count(self.queried_blocks, hit.of.into());
            self.registry.count(self.hit_blocks, hit.blocks.into());
        }
    }

    /// The prefix index has dropped entries because a response reported few cached tokens.
    pub fn count_corrections(&mut self, dropped: usize) {
        if dropped > 0 {
            let dropped = dropped as u64;
            self.registry
                .add(PREFIX_INDEX_CORRECTIONS, NoLabels, dropped);
        }
    }

    /// A request is sent whose parts other endpoints may do.
    pub fn count_stages(&mut self, stages: &Stages) {
        self.registry.add(DISAGGREGATED, Disaggregated(stages), 1);
    }

    /// No endpoint is picked for a request, for this reason; `asked_for` where its client's own headers demand that, so
    /// that it says nothing about the pool.
    pub fn count_failure(&mut self, mode: FailureMode, code: &'static str, asked_for: bool) {
        let (counter, count) = match mode {
            FailureMode::FailClose => (REQUEST_ERRORS, &mut self.refused),
            FailureMode::FailOpen => (FALLBACKS, &mut self.unrouted),
        };
        *count += u64::from(!asked_for);
        self.registry.add(counter, ErrorCode(code), 1);
    }

    /// A request is left to the host before the endpoints were discovered.
    pub fn count_undiscovered(&mut self) {
        self.registry.add(FALLBACKS, ErrorCode("NotDiscovered"), 1);
    }

    /// A response reports its usage, of a prompt that is probably cached in part; `reported`: with cached tokens.
    pub fn count_expected_hit(&mut self, reported: bool) {
        self.silent_on_cache = if reported {
            0
        } else {
            self.silent_on_cache + 1
        };
    }

    /// Returns how many responses in a row should have had cached tokens and did not say how many.
    pub fn silent_on_cache(&self) -> u64 {
        self.silent_on_cache
    }

    /// Returns how many requests were refused, and how many left to the host, because the pool has no endpoint for them.
    pub fn without_endpoint(&self) -> (u64, u64) {
        (self.refused, self.unrouted)
    }

    /// Returns how many requests were decided.
    pub fn decisions(&self) -> u64 {
        self.decisions
    }

    /// Returns what was counted so far, for the status page.
    pub fn counts(&self) -> Counts {
        Counts {
            decided: self.decisions,
            early: self.registry.counted(self.early) as i64,
            refused: self.refused as i64,
            fallbacks: self.unrouted as i64,
            elsewhere: self.registry.total(&SERVED_ELSEWHERE) as i64,
            left_alone: self.left_alone.total(),
        }
    }

    /// Returns the picks of each endpoint that has any, by slot.
    pub fn picks(&self) -> Vec<(u32, i64)> {
        let endpoints = (0..).zip(&self.endpoints);
        let picks = endpoints.filter_map(|(slot, endpoint)| {
            let picks = self.registry.counted(endpoint.as_ref()?.picks);
            Some((slot, picks as i64))
        });
        picks.filter(|(_, picks)| *picks > 0).collect()
    }
}

/// The endpoints.
impl Statistics {
    /// An endpoint of this address joins in this slot.
    pub fn add_endpoint(&mut self, slot: Slot, address: &str) {
        if self.endpoints.len() <= slot.index() {
            self.endpoints.resize_with(slot.index() + 1, || None);
        }
        let picks = self.registry.counter(PICKS, Picked(address));
        if let Some(endpoint) = self.endpoints.get_mut(slot.index()) {
            *endpoint = Some(EndpointStatistics {
                address: address.to_owned(),
                picks,
                reported_ejection: None,
                models: Vec::new(),
            });
        }
    }

    /// The endpoint in this slot leaves. Its gauges are reset if this picker sets them: `polls`.
    pub fn remove_endpoint(&mut self, slot: Slot, polls: bool) {
        let endpoint = self.endpoints.get_mut(slot.index());
        let Some(departed) = endpoint.and_then(Option::take) else {
            return;
        };
        let endpoint = departed.address.as_str();
        if polls {
            for gauge in &ENDPOINT_GAUGES {
                self.registry.reset(gauge, Endpoint(endpoint));
            }
        }
        if let Some(reason) = departed.reported_ejection {
            self.registry.set(EJECTED, Ejection { endpoint, reason }, 0);
        }
    }

    /// Resets the gauges of all ejections that there can be: the picker that has set some of them until now is gone, and
    /// ejections have ended since that it had reported. Those that last are set with the other gauges.
    pub fn reset_ejections(&mut self) {
        for endpoint in self.endpoints.iter_mut().flatten() {
            endpoint.reported_ejection = None;
            let endpoint = endpoint.address.as_str();
            for reason in Reason::ALL {
                self.registry.set(EJECTED, Ejection { endpoint, reason }, 0);
            }
        }
    }

    /// Sets the gauges of endpoints that are ejected, by reason.
    pub fn set_ejections(&mut self, reason_of: impl Fn(Slot) -> Option<Reason>) {
        let endpoints = (0..).map(Slot).zip(&mut self.endpoints);
        for (slot, endpoint) in endpoints {
            let (reason, Some(endpoint)) = (reason_of(slot), endpoint) else {
                continue;
            };
            let before = std::mem::replace(&mut endpoint.reported_ejection, reason);
            let ended = before.filter(|_| before != reason);
            let endpoint = endpoint.address.as_str();
            // One that lasts is set each time: the picker that polled before may have reset it late.
            for (reason, value) in [(ended, 0), (reason, 1)] {
                if let Some(reason) = reason {
                    self.registry
                        .set(EJECTED, Ejection { endpoint, reason }, value);
                }
            }
        }
    }
}

/// The models.
impl Statistics {
    /// Returns the statistics of this model at the endpoint in this slot; none where the model or the slot has none.
    /// Where a request names no model there is nothing to bound.
    pub fn model_at(&mut self, slot: Slot, model: &str) -> Option<ModelStatistics> {
        let endpoint = self.endpoints.get_mut(slot.index())?.as_mut()?;
        let mut named = endpoint.models.iter();
        if let Some((_, known)) = named.find(|(name, _)| name == model) {
            return Some(*known);
        }
        if !model.is_empty() && !self.models.contains(model) {
            return None;
        }
        let labels = labels::Model {
            endpoint: Some(&endpoint.address),
            name: model,
        };
        let added = ModelStatistics::new(&mut self.registry, labels);
        endpoint.models.push((model.to_owned(), added));
        Some(added)
    }

    /// Returns the statistics of models that have none of their own: at all endpoints together, since by endpoint
    /// these series would grow the page with the pool, and say nothing that a name does not say better.
    pub fn other_models(&self) -> ModelStatistics {
        self.other
    }
}

//! What is counted of a response: how soon it began, how many tokens it cost, and whether the prefix index was
//! right about the cache.

use super::models::ModelNames;
use super::{Effect, ExchangeId, Picker};
use crate::body::BodyView;
use crate::metrics::definitions::{
    CACHED_SHARE, CACHED_TOKENS, INPUT_TOKENS, NORMALIZED_TIME_PER_TOKEN, OUTPUT_TOKENS,
    PREDICTED_CACHED_TOKENS, REPORTED_CACHED_TOKENS, TIME_PER_TOKEN, TIME_TO_FIRST_TOKEN,
};
use crate::metrics::{labels, CounterHandle, HistogramHandle, Registry};
use crate::response::Usage;
use crate::scheduling::Slot;
use crate::time::{Instant, Timestamp};

/// Responses that one worker reads at a time. Each part of a response that is read costs a host call of 5 µs, so
/// that reading stays below a few hundredths of a core whatever the load; beyond, responses are sampled, and
/// counted as unread.
const MAX_READ_AT_ONCE: usize = 128;

/// Responses that one worker begins to read per tick: a thousand a second.
const MAX_STARTED_PER_TICK: usize = 50;

/// The statistics of one model at one endpoint.
#[derive(Debug, Clone, Copy)]
pub struct Model {
    first_token: HistogramHandle,
    per_token: HistogramHandle,
    normalized: HistogramHandle,
    input: HistogramHandle,
    output: HistogramHandle,
    cached: HistogramHandle,
    cached_share: HistogramHandle,
    predicted: CounterHandle,
    reported: CounterHandle,
}

impl Model {
    /// Returns the statistics with these labels.
    pub fn new(metrics: &mut Registry, labels: labels::Model<'_>) -> Self {
        Self {
            first_token: metrics.histogram(TIME_TO_FIRST_TOKEN, labels),
            per_token: metrics.histogram(TIME_PER_TOKEN, labels),
            normalized: metrics.histogram(NORMALIZED_TIME_PER_TOKEN, labels),
            input: metrics.histogram(INPUT_TOKENS, labels),
            output: metrics.histogram(OUTPUT_TOKENS, labels),
            cached: metrics.histogram(CACHED_TOKENS, labels),
            cached_share: metrics.histogram(CACHED_SHARE, labels),
            predicted: metrics.counter(PREDICTED_CACHED_TOKENS, labels),
            reported: metrics.counter(REPORTED_CACHED_TOKENS, labels),
        }
    }
}

/// A model that asks for statistics of its own, because an endpoint has served a request for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelWish {
    /// The request that was served.
    pub id: ExchangeId,
    slot: Slot,
    /// The model's name.
    pub name: String,
}

/// How many responses are being read.
#[derive(Debug, Default)]
pub struct Budget {
    reading: usize,
    begun: usize,
}

impl Budget {
    /// Another tick begins.
    pub fn tick(&mut self) {
        self.begun = 0;
    }

    fn take(&mut self) -> bool {
        let free = self.reading < MAX_READ_AT_ONCE && self.begun < MAX_STARTED_PER_TICK;
        if free {
            self.reading += 1;
            self.begun += 1;
        }
        free
    }

    fn give_back(&mut self) {
        self.reading = self.reading.saturating_sub(1);
    }
}

/// How far the usage in a response is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum UsageReading {
    /// It has not begun, or no place was free, or it was counted.
    #[default]
    Nothing,
    /// It is being read, and has a place in the budget.
    Reading,
    /// No further bytes are wanted: the place is free, while the response may still go on for long.
    Read,
}

/// What is known of a response, and of when its request came.
#[derive(Debug, Clone, Copy, Default)]
pub struct ResponseState {
    /// When the request came.
    pub received_at: Instant,
    /// Whether the request's body has come to its end.
    pub body_sent: bool,
    /// Since when the endpoint alone is waited for, if it is.
    pub awaited_since: Option<Instant>,
    /// Whether the request has a body.
    pub bodied: bool,
    /// How the request's prompt begins, as far as that was known when it was decided.
    pub prompt: Option<u64>,
    /// Whether the response's headers have come.
    pub begun: bool,
    /// When the first bytes of the response's body came.
    first_byte_at: Option<Instant>,
    /// How far its usage is read.
    usage: UsageReading,
    /// Share of the prompt that the prefix index expected to be cached.
    pub predicted: Option<f64>,
    /// Its statistics, once an endpoint was picked.
    pub model: Option<Model>,
}

impl ResponseState {
    /// Of a request that came at this time; `bodied`: whether a body follows.
    pub fn of(received_at: Instant, bodied: bool) -> Self {
        Self {
            received_at,
            bodied,
            body_sent: !bodied,
            ..Self::default()
        }
    }

    /// Gives the place in the budget back, if it has one.
    fn free_place(&mut self, budget: &mut Budget) {
        if self.usage == UsageReading::Reading {
            self.usage = UsageReading::Read;
            budget.give_back();
        }
    }

    /// It is not read any more. Returns whether it was.
    pub fn stop_reading(&mut self, budget: &mut Budget) -> bool {
        self.free_place(budget);
        std::mem::take(&mut self.usage) != UsageReading::Nothing
    }
}

impl Picker {
    /// The statistics of a request's model at its endpoint. The name is the client's: until an
    /// endpoint has served it, it is counted as "other", at all endpoints together: by endpoint
    /// these series would grow the page with the pool, and say nothing that a name does not say better.
    pub(super) fn statistics_of(&mut self, id: u32, slot: Slot) -> Option<Model> {
        let exchange = self.exchanges.get_mut(&id)?;
        exchange.candidate.clear();
        let model = exchange.naming.model(&exchange.reader).known();
        let model = model.unwrap_or_default();
        let record = self.records.get(slot.index())?;
        let mut named = record.models.iter();
        if let Some((_, known)) = named.find(|(name, _)| name == model) {
            return Some(*known);
        }
        // Where the request names none there is nothing to bound.
        if model.is_empty() || self.models.contains(model) {
            let model = model.to_owned();
            return self.add_statistics(slot, &model);
        }
        // A request without a body is a success at any server, whatever model a header names.
        if exchange.response.bodied && self.models.has_room(model, self.monitor.store.pool.width())
        {
            exchange.candidate.push_str(model);
        }
        Some(self.hot.other)
    }

    /// Statistics for a model that has none at the endpoint in this slot.
    fn add_statistics(&mut self, slot: Slot, model: &str) -> Option<Model> {
        let record = self.records.get_mut(slot.index())?;
        let labels = labels::Model {
            endpoint: Some(&record.address),
            name: model,
        };
        let made = Model::new(&mut self.metrics, labels);
        record.models.push((model.to_owned(), made));
        Some(made)
    }

    /// An endpoint has served a request: its model asks for statistics of its own.
    pub(super) fn ask_for_model(&mut self, id: u32, slot: Slot) {
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return;
        };
        let name = std::mem::take(&mut exchange.candidate);
        if !name.is_empty() {
            let id = ExchangeId(id);
            let wish = ModelWish { id, slot, name };
            self.effects.push_back(Effect::AdmitModel(wish));
        }
    }

    /// Returns the models that have statistics of their own, and how many endpoints the pool has, which
    /// bounds their number.
    pub(super) fn models_mut(&mut self) -> (&mut ModelNames, usize) {
        (&mut self.models, self.monitor.store.pool.width())
    }

    /// Gives a model statistics of its own, if there is room. Returns whether it has them now.
    pub fn admit_model(&mut self, wish: &ModelWish) -> bool {
        let (models, endpoints) = self.models_mut();
        let admitted = models.admit(&wish.name, endpoints);
        if admitted {
            self.count_under_model(wish);
        }
        admitted
    }

    /// Counts the request of a wish that was granted under its model's name.
    fn count_under_model(&mut self, wish: &ModelWish) {
        let named = self
            .records
            .get(wish.slot.index())
            .map(|record| &record.models);
        let known = named.and_then(|named| named.iter().find(|(known, _)| *known == wish.name));
        let model = match known {
            Some((_, model)) => Some(*model),
            None => self.add_statistics(wish.slot, &wish.name),
        };
        if let Some(exchange) = self.exchanges.get_mut(&wish.id.0) {
            exchange.response.model = model;
        }
    }

    /// A part of a response's body has come. It is read only if its bytes are wanted.
    pub fn response_body(
        &mut self,
        now: Timestamp,
        ExchangeId(id): ExchangeId,
        part: &mut dyn BodyView,
    ) {
        self.begin_event(now);
        let (now, available) = (self.timing.clock.now(), part.available());
        if available.is_empty() {
            return;
        }
        self.prompt_computed(id);
        if !self.wants_response(id, now) {
            return;
        }
        // What cannot be read is left out: the usage stands at the end.
        let bytes = part.read(available).unwrap_or_default();
        if let Some(exchange) = self.exchanges.get_mut(&id) {
            exchange.usage.push(&bytes, &mut self.text_buffer);
            if !exchange.usage.wants_bytes() {
                exchange.response.free_place(&mut self.budget);
            }
        }
    }

    /// Returns whether the bytes of a response are wanted, a part of which has come.
    fn wants_response(&mut self, id: u32, now: Instant) -> bool {
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return false;
        };
        let Some(model) = exchange.response.model else {
            return false;
        };
        if exchange.response.first_byte_at.is_none() {
            exchange.response.first_byte_at = Some(now);
            let waited = now.since(exchange.response.received_at).as_secs_f64();
            self.metrics.observe(model.first_token, waited);
            if self.budget.take() {
                exchange.response.usage = UsageReading::Reading;
                exchange.usage.reset();
            } else {
                self.metrics.count(self.hot.unread, 1);
            }
        }
        exchange.response.usage == UsageReading::Reading && exchange.usage.wants_bytes()
    }

    /// A request has ended: the usage in its response is counted.
    pub(super) fn finish_response(&mut self, id: u32) {
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return;
        };
        if !exchange.response.stop_reading(&mut self.budget) {
            return;
        }
        exchange.usage.finish(&mut self.text_buffer);
        let (response, usage) = (exchange.response, exchange.usage.usage());
        let streams = exchange.usage.streams();
        if let Some(model) = response.model {
            self.count_tokens(&model, &usage, response.predicted);
            self.count_times(&model, &usage, &response, streams);
        }
    }

    fn count_tokens(&mut self, model: &Model, usage: &Usage, predicted: Option<f64>) {
        let metrics = &mut self.metrics;
        if let Some(output) = usage.completion {
            metrics.observe(model.output, output as f64);
        }
        let Some(prompt) = usage.prompt else {
            return;
        };
        metrics.observe(model.input, prompt as f64);
        let Some(cached) = usage.cached else {
            return;
        };
        metrics.observe(model.cached, cached as f64);
        if prompt > 0 {
            metrics.observe(model.cached_share, cached as f64 / prompt as f64);
        }
        if let Some(share) = predicted {
            let expected = (share * prompt as f64).round() as u64;
            metrics.count(model.predicted, expected);
            metrics.count(model.reported, cached);
        }
    }

    fn count_times(
        &mut self,
        model: &Model,
        usage: &Usage,
        response: &ResponseState,
        streams: bool,
    ) {
        let Some(tokens) = usage.completion.filter(|tokens| *tokens > 0) else {
            return;
        };
        let now = self.timing.clock.now();
        let seconds = |from: Instant| now.since(from).as_secs_f64();
        let whole = seconds(response.received_at) / tokens as f64;
        self.metrics.observe(model.normalized, whole);
        let first_byte_at = response.first_byte_at.filter(|_| streams && tokens > 1);
        if let Some(first_byte_at) = first_byte_at {
            let each = seconds(first_byte_at) / (tokens - 1) as f64;
            self.metrics.observe(model.per_token, each);
        }
    }
}

#[cfg(test)]
#[path = "outcome_tests.rs"]
mod tests;

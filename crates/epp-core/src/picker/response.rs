//! Responses: how soon they began, how many tokens they cost, and whether the prefix index was right about the
//! cache.

use super::dispatcher::Dispatcher;
use super::exchange::Exchange;
use super::statistics::{ModelStatistics, Statistics};
use crate::body::BodyView;
use crate::response::Usage;
use crate::scheduling::Slot;
use crate::time::Instant;

/// Responses that one worker reads at a time. Each part of a response that is read costs a host call of 5 µs, so
/// that reading stays below a few hundredths of a core whatever the load; beyond, responses are sampled, and
/// counted as unread.
const MAX_READ_AT_ONCE: usize = 128;

/// Responses that one worker begins to read per tick: a thousand a second.
const MAX_STARTED_PER_TICK: usize = 50;

/// The number of responses that are being read.
#[derive(Debug, Default)]
pub struct ReadingBudget {
    reading: usize,
    begun: usize,
}

impl ReadingBudget {
    /// Another tick begins.
    pub fn tick(&mut self) {
        self.begun = 0;
    }

    /// Returns how many responses are being read.
    #[cfg(test)]
    pub fn reading(&self) -> usize {
        self.reading
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

/// A request's body, as far as the host has sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum RequestBody {
    /// The request has none.
    #[default]
    None,
    /// Its end has not come yet.
    Coming,
    /// It has ended.
    Sent,
}

/// The progress of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Progress {
    /// The request was not sent to its end to any endpoint.
    #[default]
    NotAwaited,
    /// The endpoint alone is waited for, since then.
    Awaited(Instant),
    /// Its headers have come. A server may send them before its engine has begun, so that the endpoint may still be waited
    /// for, since then.
    Begun(Option<Instant>),
    /// The first bytes of its body came then.
    Flowing(Instant),
}

/// The state of reading the usage in a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum UsageReading {
    /// It has not begun, or no place was free, or it was counted.
    #[default]
    Nothing,
    /// It is being read, and has a place in the budget.
    Reading,
    /// No further bytes are wanted: the place is free, while the response may last much longer.
    Read,
}

/// Where a response is counted.
#[derive(Debug, Clone, Copy)]
pub struct Recording {
    /// The statistics of its model.
    pub model: ModelStatistics,
    /// Share of the prompt that the prefix index expected to be cached; `None` also if another endpoint computes the
    /// prompt: then it depends on the routing sidecar whose cache the response reports.
    pub predicted: Option<f64>,
    /// Whether its response may correct the index: responses had proven all that was expected.
    pub corrects: bool,
}

/// The state of a response, with the arrival time of its request.
#[derive(Debug, Clone, Copy, Default)]
pub struct ResponseState {
    received_at: Instant,
    request_body: RequestBody,
    /// Whether only an engine can serve the request.
    takes_engine: bool,
    progress: Progress,
    usage: UsageReading,
    /// The endpoint that was seen to respond with success, until the first bytes of the body show that its engine works.
    pub responder: Option<Slot>,
    /// How the request's prompt begins, as far as that was known when it was decided.
    pub prompt: Option<u64>,
    /// The series that count it, once an endpoint was picked.
    pub recording: Option<Recording>,
}

impl ResponseState {
    /// Returns the state of a request that came at this time; `has_body`: whether a body follows; `generates`: whether it
    /// is for an API that takes an engine.
    pub fn new(received_at: Instant, has_body: bool, generates: bool) -> Self {
        let request_body = match has_body {
            true => RequestBody::Coming,
            false => RequestBody::None,
        };
        Self {
            received_at,
            request_body,
            takes_engine: has_body && generates,
            ..Self::default()
        }
    }

    /// Returns when the request came.
    pub fn received_at(&self) -> Instant {
        self.received_at
    }

    /// Returns whether the request has a body.
    pub fn has_body(&self) -> bool {
        self.request_body != RequestBody::None
    }

    /// Returns whether only an engine can serve the request.
    pub fn takes_engine(&self) -> bool {
        self.takes_engine
    }

    /// Records that the request's body has ended.
    pub fn end_request_body(&mut self) {
        if self.request_body == RequestBody::Coming {
            self.request_body = RequestBody::Sent;
        }
    }

    /// The endpoint alone is waited for from now on, if the request has ended. Returns whether it was not
    /// waited for before.
    pub fn begin_waiting(&mut self, now: Instant) -> bool {
        let is_sent = self.request_body != RequestBody::Coming;
        let begins = is_sent && self.progress == Progress::NotAwaited;
        if begins {
            self.progress = Progress::Awaited(now);
        }
        begins
    }

    /// Returns since when the endpoint alone is waited for, if it is.
    pub fn awaited_since(&self) -> Option<Instant> {
        match self.progress {
            Progress::Awaited(since) => Some(since),
            Progress::Begun(since) => since,
            Progress::NotAwaited | Progress::Flowing(_) => None,
        }
    }

    /// Returns whether the response has begun.
    pub fn has_begun(&self) -> bool {
        matches!(self.progress, Progress::Begun(_) | Progress::Flowing(_))
    }

    /// Returns whether the first bytes of its body have come.
    pub fn is_flowing(&self) -> bool {
        matches!(self.progress, Progress::Flowing(_))
    }

    /// The response's headers have come. `may_serve`: the engine may still have to begin.
    pub fn begin(&mut self, may_serve: bool) {
        if !self.has_begun() {
            let since = self.awaited_since();
            self.progress = Progress::Begun(since.filter(|_| may_serve && self.takes_engine));
        }
    }

    /// The response is another endpoint's: the one that was waited for is not any more.
    pub fn stop_waiting(&mut self) {
        if let Progress::Begun(since) = &mut self.progress {
            *since = None;
        }
    }

    /// Gives the place in the budget back, if it has one.
    fn free_place(&mut self, budget: &mut ReadingBudget) {
        if self.usage == UsageReading::Reading {
            self.usage = UsageReading::Read;
            budget.give_back();
        }
    }

    /// It is not read any more. Returns whether it was.
    pub fn end_usage_reading(&mut self, budget: &mut ReadingBudget) -> bool {
        self.free_place(budget);
        std::mem::take(&mut self.usage) != UsageReading::Nothing
    }
}

impl Dispatcher {
    /// A part of a response's body has come. It is read only if its bytes are wanted.
    pub fn read_response(&mut self, exchange: &mut Exchange, part: &mut dyn BodyView) {
        let available = part.available();
        if available.is_empty() {
            return;
        }
        self.prompt_computed(exchange);
        let is_first = !exchange.response.is_flowing();
        if is_first {
            self.begin_body(exchange);
        }
        if !self.wants_response(exchange, is_first) {
            return;
        }
        // Unreadable parts are skipped: the usage is at the end.
        let bytes = part.read(available).unwrap_or_default();
        exchange.usage.push(&bytes, &mut self.readers.text);
        if !exchange.usage.wants_bytes() {
            exchange.response.free_place(&mut self.readers.responses);
        }
    }

    /// The first bytes of a response's body have come.
    fn begin_body(&mut self, exchange: &mut Exchange) {
        let now = self.clock.now();
        let waiting_since = exchange.response.awaited_since();
        exchange.response.progress = Progress::Flowing(now);
        if let Some(target) = self.endpoints.present_target(exchange) {
            self.endpoints.mark_responsive(target.slot, now);
        }
        if let Some(slot) = exchange.response.responder.take() {
            self.record_served(exchange, slot, waiting_since);
        }
    }

    /// Returns whether the bytes of a response are wanted, a part of which has come; `is_first`: the first one.
    fn wants_response(&mut self, exchange: &mut Exchange, is_first: bool) -> bool {
        let response = &mut exchange.response;
        let Some(recording) = response.recording else {
            return false;
        };
        if is_first {
            let now = self.clock.now();
            let waited = now.since(response.received_at).as_secs_f64();
            self.statistics
                .registry
                .observe(recording.model.first_token, waited);
            if self.readers.responses.take() {
                response.usage = UsageReading::Reading;
                exchange.usage.reset();
            } else {
                self.statistics.count_unread_response();
            }
        }
        response.usage == UsageReading::Reading && exchange.usage.wants_bytes()
    }

    /// A request has ended: the usage in its response is counted.
    pub fn finish_response(&mut self, exchange: &mut Exchange) {
        if !exchange
            .response
            .end_usage_reading(&mut self.readers.responses)
        {
            return;
        }
        exchange.usage.finish(&mut self.readers.text);
        let (response, usage) = (exchange.response, exchange.usage.usage());
        if self.plan.flow.is_some() {
            self.count_served(exchange, &usage);
        }
        if let Some(recording) = response.recording {
            count_tokens(&mut self.statistics, &recording, &usage);
            if self.plan.settings.correct_index && recording.corrects {
                let dropped = self.prefixes.correct(exchange, &usage, &self.endpoints);
                self.statistics.count_corrections(dropped);
            }
            let times = Times {
                now: self.clock.now(),
                received_at: response.received_at,
                first_byte_at: match response.progress {
                    Progress::Flowing(at) if exchange.usage.streams() => Some(at),
                    _ => None,
                },
            };
            count_times(&mut self.statistics, &recording.model, &usage, &times);
        }
    }
}

fn count_tokens(statistics: &mut Statistics, recording: &Recording, usage: &Usage) {
    if usage.prompt.is_some() && recording.predicted.is_some_and(|share| share > 0.0) {
        statistics.count_expected_hit(usage.cached.is_some());
    }
    let (metrics, model) = (&mut statistics.registry, &recording.model);
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
    metrics.count(model.reporting_input, prompt);
    if let Some(share) = recording.predicted {
        let expected = (share * prompt as f64).round() as u64;
        metrics.count(model.predicted, expected);
        metrics.count(model.reported, cached);
    }
}

/// The times of a response that has ended.
struct Times {
    now: Instant,
    received_at: Instant,
    /// None where it came as a whole.
    first_byte_at: Option<Instant>,
}

fn count_times(statistics: &mut Statistics, model: &ModelStatistics, usage: &Usage, times: &Times) {
    let Some(tokens) = usage.completion.filter(|tokens| *tokens > 0) else {
        return;
    };
    let metrics = &mut statistics.registry;
    let seconds = |from: Instant| times.now.since(from).as_secs_f64();
    metrics.observe(model.normalized, seconds(times.received_at) / tokens as f64);
    if let Some(first_byte_at) = times.first_byte_at.filter(|_| tokens > 1) {
        metrics.observe(
            model.per_token,
            seconds(first_byte_at) / (tokens - 1) as f64,
        );
    }
}

#[cfg(test)]
#[path = "response_tests.rs"]
mod tests;

//! Engines that stand still: requests wait at an endpoint whose metrics page is answered, and nothing becomes of them.
//!
//! An endpoint shows work when its page changes in a way that only a working engine changes it, or when it serves a
//! request with a body. Its silence is the time since then, as far as a request waits there. How long a healthy
//! endpoint is silent depends on its model, its hardware and its prompts, so each silence that ends is remembered for
//! a few minutes: an endpoint whose requests wait for several times the longest that it or the middle one of the pool
//! was silent lately has stopped. Where pages are far apart, a silence counts only as far as pages show that nothing
//! happened. Pages that never showed work say nothing, and their endpoints are never ejected for
//! it.
//!
//! A request can make an engine silent (a prompt that it cannot handle, an image that it waits for), so that these
//! ejections count as uncertain: see `endpoints/outlier`.

use std::time::Duration;

use super::exchange::Exchanges;
use super::pool_state::{awaited_since, EndpointRecord, PoolState};
use crate::endpoints::outlier::Reason;
use crate::scheduling::{Freshness, Slot};
use crate::time::{Clock, Instant};

/// An endpoint may be silent for this many times the longest that was seen lately. Engines take up to a second for a
/// step with a long prompt, and the longest of some minutes is rarely exceeded threefold.
const MULTIPLE: u32 = 3;

/// No silence below this counts where the engine counts tokens with each step: some steps take a second, and a page is
/// read up to a quarter of a second late. A pool that gets 100 requests per second has recovered within 3 s.
const MIN_SILENCE: Duration = Duration::from_secs(2);

/// The same where only gauges show work. SGLang sets them every 40 decoding steps, which may take 200 ms each, and what its
/// `/v1/loads` says every 15.
const MIN_SILENCE_OF_GAUGES: Duration = Duration::from_secs(15);

/// An endpoint that has served fewer requests than this has no history: engines load adapters and compile kernels for
/// the first ones, for many seconds. It has as much time as one whose page has only gauges.
const HISTORY: u8 = 10;

/// Any longer silence counts: a minute after which the templates' `per_try_timeout` sends a request elsewhere has then
/// half passed.
const MAX_SILENCE: Duration = Duration::from_secs(30);

/// Requests that must have waited for so long: one or two may wait for something else, such as media that the server
/// downloads.
const MIN_WAITING: usize = 3;

/// The longest silence is that of this time and of as much before.
const WINDOW: Duration = Duration::from_secs(300);

/// How long an endpoint has shown no work, and how long it did so lately.
#[derive(Debug, Default)]
pub(super) struct Silence {
    /// When it last showed work; when it joined, if it never did.
    since: Instant,
    /// When it last served a request with a body.
    served_at: Option<Instant>,
    /// How many it has served, up to [`HISTORY`].
    served: u8,
    /// The longest silences that ended in this window and in the one before.
    longest: [Duration; 2],
    /// Whether it has been silent for so long that only successful responses are taken as work: all are examined.
    pub doubted: bool,
    /// Whether this picker has found it to stand still, and requests have waited there since.
    held: bool,
}

impl Silence {
    /// Returns the silence of an endpoint that has just joined.
    pub fn new(now: Instant) -> Self {
        Self {
            since: now,
            ..Self::default()
        }
    }

    /// The endpoint has served a request, which had waited since then. `until`: until when it is known to have shown no work.
    pub fn serve(&mut self, waiting_since: Option<Instant>, until: Instant, now: Instant) {
        self.served_at = Some(now);
        self.served = HISTORY.min(self.served.saturating_add(1));
        self.end(waiting_since, until, now);
    }

    /// The endpoint has shown work while a request waited since then, if one did. `until`: until when it is known to have
    /// shown none.
    fn end(&mut self, waiting_since: Option<Instant>, until: Instant, now: Instant) {
        let [longest, _] = &mut self.longest;
        let begun = waiting_since.map(|waiting| self.since.max(waiting));
        // Without a duration where it was not longer, as for all but a few responses: that takes a division.
        if let Some(begun) = begun.filter(|begun| begun.after(*longest) < until) {
            *longest = until.since(begun).min(MAX_SILENCE / MULTIPLE);
        }
        self.since = now;
    }

    fn longest(&self) -> Duration {
        let [present, former] = self.longest;
        present.max(former)
    }

    /// Returns how long the endpoint may be silent, of which this is the longest silence that is known, where no
    /// shorter one than `shortest` counts.
    fn patience(&self, longest: Duration, shortest: Duration) -> Duration {
        let shortest = match self.served < HISTORY {
            true => MIN_SILENCE_OF_GAUGES,
            false => shortest,
        };
        longest
            .saturating_mul(MULTIPLE)
            .clamp(shortest, MAX_SILENCE)
    }
}

impl PoolState {
    /// Finds endpoints whose engines stand still while their pages come and peers serve.
    pub fn find_stalled(&mut self, exchanges: &Exchanges, clock: &Clock) {
        if !self.monitor.outliers.is_enabled() {
            return;
        }
        let now = clock.now();
        self.forget_silences(now);
        let mut suspects = Vec::new();
        for index in 0..self.records.len() {
            let slot = Slot(index as u32);
            // Of thousands of endpoints, requests wait at a few; at the others there is nothing to find.
            let waits = |record: &EndpointRecord| {
                let silence = &record.silence;
                silence.held || silence.doubted || !record.unanswered.is_empty()
            };
            if self.records.get(index).is_some_and(waits) && self.doubts(slot, exchanges, now) {
                suspects.push(slot);
            }
        }
        if suspects.is_empty() {
            return;
        }
        let typical = self.typical_silence();
        suspects.retain(|slot| self.has_stalled(*slot, typical, exchanges, now));
        // Where as many stand still as serve, something behind them does.
        if self.serving(&suspects, now) >= suspects.len() {
            for slot in suspects {
                self.monitor.outliers.mark_stalled(slot, clock.wall());
                if let Some(record) = self.records.get_mut(slot.index()) {
                    record.silence.held = true;
                }
            }
        }
    }

    /// Puts the silences of the last minutes aside as former ones once in a while.
    fn forget_silences(&mut self, now: Instant) {
        if now.since(self.silences_since) >= WINDOW {
            self.silences_since = now;
            for record in &mut self.records {
                let [present, _] = record.silence.longest;
                record.silence.longest = [Duration::ZERO, present];
            }
        }
    }

    /// Takes in whether a page has shown work. Returns whether the endpoint has been silent for a good part of the time
    /// that it may be.
    fn doubts(&mut self, slot: Slot, exchanges: &Exchanges, now: Instant) -> bool {
        let shortest = self.shortest_stall(slot);
        let record = self.records.get_mut(slot.index());
        let (Some(record), Some(shortest)) = (record, shortest) else {
            return false;
        };
        let since = |id| awaited_since(exchanges, &self.loads, slot, id);
        let silence = &mut record.silence;
        if silence.held && record.unanswered.first_due(now, since).is_none() {
            // Perhaps they waited for something else: the page of an engine that is idle by now shows no work.
            silence.held = false;
            self.monitor.outliers.mark_working(slot);
        }
        let worked_at = self.monitor.store.worked_at(slot);
        if let Some(worked_at) = worked_at.filter(|at| *at > silence.since) {
            self.monitor.outliers.mark_working(slot);
            // Requests are looked at only where this was the longest silence that counts.
            let known = silence.longest().max(shortest / MULTIPLE);
            let read_before = self.monitor.store.read_before_work(slot);
            let until = self.monitor.silent_until(read_before, worked_at);
            let is_longest = until.since(silence.since) > known;
            let bound = until.before(known);
            let first = is_longest.then(|| record.unanswered.first_due(bound, since));
            silence.end(first.flatten().and_then(since), until, worked_at);
        }
        let half = silence.patience(silence.longest(), shortest) / 2;
        silence.doubted = now.since(silence.since) >= half
            && record
                .unanswered
                .first_due(now.before(half), since)
                .is_some();
        silence.doubted
    }

    /// Returns the shortest silence that counts at an endpoint; `None` while its page does not come, or where pages do
    /// not show work.
    fn shortest_stall(&self, slot: Slot) -> Option<Duration> {
        let endpoint = self.endpoint(slot);
        let endpoint = endpoint.filter(|endpoint| endpoint.freshness == Freshness::Fresh)?;
        if endpoint.metrics.generated.is_some() {
            return Some(MIN_SILENCE);
        }
        let worked_at = self.monitor.store.worked_at(slot);
        worked_at.map(|_| MIN_SILENCE_OF_GAUGES)
    }

    /// Returns the longest silence lately of the middle endpoint.
    fn typical_silence(&self) -> Duration {
        let present = self.pool().iter();
        let records = present.filter_map(|(slot, _)| self.records.get(slot.index()));
        let mut longest: Vec<Duration> = records.map(|record| record.silence.longest()).collect();
        let middle = longest.len() / 2;
        longest.sort_unstable();
        longest.get(middle).copied().unwrap_or_default()
    }

    /// Returns whether an endpoint has been silent for longer than it may be, while requests waited there for as long.
    fn has_stalled(
        &mut self,
        slot: Slot,
        typical: Duration,
        exchanges: &Exchanges,
        now: Instant,
    ) -> bool {
        let Some(shortest) = self.shortest_stall(slot) else {
            return false;
        };
        // A page that was not fetched lately shows nothing of what has become of the requests.
        if self.monitor.store.condition(slot).rest > 0 {
            return false;
        }
        let Some(record) = self.records.get_mut(slot.index()) else {
            return false;
        };
        let longest = record.silence.longest().max(typical);
        let patience = record.silence.patience(longest, shortest);
        // A probe may be the only request there, and the time from before the ejection does not say how long one takes.
        let (needed, patience) = match self.monitor.outliers.reason(slot) {
            Some(Reason::Hung) => (1, shortest),
            _ => (MIN_WAITING, patience),
        };
        if now.since(record.silence.since) < patience {
            return false;
        }
        let since = |id| awaited_since(exchanges, &self.loads, slot, id);
        let bound = now.before(patience);
        record.unanswered.count_due(bound, needed, since) >= needed
    }

    /// Returns how many other endpoints have served a request lately.
    fn serving(&self, suspects: &[Slot], now: Instant) -> usize {
        let others = self
            .pool()
            .iter()
            .filter(|(slot, endpoint)| endpoint.is_available() && !suspects.contains(slot));
        let serves = |slot: Slot| {
            let record = self.records.get(slot.index());
            let served_at = record.and_then(|record| record.silence.served_at);
            served_at.is_some_and(|at| now.since(at) < MIN_SILENCE)
        };
        others.filter(|(slot, _)| serves(*slot)).count()
    }
}

#[cfg(test)]
#[path = "stalls_tests.rs"]
mod tests;

//! How a request's body gets from the host to its reader: what is wanted of it, in which order.
//!
//! This is the only place that reads bodies. A host shows what it has with each part that comes, and upon
//! each [`Effect::ShowBody`]; which of it is read, and when, is decided here.

use super::exchange::Wanted;
use super::meter::Metric;
use super::{BodyDemand, Effect, ExchangeId, Picker};
use crate::body::BodyView;

impl Picker {
    /// More of a request's body has come, or its end; trailers are an end.
    pub fn request_body(&mut self, ExchangeId(id): ExchangeId, body: &mut dyn BodyView) {
        self.note_delivery(id, body);
        self.feed(id, body);
        if body.ended() {
            self.end_body(id);
        }
        self.rewrite_in_passing(id);
    }

    fn feed(&mut self, id: u32, body: &mut dyn BodyView) {
        loop {
            let wanted = self.wanted(id, body);
            let range = match &wanted {
                Wanted::Next(range) | Wanted::Tail(range) => range.clone(),
                Wanted::Nothing => return,
                Wanted::Lost => return self.lose_part(id),
            };
            let start = range.start;
            let (end, ended) = (body.available().end, body.ended());
            let Ok(bytes) = body.read(range) else {
                // What follows could not be read either.
                return self.cannot_read(id);
            };
            if bytes.is_empty() {
                return;
            }
            match wanted {
                Wanted::Tail(_) => self.read_tail(id, start, &bytes),
                _ => self.read_next(id, &bytes, ended && start + bytes.len() >= end),
            }
            drop(bytes);
            self.read_again(id, body);
        }
    }

    /// Returns what is wanted next of a request's body.
    fn wanted(&mut self, id: u32, body: &dyn BodyView) -> Wanted {
        let now = self.timing.elapsed;
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return Wanted::Nothing;
        };
        let left = exchange.unread_ticks > 0;
        let wanted = exchange.wanted(body.available(), body.ended(), now);
        if exchange.unread_ticks > 0 && !left {
            self.holds.leave_unread(id);
        }
        wanted
    }

    /// Takes note of whether bodies are shown before requests are forwarded.
    fn note_delivery(&mut self, id: u32, body: &dyn BodyView) {
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return;
        };
        let unread = body.available().end.saturating_sub(exchange.position);
        if let Some(withheld) = exchange.withheld.take() {
            // Before any other event: it was there, and only the release has brought it.
            if withheld.tick == self.timing.ticks && unread as u64 >= withheld.bytes {
                self.delivery.withheld(self.timing.now);
            }
        }
        if exchange.held.is_some() && unread > 0 {
            self.delivery.seen();
        }
    }

    /// Reads the next bytes of a body; `last` where they are its last.
    fn read_next(&mut self, id: u32, bytes: &[u8], last: bool) {
        let now = self.timing.elapsed;
        if let Some(exchange) = self.exchanges.get_mut(&id) {
            exchange.read(bytes, last, now);
            self.choose_model(id);
            self.advance(id);
        }
    }

    /// Reads the last bytes of a body, from its byte `start` on, before what stands between.
    fn read_tail(&mut self, id: u32, start: usize, bytes: &[u8]) {
        if let Some(exchange) = self.exchanges.get_mut(&id) {
            exchange.read_tail(start, bytes);
            self.choose_model(id);
            self.advance(id);
        }
    }

    /// Reads parts of a held body once more that come first in the prompt and came late in the body.
    fn read_again(&mut self, id: u32, body: &mut dyn BodyView) {
        while let Some(range) = self
            .exchanges
            .get(&id)
            .and_then(|exchange| exchange.wanted_again())
        {
            let start = range.start;
            let bytes = body.read(range).unwrap_or_default();
            if let Some(exchange) = self.exchanges.get_mut(&id) {
                exchange.read_again(start, &bytes);
                self.advance(id);
            }
        }
    }

    /// A part of a request's body has passed unread: what follows cannot be understood without it.
    fn lose_part(&mut self, id: u32) {
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return;
        };
        exchange.reading = false;
        if exchange.held.is_some() {
            self.metrics.add(Metric::ForcedReleases, "reason=order", 1);
            self.decide(id);
        }
        self.count_memory(id);
    }

    /// A request's body has been sent to its end.
    fn end_body(&mut self, id: u32) {
        let now = self.timing.now;
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return;
        };
        exchange.answer.sent = Some(now);
        if exchange.held.is_some() {
            self.read_next(id, &[], true);
        }
    }

    /// Has the model replaced in a held body that the host shows but once: when the request is released
    /// that part of its body has passed.
    fn rewrite_in_passing(&mut self, id: u32) {
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return;
        };
        let streams = |hold: &super::exchange::Hold| hold.demand == BodyDemand::Streaming;
        if !exchange.held.as_ref().is_some_and(streams) {
            return;
        }
        if let Some(rewrite) = exchange.rewrite() {
            exchange.rewritten = true;
            let id = ExchangeId(id);
            self.effects.push_back(Effect::RewriteBody { id, rewrite });
        }
    }

    /// Chooses which model to ask for, once the client's is known.
    pub(super) fn choose_model(&mut self, id: u32) {
        if let Some(exchange) = self.exchanges.get_mut(&id) {
            let (reader, reading) = (&exchange.reader, exchange.reading);
            let (rules, rng) = (&self.plan.rewrite, self.scratch.rng());
            exchange.naming.choose(reader, reading, rules, rng);
        }
    }
}

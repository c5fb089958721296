//! How a request's body gets from the host to its reader: what is wanted of it, in which order.
//!
//! This is the only place that reads bodies. A host shows what it has with each part that comes, and upon
//! each [`Effect::ShowBody`]; which of it is read, and when, is decided here.

use super::exchange::Wanted;
use super::hold::Unread;
use super::{BodyDemand, Effect, ExchangeId, Picker};
use crate::body::BodyView;
use crate::metrics::definitions::FORCED_RELEASES;
use crate::metrics::labels::ForcedRelease;
use crate::time::Timestamp;

impl Picker {
    /// More of a request's body has come, or its end; trailers are an end.
    pub fn request_body(
        &mut self,
        now: Timestamp,
        ExchangeId(id): ExchangeId,
        body: &mut dyn BodyView,
    ) {
        self.begin_event(now);
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
                Wanted::Later => return self.leave_unread(id),
                Wanted::Lost => return self.lose_part(id),
                Wanted::Decision => return self.decide_unread(id),
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
        let now = self.timing.clock.now();
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return Wanted::Nothing;
        };
        exchange.wanted(body.available(), body.ended(), now)
    }

    /// A part of a body is left unread for now.
    fn leave_unread(&mut self, id: u32) {
        let exchange = self.exchanges.get_mut(&id);
        let Some(hold) = exchange.and_then(|exchange| exchange.hold_mut()) else {
            return;
        };
        if hold.unread == Unread::Allowed {
            hold.unread = Unread::Left;
            if let Some(due) = hold.unread_due() {
                self.unread.add(id, due);
            }
        }
    }

    /// Reads the next bytes of a body; `last` where they are its last.
    fn read_next(&mut self, id: u32, bytes: &[u8], last: bool) {
        let now = self.timing.clock.now();
        if let Some(exchange) = self.exchanges.get_mut(&id) {
            exchange.read(bytes, last, now, &mut self.text_buffer);
            self.choose_model(id);
            self.advance(id);
        }
    }

    /// Reads the last bytes of a body, from its byte `start` on, before what stands between.
    fn read_tail(&mut self, id: u32, start: usize, bytes: &[u8]) {
        if let Some(exchange) = self.exchanges.get_mut(&id) {
            exchange.read_tail(start, bytes, &mut self.text_buffer);
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
                exchange
                    .reader
                    .feed_again(start, &bytes, &mut self.text_buffer);
                self.advance(id);
            }
        }
    }

    /// A part of a request's body has passed unread: what follows cannot be understood without it.
    fn lose_part(&mut self, id: u32) {
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return;
        };
        exchange.reader.stop();
        if exchange.is_held() {
            self.metrics.add(FORCED_RELEASES, ForcedRelease::Order, 1);
            self.decide(id);
        }
        self.count_memory(id);
    }

    /// Decides a held request of whose body no more will be read, though more has come.
    #[cold]
    fn decide_unread(&mut self, id: u32) {
        self.decide(id);
        self.count_memory(id);
    }

    /// A request's body has been sent to its end.
    fn end_body(&mut self, id: u32) {
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return;
        };
        exchange.response.body_sent = true;
        if exchange.is_held() {
            self.read_next(id, &[], true);
        } else {
            self.await_response(id);
        }
    }

    /// Has the model replaced in a held body that the host shows but once: when the request is released
    /// that part of its body has passed.
    fn rewrite_in_passing(&mut self, id: u32) {
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return;
        };
        let rewrite = exchange.rewrite();
        let hold = exchange.hold_mut();
        let hold = hold.filter(|hold| hold.demand == BodyDemand::Streaming);
        if let (Some(hold), Some(rewrite)) = (hold, rewrite) {
            hold.rewritten = true;
            let id = ExchangeId(id);
            self.effects.push_back(Effect::RewriteBody { id, rewrite });
        }
    }

    /// Chooses which model to ask for, once the client's is known.
    pub(super) fn choose_model(&mut self, id: u32) {
        if let Some(exchange) = self.exchanges.get_mut(&id) {
            let (rules, rng) = (&self.plan.rewrite, self.scratch.rng());
            exchange.naming.choose(&exchange.reader, rules, rng);
        }
    }
}

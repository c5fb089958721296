//! Bodies of requests on their way from the host to their readers: which part is wanted, in which order.
//!
//! This is the only place that reads them. A host shows what it has with each part that comes, and upon
//! each [`Effect::ShowBody`]; which of it is read, and when, is decided here.

use super::dispatcher::Dispatcher;
use super::exchange::{Exchange, Wanted};
use super::hold::{Hold, Unread};
use super::{BodyDemand, Effect};
use crate::body::BodyView;
use crate::metrics::labels::ForcedRelease;

impl Dispatcher {
    /// Reads the wanted part of a request's body after more of it, or its end, has arrived.
    pub fn read_body(&mut self, exchange: &mut Exchange, body: &mut dyn BodyView) {
        self.feed(exchange, body);
        if body.ended() {
            self.end_body(exchange);
        }
        self.rewrite_in_passing(exchange);
    }

    fn feed(&mut self, exchange: &mut Exchange, body: &mut dyn BodyView) {
        loop {
            let wanted = exchange.wanted(body.available(), body.ended(), self.clock.now());
            let range = match &wanted {
                Wanted::Next(range) | Wanted::Tail(range) => range.clone(),
                Wanted::Nothing => return,
                Wanted::Later => return leave_unread(exchange),
                Wanted::Lost => return self.lose_part(exchange),
                Wanted::Decision => return self.decide_unread(exchange),
            };
            let start = range.start;
            let (end, ended) = (body.available().end, body.ended());
            let Ok(bytes) = body.read(range) else {
                // What follows could not be read either.
                return self.cannot_read(exchange);
            };
            if bytes.is_empty() {
                return;
            }
            match wanted {
                Wanted::Tail(_) => {
                    exchange.read_tail(start, &bytes, &mut self.readers.text);
                    self.choose_model(exchange);
                    self.advance(exchange);
                }
                _ => self.read_next(exchange, &bytes, ended && start + bytes.len() >= end),
            }
            drop(bytes);
            self.read_again(exchange, body);
        }
    }

    /// Reads the next bytes of a body; `last` where they are its last.
    fn read_next(&mut self, exchange: &mut Exchange, bytes: &[u8], last: bool) {
        exchange.read(bytes, last, self.clock.now(), &mut self.readers.text);
        self.choose_model(exchange);
        self.advance(exchange);
    }

    /// Reads parts of a held body once more that come first in the prompt and came late in the body.
    fn read_again(&mut self, exchange: &mut Exchange, body: &mut dyn BodyView) {
        while let Some(range) = exchange.wanted_again() {
            let start = range.start;
            let bytes = body.read(range).unwrap_or_default();
            let reader = &mut exchange.reader;
            reader.feed_again(start, &bytes, &mut self.readers.text);
            self.advance(exchange);
        }
    }

    /// A part of a request's body has passed unread: what follows cannot be understood without it.
    fn lose_part(&mut self, exchange: &mut Exchange) {
        exchange.reader.stop();
        if exchange.is_held() {
            self.release(exchange, ForcedRelease::Order);
        }
        self.readers.memory.count(exchange);
    }

    /// Decides a held request of whose body no more will be read, though more has come.
    #[cold]
    fn decide_unread(&mut self, exchange: &mut Exchange) {
        self.decide(exchange);
        self.readers.memory.count(exchange);
    }

    /// A request's body has been sent to its end.
    fn end_body(&mut self, exchange: &mut Exchange) {
        exchange.response.end_request_body();
        if exchange.is_held() {
            self.read_next(exchange, &[], true);
        } else {
            self.endpoints.await_response(exchange, self.clock.now());
        }
    }

    /// Has the model replaced in a held body that the host shows but once: when the request is released
    /// that part of its body has passed.
    fn rewrite_in_passing(&mut self, exchange: &mut Exchange) {
        let passes = |hold: &Hold| hold.demand == BodyDemand::Streaming;
        if !exchange.host_hold().is_some_and(passes) {
            return;
        }
        let (id, rewrite) = (exchange.id, exchange.rewrite());
        if let (Some(hold), Some(rewrite)) = (exchange.host_hold_mut(), rewrite) {
            hold.rewritten = true;
            self.effects.push_back(Effect::RewriteBody { id, rewrite });
        }
    }

    /// Chooses which model to ask for, once the client's is known.
    pub fn choose_model(&mut self, exchange: &mut Exchange) {
        let (rules, rng) = (&self.plan.rewrite, self.scratch.rng());
        exchange.naming.choose(&exchange.reader, rules, rng);
    }
}

/// A part of a body is left unread for now.
fn leave_unread(exchange: &mut Exchange) {
    let hold = exchange.host_hold_mut();
    if let Some(hold) = hold.filter(|hold| hold.unread == Unread::Allowed) {
        hold.unread = Unread::Left;
    }
}

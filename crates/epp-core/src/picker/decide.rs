//! When a request is decided, and the decision.
//!
//! A request is released as soon as what has not been read yet cannot change its decision: the
//! model is known or not needed, matching has ended, and the choice is the same for the
//! shortest and the longest prompt that is still possible. The rest of the prompt window is still
//! read for the index as it streams past, and delays no request.

use super::answer::LocalReply;
use super::costs::{costs, matches};
use super::effect::Addresses;
use super::exchange::{Phase, Targets};
use super::explain::Explanation;
use super::learnt::Evidence;
use super::{BodyDemand, Effect, ExchangeId, Picker, Rewrite, Route, EVENTS_PER_TIMING};
use crate::config::settings::{EarlyRelease, FailureMode};
use crate::metrics::definitions::{FALLBACKS, FORCED_RELEASES, MISSED_REWRITES, REQUEST_ERRORS};
use crate::metrics::labels::{ErrorCode, ForcedRelease, NoLabels};
use crate::prefix::walk::Walk;
use crate::protocol::{ENCODE_HEADER, PREFILL_HEADER};
use crate::request::Fact;
use crate::scheduling::{
    Cycle, Decision, PrefixMatch, RequestView, ScheduleError, Slot, TargetRole, UnreadPrompt,
};

use smallvec::SmallVec;

impl Picker {
    /// More was read of a request: matches on, learns, and decides if it can be decided. What it keeps
    /// from then on is counted.
    pub(super) fn advance(&mut self, id: u32) {
        self.advance_decision(id);
        self.bound_memory(id);
    }

    fn advance_decision(&mut self, id: u32) {
        self.walk(id);
        let Some(exchange) = self.exchanges.get(&id) else {
            return;
        };
        let Some(hold) = exchange.hold() else {
            self.learn(id);
            self.update_token_estimate(id);
            self.stop_when_full(id);
            return;
        };
        if exchange.reader.reread().is_some() {
            if hold.demand == BodyDemand::Streaming {
                // It is not shown again: the prompt counts as far as it was read in its order.
                self.metrics.add(FORCED_RELEASES, ForcedRelease::Order, 1);
                self.decide(id);
            }
            return;
        }
        let (early, many) = (!hold.ended, exchange.position > hold.max_bytes);
        if !exchange.reader.wants_more() || self.settled(id) {
            if early {
                self.metrics.count(self.hot.early, 1);
            }
            self.decide(id);
        } else if many {
            self.metrics.add(FORCED_RELEASES, ForcedRelease::Bytes, 1);
            self.decide(id);
        }
    }

    /// Once a request has left nothing but its prompt window is of use.
    fn stop_when_full(&mut self, id: u32) {
        if let Some(exchange) = self.exchanges.get_mut(&id) {
            if exchange.reader.window_full() {
                exchange.reader.stop();
            }
        }
    }

    /// Walks the blocks read so far through the indexes.
    pub(super) fn walk(&mut self, id: u32) {
        let Some(exchange) = self.exchanges.get(&id) else {
            return;
        };
        // The chain begins with the model: until it is known there is nothing to look up.
        let model = match exchange.naming.model(&exchange.reader) {
            Fact::Known(model) => model,
            Fact::Absent => "",
            Fact::Unknown if exchange.is_held() && exchange.reader.wants_more() => return,
            Fact::Unknown => "",
        };
        let salt = match exchange.reader.salt() {
            Fact::Known(salt) => salt,
            Fact::Absent | Fact::Unknown => "",
        };
        let seed = self.key.seed(model, salt);
        let restarted = exchange.restarts != exchange.reader.restarts();
        if restarted || exchange.walks.iter().any(|walk| walk.restarts_with(seed)) {
            // What was learnt of it is another prompt, or stands under another model's name.
            self.apply_evidence(id, Evidence::Refuted);
        }
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return;
        };
        if exchange.restarts != exchange.reader.restarts() {
            exchange.restarts = exchange.reader.restarts();
            exchange.walks.iter_mut().for_each(Walk::reset);
        }
        let blocks = |walks: &[Walk]| walks.iter().map(Walk::total).sum::<usize>();
        let before = blocks(&exchange.walks);
        for (stream, (walk, index)) in exchange.walks.iter_mut().zip(&self.indexes).enumerate() {
            walk.advance(seed, exchange.reader.prompts(stream), index);
        }
        let found = blocks(&exchange.walks) > before;
        self.event.looked_up |= found && self.hot.look_ups % EVENTS_PER_TIMING == 0;
        self.hot.look_ups += 1;
    }

    /// Whether nothing that may still follow can change the decision.
    fn settled(&mut self, id: u32) -> bool {
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return true;
        };
        let needs = self.plan.needs;
        let rewrites = exchange.naming.target().is_some() || !self.plan.rewrite.is_empty();
        if rewrites && exchange.reader.model() == Fact::Unknown {
            // It must be known where the model stands.
            return false;
        }
        if needs.model && exchange.naming.model(&exchange.reader) == Fact::Unknown {
            return false;
        }
        if !needs.prompt {
            return true;
        }
        let pending = exchange.reader.pending();
        let assume = self.plan.settings.early_release == EarlyRelease::AssumeAbsent;
        if pending.earlier_parts && !(assume && exchange.reader.window_full()) {
            return false;
        }
        if exchange.reader.window_full() {
            // How long the response may get is all that is open.
            let load = self.plan.load.as_ref().filter(|_| needs.tokens);
            return load.is_none_or(|load| !load.counts_output) || self.same_whatever_follows(id);
        }
        if !exchange.walks.iter().all(|walk| walk.ended()) || exchange.reader.may_add_prompts() {
            return false;
        }
        needs.unread == UnreadPrompt::Irrelevant || self.same_whatever_follows(id)
    }

    /// Whether the choice is the same for the shortest and the longest prompt that is still
    /// possible.
    fn same_whatever_follows(&mut self, id: u32) -> bool {
        let Self {
            plan,
            monitor,
            scratch,
            exchanges,
            ..
        } = self;
        let Some(exchange) = exchanges.get_mut(&id) else {
            return true;
        };
        let model = exchange
            .naming
            .model(&exchange.reader)
            .known()
            .unwrap_or_default();
        let full = exchange.reader.window_full();
        let walks = exchange.walks.iter_mut();
        let matches: Vec<(PrefixMatch<'_>, PrefixMatch<'_>)> = walks
            .zip(plan.producers.iter())
            .map(|(walk, (_, producer))| {
                let spec = producer.block_spec(&monitor.store.pool);
                let block_tokens = producer.block_tokens(&monitor.store.pool);
                let most = match spec.max_blocks {
                    _ if full => 0.0,
                    0 => f64::INFINITY,
                    most => most as f64,
                };
                let total = walk.total() as f64;
                let matched = walk.matched();
                let at = |total| PrefixMatch {
                    matched,
                    total,
                    block_tokens,
                };
                (at(total), at(most.max(total)))
            })
            .collect();
        let (shortest, longest): (Vec<_>, Vec<_>) = matches.into_iter().unzip();
        let cycle = |prefix, cost| Cycle {
            pool: &monitor.store.pool,
            request: RequestView {
                headers: &exchange.headers,
                model,
                prefix,
                cost,
            },
        };
        let (least, most) = costs(plan, &exchange.reader, exchange.reader.wants_more());
        let (shortest, longest) = (cycle(&shortest, least), cycle(&longest, most));
        plan.scheduler.same_choice(&shortest, &longest, scratch)
    }

    /// Decides with what has been walked through, and emits what follows from it.
    pub(super) fn decide(&mut self, id: u32) {
        let effect = self.make_decision(id);
        self.effects.push_back(effect);
    }

    fn make_decision(&mut self, id: u32) -> Effect {
        self.event.decided |= self.hot.decisions % EVENTS_PER_TIMING == 0;
        self.hot.decisions += 1;
        let Self {
            plan,
            monitor,
            scratch,
            exchanges,
            view,
            ..
        } = self;
        let Some(exchange) = exchanges.get_mut(&id) else {
            return self.fail(id, LocalReply::defect(self.plan.dialect));
        };
        let model = exchange
            .naming
            .model(&exchange.reader)
            .known()
            .unwrap_or_default();
        let prefix = matches(&mut exchange.walks, plan, &monitor.store.pool);
        let cycle = Cycle {
            pool: &monitor.store.pool,
            request: RequestView {
                headers: &exchange.headers,
                model,
                prefix: &prefix,
                cost: costs(plan, &exchange.reader, false).0,
            },
        };
        let mut explanation = (exchange.explain || view.wants()).then(Explanation::default);
        let observer = explanation.as_mut().map(|explanation| explanation as _);
        let fallbacks = plan.settings.fallback_endpoints;
        let selection = plan
            .scheduler
            .schedule(&cycle, fallbacks, scratch, observer);
        let selection = selection.map(|decision| {
            if let Some(explanation) = explanation.as_mut() {
                explanation.set_decision(&decision);
            }
            Selection {
                endpoints: addresses(&decision, &cycle),
                targets: decision.by_role().collect(),
                hit: decision
                    .first()
                    .and_then(|slot| Some(prefix.first()?.share(slot))),
            }
        });
        drop(prefix);
        if let Some(explanation) = explanation {
            let hit = selection.as_ref().map(|selection| selection.hit);
            self.record_explanation(id, explanation, hit);
        }
        match selection {
            Ok(selection) => self.send(id, selection),
            Err(error) => self.refuse(id, &error),
        }
    }

    pub(super) fn send(&mut self, id: u32, selection: Selection) -> Effect {
        let rewrite = self.rewrite(id);
        let headers = self.headers(&selection);
        let targets = selection.targets.iter();
        let targets: Targets = targets
            .map(|(role, slot)| self.begin_at(id, *slot, *role))
            .collect();
        let primary = targets.first().map(|target| target.slot);
        self.exchanges.set_phase(id, Phase::Sent(targets));
        if let Some(slot) = primary {
            let record = self.records.get(slot.index());
            if let Some(picks) = record.and_then(|record| record.picks) {
                self.metrics.count(picks, 1);
            }
            if let Some(hit) = selection.hit {
                self.metrics.observe(self.hot.hit, hit);
            }
            let model = self.statistics_of(id, slot);
            if let Some(exchange) = self.exchanges.get_mut(&id) {
                exchange.response.model = model;
                exchange.response.predicted = selection.hit;
                exchange.response.prompt = exchange.walks.first().and_then(Walk::first);
            }
            self.learn(id);
            self.start_probe(id, slot);
            self.await_response(id);
        }
        let route = Route {
            endpoints: selection.endpoints,
            headers,
            rewrite,
        };
        let id = ExchangeId(id);
        Effect::Forward { id, route }
    }

    /// Returns the headers that tell the primary target about the others.
    fn headers(&self, selection: &Selection) -> Vec<(&'static str, String)> {
        let mut headers: Vec<(&'static str, String)> = Vec::new();
        for (role, slot) in &selection.targets {
            let name = match role {
                TargetRole::Primary => continue,
                TargetRole::Prefill => PREFILL_HEADER,
                TargetRole::Encode => ENCODE_HEADER,
            };
            let endpoint = self.monitor.store.pool.get(*slot);
            let address = endpoint.map_or("", |endpoint| &*endpoint.address);
            match headers.last_mut() {
                Some((last, value)) if *last == name => {
                    value.push(',');
                    value.push_str(address);
                }
                _ => headers.push((name, address.to_owned())),
            }
        }
        headers
    }

    /// What is to be replaced in a request's body; counted where it should be and cannot.
    fn rewrite(&mut self, id: u32) -> Option<Rewrite> {
        let exchange = self.exchanges.get(&id)?;
        let rewrite = exchange.rewrite();
        let done = exchange.hold().is_some_and(|hold| hold.rewritten);
        let target = exchange.naming.target();
        if rewrite.is_none()
            && !done
            && target.is_some()
            && target != exchange.reader.model().known()
        {
            self.missed_rewrite();
        }
        rewrite
    }

    /// A body goes on with a model that should have been replaced: the host could not carry out a
    /// [`Rewrite`].
    pub fn missed_rewrite(&mut self) {
        self.metrics.add(MISSED_REWRITES, NoLabels, 1);
    }

    /// A request for which no endpoint was found.
    fn refuse(&mut self, id: u32, error: &ScheduleError) -> Effect {
        if self.monitor.knows_members() {
            return self.fail(id, LocalReply::new(error, self.plan.dialect));
        }
        // Before discovery has first responded an empty pool means nothing: the host's own load balancing
        // chooses.
        self.undiscovered += 1;
        self.metrics.add(FALLBACKS, ErrorCode("NotDiscovered"), 1);
        self.bypass(id)
    }

    /// A request gets a local reply, or is left to the host's own load balancing, as the failure mode demands.
    fn fail(&mut self, id: u32, reply: LocalReply) -> Effect {
        self.count_failure(reply.code);
        match self.plan.settings.failure_mode {
            FailureMode::FailClose => {
                self.exchanges.set_phase(id, Phase::Done);
                let id = ExchangeId(id);
                Effect::Reply { id, reply }
            }
            FailureMode::FailOpen => self.bypass(id),
        }
    }

    fn bypass(&mut self, id: u32) -> Effect {
        let rewrite = self.rewrite(id);
        self.exchanges.set_phase(id, Phase::Done);
        let id = ExchangeId(id);
        Effect::Bypass { id, rewrite }
    }

    pub(super) fn count_failure(&mut self, code: &'static str) {
        let counter = match self.plan.settings.failure_mode {
            FailureMode::FailClose => REQUEST_ERRORS,
            FailureMode::FailOpen => FALLBACKS,
        };
        self.metrics.add(counter, ErrorCode(code), 1);
    }
}

/// What a decision comes to.
pub(super) struct Selection {
    pub endpoints: Addresses,
    pub targets: SmallVec<[(TargetRole, Slot); 1]>,
    pub hit: Option<f64>,
}

/// Returns the addresses of the picks and retry targets, best first.
fn addresses(decision: &Decision<'_>, cycle: &Cycle<'_>) -> Addresses {
    let endpoints = decision.targets().filter_map(|slot| cycle.pool.get(slot));
    endpoints.map(|endpoint| endpoint.address.clone()).collect()
}

//! Decisions: when a request is decided, and what follows from it.
//!
//! A request is released as soon as what has not been read yet cannot change its decision: the
//! model is known or not needed, matching has ended, and the choice is the same for the
//! shortest and the longest prompt that is still possible. The rest of the prompt window is still
//! read for the index as it streams past, and delays no request.

use super::costs::{costs, matches, matches_at, tokens_at};
use super::dispatcher::Dispatcher;
use super::effect::Addresses;
use super::exchange::{Exchange, Target};
use super::explain::Explanation;
use super::reply::LocalReply;
use super::response::Recording;
use super::{BodyDemand, Effect, Rewrite, Route};
use crate::config::settings::{EarlyRelease, FailureMode, MissingPrefill};
use crate::flow::Dropped;
use crate::metrics::definitions::MISSED_REWRITES;
use crate::metrics::labels::{ForcedRelease, NoLabels};
use crate::prefix::walk::Walk;
use crate::protocol::{DATA_PARALLEL_HEADER, ENCODE_HEADER, PREFILL_HEADER};
use crate::request::Fact;
use crate::scheduling::{
    Additions, ByRole, Cycle, Decision, ExpectedHit, RequestView, ScheduleError, Slot, Stages,
    UnreadPrompt,
};

impl Dispatcher {
    /// More was read of a request: matches on, learns, and decides if it can be decided. What it keeps
    /// from then on is counted.
    pub fn advance(&mut self, exchange: &mut Exchange) {
        self.walk(exchange);
        if exchange.is_held() {
            self.decide_if_settled(exchange);
        } else if !exchange.is_queued() {
            self.read_on(exchange);
        }
        self.bound_memory(exchange);
    }

    /// Walks the blocks read so far through the indexes.
    pub(super) fn walk(&mut self, exchange: &mut Exchange) {
        if let Some(found) = self.prefixes.walk(exchange, &self.endpoints) {
            self.statistics.count_look_up(found);
        }
    }

    /// More was read of a request that was decided before. Nothing but its prompt window is of use.
    fn read_on(&mut self, exchange: &mut Exchange) {
        self.prefixes.learn(exchange, &self.endpoints);
        self.update_token_estimate(exchange);
        if exchange.reader.window_full() {
            exchange.reader.stop();
        }
    }

    fn decide_if_settled(&mut self, exchange: &mut Exchange) {
        let Some(hold) = exchange.hold().copied() else {
            return;
        };
        if exchange.reader.reread().is_some() {
            if hold.demand == BodyDemand::Streaming {
                // It is not shown again: the prompt counts as far as it was read in its order.
                self.release(exchange, ForcedRelease::Order);
            }
            return;
        }
        if !exchange.reader.wants_more() || self.settled(exchange) {
            if !hold.ended {
                self.statistics.count_early_release();
            }
            self.decide(exchange);
        } else if exchange.position > hold.max_bytes {
            self.release(exchange, ForcedRelease::Bytes);
        }
    }

    /// Returns whether nothing that may still follow can change the decision.
    fn settled(&mut self, exchange: &mut Exchange) -> bool {
        let needs = self.plan.needs;
        let renames = exchange.naming.target().is_some() || !self.plan.rewrite.is_empty();
        let rewrites = renames || exchange.priority.is_some();
        if rewrites && exchange.reader.model() == Fact::Unknown {
            // The position of the model must be known.
            return false;
        }
        if needs.model && exchange.model() == Fact::Unknown {
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
            return load.is_none_or(|load| !load.counts_output)
                || self.same_whatever_follows(exchange);
        }
        if !exchange.walks.iter().all(|walk| walk.ended()) || exchange.reader.may_add_prompts() {
            return false;
        }
        if needs.anchor_bytes > 0 && exchange.reader.anchor().is_none() {
            return false;
        }
        match needs.unread {
            UnreadPrompt::Irrelevant => true,
            UnreadPrompt::Length => self.same_whatever_follows(exchange),
            UnreadPrompt::Content => false,
        }
    }

    /// Returns whether the choice is the same for the shortest and the longest prompt that is still
    /// possible.
    fn same_whatever_follows(&mut self, exchange: &mut Exchange) -> bool {
        let Self {
            plan,
            endpoints,
            states,
            scratch,
            ..
        } = self;
        let pool = endpoints.pool();
        let bounds = Bounds {
            blocks: exchange.walks.iter().map(Walk::total).sum(),
            full: exchange.reader.window_full(),
            media: exchange.reader.has_media(),
            steps: match plan.needs.tokens {
                true => exchange.reader.prompt_tokens() / STEP_TOKENS,
                false => 0,
            },
        };
        if exchange.differed_at == Some(bounds) {
            return false;
        }
        #[cfg(test)]
        {
            exchange.comparisons += 1;
        }
        let model = exchange.naming.model(&exchange.reader).known();
        let anchor = exchange.anchor();
        let (shortest, longest) = matches_at(&mut exchange.walks, plan, pool, bounds.full);
        let cycle = |prefix, cost, media| {
            let request = RequestView {
                headers: &exchange.headers,
                model: model.unwrap_or_default(),
                prefix,
                anchor,
                cost,
                media,
                distinct_media: exchange.reader.distinct_media(),
                states,
                draw: exchange.draw,
            };
            Cycle::new(pool, request)
        };
        let (least, most) = costs(plan, &exchange.reader, exchange.reader.wants_more());
        let media = bounds.media || !bounds.full;
        let shortest = cycle(&shortest, least, bounds.media);
        let longest = cycle(&longest, most, media);
        let mut gate = plan.gate.iter();
        let same = gate.all(|gate| gate.is_settled(&shortest, &longest))
            && plan.scheduler.same_choice(&shortest, &longest, scratch);
        exchange.differed_at = (!same).then_some(bounds);
        same
    }

    /// Decides a held request with what is known of it, for this reason.
    pub fn release(&mut self, exchange: &mut Exchange, reason: ForcedRelease) {
        self.statistics.count_forced_release(reason);
        self.decide(exchange);
    }

    /// Decides with what has been walked through, once flow control lets the request go on.
    pub fn decide(&mut self, exchange: &mut Exchange) {
        if !exchange.is_undecided() || self.plan.flow.is_some() && self.enqueue(exchange) {
            return;
        }
        self.decide_now(exchange);
    }

    /// Decides, and emits what follows from it.
    pub(super) fn decide_now(&mut self, exchange: &mut Exchange) {
        self.statistics.count_decision();
        let scheduled = match self.drops(exchange) {
            Some(dropped) => Err(ScheduleError::Dropped(dropped)),
            None => self.schedule(exchange),
        };
        let effect = match scheduled {
            decided if exchange.is_dry_run => self.try_out(exchange, decided),
            Ok(selection) => self.send(exchange, selection),
            Err(error) => self.refuse(exchange, &error),
        };
        self.effects.push_back(effect);
    }

    /// Returns why a request is dropped instead of being scheduled, if it is.
    fn drops(&self, exchange: &Exchange) -> Option<Dropped> {
        let admission = &self.plan.admission;
        let drops = || admission.drops(&exchange.headers, exchange.draw, self.endpoints.pool());
        admission.may_drop().then(drops)?
    }

    fn schedule(&mut self, exchange: &mut Exchange) -> Result<Selection, ScheduleError> {
        let Self {
            plan,
            endpoints,
            states,
            scratch,
            view,
            ..
        } = self;
        let anchor = exchange.anchor();
        let prefix = matches(&mut exchange.walks, plan, endpoints.pool());
        let model = exchange.naming.model(&exchange.reader).known();
        let request = RequestView {
            headers: &exchange.headers,
            model: model.unwrap_or_default(),
            prefix: &prefix,
            anchor,
            cost: costs(plan, &exchange.reader, false).0,
            media: exchange.reader.has_media(),
            distinct_media: exchange.reader.distinct_media(),
            states,
            draw: exchange.draw,
        };
        let cycle = Cycle::new(endpoints.pool(), request);
        let mut explanation = (exchange.explain || view.wants()).then(Explanation::default);
        let observer = explanation.as_mut().map(|explanation| explanation as _);
        let fallbacks = plan.settings.fallback_endpoints;
        let scheduler = &plan.scheduler;
        let decision = scheduler.schedule(&cycle, fallbacks, scratch, observer);
        let rejects = plan.settings.missing_prefill == MissingPrefill::Reject;
        let selection = decision.and_then(|decision| {
            if let Some(explanation) = explanation.as_mut() {
                explanation.set_decision(&decision);
            }
            if let Some(missing) = decision.conclusion.missing.filter(|_| rejects) {
                return Err(missing);
            }
            let mut gate = plan.gate.iter();
            let unread = plan.settings.failure_mode == FailureMode::FailClose;
            if gate.any(|gate| gate.refuses(&cycle, decision.primary, unread)) {
                return Err(ScheduleError::NotCached);
            }
            let mut additions = Additions::default();
            for hook in &plan.hooks {
                hook.before_request(&cycle, &decision, &mut additions);
            }
            Ok(Selection {
                endpoints: addresses(&decision, &cycle),
                slots: decision.by_role(),
                port: decision.conclusion.port,
                stages: decision.conclusion.stages,
                hit: prefix.first().map(|own| own.expected(decision.primary)),
                additions,
            })
        });
        drop(prefix);
        if let Some(explanation) = explanation {
            let hit = selection.as_ref().map(Selection::expected_share);
            self.record_explanation(exchange, explanation, hit);
        }
        selection
    }

    pub(super) fn send(&mut self, exchange: &mut Exchange, selection: Selection) -> Effect {
        let Selection {
            endpoints,
            slots,
            port,
            stages,
            hit,
            additions,
        } = selection;
        let rewrite = self.rewrite(exchange);
        let mut headers = self.role_headers(&slots, port);
        headers.extend(self.load_header(exchange));
        exchange.port = port;
        if let Some(stages) = stages {
            self.statistics.count_stages(&stages);
        }
        let (primary, alone) = (slots.primary, slots.prefill.is_none());
        let targets = slots.map(|slot| self.begin_target(exchange, slot));
        if let Err(targets) = exchange.send(targets) {
            self.endpoints.end_targets(targets);
        }
        self.add_to_request(exchange, additions);
        self.statistics.count_pick(primary, hit);
        let model = self.statistics_of(exchange, primary);
        exchange.response.prompt = exchange.walks.first().and_then(Walk::first);
        self.prefixes.learn(exchange, &self.endpoints);
        let walk = exchange.walks.first_mut();
        exchange.response.recording = Some(Recording {
            model,
            predicted: hit.filter(|_| alone).map(ExpectedHit::share),
            corrects: alone && walk.is_some_and(|walk| walk.expects_proven(primary.0)),
        });
        self.endpoints
            .start_probe(exchange, primary, self.clock.wall());
        self.endpoints.await_response(exchange, self.clock.now());
        let id = exchange.id;
        let route = Route {
            endpoints,
            headers,
            rewrite,
        };
        Effect::Forward { id, route }
    }

    /// Carries out what the plan's hooks add to a request.
    fn add_to_request(&mut self, exchange: &mut Exchange, additions: Additions) {
        for record in additions.records {
            self.bind(record);
        }
        exchange.response_headers = additions.response_headers;
    }

    /// Counts a request at an endpoint that serves it.
    pub(super) fn begin_target(&mut self, exchange: &mut Exchange, slot: Slot) -> Target {
        let Exchange { walks, reader, .. } = exchange;
        let tokens = tokens_at(slot, walks, reader, &self.plan, self.endpoints.pool());
        // Where only constants are needed, no scorer reads how many requests are unseen, but the polling does.
        let unseen = self.plan.settings.correct_queue || self.endpoints.monitor.needs_constants();
        self.endpoints.begin_target(slot, unseen, tokens)
    }

    /// Returns the headers that name the other endpoints to the primary one, and that one itself to what listens at
    /// the port that the request is sent to instead.
    fn role_headers(&self, slots: &ByRole<Slot>, port: Option<u16>) -> Vec<(&'static str, String)> {
        let mut headers = Vec::new();
        if port.is_some() {
            let own = self.endpoints.address(slots.primary);
            headers.push((DATA_PARALLEL_HEADER, own.to_owned()));
        }
        if !self.plan.names_helpers {
            return headers;
        }
        if let Some(prefill) = slots.prefill {
            headers.push((PREFILL_HEADER, self.endpoints.address(prefill).to_owned()));
        }
        if !slots.encode.is_empty() {
            let addresses = slots
                .encode
                .iter()
                .map(|slot| self.endpoints.address(*slot));
            let addresses: Vec<&str> = addresses.collect();
            headers.push((ENCODE_HEADER, addresses.join(",")));
        }
        headers
    }

    /// Returns what is to be replaced in a request's body; counted where it should be and cannot.
    fn rewrite(&mut self, exchange: &Exchange) -> Option<Rewrite> {
        let rewrite = exchange.rewrite();
        let done = exchange.host_hold().is_some_and(|hold| hold.rewritten);
        let target = exchange.naming.target();
        let renames = target.is_some() && target != exchange.reader.model().known();
        let replaces = renames || exchange.priority.is_some();
        if replaces && rewrite.is_none() && !done {
            self.count_missed_rewrite();
        }
        rewrite
    }

    /// A body goes on with a model that should have been replaced.
    pub fn count_missed_rewrite(&mut self) {
        self.statistics.registry.add(MISSED_REWRITES, NoLabels, 1);
    }

    /// A request for which no endpoint was found gets a local reply, or is left to the host's own load balancing, as
    /// the failure mode demands.
    fn refuse(&mut self, exchange: &mut Exchange, error: &ScheduleError) -> Effect {
        if self.endpoints.monitor.awaits_members(self.clock.now()) {
            // Before discovery has first responded an empty pool means nothing: the host's own load balancing
            // chooses.
            self.statistics.count_undiscovered();
            return self.bypass(exchange);
        }
        let reply = LocalReply::new(error, self.plan.dialect);
        // That is what the client, or the document, has asked for. The host's own load balancing would serve it elsewhere.
        let asked_for = matches!(
            error,
            ScheduleError::NotCached
                | ScheduleError::NoneChosen
                | ScheduleError::NoProfileRan
                | ScheduleError::Dropped(_)
        );
        let mode = match error {
            ScheduleError::NoCandidates => self.plan.settings.failure_mode,
            _ if asked_for => FailureMode::FailClose,
            _ if self.plan.needs.choice => FailureMode::FailClose,
            _ => self.plan.settings.failure_mode,
        };
        self.statistics.count_failure(mode, reply.code, asked_for);
        match mode {
            FailureMode::FailClose => {
                self.leave(exchange);
                let id = exchange.id;
                Effect::Reply { id, reply }
            }
            FailureMode::FailOpen => self.bypass(exchange),
        }
    }

    /// No endpoint of the pool serves a request.
    pub(super) fn leave(&mut self, exchange: &mut Exchange) {
        self.endpoints
            .end_targets(exchange.finish().into_iter().flatten());
    }

    fn bypass(&mut self, exchange: &mut Exchange) -> Effect {
        let rewrite = self.rewrite(exchange);
        self.leave(exchange);
        let id = exchange.id;
        Effect::Bypass { id, rewrite }
    }
}

/// How many tokens a prompt grows by until the choices at its bounds are compared again, in plans that count them: those
/// of the smallest block. Each token alone would have the whole pool scored with every four bytes.
const STEP_TOKENS: usize = 64;

/// How far a prompt was read when the choices at its bounds are compared. They are not compared twice without a further
/// block, or as many tokens: a body in parts of one byte would have the whole pool scored with each. Metrics that
/// change in between are taken into account with the next block, or when the body ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bounds {
    blocks: usize,
    full: bool,
    media: bool,
    steps: usize,
}

/// The endpoints of a decision.
pub(super) struct Selection {
    /// The addresses to be tried.
    pub endpoints: Addresses,
    /// Those that serve the request.
    pub slots: ByRole<Slot>,
    /// The port that it is sent to instead of the primary one's.
    pub port: Option<u16>,
    /// What becomes of the parts of the request that others may do.
    pub stages: Option<Stages>,
    /// The part of the prompt that the primary one is expected to hold.
    pub hit: Option<ExpectedHit>,
    /// What hooks add to the request.
    pub additions: Additions,
}

impl Selection {
    /// Returns the share of the prompt that the primary endpoint is expected to hold.
    fn expected_share(&self) -> Option<f64> {
        self.hit.map(ExpectedHit::share)
    }
}

/// Returns the addresses of the picks and retry targets, best first.
fn addresses(decision: &Decision<'_>, cycle: &Cycle<'_>) -> Addresses {
    let endpoint = |slot| cycle.pool.get(slot);
    let Some(port) = decision.conclusion.port else {
        let endpoints = decision.targets().filter_map(endpoint);
        return endpoints.map(|endpoint| endpoint.address.clone()).collect();
    };
    // The header that names the endpoint itself fits no retry target.
    let picks = decision.picks().filter_map(endpoint);
    picks
        .map(|endpoint| with_port(&endpoint.address, port).into())
        .collect()
}

/// Returns an address with another port.
pub(super) fn with_port(address: &str, port: u16) -> String {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    format!("{host}:{port}")
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "disaggregation_tests.rs"]
mod disaggregation_tests;

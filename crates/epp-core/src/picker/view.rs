//! The status of this picker and its last decisions, recorded while they are observed.
//!
//! A recorded decision costs some microseconds more, so that no more than a status page shows are recorded
//! between two reports, whatever the load: a hundred a second. Of the prompt only its length is kept.

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::Arc;

use super::dispatcher::Dispatcher;
use super::exchange::Exchange;
use super::explain::Explanation;
use super::status::{Candidate, Legend, PlanSummary, PluginSummary, RecentDecision, Status};
use super::Picker;
use crate::config::{Instance, Plan};
use crate::scheduling::{ScheduleError, Slot};
use crate::time::whole_millis;

use xxhash_rust::xxh64::xxh64;

/// Decisions that the page shows.
const MAX_DECISIONS: usize = 50;

/// Candidates of a decision that are named: the pick and those that came next.
const MAX_NAMED_CANDIDATES: usize = 4;

/// Bytes of a model's name that are shown; it is the client's.
const MAX_MODEL_BYTES: usize = 64;

/// Characters of a plugin's parameters that are shown; a list of endpoints may be long.
const MAX_PARAMETER_BYTES: usize = 400;

/// Sets of filters and scorers that are distinguished: a plan has one per profile.
const MAX_LEGENDS: usize = 16;

/// The recorded decisions.
#[derive(Debug, Default)]
pub struct View {
    /// Decisions to record until the status is asked for again.
    wanted: usize,
    legends: Vec<Legend>,
    decisions: VecDeque<RecentDecision>,
}

impl View {
    /// Returns whether the next decision is to be explained.
    pub fn wants(&self) -> bool {
        self.wanted > 0
    }

    /// The endpoint in this slot has left: another one may come into it.
    pub fn forget(&mut self, slot: Slot) {
        let candidates = self.decisions.iter_mut().flat_map(|shown| &mut shown.best);
        for candidate in candidates.filter(|candidate| candidate.slot == Some(slot.0)) {
            candidate.slot = None;
        }
    }

    /// Another plan is in force.
    pub fn forget_all(&mut self) {
        self.legends.clear();
        self.decisions.clear();
    }

    fn record(&mut self, mut shown: RecentDecision, explanation: &Explanation) {
        let (filters, scorers) = (explanation.filters.iter(), explanation.scorers.iter());
        let legend = Legend {
            filters: filters.map(|(name, _)| name.clone()).collect(),
            scorers: scorers
                .map(|scores| (scores.name.clone(), scores.weight))
                .collect(),
        };
        let known = self.legends.iter().position(|known| *known == legend);
        shown.legend = known.unwrap_or_else(|| {
            if self.legends.len() >= MAX_LEGENDS {
                self.legends.clear();
                self.decisions.clear();
            }
            self.legends.push(legend);
            self.legends.len() - 1
        });
        self.wanted -= 1;
        if self.decisions.len() >= MAX_DECISIONS {
            self.decisions.pop_front();
        }
        self.decisions.push_back(shown);
    }
}

/// Returns the best candidates, with what each scorer gave them.
fn best(explanation: &Explanation) -> Vec<Candidate> {
    let ranking = explanation.ranking.iter().take(MAX_NAMED_CANDIDATES);
    let candidate = |scored: &crate::scheduling::Scored| {
        let given = explanation.scorers.iter().map(|scorer| {
            let mut scores = scorer.scores.iter();
            let own = scores.find(|own| own.slot == scored.slot);
            own.map_or(0.0, |own| own.score as f32)
        });
        Candidate {
            slot: Some(scored.slot.0),
            sum: scored.score as f32,
            scores: given.collect(),
        }
    };
    ranking.map(candidate).collect()
}

/// Returns the beginning of a text.
fn beginning(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = (0..=most).rev().find(|end| text.is_char_boundary(*end));
    let start = text.get(..end.unwrap_or(0)).unwrap_or_default();
    format!("{start}…")
}

impl Dispatcher {
    /// Stores the explanation of a decision, for the client that requested it and for the status. `cached_share` is
    /// the share of the prompt that the pick holds, where there is a pick.
    pub fn record_explanation(
        &mut self,
        exchange: &mut Exchange,
        mut explanation: Explanation,
        cached_share: Result<Option<f64>, &ScheduleError>,
    ) {
        explanation.queued = exchange.ticket.queued();
        if self.view.wants() {
            let model = exchange.model().known();
            let filters = explanation.filters.iter();
            let shown = RecentDecision {
                number: self.statistics.decisions(),
                at: self.clock.wall().as_millis(),
                model: beginning(model.unwrap_or_default(), MAX_MODEL_BYTES),
                tokens: exchange.reader.prompt_tokens(),
                cached_share: cached_share.ok().flatten().map(|share| share as f32),
                early: exchange.is_early(),
                legend: 0,
                removed: filters.map(|(_, removed)| removed.len()).collect(),
                candidates: explanation.ranking.len(),
                picks: explanation.picks,
                best: best(&explanation),
                parts: explanation.parts(self.endpoints.pool()),
                error: cached_share.err().map(ToString::to_string),
            };
            self.view.record(shown, &explanation);
        }
        if exchange.explain && cached_share.is_ok() {
            exchange.explanation = Some(explanation);
        }
    }
}

impl Picker {
    /// Stops recording decisions until the status is requested again, and drops those recorded.
    pub(super) fn stop_recording(&mut self) {
        self.dispatcher.view = View::default();
    }

    /// Returns the status. From now on decisions are recorded for the next one.
    pub(super) fn status(&mut self) -> Status {
        let dispatcher = &mut self.dispatcher;
        dispatcher.view.wanted = MAX_DECISIONS;
        let (endpoints, view) = (&dispatcher.endpoints, &dispatcher.view);
        let slots = (0..endpoints.pool().width()).map(|index| Slot(index as u32));
        let monitor = &endpoints.monitor;
        let poll_error = |slot: Slot| Some((slot.0, monitor.poll_error(slot)?.text()));
        let (now, polls) = (dispatcher.clock.now(), monitor.polls());
        let obstacle = |slot: Slot| {
            let ((kind, reason), since) = self.history.obstacle(slot).filter(|_| polls)?;
            let seconds = now.since(since).as_secs();
            Some((slot.0, format!("{kind}, {reason}, for {seconds} s")))
        };
        Status {
            serves: self.serves,
            polls,
            decision_basis: endpoints.decision_basis(),
            reads_bodies: self.host.shows_bodies,
            memory: self.host.memory_bytes,
            index: dispatcher.prefixes.fill(),
            under_way: (self.exchanges.len(), self.exchanges.held()),
            flow: dispatcher.flow_report(),
            counts: dispatcher.statistics.counts(),
            picks: dispatcher.statistics.picks(),
            poll_errors: slots.clone().filter_map(poll_error).collect(),
            obstacles: slots.filter_map(obstacle).collect(),
            legends: view.legends.clone(),
            decisions: view.decisions.iter().cloned().collect(),
        }
    }
}

/// Returns a summary of a plan: the plugins of its profiles first, then those that are in no profile.
pub(super) fn summary(plan: &Plan) -> PlanSummary {
    let mut parts = Vec::new();
    for profile in &plan.profiles {
        let weighted = profile.plugins.iter();
        let weighted = weighted.map(|(plugin, weight)| {
            let scores = plugin.capabilities.scorer.is_some();
            (plugin, scores.then_some(*weight))
        });
        let picker = profile.picker.iter().map(|picker| (picker, None));
        let all = weighted.chain(picker);
        parts.extend(all.map(|(plugin, weight)| plugin_summary(&profile.name, plugin, weight)));
    }
    let named = |plugin: &&Arc<Instance>| {
        parts
            .iter()
            .all(|part: &PluginSummary| part.name != plugin.name)
    };
    let others = plan.instances.iter().filter(named);
    let others: Vec<PluginSummary> = others
        .map(|plugin| plugin_summary("", plugin, None))
        .collect();
    parts.extend(others);
    PlanSummary {
        summary: plan.summary(),
        staleness: whole_millis(plan.source.staleness),
        plugins: parts,
        approximations: plan.approximations.clone(),
    }
}

/// Returns a digest of a plan, which changes with anything in it.
pub(super) fn digest(plan: &Plan) -> u64 {
    let mut text = plan.summary();
    for plugin in &plan.instances {
        // Writing to a String cannot fail.
        let _ = write!(text, "\n{} {}", plugin.name, plugin.kind);
        for (name, value) in &plugin.parameters {
            let _ = write!(text, " {name}: {value}");
        }
    }
    xxh64(text.as_bytes(), 0)
}

fn plugin_summary(profile: &str, plugin: &Instance, weight: Option<f64>) -> PluginSummary {
    let parameters = plugin.parameters.iter();
    let parameters: Vec<String> = parameters
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    PluginSummary {
        profile: profile.to_owned(),
        name: plugin.name.clone(),
        kind: plugin.kind.to_owned(),
        weight,
        parameters: beginning(&parameters.join(", "), MAX_PARAMETER_BYTES),
    }
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;

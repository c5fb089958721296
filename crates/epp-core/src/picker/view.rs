//! What the status page is told, while somebody looks at it: how things are with this VM, and its
//! last decisions with what led to them.
//!
//! A decision that is shown costs some microseconds more, so that no more than the page shows are
//! noted between two reports, whatever the load: a hundred a second. Of the prompt only its length
//! is kept.

use std::collections::VecDeque;
use std::sync::Arc;

use xxhash_rust::xxh64::xxh64;

use super::explain::Explanation;
use super::meter::Metric;
use super::Picker;
use crate::config::{Instance, Plan};
use crate::scheduling::{ScheduleError, Slot};
use crate::worker::report::{self, Audience, Candidate, Counts, Legend, Part, Report, Shown, Told};
use crate::worker::SharedData;

/// Decisions that the page shows.
const KEPT: usize = 50;

/// Candidates of a decision that are named: the pick and those that came next.
const NAMED: usize = 4;

/// Bytes of a model's name that are shown; it is the client's.
const MODEL: usize = 64;

/// Characters of a plugin's parameters that are shown; a list of endpoints may be long.
const PARAMETERS: usize = 400;

/// Sets of filters and scorers that are told apart: a plan has one per profile.
const LEGENDS: usize = 16;

/// Ticks between reports: half a second.
const REPORT_EACH: u32 = 10;

/// What is kept for the page.
#[derive(Debug, Default)]
pub struct View {
    audience: Audience,
    /// Ticks to the next report.
    due: u32,
    /// Decisions to note until then.
    wanted: usize,
    legends: Vec<Legend>,
    decisions: VecDeque<Shown>,
    /// The plan as it is told; made when it is first asked for.
    plan: Option<Told>,
}

impl View {
    /// Whether somebody looks.
    pub fn is_watched(&self) -> bool {
        self.audience.is_there()
    }

    /// Whether the next decision is to be explained.
    pub fn wants(&self) -> bool {
        self.wanted > 0
    }

    /// One tick. Once nobody looks any more nothing is kept.
    pub fn tick(&mut self, host: &mut dyn SharedData) {
        let watched = self.is_watched();
        self.audience.tick(host);
        self.due = self.due.saturating_sub(1);
        if watched && !self.is_watched() {
            let audience = std::mem::take(&mut self.audience);
            *self = Self {
                audience,
                ..Self::default()
            };
        }
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
        self.plan = None;
        self.legends.clear();
        self.decisions.clear();
    }

    fn note(&mut self, mut shown: Shown, explanation: &Explanation) {
        let (filters, scorers) = (explanation.filters.iter(), explanation.scorers.iter());
        let legend = Legend {
            filters: filters.map(|(name, _)| name.clone()).collect(),
            scorers: scorers
                .map(|scores| (scores.name.clone(), scores.weight))
                .collect(),
        };
        let known = self.legends.iter().position(|known| *known == legend);
        shown.legend = known.unwrap_or_else(|| {
            if self.legends.len() >= LEGENDS {
                self.legends.clear();
                self.decisions.clear();
            }
            self.legends.push(legend);
            self.legends.len() - 1
        });
        self.wanted -= 1;
        if self.decisions.len() >= KEPT {
            self.decisions.pop_front();
        }
        self.decisions.push_back(shown);
    }
}

/// The best candidates, with what each scorer gave them.
fn best(explanation: &Explanation) -> Vec<Candidate> {
    let ranking = explanation.ranking.iter().take(NAMED);
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

/// The beginning of a text.
fn beginning(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = (0..=most).rev().find(|end| text.is_char_boundary(*end));
    let start = text.get(..end.unwrap_or(0)).unwrap_or_default();
    format!("{start}…")
}

impl Picker {
    /// Keeps why a request went where it went, for the client that asked and for the page. `held` is
    /// the share of the prompt that the pick holds, where there is a pick.
    pub(super) fn keep(
        &mut self,
        id: u32,
        explanation: Explanation,
        held: Result<Option<f64>, &ScheduleError>,
    ) {
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return;
        };
        if self.view.wants() {
            let model = exchange.naming.model(&exchange.reader).known();
            let shown = Shown {
                number: self.hot.decisions,
                at: self.timing.now / 1_000_000,
                model: beginning(model.unwrap_or_default(), MODEL),
                tokens: exchange.reader.prompt_tokens(),
                held: held.ok().flatten().map(|held| held as f32),
                early: exchange.is_early(),
                legend: 0,
                removed: explanation
                    .filters
                    .iter()
                    .map(|(_, removed)| removed.len())
                    .collect(),
                candidates: explanation.ranking.len(),
                picks: explanation.picks,
                best: best(&explanation),
                error: held.err().map(ToString::to_string),
            };
            self.view.note(shown, &explanation);
        }
        if exchange.explain && held.is_ok() {
            exchange.explanation = Some(explanation);
        }
    }

    /// Tells the page how things are, if somebody looks at it and it is time.
    pub(super) fn report(&mut self, now: u64, host: &mut dyn SharedData) {
        if !self.view.is_watched() || self.view.due > 0 {
            return;
        }
        let Some((seat, owner)) = self.watch.share.seat() else {
            return;
        };
        self.view.due = REPORT_EACH;
        self.view.wanted = KEPT;
        let told = self.view.plan.get_or_insert_with(|| told(&self.plan));
        let plan = told.plan;
        if self.watch.polls() {
            let base = self.watch.share.base();
            report::tell_plan(base, told, host);
            report::enlist(base, host);
        }
        let slots = (0..self.watch.store.pool.width()).map(|index| Slot(index as u32));
        let detector = &self.watch.avoided.detector;
        let avoided = |slot: Slot| Some((slot.0, detector.reason(slot)?.name().to_owned()));
        let report = Report {
            owner,
            at: now / 1_000_000,
            serves: self.watch.served(),
            polls: self.watch.polls(),
            rung: self.rung(),
            reads_bodies: self.reads_bodies(),
            plan,
            memory: self.timing.memory,
            index: self.fill(),
            under_way: (self.exchanges.len(), self.holding),
            counts: self.counts(),
            picks: self.picks(),
            avoided: slots.filter_map(avoided).collect(),
            legends: self.view.legends.clone(),
            decisions: self.view.decisions.iter().cloned().collect(),
        };
        report::post(&seat, &report, host);
    }

    fn counts(&self) -> Counts {
        Counts {
            decided: self.hot.decisions,
            early: self.metrics.counted(self.hot.early),
            refused: self.metrics.sum(Metric::RequestErrors),
            fallbacks: self.metrics.sum(Metric::Fallbacks),
            elsewhere: self.metrics.sum(Metric::ServedElsewhere),
        }
    }

    fn picks(&self) -> Vec<(u32, i64)> {
        let seats = (0..).zip(&self.seats);
        seats
            .filter_map(|(slot, seat)| Some((slot, self.metrics.counted(seat.picks?))))
            .filter(|(_, picks)| *picks > 0)
            .collect()
    }
}

/// A plan as the page shows it: the profiles first, then all that is in no profile.
fn told(plan: &Plan) -> Told {
    let mut parts = Vec::new();
    for profile in &plan.profiles {
        let weighted = profile.plugins.iter();
        let weighted = weighted.map(|(plugin, weight)| {
            let scores = plugin.capabilities.scorer.is_some();
            (plugin, scores.then_some(*weight))
        });
        let picker = profile.picker.iter().map(|picker| (picker, None));
        let all = weighted.chain(picker);
        parts.extend(all.map(|(plugin, weight)| part(&profile.name, plugin, weight)));
    }
    let named = |plugin: &&Arc<Instance>| parts.iter().all(|part: &Part| part.name != plugin.name);
    let others = plan.instances.iter().filter(named);
    let others: Vec<Part> = others.map(|plugin| part("", plugin, None)).collect();
    parts.extend(others);
    let mut told = Told {
        plan: 0,
        summary: plan.summary(),
        staleness: plan.source.staleness_ms,
        parts,
    };
    told.plan = xxh64(format!("{told:?}").as_bytes(), 0);
    told
}

fn part(profile: &str, plugin: &Instance, weight: Option<f64>) -> Part {
    let parameters = plugin.parameters.iter();
    let parameters: Vec<String> = parameters
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    Part {
        profile: profile.to_owned(),
        name: plugin.name.clone(),
        kind: plugin.kind.to_owned(),
        weight,
        parameters: beginning(&parameters.join(", "), PARAMETERS),
    }
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;

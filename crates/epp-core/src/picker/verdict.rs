//! The verdict on the pool: which conditions of findings are met, once a second.
//!
//! Each picker looks for what only it can know, as of its requests. The one that polls looks for the rest, adds what
//! its peers have found, and opens and closes findings for all: one Envoy says everything once.

use std::fmt;
use std::time::Duration;

use super::causes::MIN_ELSEWHERE;
use super::dispatcher::Dispatcher;
use super::status::DecisionBasis;
use super::{Effect, Picker};
use crate::config::settings::ReadBody;
use crate::findings::{
    printable, Condition, Finding, Findings, Level, Severity, Subject, Transition,
};
use crate::metrics::definitions::FINDINGS;
use crate::metrics::labels::Found;
use crate::metrics::MAX_SERIES;
use crate::time::Instant;

/// Something that is counted is going on for this long after it was last counted: a client that tries again does so
/// within it.
const RECENT: Duration = Duration::from_secs(30);

/// Memory of a VM above which it is a finding: half of what Envoy's WebAssembly host gives it. A VM has some tens of
/// megabytes with the default bounds.
pub const HIGH_MEMORY: u64 = 512 << 20;

/// Responses in a row without cached tokens that the index expects: a server that reports them leaves them out where
/// there are none, and the index is not wrong that often.
const MANY_RESPONSES: u64 = 100;

/// Bytes of a line of the log: a finding with the longest cause, remedy and detail has fewer.
const MAX_LINE_BYTES: usize = 1_000;

/// Endpoints that a detail names.
const MAX_NAMED: usize = 3;

/// The findings of a pool, and what one picker contributes to them.
#[derive(Debug, Default)]
pub struct Verdict {
    /// The pool's findings, where this picker polls.
    pub findings: Findings,
    /// Conditions that only this picker knows to be met.
    pub own: Vec<Condition>,
    /// Those that its peers know.
    pub peers: Vec<Condition>,
    /// Whether no picker polls: each one has to see that for itself.
    unpolled: Findings,
    refused: Recent,
    unrouted: Recent,
    misrouted: Recent,
    pub(super) rejected: Recent,
    pub(super) expired: Recent,
}

impl Verdict {
    /// Returns what this picker and its peers know, each finding once.
    fn together(&self) -> Vec<Condition> {
        let mut all: Vec<(Condition, usize, &str)> = Vec::new();
        for condition in self.own.iter().chain(&self.peers) {
            let mut known = all.iter_mut();
            match known.find(|(known, ..)| known.finding == condition.finding) {
                Some((known, count, of)) => {
                    *count += 1;
                    if known.detail != condition.detail {
                        *of = "one of ";
                    }
                }
                None => all.push((condition.clone(), 1, "")),
            }
        }
        let conditions = all.into_iter().map(|(condition, count, of)| match count {
            1 => condition,
            _ => {
                let detail = format!("{} ({of}{count} workers)", condition.detail);
                Condition::new(condition.finding, &detail)
            }
        });
        conditions.collect()
    }
}

/// A count, and whether it has grown lately.
#[derive(Debug, Default)]
pub(super) struct Recent {
    count: u64,
    /// The count before it began to grow.
    before: u64,
    grown: Option<Instant>,
}

impl Recent {
    /// Takes the current count. Returns by how much it has grown, if it has lately.
    pub(super) fn growth(&mut self, count: u64, now: Instant) -> Option<u64> {
        if count != self.count {
            self.grown = Some(now);
        }
        let recent = self.grown.filter(|grown| now.since(*grown) <= RECENT);
        self.count = count;
        if recent.is_none() {
            (self.grown, self.before) = (None, count);
        }
        recent.map(|_| count.saturating_sub(self.before))
    }
}

/// The conditions that are met.
#[derive(Default)]
pub(super) struct Met(Vec<Condition>);

impl Met {
    /// Returns them.
    #[cfg(test)]
    pub(super) fn into_conditions(self) -> Vec<Condition> {
        self.0
    }

    pub(super) fn add(&mut self, finding: Finding, detail: fmt::Arguments<'_>) {
        self.0.push(Condition::new(finding, &detail.to_string()));
    }

    /// Adds a finding about some endpoints, if there are any.
    pub(super) fn add_endpoints(&mut self, finding: Finding, found: &[String], all: usize) {
        if found.is_empty() {
            return;
        }
        let named: Vec<&str> = found.iter().take(MAX_NAMED).map(String::as_str).collect();
        let more = if found.len() > MAX_NAMED { ", …" } else { "" };
        let (count, named) = (found.len(), named.join(", "));
        self.add(
            finding,
            format_args!("{count} of {all} endpoints: {named}{more}"),
        );
    }
}

impl Dispatcher {
    /// Has a line about the pool logged, unless there were too many lately.
    pub fn log(&mut self, level: Level, subject: Subject, text: fmt::Arguments<'_>) {
        if self.log.admits(subject, self.clock.now()) {
            let text = format!("pool {}: {text}", self.plan.cluster());
            // Names of endpoints come from others: nothing in them ends a line or moves the cursor.
            let text = printable(&text, MAX_LINE_BYTES);
            self.effects.push_back(Effect::Log { level, text });
        }
    }
}

impl Picker {
    /// Looks for what is wrong, and reports what has changed.
    pub(super) fn update_verdict(&mut self) {
        let now = self.dispatcher.clock.now();
        if let Some(suppressed) = self.dispatcher.log.end_window(now) {
            let text = format_args!("{suppressed} lines were suppressed in the last minute");
            self.dispatcher.log(Level::Warning, Subject::Pool, text);
        }
        self.verdict.own = self.own_conditions(now);
        let mut met = Met::default();
        if self.sharing.statistics.lacks_poller {
            let cluster = self.plan().cluster();
            met.add(Finding::NoPoller, format_args!("cluster {cluster}"));
        }
        let mut transitions = self.verdict.unpolled.update(met.0, now);
        self.follow_endpoints();
        if self.dispatcher.endpoints.monitor.polls() {
            let mut met = self.pool_conditions();
            met.append(&mut self.verdict.together());
            transitions.append(&mut self.verdict.findings.update(met, now));
        }
        for transition in transitions {
            self.report(&transition);
        }
    }

    /// Takes over the findings that another picker had opened until now: they are known to the log, and the metric may
    /// have to be reset.
    pub(super) fn adopt_findings(&mut self, open: Vec<Condition>) {
        let dispatcher = &mut self.dispatcher;
        for condition in &open {
            let metrics = &mut dispatcher.statistics.registry;
            metrics.set(FINDINGS, Found(condition.finding), 1);
        }
        self.verdict.findings.adopt(open, &dispatcher.clock);
        self.log_polling();
    }

    /// Reports that a finding was opened or closed.
    fn report(&mut self, transition: &Transition) {
        let dispatcher = &mut self.dispatcher;
        let (condition, open) = match transition {
            Transition::Opened(condition) => (condition, true),
            Transition::Closed { condition, .. } => (condition, false),
        };
        let finding = condition.finding;
        let metrics = &mut dispatcher.statistics.registry;
        metrics.set(FINDINGS, Found(finding), u64::from(open));
        let (id, severity) = (finding.id(), finding.severity());
        let Condition { detail, .. } = condition;
        match transition {
            Transition::Opened(_) => {
                let level = match severity {
                    Severity::Broken => Level::Error,
                    Severity::Degraded => Level::Warning,
                    Severity::Note => Level::Info,
                };
                let (name, cause, remedy) = (severity.name(), finding.cause(), finding.remedy());
                let text = format_args!("{id} ({name}): {cause} [{detail}] {remedy}");
                dispatcher.log(level, finding.subject(), text);
            }
            Transition::Closed { lasted, .. } => {
                let seconds = lasted.as_secs();
                let text = format_args!("{id}: over after {seconds} s [{detail}]");
                dispatcher.log(Level::Info, finding.subject(), text);
            }
        }
    }

    /// Returns the conditions that the picker which polls knows to be met, for all.
    fn pool_conditions(&self) -> Vec<Condition> {
        let mut met = Met::default();
        let (plan, endpoints) = (self.plan(), &self.dispatcher.endpoints);
        if let Some((major, minor, patch)) = self.host.untested_version {
            met.add(
                Finding::EnvoyUntested,
                format_args!("Envoy {major}.{minor}.{patch}"),
            );
        }
        self.discovery_conditions(&mut met);
        let cluster = plan.cluster();
        if plan.settings.dry_run {
            met.add(Finding::DryRun, format_args!("cluster {cluster}"));
        }
        let basis = endpoints.decision_basis();
        if basis == DecisionBasis::Nothing {
            met.add(Finding::BalancedBlindly, format_args!("cluster {cluster}"));
            return met.0;
        }
        let all = endpoints.pool().len();
        if all == 0 {
            met.add(Finding::PoolEmpty, format_args!("cluster {cluster}"));
            return met.0;
        }
        self.endpoint_conditions(all, &mut met);
        met.0
    }

    /// Returns the conditions that only this picker knows to be met.
    pub(super) fn own_conditions(&mut self, now: Instant) -> Vec<Condition> {
        let mut met = Met::default();
        self.route_conditions(&mut met);
        self.flow_conditions(now, &mut met);
        let statistics = &self.dispatcher.statistics;
        let (refused, unrouted) = statistics.without_endpoint();
        if let Some(count) = self.verdict.refused.growth(refused, now) {
            met.add(Finding::RequestsRefused, format_args!("{count} requests"));
        }
        if let Some(count) = self.verdict.unrouted.growth(unrouted, now) {
            met.add(Finding::RequestsUnrouted, format_args!("{count} requests"));
        }
        let (misrouted, cluster) = statistics.left_alone.misrouted();
        let growth = self.verdict.misrouted.growth(misrouted, now);
        if let Some(count) = growth.filter(|count| *count >= MIN_ELSEWHERE) {
            let detail = format_args!("{count} requests, the last one to {cluster:?}");
            met.add(Finding::RoutedElsewhere, detail);
        }
        let plan = &self.dispatcher.plan;
        let reads = plan.settings.read_body != ReadBody::Never;
        if reads && self.serves && !self.host.shows_bodies {
            met.add(
                Finding::BodiesUnread,
                format_args!("cluster {}", plan.cluster()),
            );
        }
        let memory = self.host.memory_bytes;
        if memory > HIGH_MEMORY {
            met.add(Finding::MemoryHigh, format_args!("{} MiB", memory >> 20));
        }
        if statistics.registry.is_full() {
            met.add(Finding::SeriesBound, format_args!("{MAX_SERIES} series"));
        }
        if statistics.silent_on_cache() >= MANY_RESPONSES {
            let detail = format_args!("{MANY_RESPONSES} responses in a row");
            met.add(Finding::NoCachedTokens, detail);
        }
        met.0
    }
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;

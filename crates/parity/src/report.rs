//! Counts of agreeing decisions, by plugin and by family of scenarios.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::replay::Outcome;

/// Counts of agreeing decisions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Agreement {
    /// The number of scenarios.
    pub scenarios: usize,
    /// The number of their decisions.
    pub decisions: usize,
    /// Decisions that agree with the recorded ones in every candidate's score and in the ranking.
    pub agreeing: usize,
    /// Requests without a decision to compare: flow control had them wait.
    pub waiting: usize,
}

impl Agreement {
    fn add(&mut self, outcome: &Outcome) {
        self.scenarios += 1;
        self.decisions += outcome.decisions;
        self.agreeing += outcome.agreeing;
        self.waiting += outcome.waiting;
    }
}

/// The counts of many replays. A decision counts for every plugin of its scenario: the recordings have weighted
/// sums, which differ if a plugin scores differently.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// The counts by plugin type.
    pub plugins: BTreeMap<String, Agreement>,
    /// The counts by family.
    pub families: BTreeMap<String, Agreement>,
    /// The counts of all scenarios.
    pub all: Agreement,
    /// Decisions that differ, and scenarios that could not be replayed.
    pub differences: Vec<String>,
}

impl Report {
    /// Adds a replay.
    pub fn add(&mut self, outcome: &Outcome) {
        for plugin in &outcome.plugins {
            self.plugins.entry(plugin.clone()).or_default().add(outcome);
        }
        let family = self.families.entry(outcome.family.clone());
        family.or_default().add(outcome);
        self.all.add(outcome);
        self.differences.extend(outcome.differences.iter().cloned());
    }

    /// Returns the counts of the plugins by name, then of all scenarios.
    pub fn rows(&self) -> impl Iterator<Item = (&str, Agreement)> {
        let plugins = self.plugins.iter();
        let plugins = plugins.map(|(name, agreement)| (name.as_str(), *agreement));
        plugins.chain([("all", self.all)])
    }
}

//! How far decisions agree, plugin by plugin.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::replay::Outcome;

/// How far decisions agree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Agreement {
    /// Scenarios.
    pub scenarios: usize,
    /// Their decisions.
    pub decisions: usize,
    /// Decisions that are the recorded ones: every candidate's score and the ranking.
    pub agreeing: usize,
}

impl Agreement {
    fn add(&mut self, outcome: &Outcome) {
        self.scenarios += 1;
        self.decisions += outcome.decisions;
        self.agreeing += outcome.decisions - outcome.differences.len();
    }
}

/// Many replays together. A decision counts for every plugin that has a part in it: the recordings
/// hold weighted sums, and a plugin that scored otherwise would show in them.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// By plugin type.
    pub plugins: BTreeMap<String, Agreement>,
    /// All.
    pub all: Agreement,
    /// Decisions that differ.
    pub differences: Vec<String>,
}

impl Report {
    /// Takes in a replay.
    pub fn add(&mut self, outcome: &Outcome) {
        for plugin in &outcome.plugins {
            self.plugins.entry(plugin.clone()).or_default().add(outcome);
        }
        self.all.add(outcome);
        self.differences.extend(outcome.differences.iter().cloned());
    }

    /// The plugins by name, then all of them.
    pub fn rows(&self) -> impl Iterator<Item = (&str, Agreement)> {
        let plugins = self.plugins.iter();
        let plugins = plugins.map(|(name, agreement)| (name.as_str(), *agreement));
        plugins.chain([("all", self.all)])
    }
}

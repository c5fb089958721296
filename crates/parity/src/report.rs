//! Counts of agreeing decisions, by plugin and by family of scenarios.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::play::Outcome;

/// Counts of agreeing decisions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Agreement {
    /// The number of scenarios.
    pub scenarios: usize,
    /// The number of their decisions.
    pub decisions: usize,
    /// Decisions that agree with the recorded ones in every candidate's score and in the ranking.
    pub agreeing: usize,
    /// Requests without a decision: flow control had them wait.
    pub waiting: usize,
    /// How many of them wait here, too, and get the same reply when they expire.
    pub waiting_agreeing: usize,
}

impl Agreement {
    fn add(&mut self, outcome: &Outcome) {
        self.scenarios += 1;
        self.decisions += outcome.decisions;
        self.agreeing += outcome.agreeing;
        self.waiting += outcome.waiting;
        self.waiting_agreeing += outcome.waiting_agreeing;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(family: &str, plugins: &[&str], agreeing: usize) -> Outcome {
        Outcome {
            name: "s1".to_owned(),
            family: family.to_owned(),
            plugins: plugins.iter().map(|plugin| (*plugin).to_owned()).collect(),
            decisions: 3,
            waiting: 2,
            waiting_agreeing: 1,
            agreeing,
            early: 0,
            differences: (agreeing..3)
                .map(|step| format!("s1 step {step}"))
                .collect(),
        }
    }

    #[test]
    fn a_decision_counts_for_each_plugin_and_its_family() {
        let mut report = Report::default();
        report.add(&outcome("pd", &["queue-scorer", "decode-filter"], 3));
        report.add(&outcome("load", &["queue-scorer"], 1));
        let count = |scenarios, decisions, agreeing, waiting_agreeing| Agreement {
            scenarios,
            decisions,
            agreeing,
            waiting: 2 * waiting_agreeing,
            waiting_agreeing,
        };
        let rows: Vec<(&str, Agreement)> = report.rows().collect();
        let expected = [
            ("decode-filter", count(1, 3, 3, 1)),
            ("queue-scorer", count(2, 6, 4, 2)),
            ("all", count(2, 6, 4, 2)),
        ];
        assert_eq!(rows, expected);
        assert_eq!(report.families["pd"], count(1, 3, 3, 1));
        assert_eq!(report.families["load"], count(1, 3, 1, 1));
        assert_eq!(report.differences, ["s1 step 1", "s1 step 2"]);
    }

    #[test]
    fn a_scenario_that_cannot_be_replayed_agrees_in_nothing() {
        let mut report = Report::default();
        report.add(&Outcome {
            differences: vec!["s1: no endpoint".to_owned()],
            ..outcome("pd", &[], 0)
        });
        assert_eq!((report.all.decisions, report.all.agreeing), (3, 0));
        assert_eq!(report.differences.len(), 1);
    }
}

//! What happens to a pool, logged once: ejections and stale metrics of single endpoints, another configuration, another
//! picker that polls.

use std::fmt::Write;

use super::Picker;
use crate::config::Plan;
use crate::endpoints::outlier::Reason;
use crate::findings::{printable, Level, Subject};
use crate::scheduling::Freshness;

/// Bytes of a line that says what has changed in a configuration.
const MAX_CHANGES_BYTES: usize = 600;

/// The state of an endpoint as it was last logged, or as it was when it was first seen.
#[derive(Debug, Clone, Copy)]
struct Said {
    /// Identifies the endpoint, since another one may come into its slot.
    tag: u32,
    ejected: Option<Reason>,
    freshness: Freshness,
}

/// The states of the endpoints by slot, of the picker that polls.
#[derive(Debug, Default)]
pub struct History {
    said: Vec<Option<Said>>,
}

impl Picker {
    /// Logs which endpoints were ejected or have stale metrics since the last call, and which are back.
    pub(super) fn log_endpoints(&mut self) {
        let endpoints = &self.dispatcher.endpoints;
        let (pool, monitor) = (endpoints.pool(), &endpoints.monitor);
        let states = &mut self.history.said;
        states.resize(pool.width(), None);
        let mut lines = Vec::new();
        let (mut all, mut ejected, mut stale) = (0, 0, 0);
        for (slot, endpoint) in pool.iter() {
            let Some(said) = states.get_mut(slot.index()) else {
                continue;
            };
            let now = Said {
                tag: endpoint.tag(),
                ejected: monitor.outliers.ejected(slot),
                freshness: endpoint.freshness,
            };
            all += 1;
            ejected += usize::from(now.ejected.is_some());
            stale += usize::from(now.freshness == Freshness::Stale);
            let before = said.replace(now).filter(|before| before.tag == now.tag);
            let Some(before) = before else {
                continue;
            };
            let address = &endpoint.address;
            match (before.ejected, now.ejected) {
                (None, Some(reason)) => {
                    let reason = reason.name();
                    let text = format!("endpoint {address} is ejected: {reason}");
                    lines.push((Level::Warning, text));
                }
                (Some(reason), None) => {
                    let reason = reason.name();
                    let text = format!("endpoint {address} is not ejected any more: {reason}");
                    lines.push((Level::Info, text));
                }
                _ => {}
            }
            match (before.freshness, now.freshness) {
                (Freshness::Fresh, Freshness::Stale) => {
                    let error = monitor.poll_error(slot);
                    let reason = error.map_or("no page yet".to_owned(), |error| error.text());
                    let text = format!("metrics of endpoint {address} are stale: {reason}");
                    lines.push((Level::Warning, text));
                }
                (Freshness::Stale, Freshness::Fresh) => {
                    lines.push((
                        Level::Info,
                        format!("metrics of endpoint {address} are fresh again"),
                    ));
                }
                _ => {}
            }
        }
        for (level, text) in lines {
            let text =
                format_args!("{text} (of {all} endpoints, {ejected} ejected, {stale} stale)");
            self.dispatcher.log(level, Subject::Endpoint, text);
        }
    }

    /// Logs that this picker polls from now on.
    pub(super) fn log_polling(&mut self) {
        self.history = History::default();
        let text = format_args!("this worker polls members and metrics for all from now on");
        self.dispatcher.log(Level::Info, Subject::Pool, text);
    }

    /// Logs what has changed with a configuration that was accepted, once for all pickers.
    pub(super) fn log_changes(&mut self, before: &Plan) {
        if self.dispatcher.endpoints.monitor.polls() {
            let changes = changes(before, &self.dispatcher.plan);
            let text = format_args!("another configuration was accepted: {changes}");
            self.dispatcher.log(Level::Info, Subject::Pool, text);
        }
    }
}

/// Returns what differs from one plan to the other, in a line.
fn changes(before: &Plan, after: &Plan) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    for plugin in &before.instances {
        if after.instance(&plugin.name).is_none() {
            let _ = write!(text, "; {} removed", plugin.name);
        }
    }
    for plugin in &after.instances {
        let Some(known) = before.instance(&plugin.name) else {
            let _ = write!(text, "; {} added", plugin.name);
            continue;
        };
        if known.kind != plugin.kind {
            let _ = write!(text, "; {} is a {}", plugin.name, plugin.kind);
        }
        for (name, value) in &plugin.parameters {
            let mut former = known.parameters.iter();
            let former = former
                .find(|(known, _)| known == name)
                .map(|(_, value)| value);
            if former != Some(value) {
                let former = former.map_or_else(|| "nothing".to_owned(), ToString::to_string);
                let _ = write!(text, "; {} {name}: {former} → {value}", plugin.name);
            }
        }
    }
    for (profile, plugin, weight) in weights(after) {
        let mut former = weights(before);
        let former = former.find(|(of, name, _)| (*of, *name) == (profile, plugin));
        if let Some((.., former)) = former.filter(|(.., former)| *former != weight) {
            let _ = write!(text, "; {plugin} in {profile}: weight {former} → {weight}");
        }
    }
    match text.strip_prefix("; ") {
        Some(changes) => printable(changes, MAX_CHANGES_BYTES),
        // The order of plugins, which profile has which, or settings outside of plugins.
        None => "the profiles, or settings outside of plugins".to_owned(),
    }
}

/// Returns the weight of each plugin in each profile.
fn weights(plan: &Plan) -> impl Iterator<Item = (&str, &str, f64)> {
    let profiles = plan.profiles.iter();
    profiles.flat_map(|profile| {
        let plugins = profile.plugins.iter();
        plugins.map(|(plugin, weight)| (&*profile.name, &*plugin.name, *weight))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn plan(plugins: &str, profile: &str) -> Plan {
        let text = format!(
            "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{plugins}]
schedulingProfiles: [{{name: default, plugins: [{profile}]}}]
"
        );
        config::load(&text).unwrap().plan
    }

    #[test]
    fn changes_are_named() {
        let queue = "{type: queue-scorer}";
        let prefix = |blocks| {
            format!("{{type: prefix-cache-scorer}}, {{type: approx-prefix-cache-producer, parameters: {{maxPrefixBlocksToMatch: {blocks}}}}}")
        };
        let before = plan(
            &format!("{queue}, {}", prefix(256)),
            "{pluginRef: queue-scorer, weight: 2}, {pluginRef: prefix-cache-scorer}",
        );
        let after = plan(
            &format!(
                "{queue}, {}, {{type: kv-cache-utilization-scorer}}",
                prefix(128)
            ),
            "{pluginRef: queue-scorer, weight: 3}, {pluginRef: prefix-cache-scorer}",
        );
        let text = changes(&before, &after);
        for part in [
            "kv-cache-utilization-scorer added",
            "approx-prefix-cache-producer maxPrefixBlocksToMatch: 256 → 128",
            "queue-scorer in default: weight 2 → 3",
        ] {
            assert!(text.contains(part), "no {part}: {text}");
        }
        assert!(changes(&after, &before).contains("kv-cache-utilization-scorer removed"));
        assert!(!text.contains("prefix-cache-scorer in"), "{text}");
    }

    #[test]
    fn many_changes_stay_one_line() {
        let before = plan("{type: queue-scorer}", "{pluginRef: queue-scorer}");
        let many = (0..200)
            .map(|number| format!(", {{name: another-plugin-{number}, type: queue-scorer}}"));
        let after = plan(
            &format!("{{type: queue-scorer}}{}", many.collect::<String>()),
            "{pluginRef: queue-scorer}",
        );
        let text = changes(&before, &after);
        assert!(
            text.len() < MAX_CHANGES_BYTES + 4 && text.ends_with('…'),
            "{text}"
        );
    }
}

//! What happens to a pool, logged once: endpoints that may not be picked or have stale metrics, and for how long; another
//! configuration; another picker that polls.

use std::fmt::Write;

use super::Picker;
use crate::config::Plan;
use crate::endpoints::fetch_error::FetchError;
use crate::findings::{printable, Level, Subject};
use crate::scheduling::{Freshness, Slot};
use crate::time::Instant;

/// Bytes of a line that says what has changed in a configuration.
const MAX_CHANGES_BYTES: usize = 600;

/// Why an endpoint may not be picked: `unhealthy` or `ejected`, and the reason.
type Obstacle = (&'static str, &'static str);

/// The state of an endpoint, as this picker has seen it last.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// Identifies the endpoint, since another one may come into its slot.
    tag: u32,
    obstacle: Option<Obstacle>,
    freshness: Freshness,
    /// Whether the log has it that its metrics are stale: not where an obstacle is why they are.
    told_stale: bool,
    /// Since when the obstacle is the same, and the freshness: since this picker first saw the endpoint, or longer.
    since: [Instant; 2],
}

/// A line of the log.
type Line = (Level, Subject, String);

impl Seen {
    /// Takes over since when everything is as before. Returns the lines of what is not.
    fn follow(&mut self, before: &Self, address: &str, error: Option<FetchError>) -> Vec<Line> {
        let mut lines = Vec::new();
        let [now, _] = self.since;
        let [blocked, unread] = before.since;
        let [since_blocked, since_unread] = &mut self.since;
        match (before.obstacle, self.obstacle) {
            (before, now) if before == now => *since_blocked = blocked,
            (_, Some((kind, reason))) => {
                let text = format!("endpoint {address} is {kind}: {reason}");
                lines.push((Level::Warning, subject(kind), text));
            }
            (Some((kind, reason)), None) => {
                let seconds = now.since(blocked).as_secs();
                let text = format!(
                    "endpoint {address} may be picked again: it was {kind} for {seconds} s, {reason}"
                );
                lines.push((Level::Info, subject(kind), text));
            }
            (None, None) => {}
        }
        match (before.freshness, self.freshness) {
            (freshness, now) if freshness == now => {
                *since_unread = unread;
                self.told_stale = before.told_stale;
            }
            (Freshness::Fresh, Freshness::Stale) if self.told_stale => {
                let reason = error.map_or("no page yet".to_owned(), FetchError::text);
                let text = format!("metrics of endpoint {address} are stale: {reason}");
                lines.push((Level::Warning, Subject::Endpoint, text));
            }
            (Freshness::Stale, Freshness::Fresh) if before.told_stale => {
                let seconds = now.since(unread).as_secs();
                let text =
                    format!("metrics of endpoint {address} are fresh again after {seconds} s");
                lines.push((Level::Info, Subject::Endpoint, text));
            }
            _ => {}
        }
        lines
    }
}

/// Returns what a line about an obstacle of this kind is about.
fn subject(kind: &str) -> Subject {
    match kind {
        "ejected" => Subject::Ejection,
        _ => Subject::Endpoint,
    }
}

/// The states of the endpoints by slot.
#[derive(Debug, Default)]
pub struct History {
    seen: Vec<Option<Seen>>,
}

impl History {
    /// Returns why the endpoint in this slot may not be picked, and since when.
    pub fn obstacle(&self, slot: Slot) -> Option<(Obstacle, Instant)> {
        let seen = self.seen.get(slot.index()).copied().flatten()?;
        let [since, _] = seen.since;
        Some((seen.obstacle?, since))
    }
}

impl Picker {
    /// Notes which endpoints may not be picked or have stale metrics since the last call, and which are back. The picker
    /// that polls logs it.
    pub(super) fn follow_endpoints(&mut self) {
        let now = self.dispatcher.clock.now();
        let endpoints = &self.dispatcher.endpoints;
        let (pool, monitor) = (endpoints.pool(), &endpoints.monitor);
        let states = &mut self.history.seen;
        states.resize(pool.width(), None);
        let mut lines = Vec::new();
        let (mut all, mut out, mut stale) = (0, 0, 0);
        for (slot, endpoint) in pool.iter() {
            let Some(state) = states.get_mut(slot.index()) else {
                continue;
            };
            let ejected = monitor.outliers.ejected(slot);
            let obstacle = match endpoint.is_available() {
                false => Some(("unhealthy", endpoint.health.name())),
                true => ejected.map(|reason| ("ejected", reason.name())),
            };
            let is_stale = endpoint.freshness == Freshness::Stale;
            let mut seen = Seen {
                tag: endpoint.tag(),
                obstacle,
                freshness: endpoint.freshness,
                told_stale: is_stale && obstacle.is_none(),
                since: [now; 2],
            };
            all += 1;
            out += usize::from(obstacle.is_some());
            stale += usize::from(is_stale);
            if let Some(before) = state.filter(|before| before.tag == seen.tag) {
                let error = monitor.poll_error(slot);
                lines.append(&mut seen.follow(&before, &endpoint.address, error));
            }
            *state = Some(seen);
        }
        if monitor.polls() {
            for (level, subject, text) in lines {
                let counts = format_args!("{out} of {all} may not be picked, {stale} stale");
                let text = format_args!("{text} (endpoints: {counts})");
                self.dispatcher.log(level, subject, text);
            }
        }
    }

    /// Logs that this picker polls from now on.
    pub(super) fn log_polling(&mut self) {
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
    use std::time::Duration;

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

    /// Returns the lines as an endpoint goes through these states, a second apart: stale or fresh, ejected or not.
    fn lines(states: &[(Freshness, bool)]) -> Vec<String> {
        let mut seconds = 0;
        let mut seen = states.iter().map(|(freshness, is_ejected)| {
            seconds += 1;
            let obstacle = is_ejected.then_some(("ejected", "unserved"));
            Seen {
                tag: 1,
                obstacle,
                freshness: *freshness,
                told_stale: *freshness == Freshness::Stale && obstacle.is_none(),
                since: [Instant::default().after(Duration::from_secs(seconds)); 2],
            }
        });
        let mut before = seen.next().unwrap();
        let mut lines = Vec::new();
        for mut now in seen {
            lines.extend(now.follow(&before, "a:1", None));
            before = now;
        }
        lines.into_iter().map(|(.., text)| text).collect()
    }

    #[test]
    fn fresh_again_is_said_where_stale_was() {
        const FRESH: Freshness = Freshness::Fresh;
        const STALE: Freshness = Freshness::Stale;
        let (stale, ejected, back) = (
            "metrics of endpoint a:1 are stale: no page yet",
            "endpoint a:1 is ejected: unserved",
            "endpoint a:1 may be picked again: it was ejected for ",
        );
        for (states, expected) in [
            (
                &[
                    (FRESH, false),
                    (STALE, false),
                    (STALE, false),
                    (FRESH, false),
                ] as &[_],
                &[stale, "metrics of endpoint a:1 are fresh again after 2 s"] as &[_],
            ),
            // It has become stale while it was ejected, and is still stale when it is back.
            (
                &[(FRESH, true), (STALE, true), (STALE, false), (FRESH, false)],
                &[back],
            ),
            (&[(FRESH, true), (STALE, true), (FRESH, false)], &[back]),
            // Stale first.
            (
                &[(FRESH, false), (STALE, false), (STALE, true), (FRESH, true)],
                &[
                    stale,
                    ejected,
                    "metrics of endpoint a:1 are fresh again after 2 s",
                ],
            ),
        ] {
            let found = lines(states);
            assert_eq!(found.len(), expected.len(), "{states:?}: {found:?}");
            for (found, expected) in found.iter().zip(expected) {
                assert!(found.starts_with(expected), "{states:?}: {found}");
            }
        }
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

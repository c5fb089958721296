//! Updates of filters by ECDS that Envoy has refused, and whether that is over.
//!
//! Envoy's counters only grow, and a config dump shows the filter that was received last, refused or not. Both
//! together tell which it was. Envoy notes when it received a filter that differs from the one before (`last_updated`
//! in the dump), and when an update last succeeded (`update_time`), which is after it was received. One that is the
//! same as the last received one succeeds without being applied, even if that was refused; so where there were such
//! updates, it cannot be told. Each update that is applied counts as a reload, refused or not: if there are as many
//! reloads as updates that succeeded or were refused, all were applied.

use std::collections::BTreeMap;

use epp_core::findings::Severity;

use super::findings::{few, seen, StatusFinding};
use super::series::Statistics;
use crate::lint::ReceivedFilter;

/// What the statistics of a filter's subscription begin with.
pub const PREFIX: &str = "envoy_extension_config_discovery_";

/// What became of the last update of a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    Accepted,
    Refused,
    Unknown,
}

/// What is known of subscriptions to filters. Pages may list any number of them.
struct Subscriptions<'p> {
    /// Statistics by their names. Of filters whose names differ in characters that metrics do not have, it cannot be told
    /// which is whose.
    statistics: BTreeMap<&'p str, Option<f64>>,
    /// When a filter was received, by its name as metrics have it.
    received: BTreeMap<String, Option<&'p str>>,
}

/// Returns a finding for each outcome, with the filters of which Envoy has refused updates.
pub fn refused(
    statistics: &Statistics<'_>,
    received: Option<&[ReceivedFilter]>,
) -> Vec<StatusFinding> {
    let known = Subscriptions::of(statistics, received.unwrap_or_default());
    let rejected = known.statistics.iter().filter_map(|(name, count)| {
        let subscription = name.strip_suffix("_update_rejected")?;
        let last = known.last(subscription);
        // Counters may have been reset since.
        let counted = count.is_none_or(|count| count > 0.0) || last == Last::Refused;
        counted.then(|| ((*name).to_owned(), last))
    });
    let rejected: Vec<(String, Last)> = rejected.collect();
    let findings = OUTCOMES
        .iter()
        .filter_map(|(outcome, severity, cause, remedy)| {
            let of = rejected.iter().filter(|(_, last)| last == outcome);
            let of: Vec<String> = of.map(|(name, _)| name.clone()).collect();
            let place = Some(few(&of)?);
            Some(seen(
                *severity,
                "filter-updates-refused",
                place,
                cause,
                remedy,
            ))
        });
    findings.collect()
}

/// The findings, by what became of the last update.
const OUTCOMES: [(Last, Severity, &str, &str); 3] = [
    (
        Last::Refused,
        Severity::Degraded,
        "Envoy has refused the last update of a filter by ECDS: the configuration before it is in force, or none if it was the first.",
        "Envoy's log has the reason. Correct the filter's configuration and send it again.",
    ),
    (
        Last::Unknown,
        Severity::Degraded,
        "Envoy has refused updates of a filter by ECDS since it started, and it cannot be told whether the last one is in force.",
        "Envoy's log has the reasons. It is over if the log has no refusal after the last update. It can be told where /config_dump is exposed and no update has come twice.",
    ),
    (
        Last::Accepted,
        Severity::Note,
        "Envoy has refused updates of a filter by ECDS since it started, and has accepted the last one.",
        "Nothing has to be done. The counter stays until Envoy restarts.",
    ),
];

impl<'p> Subscriptions<'p> {
    fn of(statistics: &Statistics<'p>, received: &'p [ReceivedFilter]) -> Self {
        let mut known = Self {
            statistics: BTreeMap::new(),
            received: BTreeMap::new(),
        };
        for series in statistics.starting(PREFIX) {
            let value = known.statistics.entry(series.family);
            value
                .and_modify(|value| *value = None)
                .or_insert(Some(series.value()));
        }
        for filter in received {
            let time = known.received.entry(label(&filter.name));
            time.and_modify(|time| *time = None)
                .or_insert(Some(&filter.last_updated));
        }
        known
    }

    fn last(&self, subscription: &str) -> Last {
        self.known(subscription).unwrap_or(Last::Unknown)
    }

    fn known(&self, subscription: &str) -> Option<Last> {
        let value = |name: &str| *self.statistics.get(&*format!("{subscription}_{name}"))?;
        // http_filter_NAME, upstream_http_filter_NAME and the like.
        let (_, name) = subscription.split_once("_filter_")?;
        let received = milliseconds((*self.received.get(name)?)?)? as f64;
        let succeeded = value("update_time")?;
        if succeeded < received {
            return Some(Last::Refused);
        }
        let all_applied =
            value("config_reload")? >= value("update_success")? + value("update_rejected")?;
        // In the same millisecond, either may have been the first.
        (all_applied && succeeded > received).then_some(Last::Accepted)
    }
}

/// Returns a filter's name as metrics have it.
fn label(name: &str) -> String {
    let letter = |letter: char| match letter {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '_' => letter,
        _ => '_',
    };
    name.chars().map(letter).collect()
}

/// Returns the milliseconds since 1970 of a time such as `2026-01-02T03:04:05.678Z`, which is how Envoy writes one.
fn milliseconds(time: &str) -> Option<i64> {
    let (date, time) = time.strip_suffix('Z')?.split_once('T')?;
    let numbers = |text: &str, separator| {
        let numbers = text.split(separator).map(|part| part.parse::<i64>().ok());
        numbers.collect::<Option<Vec<i64>>>()
    };
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [year, month, day] = *numbers(date, '-')? else {
        return None;
    };
    let [hours, minutes, seconds] = *numbers(time, ':')? else {
        return None;
    };
    let thousandths = format!("{fraction:0<3}").get(..3)?.parse::<i64>().ok()?;
    let is_date =
        (1970..10_000).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    let is_time = [(hours, 24), (minutes, 60), (seconds, 61)];
    let is_time = is_time.iter().all(|(part, most)| (0..*most).contains(part));
    if !is_date || !is_time {
        return None;
    }
    // Years begin in March here, so that the leap day is the last one.
    let (year, month) = match month {
        1 | 2 => (year - 1, month + 9),
        _ => (year, month - 3),
    };
    let days =
        365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 719_469;
    Some((((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 1000 + thousandths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_envoy_writes_them() {
        let known = [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-03-01T00:00:00.5Z", 59 * 86_400_000 + 500),
            ("2000-02-29T23:59:59.999Z", 951_868_799_999),
            ("2026-11-29T22:19:36.194Z", 1_795_990_776_194),
            ("2026-11-29T22:19:36.194871Z", 1_795_990_776_194),
        ];
        for (text, expected) in known {
            assert_eq!(milliseconds(text), Some(expected), "{text}");
        }
        let none = [
            "",
            "Z",
            "2026-11-29",
            "2026-13-01T00:00:00Z",
            "2026-11-29T22:19Z",
            "2026-11-29T24:00:00Z",
            "2026-11-29T-1:00:00Z",
            "2026-11-29T9223372036854775807:00:00Z",
            "a-b-cTd:e:fZ",
        ];
        for text in none {
            assert_eq!(milliseconds(text), None, "{text}");
        }
    }

    /// Returns what is told after updates of a filter, by the values of an Envoy 1.40.
    fn told(counts: [u64; 4], last_updated: &str, dumped: bool) -> Last {
        let [rejected, success, reload, time] = counts;
        let page = format!(
            "{PREFIX}http_filter_epp_a_update_rejected{{}} {rejected}\n\
             {PREFIX}http_filter_epp_a_update_success{{}} {success}\n\
             {PREFIX}http_filter_epp_a_config_reload{{}} {reload}\n\
             {PREFIX}http_filter_epp_a_update_time{{}} {time}\n"
        );
        let filter = ReceivedFilter {
            name: "epp.a".to_owned(),
            last_updated: last_updated.to_owned(),
        };
        let other = ReceivedFilter {
            name: "epp.b".to_owned(),
            last_updated: "2030-01-01T00:00:00Z".to_owned(),
        };
        let received = [other, filter];
        let received = if dumped { &received[..] } else { &[] };
        let statistics = Statistics::parse(&page);
        Subscriptions::of(&statistics, received).last(&format!("{PREFIX}http_filter_epp_a"))
    }

    #[test]
    fn the_last_update_is_told_by_its_times() {
        let (first, second) = ("2026-11-29T22:19:49.444Z", "2026-11-29T22:19:57.545Z");
        assert_eq!(
            told([1, 1, 2, 1_795_990_780_217], first, true),
            Last::Refused
        );
        assert_eq!(
            told([1, 2, 3, 1_795_990_797_564], second, true),
            Last::Accepted
        );
        // One millisecond says nothing of the order.
        assert_eq!(
            told([1, 2, 3, 1_795_990_797_545], second, true),
            Last::Unknown
        );
        // Refused, and sent again unchanged, which Envoy counts as a success.
        let again = "2026-11-29T22:20:05.598Z";
        assert_eq!(
            told([2, 3, 4, 1_795_990_813_652], again, true),
            Last::Unknown
        );
        assert_eq!(
            told([1, 2, 3, 1_795_990_797_564], second, false),
            Last::Unknown
        );
        assert_eq!(
            told([1, 2, 3, 1_795_990_797_564], "yesterday", true),
            Last::Unknown
        );
    }

    #[test]
    fn filters_whose_names_are_one_in_metrics_are_not_told_apart() {
        let page = format!("{PREFIX}http_filter_epp_a_update_rejected{{}} 1\n");
        let filter = |name: &str| ReceivedFilter {
            name: name.to_owned(),
            last_updated: "2026-11-29T22:19:49.444Z".to_owned(),
        };
        let (one, other) = (filter("epp.a"), filter("epp-a"));
        let statistics = Statistics::parse(&page);
        let findings = refused(&statistics, Some(&[one, other]));
        assert_eq!(findings.len(), 1);
        assert!(findings[0].is_fault() && findings[0].cause.contains("cannot be told"));
    }
}

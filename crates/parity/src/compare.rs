//! Compares a decision with the recorded one.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::replay::{Made, Routed};
use crate::scenario::{Expected, Refused, Served};

/// Returns whether a decision agrees with the recorded one, with sums as far apart as `tolerance`; the error names
/// the first difference.
pub fn compare(made: &Made, expect: &Expected, tolerance: f64) -> Result<(), String> {
    match (made, expect) {
        (Made::Routed(routed), Expected::Served(served)) => {
            compare_routed(routed, served, tolerance)
        }
        (Made::Routed(routed), Expected::Held { held_by }) => {
            same("sent to", routed.destinations.first(), held_by.first())
        }
        (Made::Refused(reply), Expected::Refused(refused)) => compare_refused(reply, refused),
        (Made::Routed(routed), Expected::Refused(refused)) => {
            let (sent, status) = (&routed.destinations, refused.status);
            Err(format!("sent to {sent:?}, recorded a reply with {status}"))
        }
        (Made::Refused(reply), _) => Err(format!("refused: {} {}", reply.status, reply.body)),
        (Made::Waits, _) => Err("it waits".to_owned()),
    }
}

fn compare_routed(routed: &Routed, served: &Served, tolerance: f64) -> Result<(), String> {
    // Where the Endpoint Picker replaced the ports, scores by endpoint are not in the recording.
    if !served.scores.is_empty() {
        compare_ranking(&routed.ranking, &routed.drawn, served, tolerance)?;
    }
    // After the picks there are retry targets.
    let picks = routed.destinations.get(..served.ranking.len());
    same("destinations", picks, Some(served.ranking.as_slice()))?;
    same("headers", Some(&routed.headers), Some(&served.headers))
}

/// Returns whether a ranking agrees with the recorded one. Endpoints with equal scores are in random order on
/// both sides, so the scores along the ranking are compared. `drawn` is the part of endpoints' sums that was drawn:
/// among these, the recorded parts may be in another order.
pub fn compare_ranking(
    ranking: &[(String, f64)],
    drawn: &BTreeMap<String, f64>,
    served: &Served,
    tolerance: f64,
) -> Result<(), String> {
    let mut own: BTreeMap<&str, f64> = ranking
        .iter()
        .map(|(name, score)| (name.as_str(), *score))
        .collect();
    if own.len() != served.scores.len() {
        let (found, recorded) = (own.len(), served.scores.len());
        return Err(format!("{found} candidates, recorded {recorded}"));
    }
    redraw(&mut own, drawn, served, tolerance);
    for (endpoint, recorded) in &served.scores {
        let found = own.get(endpoint.as_str());
        let found = found.ok_or_else(|| format!("{endpoint} is not a candidate"))?;
        if (found - recorded).abs() > tolerance {
            return Err(format!("{endpoint} {found}, recorded {recorded}"));
        }
    }
    for ((name, _), recorded) in ranking.iter().zip(&served.ranking) {
        let score = |name: &str| own.get(name).copied().unwrap_or(f64::NAN);
        let apart = (score(name) - score(recorded)).abs();
        if apart.is_nan() || apart > tolerance {
            return Err(format!("{name} before {recorded}"));
        }
    }
    Ok(())
}

/// Takes the drawn parts of the sums as the recording has them, if they are the same in another order.
fn redraw<'a>(
    own: &mut BTreeMap<&'a str, f64>,
    drawn: &'a BTreeMap<String, f64>,
    served: &Served,
    tolerance: f64,
) {
    let recorded = drawn.iter().filter_map(|(name, part)| {
        let rest = own.get(name.as_str())? - part;
        Some((name.as_str(), rest, served.scores.get(name)? - rest))
    });
    let recorded: Vec<(&str, f64, f64)> = recorded.collect();
    let sorted = |parts: &mut dyn Iterator<Item = f64>| {
        let mut parts: Vec<f64> = parts.collect();
        parts.sort_by(f64::total_cmp);
        parts
    };
    let ours = sorted(&mut drawn.values().copied());
    let theirs = sorted(&mut recorded.iter().map(|(_, _, part)| *part));
    let mut both = ours.iter().zip(&theirs);
    let same = both.all(|(ours, theirs)| (ours - theirs).abs() <= tolerance);
    if same && ours.len() == theirs.len() {
        own.extend(
            recorded
                .iter()
                .map(|(name, rest, part)| (*name, rest + part)),
        );
    }
}

/// The reply of the recorded release if filters left no decode endpoint, and that of newer ones, which the picker
/// gives.
const NO_DECODE_ENDPOINT: [(u32, &str, &str); 2] = [
    (
        429,
        "inference error: ResourceExhausted - no endpoints available for the given request",
        "rejected-saturated",
    ),
    (
        503,
        "inference error: ServiceUnavailable - failed to find target endpoint: failed to find available decode workers",
        "rejected-no-endpoints",
    ),
];

/// Returns whether a local reply agrees with the recorded one, or is what newer releases make of it.
pub fn compare_refused(reply: &Refused, recorded: &Refused) -> Result<(), String> {
    let replies = [recorded, reply].map(|reply| {
        let reason = reply.reason.as_deref().unwrap_or_default();
        (reply.status, reply.body.as_str(), reason)
    });
    if replies == NO_DECODE_ENDPOINT {
        return Ok(());
    }
    same("status", Some(&reply.status), Some(&recorded.status))?;
    // The Endpoint Picker names the request, which a proxy cannot.
    let (body, _) = recorded
        .body
        .split_once(" for request ")
        .unwrap_or((&recorded.body, ""));
    same("body", Some(reply.body.as_str()), Some(body))?;
    let (found, reason) = (reply.reason.as_deref(), recorded.reason.as_deref());
    same("reason", found, reason)
}

/// The time between two looks of the Endpoint Picker for requests that have waited as long as they may.
const SWEEP: Duration = Duration::from_secs(1);

/// The greatest difference of times that agree. Recorded ones have steps of 100 ms.
const TIME_TOLERANCE: Duration = Duration::from_millis(300);

/// When the Endpoint Picker of a scenario looks for requests that have waited as long as they may: these get their
/// replies that much later than they expire.
#[derive(Debug, Default)]
pub struct Sweeps {
    /// The time of the first known one.
    known: Option<Duration>,
}

impl Sweeps {
    /// Returns whether a reply was recorded when the Endpoint Picker first looked after a request had expired. Times are
    /// since the scenario's beginning.
    pub fn compare(&mut self, expired: Duration, recorded: Duration) -> Result<(), String> {
        let next = match self.known {
            Some(known) => {
                let sweeps = expired.saturating_sub(known).as_secs_f64() / SWEEP.as_secs_f64();
                known + SWEEP.mul_f64(sweeps.ceil())
            }
            // Any time within a second.
            None => recorded.clamp(expired, expired + SWEEP),
        };
        self.known = Some(recorded);
        match recorded.abs_diff(next) <= TIME_TOLERANCE {
            true => Ok(()),
            false => Err(format!(
                "expired at {expired:?}, recorded at {recorded:?}, expected at {next:?}"
            )),
        }
    }
}

/// Returns whether the session header of a response agrees with the recorded one.
pub fn compare_session(found: Option<&str>, expect: &Expected) -> Result<(), String> {
    let recorded = match expect {
        Expected::Served(served) => served.session.as_deref(),
        Expected::Held { .. } | Expected::Refused(_) => None,
    };
    same("session", found, recorded)
}

fn same<T: PartialEq + std::fmt::Debug + ?Sized>(
    what: &str,
    found: Option<&T>,
    recorded: Option<&T>,
) -> Result<(), String> {
    if found == recorded {
        return Ok(());
    }
    Err(format!("{what} {found:?}, recorded {recorded:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TOLERANCE;

    fn agrees(made: &Made, expect: &Expected) -> Result<(), String> {
        compare(made, expect, TOLERANCE)
    }

    fn sums(of: &[(&str, f64)]) -> BTreeMap<String, f64> {
        let sums = of.iter().map(|(name, sum)| ((*name).to_owned(), *sum));
        sums.collect()
    }

    fn names(of: &[&str]) -> Vec<String> {
        of.iter().map(|name| (*name).to_owned()).collect()
    }

    fn served() -> Served {
        Served {
            scores: sums(&[("a", 2.0), ("b", 1.0), ("c", 1.0)]),
            ranking: names(&["a", "b", "c"]),
            served_by: "a".to_owned(),
            headers: [("x-prefiller-host-port".to_owned(), "d".to_owned())].into(),
            session: None,
        }
    }

    /// Returns what the recorded decision would be here, with a retry target in addition.
    fn routed() -> Routed {
        let served = served();
        Routed {
            ranking: served.scores.into_iter().collect(),
            destinations: names(&["a", "b", "c", "d"]),
            headers: served.headers,
            ..Routed::default()
        }
    }

    fn differs(change: impl FnOnce(&mut Served)) -> String {
        let mut served = served();
        change(&mut served);
        let made = Made::Routed(routed());
        agrees(&made, &Expected::Served(served))
            .err()
            .unwrap_or_default()
    }

    #[test]
    fn every_part_of_an_altered_recording_differs() {
        assert_eq!(differs(|_| {}), "");
        let header = |value: &str| ("x-prefiller-host-port".to_owned(), value.to_owned());
        assert!(differs(|served| _ = served.scores.insert("b".to_owned(), 1.1)).starts_with("b 1"));
        assert!(differs(|served| _ = served.scores.remove("c")).starts_with("3 candidates"));
        assert_eq!(differs(|served| served.ranking.swap(0, 1)), "a before b");
        // Of equal ones the replay chooses as recorded.
        assert!(differs(|served| served.ranking.swap(1, 2)).starts_with("destinations"));
        assert!(differs(|served| served.headers = [header("e")].into()).starts_with("headers"));
        assert!(differs(|served| served.headers.clear()).starts_with("headers"));
        // Where ports are replaced, the destinations are all there is.
        let replaced = |served: &mut Served| {
            served.scores.clear();
            served.ranking = names(&["a", "a", "a"]);
        };
        assert!(differs(replaced).starts_with("destinations"));
    }

    #[test]
    fn a_reply_to_a_request_that_expired_comes_with_the_next_sweep() {
        let compare = |times: &[(u64, u64)]| {
            let mut sweeps = Sweeps::default();
            let mut times = times.iter().map(|(expired, recorded)| {
                let times = [*expired, *recorded].map(Duration::from_millis);
                sweeps.compare(times[0], times[1])
            });
            times.try_for_each(|compared| compared)
        };
        assert_eq!(compare(&[(1_500, 2_400)]), Ok(()));
        assert_eq!(
            compare(&[(1_500, 2_400), (3_900, 4_400), (5_500, 6_300)]),
            Ok(())
        );
        assert!(compare(&[(1_500, 1_100)]).is_err(), "before it expired");
        assert!(compare(&[(1_500, 2_900)]).is_err(), "a sweep later");
        assert!(compare(&[(1_500, 2_400), (3_900, 4_000)]).is_err());
        assert!(compare(&[(1_500, 2_400), (3_900, 4_900)]).is_err());
    }

    #[test]
    fn a_held_request_and_a_reply_are_compared() {
        let held = |by: &[&str]| {
            agrees(
                &Made::Routed(routed()),
                &Expected::Held { held_by: names(by) },
            )
        };
        assert_eq!(held(&["a"]), Ok(()));
        assert!(held(&["b"]).is_err());
        let recorded = Refused {
            status: 429,
            body: "none for request 1234".to_owned(),
            ..Refused::default()
        };
        let made = |status, body: &str, reason: Option<&str>| {
            Made::Refused(Refused {
                status,
                body: body.to_owned(),
                reason: reason.map(str::to_owned),
                ..Refused::default()
            })
        };
        let refused = Expected::Refused(recorded);
        assert!(agrees(&made(503, "none", Some("saturated")), &refused).is_err());
        assert!(agrees(&made(429, "some", Some("saturated")), &refused).is_err());
        assert!(agrees(&made(429, "none", Some("saturated")), &refused).is_err());
        assert!(agrees(&Made::Routed(routed()), &refused).is_err());
        assert!(agrees(
            &made(429, "none", Some("saturated")),
            &Expected::Served(served())
        )
        .is_err());
    }

    #[test]
    fn the_reply_of_newer_releases_counts_as_the_recorded_one_and_not_the_other_way_round() {
        let [recorded, newer] = NO_DECODE_ENDPOINT.map(|(status, body, reason)| Refused {
            status,
            body: body.to_owned(),
            reason: Some(reason.to_owned()),
            ..Refused::default()
        });
        assert_eq!(compare_refused(&newer, &recorded), Ok(()));
        assert_eq!(compare_refused(&recorded, &recorded), Ok(()));
        assert!(compare_refused(&recorded, &newer).is_err());
    }

    #[test]
    fn the_session_of_the_response_is_compared() {
        let session = |session: Option<&str>| {
            Expected::Served(Served {
                session: session.map(str::to_owned),
                ..served()
            })
        };
        assert_eq!(compare_session(None, &session(None)), Ok(()));
        assert_eq!(compare_session(Some("a"), &session(Some("a"))), Ok(()));
        assert!(compare_session(Some("a"), &session(Some("b"))).is_err());
        assert!(compare_session(None, &session(Some("b"))).is_err());
        assert!(compare_session(Some("a"), &session(None)).is_err());
    }

    #[test]
    fn drawn_parts_may_change_places_and_nothing_else_may() {
        // c was used before: its part is not drawn.
        let drawn = sums(&[("a", 1.0), ("b", 0.5)]);
        let ranking = [("a", 1.25), ("b", 0.75), ("c", 0.0)];
        let ranking = ranking.map(|(name, sum)| (name.to_owned(), sum));
        let compared = |scores: &[(&str, f64)]| {
            let mut sorted = scores.to_vec();
            sorted.sort_by(|a, b| b.1.total_cmp(&a.1));
            let order: Vec<&str> = sorted.iter().map(|(name, _)| *name).collect();
            let served = Served {
                scores: sums(scores),
                ranking: names(&order),
                ..Served::default()
            };
            // The replay goes on in the recorded order.
            let mut ranking = ranking.to_vec();
            ranking.sort_by_key(|(name, _)| order.iter().position(|known| known == name));
            compare_ranking(&ranking, &drawn, &served, TOLERANCE)
        };
        assert_eq!(compared(&[("a", 1.25), ("b", 0.75), ("c", 0.0)]), Ok(()));
        assert_eq!(compared(&[("a", 0.75), ("b", 1.25), ("c", 0.0)]), Ok(()));
        assert!(compared(&[("a", 0.75), ("b", 0.75), ("c", 0.0)]).is_err());
        assert!(compared(&[("a", 0.75), ("b", 0.0), ("c", 1.25)]).is_err());
    }
}

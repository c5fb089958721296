//! The result of a row: which requests failed, how long it took until responses were as before, and
//! whether the row meets its bar.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::load::{Outcome, Sent};

/// The time is divided into slices of this length to find the recovery.
const SLICE_LENGTH: Duration = Duration::from_millis(250);

/// The least share of good responses in a slice that is as good as before: one late response of 25 on a
/// loaded machine is not an outage.
const MIN_GOOD_SHARE: f64 = 0.9;

/// The longest time of a good response, unless a row sets another: a busy machine is not a fault.
const GOOD_WITHIN: Duration = Duration::from_millis(600);

/// The requests that may fail, and the time that recovery may take.
#[derive(Clone)]
pub struct Bar {
    /// Requests that may fail before their response has begun.
    pub failed: usize,
    /// Responses that may be cut; `None`: as many as the broken part was sending when it broke.
    pub cut: Option<usize>,
    /// The requests that may fail, in words.
    pub who: String,
    /// The longest time until responses are as good as before.
    pub recovery: Duration,
    /// A response is fast within this, or within four times the usual time.
    pub fast: Duration,
}

impl Bar {
    /// No request may fail.
    pub fn none(recovery: Duration) -> Self {
        Self {
            failed: 0,
            cut: Some(0),
            who: "none".to_owned(),
            recovery,
            fast: GOOD_WITHIN,
        }
    }

    /// Allows only responses in progress on the broken part to be cut off.
    pub fn begun(recovery: Duration) -> Self {
        Self {
            failed: 0,
            cut: None,
            who: "responses in progress on the pod".to_owned(),
            recovery,
            fast: GOOD_WITHIN,
        }
    }

    /// This many may fail or be cut, and why.
    pub fn some(failed: usize, cut: usize, who: &str, recovery: Duration) -> Self {
        Self {
            failed,
            cut: Some(cut),
            who: who.to_owned(),
            recovery,
            fast: GOOD_WITHIN,
        }
    }
}

/// The times of a row's events, since the load began.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// The beginning of the fault.
    pub fault: Duration,
    /// The time from which recovery is measured.
    pub over: Duration,
    /// A response is fast within this.
    pub fast: Duration,
}

/// The result of a row.
#[derive(Serialize, Deserialize)]
pub struct Measured {
    /// The facts of the run.
    #[serde(default)]
    pub run: String,
    /// Requests sent.
    pub sent: usize,
    /// Requests that failed before a response began.
    pub failed: usize,
    /// Responses that were cut.
    pub cut: usize,
    /// The requests that may fail.
    pub who: String,
    /// The time from the fault until responses are as good as before; `None` if they never were.
    pub recovery_ms: Option<u64>,
    /// All that misses the bar, except the time.
    pub misses: Vec<String>,
    /// The way in which the time misses the bar.
    pub late: Option<String>,
    /// Other measurements, for the column of the bar.
    pub notes: Vec<String>,
}

impl Measured {
    /// Computes the result from the requests, the times, and the number of responses that may be lost.
    pub fn new(sent: &[Sent], times: &Times, may_be_lost: usize, bar: Bar) -> Self {
        let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
        let (mut failed, mut cut) = (0, 0);
        for request in sent {
            let reason = match &request.outcome {
                Outcome::Succeeded => continue,
                Outcome::Failed(reason) => {
                    failed += 1;
                    reason
                }
                Outcome::Cut(reason) => {
                    cut += 1;
                    reason
                }
            };
            *reasons.entry(reason).or_default() += 1;
        }
        let reasons: Vec<String> = reasons
            .iter()
            .map(|(reason, times)| format!("{times} × {reason}"))
            .collect();
        let recovery = recovery(sent, times);
        let mut measured = Self {
            run: String::new(),
            sent: sent.len(),
            failed,
            cut,
            who: bar.who,
            recovery_ms: recovery.map(|time| time.as_millis() as u64),
            misses: Vec::new(),
            late: None,
            notes: Vec::new(),
        };
        let may_be_cut = bar.cut.unwrap_or(may_be_lost);
        measured.require(failed <= bar.failed, || {
            format!(
                "{failed} failed, {} may: {}",
                bar.failed,
                reasons.join("; ")
            )
        });
        measured.require(cut <= may_be_cut, || {
            format!(
                "{cut} were cut, {may_be_cut} may be: {}",
                reasons.join("; ")
            )
        });
        if recovery.is_none_or(|time| time > bar.recovery) {
            measured.late = Some(format!(
                "as good as before after {recovery:?}, {:?} is the bar{}",
                bar.recovery,
                slices(sent, times)
            ));
        }
        measured
    }

    /// The result of a row that panicked: it has missed its bar.
    pub fn panicked(reason: String) -> Self {
        Self {
            run: String::new(),
            sent: 0,
            failed: 0,
            cut: 0,
            who: "–".to_owned(),
            recovery_ms: None,
            misses: vec![reason],
            late: None,
            notes: Vec::new(),
        }
    }

    /// Returns whether the row meets its bar.
    pub fn holds(&self) -> bool {
        self.misses.is_empty() && self.late.is_none()
    }

    /// Adds a miss unless a condition of the row holds.
    pub fn require(&mut self, holds: bool, miss: impl FnOnce() -> String) {
        if !holds {
            self.misses.push(miss());
        }
    }

    /// Adds a measurement to the notes.
    pub fn note(&mut self, note: String) {
        self.notes.push(note);
    }
}

/// Returns the numbers of good and of all requests in each slice.
fn sliced(sent: &[Sent], times: &Times) -> BTreeMap<u128, (usize, usize)> {
    let mut usual: Vec<Duration> = sent
        .iter()
        .filter(|request| request.at + request.took < times.fault)
        .map(|request| request.took)
        .collect();
    usual.sort();
    let usual = usual.get(usual.len() * 9 / 10).copied();
    let fast = times.fast.max(usual.unwrap_or_default() * 4);
    let mut slices: BTreeMap<u128, (usize, usize)> = BTreeMap::new();
    for request in sent.iter().filter(|request| request.at >= times.over) {
        let number = (request.at - times.over).as_millis() / SLICE_LENGTH.as_millis();
        let slice = slices.entry(number).or_default();
        let good = request.outcome == Outcome::Succeeded && request.took <= fast;
        slice.0 += usize::from(good);
        slice.1 += 1;
    }
    slices
}

fn recovery(sent: &[Sent], times: &Times) -> Option<Duration> {
    let slices = sliced(sent, times);
    let Some((last, _)) = slices.iter().rfind(|(_, slice)| is_bad(slice)) else {
        return Some(Duration::ZERO);
    };
    let ended = slices.keys().next_back() == Some(last);
    (!ended).then(|| SLICE_LENGTH * (*last as u32 + 1))
}

/// Lists the first slices that were worse than before, to explain a miss.
fn slices(sent: &[Sent], times: &Times) -> String {
    const SHOWN: usize = 20;
    let slices = sliced(sent, times);
    let worse = slices.iter().filter(|(_, slice)| is_bad(slice));
    let each: Vec<String> = worse
        .take(SHOWN)
        .map(|(number, (good, all))| {
            format!("{good} of {all} after {:?}", SLICE_LENGTH * *number as u32)
        })
        .collect();
    format!(" (good responses: {})", each.join(", "))
}

/// Returns whether too few requests of a slice are good.
fn is_bad((good, all): &(usize, usize)) -> bool {
    (*good as f64) < MIN_GOOD_SHARE * *all as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(number: u64, outcome: Outcome, took: u64) -> Vec<Sent> {
        let one = |part: u64| Sent {
            number: number * 100 + part,
            at: Duration::from_millis(number * 1_000 + part * 10),
            took: Duration::from_millis(took),
            outcome: outcome.clone(),
        };
        (0..100).map(one).collect()
    }

    #[test]
    fn failed_and_slow_responses_are_an_outage() {
        let fault = Duration::from_secs(1);
        let times = Times {
            fault,
            over: fault,
            fast: GOOD_WITHIN,
        };
        for (outcome, took) in [
            (Outcome::Failed("503".to_owned()), 10),
            (Outcome::Succeeded, 5_000),
        ] {
            let mut sent = second(0, Outcome::Succeeded, 10);
            sent.extend(second(1, outcome.clone(), took));
            let still = Measured::new(&sent, &times, 0, Bar::none(fault));
            assert_eq!(still.recovery_ms, None);
            assert!(!still.holds());
            sent.extend(second(2, Outcome::Succeeded, 10));
            let over = Measured::new(&sent, &times, 0, Bar::none(fault));
            assert_eq!(over.recovery_ms, Some(1_000));
            assert_eq!(over.holds(), outcome == Outcome::Succeeded);
        }
    }

    #[test]
    fn only_the_responses_of_the_broken_part_may_be_cut() {
        let mut sent = second(0, Outcome::Succeeded, 10);
        let cut = second(1, Outcome::Cut("reset".to_owned()), 10);
        sent.extend(cut.into_iter().take(2));
        sent.extend(second(2, Outcome::Succeeded, 10));
        let fault = Duration::from_secs(1);
        let times = Times {
            fault,
            over: fault,
            fast: GOOD_WITHIN,
        };
        let bar = || Bar::begun(Duration::from_secs(1));
        assert!(Measured::new(&sent, &times, 2, bar()).misses.is_empty());
        assert_eq!(Measured::new(&sent, &times, 1, bar()).misses.len(), 1);
    }
}

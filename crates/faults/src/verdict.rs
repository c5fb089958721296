//! What a row came to: who failed, how long it took until all was as before, and whether the bar
//! holds.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::load::{Outcome, Sent};

/// Recovery is looked for in slices of this length.
const SLICE: Duration = Duration::from_millis(250);

/// A slice is as good as before with this share of good answers: one late answer of 25 on a loaded
/// machine is no outage.
const GOOD: f64 = 0.9;

/// An answer is fast within this where the row says nothing else: a busy machine is no fault.
const FAST: Duration = Duration::from_millis(600);

/// Who may fail, and how long it may last.
#[derive(Clone)]
pub struct Bar {
    /// Requests that may fail though no byte of their answer had come.
    pub failed: usize,
    /// Answers that may be cut; none: as many as the broken part held when it broke.
    pub cut: Option<usize>,
    /// Who may fail, in words.
    pub who: String,
    /// Time until answers are as good as before.
    pub recovery: Duration,
    /// An answer is fast within this, or within four times what is usual.
    pub fast: Duration,
}

impl Bar {
    /// No request fails.
    pub fn none(recovery: Duration) -> Self {
        Self {
            failed: 0,
            cut: Some(0),
            who: "none".to_owned(),
            recovery,
            fast: FAST,
        }
    }

    /// None fails but those whose answers have begun to come from what broke.
    pub fn begun(recovery: Duration) -> Self {
        Self {
            failed: 0,
            cut: None,
            who: "responses in progress on the pod".to_owned(),
            recovery,
            fast: FAST,
        }
    }

    /// So many, and why.
    pub fn some(failed: usize, cut: usize, who: &str, recovery: Duration) -> Self {
        Self {
            failed,
            cut: Some(cut),
            who: who.to_owned(),
            recovery,
            fast: FAST,
        }
    }
}

/// When what happened, since the load began.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// The fault came.
    pub fault: Duration,
    /// From here recovery counts.
    pub over: Duration,
    /// An answer is fast within this.
    pub fast: Duration,
}

/// A row's figures.
#[derive(Serialize, Deserialize)]
pub struct Measured {
    /// Where, when and of what they are.
    #[serde(default)]
    pub run: String,
    /// Requests sent.
    pub sent: usize,
    /// Of them, failed before an answer began.
    pub failed: usize,
    /// Of them, cut.
    pub cut: usize,
    /// Who may fail.
    pub who: String,
    /// From the fault until answers are as good as before; none: not while the load ran.
    pub recovery_ms: Option<u64>,
    /// What misses the bar, but for the time.
    pub misses: Vec<String>,
    /// How the time misses it.
    pub late: Option<String>,
    /// What else is worth telling, in the table's last column.
    pub notes: Vec<String>,
}

impl Measured {
    /// Of these requests, with the fault at these times.
    pub fn new(sent: &[Sent], times: &Times, held: usize, bar: Bar) -> Self {
        let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
        let (mut failed, mut cut) = (0, 0);
        for request in sent {
            let reason = match &request.outcome {
                Outcome::Answered => continue,
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
        let may_be_cut = bar.cut.unwrap_or(held);
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

    /// Of a row that panicked: it has missed its bar.
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

    /// Whether the bar holds.
    pub fn holds(&self) -> bool {
        self.misses.is_empty() && self.late.is_none()
    }

    /// A further condition of the row.
    pub fn require(&mut self, holds: bool, miss: impl FnOnce() -> String) {
        if !holds {
            self.misses.push(miss());
        }
    }

    /// Something worth telling.
    pub fn note(&mut self, note: String) {
        self.notes.push(note);
    }
}

/// The good and all requests of each slice.
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
        let number = (request.at - times.over).as_millis() / SLICE.as_millis();
        let slice = slices.entry(number).or_default();
        let good = request.outcome == Outcome::Answered && request.took <= fast;
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
    (!ended).then(|| SLICE * (*last as u32 + 1))
}

/// The first slices that were worse than before, to explain a miss.
fn slices(sent: &[Sent], times: &Times) -> String {
    const SHOWN: usize = 20;
    let slices = sliced(sent, times);
    let worse = slices.iter().filter(|(_, slice)| is_bad(slice));
    let each: Vec<String> = worse
        .take(SHOWN)
        .map(|(number, (good, all))| format!("{good} of {all} after {:?}", SLICE * *number as u32))
        .collect();
    format!(" (good answers: {})", each.join(", "))
}

/// Whether a slice's good answers are too few of all.
fn is_bad((good, all): &(usize, usize)) -> bool {
    (*good as f64) < GOOD * *all as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(number: u64, outcome: Outcome, took: u64) -> Vec<Sent> {
        let one = |part: u64| Sent {
            at: Duration::from_millis(number * 1_000 + part * 10),
            took: Duration::from_millis(took),
            outcome: outcome.clone(),
        };
        (0..100).map(one).collect()
    }

    #[test]
    fn failing_and_slow_answers_are_an_outage() {
        let fault = Duration::from_secs(1);
        let times = Times {
            fault,
            over: fault,
            fast: FAST,
        };
        for (outcome, took) in [
            (Outcome::Failed("503".to_owned()), 10),
            (Outcome::Answered, 5_000),
        ] {
            let mut sent = second(0, Outcome::Answered, 10);
            sent.extend(second(1, outcome.clone(), took));
            let still = Measured::new(&sent, &times, 0, Bar::none(fault));
            assert_eq!(still.recovery_ms, None);
            assert!(!still.holds());
            sent.extend(second(2, Outcome::Answered, 10));
            let over = Measured::new(&sent, &times, 0, Bar::none(fault));
            assert_eq!(over.recovery_ms, Some(1_000));
            assert_eq!(over.holds(), outcome == Outcome::Answered);
        }
    }

    #[test]
    fn what_the_broken_part_held_may_be_cut_and_no_more() {
        let mut sent = second(0, Outcome::Answered, 10);
        let cut = second(1, Outcome::Cut("reset".to_owned()), 10);
        sent.extend(cut.into_iter().take(2));
        sent.extend(second(2, Outcome::Answered, 10));
        let fault = Duration::from_secs(1);
        let times = Times {
            fault,
            over: fault,
            fast: FAST,
        };
        let bar = || Bar::begun(Duration::from_secs(1));
        assert!(Measured::new(&sent, &times, 2, bar()).misses.is_empty());
        assert_eq!(Measured::new(&sent, &times, 1, bar()).misses.len(), 1);
    }
}

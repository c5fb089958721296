//! Findings: what is wrong with a pool, as an operator sees it. There is one catalogue of them, and the log, the
//! metric `epp_wasm_finding`, the status page, `eppctl status` and the documentation all have their texts from it.
//!
//! A condition that is met for a while opens a finding, and one that is not met for a while closes it. Both are
//! transitions: one line of the log each, and the metric is 1 in between.
//!
//! To add a finding: a line in `catalogue.rs`, and a condition in `picker/verdict.rs`, which looks once a second. It
//! goes to `own_conditions` if each worker has to find it out by itself, as from its requests, and to
//! `pool_conditions` if the worker that polls knows it for all of them. `make generate` writes it into the runbooks.
//!
//! One cause is one finding. Of an endpoint the first of these counts that applies, and hides the others: Envoy reports
//! it as unhealthy, it hangs or is ejected, its polls fail, its metrics are stale.

mod catalogue;
mod event_log;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::catalogue::{Finding, Severity};
pub use self::event_log::{EventLog, Level, Subject};

use crate::time::{whole_millis, Clock, Instant, Timestamp};

/// A condition opens its finding once it has been met for this long: longer than a poll may take and than it takes
/// another worker to poll, so that neither is a finding.
const OPENS_AFTER: Duration = Duration::from_secs(2);

/// A finding closes once its condition has not been met for this long. Longer than it takes to open: what comes and
/// goes is one finding.
const CLOSES_AFTER: Duration = Duration::from_secs(5);

/// Bytes of a detail that are kept. It may name endpoints and clusters.
const MAX_DETAIL_BYTES: usize = 200;

/// A condition that is met: its finding, and the particulars, such as names and numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// The finding that it opens.
    pub finding: Finding,
    /// The particulars, as a part of a sentence. What another plugin writes into shared data is cut and cleaned, too.
    #[serde(deserialize_with = "read_detail")]
    pub detail: String,
    /// Since when it has been met, in milliseconds since 1970; 0 unless its finding is open and published.
    pub since: u64,
}

impl Condition {
    /// Returns a condition. The detail may hold anything: it is cut, and its control and invisible characters are replaced.
    pub fn new(finding: Finding, detail: &str) -> Self {
        Self {
            finding,
            detail: printable(detail, MAX_DETAIL_BYTES),
            since: 0,
        }
    }
}

fn read_detail<'de, D: serde::Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let detail = String::deserialize(from)?;
    Ok(printable(&detail, MAX_DETAIL_BYTES))
}

/// Returns whether a letter is not seen, or changes the direction of others.
pub fn is_invisible(letter: char) -> bool {
    matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Returns the beginning of a text on one line.
pub fn printable(text: &str, most: usize) -> String {
    let mut printable = String::new();
    for letter in text.chars() {
        if printable.len() + letter.len_utf8() > most {
            printable.push('…');
            break;
        }
        printable.push(match letter.is_control() || is_invisible(letter) {
            true => '?',
            false => letter,
        });
    }
    printable
}

/// A finding that is open or may become so.
#[derive(Debug)]
struct Known {
    condition: Condition,
    /// When the condition was first met.
    since: Instant,
    /// When it was last met.
    met: Instant,
    open: bool,
}

/// A finding has been opened or closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transition {
    /// It is open now.
    Opened(Condition),
    /// It is closed.
    Closed {
        /// As it was last met.
        condition: Condition,
        /// For how long the condition was met.
        lasted: Duration,
    },
}

/// The findings of a pool. The picker that polls has them for all.
#[derive(Debug, Default)]
pub struct Findings {
    /// In the order of the catalogue.
    known: Vec<Known>,
    revision: u64,
}

impl Findings {
    /// Returns the open findings, the worst first.
    pub fn open(&self, clock: &Clock) -> Vec<Condition> {
        let open = self.known.iter().filter(|known| known.open);
        let published = |known: &Known| {
            let lasts = whole_millis(clock.now().since(known.since));
            let since = clock.wall().as_millis().saturating_sub(lasts);
            Condition {
                since,
                ..known.condition.clone()
            }
        };
        open.map(published).collect()
    }

    /// Returns a number that changes whenever [`Self::open`] does.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Takes over the findings that another picker has opened: they are known already.
    pub fn adopt(&mut self, open: Vec<Condition>, clock: &Clock) {
        self.known.clear();
        let now = clock.now();
        for mut condition in open {
            let since = Timestamp::from_millis(std::mem::take(&mut condition.since));
            if let Some(known) = self.meet(condition, now) {
                (known.open, known.since) = (true, now.before(clock.wall().since(since)));
            }
        }
        self.revision += 1;
    }

    /// Takes the conditions that are met now, of which the first of each finding counts. Returns what that changes.
    pub fn update(&mut self, met: Vec<Condition>, now: Instant) -> Vec<Transition> {
        let mut transitions = Vec::new();
        for condition in met {
            let due = |known: &&mut Known| !known.open && now.since(known.since) >= OPENS_AFTER;
            if let Some(known) = self.meet(condition, now).filter(due) {
                known.open = true;
                transitions.push(Transition::Opened(known.condition.clone()));
            }
        }
        self.known.retain(|known| {
            let absent = now.since(known.met);
            let closes = known.open && absent >= CLOSES_AFTER;
            if closes {
                transitions.push(Transition::Closed {
                    condition: known.condition.clone(),
                    lasted: known.met.since(known.since),
                });
            }
            !closes && (known.open || absent.is_zero())
        });
        self.revision += u64::from(!transitions.is_empty());
        transitions
    }

    /// Returns the record of a condition that is met.
    fn meet(&mut self, condition: Condition, now: Instant) -> Option<&mut Known> {
        let finding = condition.finding;
        let mut known = self.known.iter();
        let place = known.position(|known| known.condition.finding >= finding);
        let place = place.unwrap_or(self.known.len());
        let known = self.known.get(place);
        if known.is_none_or(|known| known.condition.finding != finding) {
            let known = Known {
                condition,
                since: now,
                met: now,
                open: false,
            };
            self.known.insert(place, known);
        } else if let Some(known) = self.known.get_mut(place).filter(|known| known.met != now) {
            known.met = now;
            self.revision += u64::from(known.open && known.condition != condition);
            known.condition = condition;
        }
        self.known.get_mut(place)
    }
}

#[cfg(test)]
mod tests;

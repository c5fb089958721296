//! The series of one family on one page: which of them describe the same part of the server, and their total.
//!
//! A server that runs several engines, ranks or processes writes a series for each. A label has one of three
//! roles:
//!
//! - It identifies the part of the server that wrote the series (`engine`, `dp_rank`, `pid`). Each part has its
//!   own requests and cache: counts add up, and of shares the greatest counts.
//! - It identifies one of the ranks that share the work on the same requests (`tp_rank`, `pp_rank`,
//!   `moe_ep_rank`). SGLang counts every request once for each of these with
//!   `--enable-metrics-for-all-schedulers`; of such series the greatest counts.
//! - It says what is counted (`model_name`, `priority`, any other name). Such series do not add up: one of them
//!   may be the total of the others. The newest counts, as in the Endpoint Picker; of equally new ones the one
//!   with the fewest labels, because a total lacks the label that its shares differ in; then the first on the
//!   page.
//!
//! An empty value is a missing label, as in Prometheus.

use std::collections::BTreeMap;

use xxhash_rust::xxh64::xxh64;

use super::sample::{Labels, Sample};

/// Distinct series of a family that are read; further ones are left out. This is more than any server has ranks,
/// and few enough that a hostile page costs no more memory and work than its size.
pub(super) const MAX_SERIES: usize = 1_024;

/// Labels that identify a part of the server, in lower case without `_`; so do all that end in `rank`.
const PART_LABELS: [&[u8]; 11] = [
    b"engine",
    b"engineid",
    b"engineidx",
    b"engineindex",
    b"pid",
    b"processid",
    b"replica",
    b"replicaid",
    b"worker",
    b"workerid",
    b"workeridx",
];

/// Prefixes of `rank` in labels of ranks that share the work on the same requests: `tp_rank`, `attn_cp_rank`,
/// `tensor_parallel_rank`.
const SHARED_RANKS: [&[u8]; 10] = [
    b"tp",
    b"pp",
    b"ep",
    b"cp",
    b"sp",
    b"tensorparallel",
    b"pipelineparallel",
    b"expertparallel",
    b"contextparallel",
    b"sequenceparallel",
];

/// Longer label names have no special role: none of the known ones is as long.
const MAX_LABEL_NAME: usize = 32;

/// The role of a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LabelRole {
    /// It identifies a part of the server.
    Part,
    /// It identifies a rank that shares its requests with others.
    Rank,
    /// It says what is counted.
    Meaning,
}

impl LabelRole {
    fn of(name: &[u8]) -> Self {
        let mut plain = [0; MAX_LABEL_NAME];
        let mut length = 0;
        for byte in name.iter().filter(|byte| **byte != b'_') {
            let Some(letter) = plain.get_mut(length) else {
                return Self::Meaning;
            };
            *letter = byte.to_ascii_lowercase();
            length += 1;
        }
        let plain = plain.get(..length).unwrap_or_default();
        match plain.strip_suffix(b"rank") {
            Some(split) if SHARED_RANKS.iter().any(|shared| split.ends_with(shared)) => Self::Rank,
            Some(_) => Self::Part,
            None if PART_LABELS.contains(&plain) => Self::Part,
            None => Self::Meaning,
        }
    }
}

/// Returns whether a label says what is counted, and not which part of the server wrote the series.
pub fn is_meaning(name: &[u8]) -> bool {
    LabelRole::of(name) == LabelRole::Meaning
}

/// Identifies a series by hashes of its labels that do not depend on the labels' order. A page that makes two of
/// its own series collide gains nothing that it could not write directly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
struct SeriesKey {
    meaning: u64,
    part: u64,
    rank: u64,
}

/// Returns the key of a series and how many of its labels say what is counted. Labels that hold the values of the
/// series are skipped.
fn key_of(labels: &Labels<'_>, is_value: impl Fn(&[u8]) -> bool) -> (SeriesKey, usize) {
    let mut key = SeriesKey::default();
    let mut count = 0;
    for (name, value) in labels.pairs() {
        if value.is_empty() || is_value(name) {
            continue;
        }
        let hash = xxh64(value, xxh64(name, 0));
        let sum = match LabelRole::of(name) {
            LabelRole::Part => &mut key.part,
            LabelRole::Rank => &mut key.rank,
            LabelRole::Meaning => {
                count += 1;
                &mut key.meaning
            }
        };
        *sum = sum.wrapping_add(hash);
    }
    (key, count)
}

/// A series, with the properties that decide which of several counts.
#[derive(Debug, Clone, Copy)]
struct Series<'p> {
    /// The newest line of the series.
    sample: Sample<'p>,
    /// When the line was written, in a unit that all series of the family share.
    written: f64,
    /// How many labels say what is counted.
    labels: usize,
    /// Position among the family's series on the page.
    position: usize,
}

/// Returns whether a label holds a value of its series, and so does not identify it.
pub type IsValue = fn(&[u8]) -> bool;

/// The series of a family on a page.
#[derive(Debug, Clone, Default)]
pub struct SeriesSet<'p> {
    /// The first series. Most pages have only this one, and then nothing is allocated or hashed.
    first: Option<(Sample<'p>, f64)>,
    /// All series, once there are several.
    all: BTreeMap<SeriesKey, Series<'p>>,
    seen: usize,
}

impl<'p> SeriesSet<'p> {
    /// Adds a series. Returns whether there was room for it.
    pub fn add(&mut self, sample: Sample<'p>, written: f64, is_value: IsValue) -> bool {
        let position = self.seen;
        self.seen += 1;
        match self.first {
            None => {
                self.first = Some((sample, written));
                return true;
            }
            Some((first, first_written)) if position == 1 => {
                self.insert(first, first_written, 0, is_value);
            }
            Some(_) => {}
        }
        self.insert(sample, written, position, is_value)
    }

    fn insert(
        &mut self,
        sample: Sample<'p>,
        written: f64,
        position: usize,
        is_value: IsValue,
    ) -> bool {
        let (key, labels) = key_of(&sample.labels, is_value);
        let full = self.all.len() >= MAX_SERIES;
        if let Some(known) = self.all.get_mut(&key) {
            // This line repeats the series.
            if written > known.written {
                (known.sample, known.written) = (sample, written);
            }
            return true;
        }
        if full {
            return false;
        }
        let series = Series {
            sample,
            written,
            labels,
            position,
        };
        self.all.insert(key, series);
        true
    }

    /// Returns the meaning of the series that counts.
    fn meaning(&self) -> Option<u64> {
        let better = |one: &Series<'_>, other: &Series<'_>| {
            let newer = one.written.total_cmp(&other.written);
            let fewer = other.labels.cmp(&one.labels);
            newer.then(fewer).then(other.position.cmp(&one.position))
        };
        let best = self.all.iter().max_by(|one, other| better(one.1, other.1));
        best.map(|(key, _)| key.meaning)
    }

    /// Merges the values of the series: first those of ranks that share their requests by `ranks`, then those of
    /// the server's parts by `parts`. Returns `None` if no series has a value.
    pub fn merge<T>(
        &self,
        value: impl Fn(&Sample<'p>) -> Option<T>,
        ranks: impl Fn(T, T) -> T,
        parts: impl Fn(T, T) -> T,
    ) -> Option<T> {
        let Some(meaning) = self.meaning() else {
            return value(&self.first?.0);
        };
        let mut sum: Option<T> = None;
        let mut part: Option<(u64, T)> = None;
        for (key, series) in self.with_meaning(meaning) {
            let Some(value) = value(&series.sample) else {
                continue;
            };
            part = Some(match part.take() {
                None => (key.part, value),
                Some((known, most)) if known == key.part => (known, ranks(most, value)),
                Some((_, done)) => {
                    sum = Some(merged(sum, done, &parts));
                    (key.part, value)
                }
            });
        }
        match part {
            Some((_, done)) => Some(merged(sum, done, &parts)),
            None => sum,
        }
    }

    /// Returns whether there are several series.
    pub fn has_several(&self) -> bool {
        self.all.len() > 1
    }

    /// Returns the series with this meaning, ordered by part.
    fn with_meaning(&self, meaning: u64) -> impl Iterator<Item = (&SeriesKey, &Series<'p>)> {
        let first = SeriesKey {
            meaning,
            ..SeriesKey::default()
        };
        let from = self.all.range(first..);
        from.take_while(move |(key, _)| key.meaning == meaning)
    }
}

fn merged<T>(sum: Option<T>, more: T, parts: impl Fn(T, T) -> T) -> T {
    match sum {
        Some(sum) => parts(sum, more),
        None => more,
    }
}

/// The reason why a series does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exclusion {
    /// The line repeats a series of which another line is newer, or equally new and earlier on the page.
    Repeated,
    /// The series counts something else.
    OtherMeaning,
    /// The page has too many series before it.
    TooMany,
}

impl SeriesSet<'_> {
    /// Returns why the series of a sample that was added does not count, or `None` if it does.
    pub fn exclusion(&self, sample: &Sample<'_>, is_value: IsValue) -> Option<Exclusion> {
        let meaning = self.meaning()?;
        let key = key_of(&sample.labels, is_value).0;
        match self.all.get(&key) {
            None => Some(Exclusion::TooMany),
            // Of two lines, only the one that is kept counts.
            Some(known) if !known.sample.same_line(sample) => Some(Exclusion::Repeated),
            Some(_) if key.meaning != meaning => Some(Exclusion::OtherMeaning),
            Some(_) => None,
        }
    }
}

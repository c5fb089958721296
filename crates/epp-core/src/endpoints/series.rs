//! Several series of one family on one page: which of them describe the same endpoint, and what they
//! come to together.
//!
//! A server that runs several engines, ranks or processes writes a series for each. A label can say
//! three things:
//!
//! - Which part of the server wrote the series (`engine`, `dp_rank`, `pid`). Each part has requests and a
//!   cache of its own: counts add up, and of shares the greatest counts.
//! - Which of the ranks that share the work on the same requests wrote it (`tp_rank`, `pp_rank`,
//!   `moe_ep_rank`). SGLang counts every request once for each of these with
//!   `--enable-metrics-for-all-schedulers`; of such series the greatest counts.
//! - What is counted (`model_name`, `priority`, any other name). Such series do not add up: one of them
//!   may be the total of the others. The newest counts, as in the Endpoint Picker; of equally new ones
//!   the one with the fewest labels, because a total lacks the label that its shares differ in; then the
//!   first on the page.
//!
//! An empty value is a missing label, as in Prometheus.

use std::collections::BTreeMap;

use xxhash_rust::xxh64::xxh64;

use super::sample::{Labels, Sample};

/// Series of a family that are told apart; further ones are left out. More than the ranks of any server,
/// and few enough for a hostile page to cost a page's worth of memory and work.
pub(super) const MAX_SERIES: usize = 1_024;

/// Labels of a part of the server, in lower case without `_`, beside all that end in `rank`.
const PARTS: [&[u8]; 11] = [
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

/// What ranks that work on the same requests split among them: `tp_rank`, `attn_cp_rank`,
/// `tensor_parallel_rank`.
const SHARED: [&[u8]; 10] = [
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

/// Longer names are not looked at: none of the known ones is as long.
const MAX_NAME: usize = 32;

/// What a label says of its series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    Part,
    Rank,
    Meaning,
}

impl Says {
    fn of(name: &[u8]) -> Self {
        let mut plain = [0; MAX_NAME];
        let mut length = 0;
        for byte in name.iter().filter(|byte| **byte != b'_') {
            let Some(place) = plain.get_mut(length) else {
                return Self::Meaning;
            };
            *place = byte.to_ascii_lowercase();
            length += 1;
        }
        let plain = plain.get(..length).unwrap_or_default();
        match plain.strip_suffix(b"rank") {
            Some(split) if SHARED.iter().any(|shared| split.ends_with(shared)) => Self::Rank,
            Some(_) => Self::Part,
            None if PARTS.contains(&plain) => Self::Part,
            None => Self::Meaning,
        }
    }
}

/// Whether a label is about what is counted, not about who wrote the series.
pub fn tells_no_part(name: &[u8]) -> bool {
    Says::of(name) == Says::Meaning
}

/// What tells series apart: hashes of their labels, which do not depend on the labels' order. A page
/// that makes two of its own series collide gains nothing that it could not say directly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Key {
    meaning: u64,
    part: u64,
    rank: u64,
}

/// The key of a series, and how many of its labels say what is counted. Those that hold the values of
/// the series are passed over.
fn key(labels: &Labels<'_>, is_value: impl Fn(&[u8]) -> bool) -> (Key, usize) {
    let mut key = Key::default();
    let mut count = 0;
    for (name, value) in labels.pairs() {
        if value.is_empty() || is_value(name) {
            continue;
        }
        let hash = xxh64(value, xxh64(name, 0));
        let place = match Says::of(name) {
            Says::Part => &mut key.part,
            Says::Rank => &mut key.rank,
            Says::Meaning => {
                count += 1;
                &mut key.meaning
            }
        };
        *place = place.wrapping_add(hash);
    }
    (key, count)
}

/// A series, and what decides which of several counts.
#[derive(Debug, Clone, Copy)]
pub struct Series<'p> {
    /// What its line says.
    pub sample: Sample<'p>,
    /// When it was written, in whatever unit all of the family have.
    pub written: f64,
    /// Its labels that say what is counted.
    labels: usize,
    /// Its place among the family's series on the page.
    place: usize,
}

/// Which labels of a series hold its values, and so do not tell it from others.
pub type IsValue = fn(&[u8]) -> bool;

/// The series of a family.
#[derive(Debug, Clone, Default)]
pub struct Collected<'p> {
    /// The first; on most pages there is no other, and nothing is allocated or hashed.
    first: Option<(Sample<'p>, f64)>,
    /// All, once there are several.
    all: BTreeMap<Key, Series<'p>>,
    seen: usize,
}

impl<'p> Collected<'p> {
    /// Takes a series in. Returns whether there was room for it.
    pub fn add(&mut self, sample: Sample<'p>, written: f64, is_value: IsValue) -> bool {
        let place = self.seen;
        self.seen += 1;
        match self.first {
            None => {
                self.first = Some((sample, written));
                return true;
            }
            Some((first, its_time)) if place == 1 => {
                self.insert(first, its_time, 0, is_value);
            }
            Some(_) => {}
        }
        self.insert(sample, written, place, is_value)
    }

    fn insert(
        &mut self,
        sample: Sample<'p>,
        written: f64,
        place: usize,
        is_value: IsValue,
    ) -> bool {
        let (key, labels) = key(&sample.labels, is_value);
        let full = self.all.len() >= MAX_SERIES;
        if let Some(known) = self.all.get_mut(&key) {
            // The same series again.
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
            place,
        };
        self.all.insert(key, series);
        true
    }

    /// What is counted by the series that counts.
    fn meaning(&self) -> Option<u64> {
        let better = |one: &Series<'_>, other: &Series<'_>| {
            let newer = one.written.total_cmp(&other.written);
            let fewer = other.labels.cmp(&one.labels);
            newer.then(fewer).then(other.place.cmp(&one.place))
        };
        let best = self.all.iter().max_by(|one, other| better(one.1, other.1));
        best.map(|(key, _)| key.meaning)
    }

    /// What the series say together, those of ranks that share their requests merged by `ranks`, then
    /// those of the endpoint's parts by `parts`. `None` where no series has a value.
    pub fn together<T>(
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
        for (key, series) in self.of(meaning) {
            let Some(said) = value(&series.sample) else {
                continue;
            };
            part = Some(match part.take() {
                None => (key.part, said),
                Some((known, most)) if known == key.part => (known, ranks(most, said)),
                Some((_, done)) => {
                    sum = Some(merged(sum, done, &parts));
                    (key.part, said)
                }
            });
        }
        match part {
            Some((_, done)) => Some(merged(sum, done, &parts)),
            None => sum,
        }
    }

    /// The series that count `meaning`, those of a part next to each other.
    fn of(&self, meaning: u64) -> impl Iterator<Item = (&Key, &Series<'p>)> {
        let first = Key {
            meaning,
            ..Key::default()
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

/// Why a series is not one of those that count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passed {
    /// It says again what a newer line, or the first of equally new ones, says.
    Again,
    /// It counts something else.
    OtherMeaning,
    /// There were too many before it.
    TooMany,
}

impl Collected<'_> {
    /// Why the series of this sample, which was added, does not count; `None` if it does.
    pub fn passed(&self, sample: &Sample<'_>, is_value: IsValue) -> Option<Passed> {
        let meaning = self.meaning()?;
        let key = key(&sample.labels, is_value).0;
        match self.all.get(&key) {
            None => Some(Passed::TooMany),
            // Two lines that say the same may count as one.
            Some(known) if !known.sample.same_line(sample) => Some(Passed::Again),
            Some(_) if key.meaning != meaning => Some(Passed::OtherMeaning),
            Some(_) => None,
        }
    }
}

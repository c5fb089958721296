//! The LoRA adapters of a page: one list of running and one of waiting adapters in the labels of a series.

use std::collections::BTreeSet;

use super::sample::{Labels, Sample};
use super::series::Collected;
use crate::scheduling::Lora;

/// More adapters than this on one page, or a longer name, is more than any server has: such a page's
/// adapters are not believed. What is read here is kept, and shared with the other workers.
pub(super) const MAX_ADAPTERS: usize = 4_096;
pub(super) const MAX_ADAPTER_NAME: usize = 1_024;

const RUNNING: &str = "running_lora_adapters";
const WAITING: &str = "waiting_lora_adapters";
const MAX: &str = "max_lora";

/// Whether a label holds a value of the series, and does not tell it from others: a server writes a new
/// series whenever its adapters change.
pub fn is_value(label: &[u8]) -> bool {
    [RUNNING, WAITING, MAX]
        .iter()
        .any(|known| known.as_bytes() == label)
}

/// The adapters of one part of a server.
struct Adapters {
    active: BTreeSet<String>,
    waiting: BTreeSet<String>,
    max: u32,
    /// Places that are not taken.
    free: u32,
    /// How many parts these are.
    parts: u32,
}

/// The adapters of all parts of a server. There is room for another where one part has room: the places
/// of all are those that hold different adapters and those that are free.
pub fn together(series: &Collected<'_>) -> Option<Lora> {
    let merge = |free: fn(u32, u32) -> u32| {
        move |one: Option<Adapters>, other: Option<Adapters>| one?.and(other?, free)
    };
    // Ranks that share their requests have the same adapters and places.
    let all = series.together(
        |it| Some(adapters(it)),
        merge(u32::min),
        merge(u32::saturating_add),
    );
    let all = all??;
    let held = all.active.len() + all.waiting.len();
    let max = match all.parts {
        1 => all.max,
        _ => (held as u32).saturating_add(all.free),
    };
    Some(Lora {
        active: all.active.into_iter().collect(),
        waiting: all.waiting.into_iter().collect(),
        max,
    })
}

impl Adapters {
    fn and(mut self, other: Self, free: impl Fn(u32, u32) -> u32) -> Option<Self> {
        self.active.extend(other.active);
        self.waiting.extend(other.waiting);
        let fits = self.active.len() <= MAX_ADAPTERS && self.waiting.len() <= MAX_ADAPTERS;
        self.free = free(self.free, other.free);
        self.parts = self.parts.saturating_add(other.parts);
        fits.then_some(self)
    }
}

fn adapters(sample: &Sample<'_>) -> Option<Adapters> {
    let labels = &sample.labels;
    let (active, waiting) = (names(labels, RUNNING)?, names(labels, WAITING)?);
    let max = labels.get(MAX).and_then(|max| max.trim().parse().ok());
    let max: u32 = max.unwrap_or(0);
    let held = (active.len() + waiting.len()) as u32;
    Some(Adapters {
        free: max.saturating_sub(held),
        active,
        waiting,
        max,
        parts: 1,
    })
}

/// The set of adapters in a label; `None` where there are more than can be.
fn names(labels: &Labels<'_>, label: &str) -> Option<BTreeSet<String>> {
    let text = labels.get(label).unwrap_or_default();
    let mut names = BTreeSet::new();
    for (count, name) in text
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .enumerate()
    {
        if name.len() > MAX_ADAPTER_NAME || count == MAX_ADAPTERS {
            return None;
        }
        names.insert(name.to_owned());
    }
    Some(names)
}

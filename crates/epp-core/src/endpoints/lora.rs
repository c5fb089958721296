//! The LoRA adapters on a page: labels of a series list the running and the waiting adapters.

use std::collections::BTreeSet;

use super::sample::{Labels, Sample};
use super::series::SeriesSet;
use crate::scheduling::Lora;

/// Adapters per page. No server has more: the adapters of a page with more are ignored. Adapters are kept in memory
/// and shared with other workers.
pub(super) const MAX_ADAPTERS: usize = 4_096;
/// Bytes of an adapter's name; the adapters of a page with a longer one are ignored as well.
pub(super) const MAX_ADAPTER_NAME: usize = 1_024;

const RUNNING: &str = "running_lora_adapters";
const WAITING: &str = "waiting_lora_adapters";
const MAX: &str = "max_lora";

/// Returns whether a label holds a value of the series and does not identify it: a server writes a new series
/// whenever its adapters change.
pub fn is_value(label: &[u8]) -> bool {
    [RUNNING, WAITING, MAX]
        .iter()
        .any(|known| known.as_bytes() == label)
}

/// The adapters of one or several parts of a server.
struct Adapters {
    active: BTreeSet<String>,
    waiting: BTreeSet<String>,
    max: u32,
    /// Places without an adapter.
    free: u32,
    /// Number of parts.
    parts: u32,
}

/// Merges the adapters of all parts of a server. Another adapter fits if one part has room: the places of all are
/// those with different adapters and those that are free.
pub fn merge_parts(series: &SeriesSet<'_>) -> Option<Lora> {
    let merge = |free: fn(u32, u32) -> u32| {
        move |one: Option<Adapters>, other: Option<Adapters>| one?.merge(other?, free)
    };
    // Ranks that share their requests have the same adapters and places.
    let all = series.merge(
        |it| Some(adapters(it)),
        merge(u32::min),
        merge(u32::saturating_add),
    );
    let all = all??;
    let loaded = all.active.len() + all.waiting.len();
    let max = match all.parts {
        1 => all.max,
        _ => (loaded as u32).saturating_add(all.free),
    };
    Some(Lora {
        active: all.active.into_iter().collect(),
        waiting: all.waiting.into_iter().collect(),
        max,
    })
}

impl Adapters {
    fn merge(mut self, other: Self, free: impl Fn(u32, u32) -> u32) -> Option<Self> {
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
    let loaded = (active.len() + waiting.len()) as u32;
    Some(Adapters {
        free: max.saturating_sub(loaded),
        active,
        waiting,
        max,
        parts: 1,
    })
}

/// Returns the set of adapters in a label, or `None` if it exceeds the bounds.
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

//! The saturation of a pool, kept up to date while requests come and go.

use std::sync::Arc;

use super::saturation::{is_in, serving};
use super::{Partition, Saturation, SaturationDetector};
use crate::scheduling::endpoint::SnapshotId;
use crate::scheduling::{Pool, Slot};

const PARTITIONS: [Partition; 3] = [Partition::All, Partition::Prefill, Partition::Decode];

/// Measures a pool again and again: where only loads have changed since the last time, it looks at their endpoints alone.
#[derive(Debug, Default)]
pub struct Meter {
    measures: Vec<Measure>,
    /// What was measured last: the endpoints, and how often loads had changed.
    snapshot: Option<SnapshotId>,
    changes: u64,
    /// By slot, whether its endpoint gets requests.
    serves: Vec<bool>,
    /// How many do, by partition.
    members: [usize; 3],
}

/// What one detector has measured.
#[derive(Debug)]
struct Measure {
    detector: Arc<dyn SaturationDetector>,
    /// Whether it measures each of [`PARTITIONS`].
    partitions: [bool; 3],
    /// By slot, what its endpoint counts for.
    values: Vec<Option<f64>>,
    /// By partition, the sum of these, and how many they are.
    sums: [(f64, f64); 3],
}

impl Meter {
    /// Returns a meter by this detector.
    pub fn new(detector: &Arc<dyn SaturationDetector>) -> Self {
        let mut meter = Self::default();
        meter.add(detector, [true; 3]);
        meter
    }

    fn add(&mut self, detector: &Arc<dyn SaturationDetector>, partitions: [bool; 3]) {
        for (part, only) in detector.parts() {
            let [all, prefill, decode] = partitions;
            let may = |partition| only.is_none_or(|only| only == partition);
            let prefill = prefill && may(Partition::Prefill);
            self.add(part, [all, prefill, decode && may(Partition::Decode)]);
        }
        if detector.parts().is_empty() {
            self.measures.push(Measure {
                detector: detector.clone(),
                partitions,
                values: Vec::new(),
                sums: Default::default(),
            });
        }
    }

    /// Measures the pool.
    pub fn measure(&mut self, pool: &Pool) -> Saturation {
        let snapshot = &pool.snapshot().id;
        let same = self.snapshot.as_ref() == Some(snapshot);
        match pool.changed_since(self.changes).filter(|_| same) {
            Some(slots) => slots.for_each(|slot| self.update(slot, pool)),
            None => {
                self.snapshot = Some(snapshot.clone());
                self.measure_all(pool);
            }
        }
        self.changes = pool.changes();
        let [all, prefill, decode] = [0, 1, 2].map(|partition| self.saturation(partition));
        let effective = match (prefill, decode) {
            (Some(prefill), Some(decode)) => prefill.max(decode),
            (one, other) => one.or(other).or(all).unwrap_or(1.0),
        };
        Saturation {
            prefill,
            decode,
            effective,
        }
    }

    fn measure_all(&mut self, pool: &Pool) {
        let width = pool.width();
        self.serves.clear();
        self.serves.resize(width, false);
        self.members = Default::default();
        for measure in &mut self.measures {
            measure.values.clear();
            measure.values.resize(width, None);
            measure.sums = Default::default();
        }
        for slot in serving(pool).iter() {
            if let Some(serves) = self.serves.get_mut(slot.index()) {
                *serves = true;
            }
            for (members, partition) in self.members.iter_mut().zip(PARTITIONS) {
                *members += usize::from(is_in(pool, *slot, partition));
            }
            self.update(*slot, pool);
        }
    }

    /// Measures the endpoint in a slot again.
    fn update(&mut self, slot: Slot, pool: &Pool) {
        let serves = self.serves.get(slot.index()).copied() == Some(true);
        let Some(endpoint) = pool.get(slot).filter(|_| serves) else {
            return;
        };
        let load = pool.load(slot);
        for measure in &mut self.measures {
            let value = measure.detector.value(endpoint, load);
            let Some(known) = measure.values.get_mut(slot.index()) else {
                continue;
            };
            let before = std::mem::replace(known, value);
            if before == value {
                continue;
            }
            for ((sum, counted), partition) in measure.sums.iter_mut().zip(PARTITIONS) {
                if is_in(pool, slot, partition) {
                    *sum += value.unwrap_or(0.0) - before.unwrap_or(0.0);
                    *counted += f64::from(u8::from(value.is_some()));
                    *counted -= f64::from(u8::from(before.is_some()));
                }
            }
        }
    }

    /// Returns the saturation of a partition, if it has endpoints.
    fn saturation(&self, partition: usize) -> Option<f64> {
        let measures = self.measures.iter();
        let members = self.members.get(partition).copied().unwrap_or_default();
        let measured = measures.filter_map(|one| {
            let (sum, counted) = one.sums.get(partition)?;
            let value = one.detector.saturation_at(sum / counted.max(1.0));
            one.partitions.get(partition)?.then_some(value)
        });
        (members > 0).then(|| measured.fold(0.0, f64::max))
    }
}

#[cfg(test)]
#[path = "meter_tests.rs"]
mod tests;

//! What a decision teaches the prefix indexes.

use super::Director;
use crate::prefix::index::Index;
use crate::scheduling::Slot;
use crate::worker::journal::Placement;
use crate::worker::SharedData;

impl Director {
    /// Tells the indexes which blocks went to the picked endpoint (the first of the primary
    /// profile's picks, as the Endpoint Picker does before the request leaves). Called again as the
    /// rest of a prompt streams past.
    pub(super) fn learn(&mut self, id: u32) {
        let Some(record) = self.records.get_mut(&id) else {
            return;
        };
        let Some(pick) = record.pick else {
            return;
        };
        let producers = self.plan.producers.iter();
        let walks = record.walks.iter_mut().zip(&mut self.indexes);
        for (number, ((walk, index), (_, producer))) in walks.zip(producers).enumerate() {
            let capacity = producer.capacity_of(self.watch.store.pool.get(pick.slot));
            let known = index.entries();
            let hashes = walk.unlearnt();
            index.add(pick.slot.0, hashes.iter().copied(), capacity);
            // What the index held already was told when it came.
            if index.entries() != known || index.is_full(pick.slot.0) {
                for hash in hashes {
                    self.watch.journal.note(Placement {
                        producer: number as u8,
                        slot: pick.slot.0,
                        hash: *hash,
                    });
                }
            }
        }
    }

    /// Exchanges placements with the other workers.
    pub(super) fn exchange(&mut self, host: &mut dyn SharedData) {
        let Self {
            watch,
            indexes,
            plan,
            ..
        } = self;
        let (store, journal, foreign) = (&watch.store, &mut watch.journal, &mut watch.foreign);
        journal.exchange(host, foreign, |placement| {
            let producer = plan.producers.get(usize::from(placement.producer));
            let index = indexes.get_mut(usize::from(placement.producer));
            let endpoint = store.pool.get(Slot(placement.slot));
            if let (Some((_, producer)), Some(index), Some(_)) = (producer, index, endpoint) {
                let capacity = producer.capacity_of(endpoint);
                index.add(placement.slot, std::iter::once(placement.hash), capacity);
            }
        });
    }

    /// Empty indexes, one per producer of the plan; they share the memory bound evenly.
    pub(super) fn lay_out_indexes(&mut self) {
        let count = self.plan.producers.len();
        let bound = self.plan.proxy.max_index_bytes / count.max(1);
        self.indexes = (0..count).map(|_| Index::new(bound)).collect();
    }
}

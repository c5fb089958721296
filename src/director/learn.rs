//! What a decision teaches the prefix indexes.

use super::Director;
use crate::prefix::index::Index;

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
        for ((walk, index), (_, producer)) in walks.zip(producers) {
            let capacity = producer.capacity_of(self.watch.store.pool.get(pick.slot));
            index.add(pick.slot.0, walk.unlearnt().iter().copied(), capacity);
        }
    }

    /// Empty indexes, one per producer of the plan; they share the memory bound evenly.
    pub(super) fn lay_out_indexes(&mut self) {
        let count = self.plan.producers.len();
        let bound = self.plan.proxy.max_index_bytes / count.max(1);
        self.indexes = (0..count).map(|_| Index::new(bound)).collect();
    }
}

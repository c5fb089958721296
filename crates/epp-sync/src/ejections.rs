//! The ejections that the workers share, so that all of them eject an endpoint and one request of one worker
//! probes it.
//!
//! One value for the pool, changed by compare-and-swap: of two records of an endpoint the later one wins, and
//! a worker that was not quick enough reads again at its next tick.

use epp_core::endpoints::outlier::{Ejection, OutlierDetector};
use epp_core::scheduling::{Pool, Slot};

use crate::codec::MAX_ENDPOINTS;
use crate::shared::Shared;

/// One worker's view of the shared ejections.
#[derive(Debug)]
pub struct Ejections {
    key: String,
    /// Version of the shared value that was read last.
    read: Option<u32>,
}

impl Ejections {
    /// Returns the view under this key.
    pub fn new(key: String) -> Self {
        Self { key, read: None }
    }

    /// Merges what the others found, publishes what this worker found, claims the probes that are due, and
    /// flags the ejected endpoints in the pool. `now` is in milliseconds since 1970.
    pub fn exchange(
        &mut self,
        outliers: &mut OutlierDetector,
        pool: &mut Pool,
        shared: &mut Shared<'_>,
        now: u64,
    ) {
        if outliers.is_enabled() {
            self.merge(outliers, shared, now);
            outliers.renew_claims(now);
            let due = outliers.due_probes(pool, now);
            if !due.is_empty() || outliers.unpublished {
                self.publish(outliers, shared, &due, now);
            }
        }
        outliers.flag_ejected(pool, now);
    }

    fn merge(&mut self, outliers: &mut OutlierDetector, shared: &mut Shared<'_>, now: u64) {
        let Some((value, version)) = shared.bytes(&self.key) else {
            self.read = None;
            return;
        };
        if self.read == Some(version) {
            return;
        }
        self.read = Some(version);
        let Some(ejections) = shared.decode::<Vec<(Slot, Ejection)>>(&value) else {
            return;
        };
        let known = outliers.ejections().count();
        // Where two wrote the first value at once, this worker's records are missing from it.
        outliers.unpublished |= ejections.len() < known;
        for (slot, ejection) in ejections.into_iter().take(MAX_ENDPOINTS) {
            outliers.unpublished |= !outliers.merge(slot, ejection, now);
        }
    }

    fn publish(
        &mut self,
        outliers: &mut OutlierDetector,
        shared: &mut Shared<'_>,
        due: &[Slot],
        now: u64,
    ) {
        let claims = due
            .iter()
            .filter_map(|slot| Some((*slot, outliers.claim(*slot, now)?)));
        let claims: Vec<(Slot, Ejection)> = claims.collect();
        let ejections = outliers.ejections().map(|(slot, ejection)| {
            let claim = claims.iter().find(|(claimed, _)| *claimed == slot);
            (slot, claim.map_or(ejection, |(_, claim)| *claim))
        });
        let ejections: Vec<(Slot, Ejection)> = ejections.collect();
        if shared.put(&self.key, &ejections, self.read) {
            outliers.unpublished = false;
            for (slot, claim) in claims {
                outliers.accept_claim(slot, claim);
            }
        }
    }
}

#[cfg(test)]
#[path = "ejections_tests.rs"]
mod tests;

//! The ejections that the workers share, so that all of them eject an endpoint and one request of one worker
//! probes it.
//!
//! One value for the pool, changed by compare-and-swap: of two records of an endpoint the later one wins, and
//! a worker that was not quick enough reads again at its next tick.

use std::num::NonZeroU64;

use epp_core::endpoints::outlier::{Ejection, EjectionRecord, OutlierDetector, Reason};
use epp_core::scheduling::{Pool, Slot};
use epp_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::codec::MAX_ENDPOINTS;
use crate::shared::Shared;

/// A record as it is stored. Times are in milliseconds since 1970.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct StoredRecord {
    endpoint: u64,
    /// Why the endpoint is ejected; without a meaning if it is not.
    reason: Reason,
    certain: bool,
    level: u32,
    /// 0: the endpoint is not ejected.
    until: u64,
    /// 0: no worker probes the endpoint.
    prober: u64,
    changed: u64,
}

impl From<EjectionRecord> for StoredRecord {
    fn from(record: EjectionRecord) -> Self {
        let ejection = record.ejection;
        let prober = ejection.and_then(|ejection| ejection.prober);
        Self {
            endpoint: record.endpoint,
            reason: ejection.map_or(Reason::default(), |ejection| ejection.reason),
            certain: ejection.is_some_and(|ejection| ejection.certain),
            level: record.level,
            until: ejection.map_or(0, |ejection| ejection.until.as_millis()),
            prober: prober.map_or(0, NonZeroU64::get),
            changed: record.changed.map_or(0, Timestamp::as_millis),
        }
    }
}

impl From<StoredRecord> for EjectionRecord {
    fn from(stored: StoredRecord) -> Self {
        let ejection = Ejection {
            reason: stored.reason,
            certain: stored.certain,
            until: Timestamp::from_millis(stored.until),
            prober: NonZeroU64::new(stored.prober),
        };
        Self {
            endpoint: stored.endpoint,
            level: stored.level,
            ejection: (stored.until > 0).then_some(ejection),
            changed: Some(Timestamp::from_millis(stored.changed)),
        }
    }
}

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
    /// flags the ejected endpoints in the pool.
    pub fn exchange(
        &mut self,
        outliers: &mut OutlierDetector,
        pool: &mut Pool,
        shared: &mut Shared<'_>,
        now: Timestamp,
    ) {
        if outliers.is_enabled() {
            outliers.correct_dates(now);
            self.merge(outliers, shared, now);
            outliers.renew_claims(now);
            let due = outliers.due_probes(pool, now);
            if !due.is_empty() || outliers.unpublished {
                self.publish(outliers, shared, &due, now);
            }
        }
        outliers.flag_ejected(pool, now);
    }

    fn merge(&mut self, outliers: &mut OutlierDetector, shared: &mut Shared<'_>, now: Timestamp) {
        let Some((value, version)) = shared.bytes(&self.key) else {
            self.read = None;
            return;
        };
        if self.read == Some(version) {
            return;
        }
        self.read = Some(version);
        let Some(records) = shared.decode::<Vec<(Slot, StoredRecord)>>(&value) else {
            return;
        };
        let known = outliers.records().count();
        // Where two wrote the first value at once, this worker's records are missing from it.
        outliers.unpublished |= records.len() < known;
        for (slot, record) in records.into_iter().take(MAX_ENDPOINTS) {
            outliers.unpublished |= !outliers.merge(slot, record.into(), now);
        }
    }

    fn publish(
        &mut self,
        outliers: &mut OutlierDetector,
        shared: &mut Shared<'_>,
        due: &[Slot],
        now: Timestamp,
    ) {
        let claims = due
            .iter()
            .filter_map(|slot| Some((*slot, outliers.claim(*slot, now)?)));
        let claims: Vec<(Slot, EjectionRecord)> = claims.collect();
        let records = outliers.records().map(|(slot, record)| {
            let claim = claims.iter().find(|(claimed, _)| *claimed == slot);
            let record = claim.map_or(record, |(_, claim)| *claim);
            (slot, StoredRecord::from(record))
        });
        let records: Vec<(Slot, StoredRecord)> = records.collect();
        if shared.put(&self.key, &records, self.read) {
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

//! What the workers tell each other of endpoints that are avoided, so that all avoid them and one
//! request of one worker tries them.
//!
//! One value for the pool, changed by compare-and-swap: of two entries for an endpoint the later
//! counts, and whoever is not quick enough reads again at its next tick.

use super::pack::{Reader, Writer};
use super::Store;
use epp_core::endpoints::outlier::{Ejection, OutlierDetector, Reason};
use epp_core::scheduling::{Pool, Slot};

/// Version of the layout; another one is foreign.
const SCHEMA: u32 = 2;

/// Beside a reason's number: no request can have caused it.
const CERTAIN: u32 = 1 << 8;

/// More than any pool has; bounds what a wrong count could make us read.
const MOST: u32 = 65_536;

/// The ejections that one worker shares.
#[derive(Debug)]
pub struct Ejections {
    key: String,
    /// Version of the shared value that was read last.
    read: Option<u32>,
}

impl Ejections {
    /// Shares under this key.
    pub fn new(key: String) -> Self {
        Self { key, read: None }
    }

    /// Takes in what the others found, publishes what this worker found, and asks to probe those whose
    /// time is over. Marks the ejected ones in the pool. `now` is in milliseconds since 1970.
    pub fn exchange(
        &mut self,
        outliers: &mut OutlierDetector,
        pool: &mut Pool,
        host: &mut dyn Store,
        foreign: &mut u64,
        now: u64,
    ) {
        if outliers.is_enabled() {
            self.hear(outliers, host, foreign, now);
            outliers.renew_claims(now);
            let due = outliers.due_probes(pool, now);
            if !due.is_empty() || outliers.unpublished {
                self.tell(outliers, host, &due, now);
            }
        }
        outliers.flag_ejected(pool, now);
    }

    fn hear(
        &mut self,
        outliers: &mut OutlierDetector,
        host: &mut dyn Store,
        foreign: &mut u64,
        now: u64,
    ) {
        let Some((value, version)) = host.get(&self.key) else {
            self.read = None;
            return;
        };
        if self.read == Some(version) {
            return;
        }
        self.read = Some(version);
        let Some(entries) = unpack(&value) else {
            *foreign += 1;
            return;
        };
        let known = outliers.ejections().count();
        let mut heard = 0;
        for (slot, entry) in entries {
            heard += 1;
            outliers.unpublished |= !outliers.merge(slot, entry, now);
        }
        // Two began the value at once: ours is not in it.
        outliers.unpublished |= heard < known;
    }

    fn tell(
        &mut self,
        outliers: &mut OutlierDetector,
        host: &mut dyn Store,
        due: &[Slot],
        now: u64,
    ) {
        let claims = due
            .iter()
            .filter_map(|slot| Some((*slot, outliers.claim(*slot, now)?)));
        let claims: Vec<(Slot, Ejection)> = claims.collect();
        let entries = outliers.ejections().map(|(slot, entry)| {
            let claim = claims.iter().find(|(claimed, _)| *claimed == slot);
            (slot, claim.map_or(entry, |(_, claim)| *claim))
        });
        let value = pack(entries.collect());
        if host.set(&self.key, &value, self.read) {
            outliers.unpublished = false;
            for (slot, entry) in claims {
                outliers.accept_claim(slot, entry);
            }
        }
    }
}

fn pack(entries: Vec<(Slot, Ejection)>) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.u32(SCHEMA);
    writer.u32(entries.len() as u32);
    for (slot, entry) in entries {
        writer.u32(slot.0);
        writer.u64(entry.endpoint);
        let number = Reason::ALL.iter().position(|known| *known == entry.reason);
        let certain = if entry.certain { CERTAIN } else { 0 };
        writer.u32(number.unwrap_or(0) as u32 | certain);
        writer.u32(entry.level);
        writer.u64(entry.until);
        writer.u64(entry.prober);
        writer.u64(entry.changed);
    }
    writer.seal()
}

fn unpack(value: &[u8]) -> Option<Vec<(Slot, Ejection)>> {
    let mut reader = Reader::open(value)?;
    if reader.u32()? != SCHEMA {
        return None;
    }
    let count = reader.u32()?.min(MOST);
    let entry = |reader: &mut Reader<'_>| {
        let slot = Slot(reader.u32()?);
        let endpoint = reader.u64()?;
        let reason = reader.u32()?;
        let certain = reason & CERTAIN != 0;
        let reason = Reason::ALL.get((reason & !CERTAIN) as usize).copied()?;
        let entry = Ejection {
            endpoint,
            reason,
            certain,
            level: reader.u32()?,
            until: reader.u64()?,
            prober: reader.u64()?,
            changed: reader.u64()?,
        };
        Some((slot, entry))
    };
    (0..count).map(|_| entry(&mut reader)).collect()
}

#[cfg(test)]
#[path = "avoided_tests.rs"]
mod tests;

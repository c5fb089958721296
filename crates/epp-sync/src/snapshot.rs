//! What the poller tells the other VMs: who is a member, and what their pages said.
//!
//! Two values, because members change rarely and metrics all the time: with each tick the others
//! compare two short heads, and unpack numbers into places that are already there.

use epp_core::endpoints::monitor::Revisions;
use epp_core::picker::Picker;

use super::pack::{Reader, Writer};
use super::Store;
use epp_core::endpoints::store::{Condition, Member, Store as Endpoints};
use epp_core::scheduling::{Lora, Metrics, Slot};

/// Version of both layouts; another one is foreign.
const SCHEMA: u32 = 1;

/// More than any pool has; bounds what a wrong count could make us reserve.
const MAX_MEMBERS: u32 = 65_536;

/// The snapshots that one VM publishes while it polls, and adopts while it does not.
#[derive(Debug)]
pub struct Snapshots {
    members_key: String,
    metrics_key: String,
    members_version: u32,
    metrics_version: u32,
    /// What was published last.
    published: Revisions,
}

impl Snapshots {
    /// Returns those under these keys.
    pub fn new(base: &str) -> Self {
        Self {
            members_key: format!("{base}/members"),
            metrics_key: format!("{base}/metrics"),
            members_version: 0,
            metrics_version: 0,
            published: Revisions::default(),
        }
    }

    /// Publishes what this VM's picker has found, if there is news.
    pub fn publish(&mut self, picker: &Picker, host: &mut dyn Store) {
        let revisions = picker.revisions();
        if self.published.members != revisions.members {
            self.members_version = self.members_version.wrapping_add(1);
            let value = pack_members(picker.endpoints(), self.members_version);
            host.set(&self.members_key, &value, None);
        }
        if self.published.metrics != revisions.metrics {
            self.metrics_version = self.metrics_version.wrapping_add(1);
            let value = pack_metrics(picker.endpoints(), self.metrics_version);
            host.set(&self.metrics_key, &value, None);
        }
        self.published = revisions;
    }

    /// Feeds the picker what another one has published, if it is news.
    pub fn adopt(&mut self, picker: &mut Picker, host: &mut dyn Store, foreign: &mut u64) {
        if let Some((value, _)) = host.get(&self.members_key) {
            let version = version(&value);
            if version != Some(self.members_version) || self.members_version == 0 {
                match unpack_members(&value) {
                    Some(members) => {
                        self.members_version = version.unwrap_or(0);
                        picker.adopt_members(members);
                    }
                    None => *foreign += 1,
                }
            }
        }
        if let Some((value, _)) = host.get(&self.metrics_key) {
            let version = version(&value);
            if version != Some(self.metrics_version) || self.metrics_version == 0 {
                let each =
                    |slot, condition, metrics| picker.adopt_metrics(slot, condition, metrics);
                match unpack_metrics(&value, each) {
                    Some(()) => self.metrics_version = version.unwrap_or(0),
                    None => *foreign += 1,
                }
            }
        }
    }
}

/// Packs who is a member in which slot.
pub fn pack_members(store: &Endpoints, version: u32) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.u32(SCHEMA);
    writer.u32(version);
    writer.u32(store.pool.len() as u32);
    for (slot, endpoint) in store.pool.iter() {
        writer.u32(slot.0);
        writer.u32(u32::from(endpoint.available));
        writer.text(&endpoint.name);
        writer.text(&endpoint.address);
        writer.u32(endpoint.labels.len() as u32);
        for (name, value) in &endpoint.labels {
            writer.text(name);
            writer.text(value);
        }
    }
    writer.seal()
}

/// Version of packed members or metrics.
pub fn version(value: &[u8]) -> Option<u32> {
    let fields = value.get(4..12)?;
    let (schema, version) = fields.split_first_chunk::<4>()?;
    let known = u32::from_le_bytes(*schema) == SCHEMA;
    let version = version.first_chunk::<4>()?;
    known.then(|| u32::from_le_bytes(*version))
}

/// Unpacks members with their slots; `None` where the value is foreign or torn.
pub fn unpack_members(value: &[u8]) -> Option<Vec<(Slot, Member)>> {
    let mut reader = open(value)?;
    let count = reader.u32()?.min(MAX_MEMBERS);
    let mut members = Vec::new();
    for _ in 0..count {
        let slot = Slot(reader.u32().filter(|slot| *slot < MAX_MEMBERS)?);
        let available = reader.u32()? != 0;
        let name = reader.text()?.to_owned();
        let address = reader.text()?.to_owned();
        let mut labels = Vec::new();
        for _ in 0..reader.u32()? {
            labels.push((reader.text()?.to_owned(), reader.text()?.to_owned()));
        }
        let member = Member {
            name,
            address,
            labels,
            available,
        };
        members.push((slot, member));
    }
    Some(members)
}

/// Packs what the pages said.
pub fn pack_metrics(store: &Endpoints, version: u32) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.u32(SCHEMA);
    writer.u32(version);
    writer.u32(store.pool.len() as u32);
    for (slot, endpoint) in store.pool.iter() {
        let condition = store.condition(slot);
        let metrics = &endpoint.metrics;
        writer.u32(slot.0);
        writer.u64(condition.scraped);
        writer.u32(condition.failures);
        writer.number(metrics.waiting);
        writer.number(metrics.running);
        writer.number(metrics.kv_usage);
        writer.u32(metrics.block_size.unwrap_or(0));
        writer.u32(metrics.num_blocks.unwrap_or(0));
        writer.u32(metrics.lora.max);
        for adapters in [&metrics.lora.active, &metrics.lora.waiting] {
            writer.u32(adapters.len() as u32);
            adapters.iter().for_each(|adapter| writer.text(adapter));
        }
    }
    writer.seal()
}

/// Unpacks metrics with the slots and conditions of their endpoints; `None` where the value is foreign or
/// torn.
pub fn unpack_metrics(value: &[u8], mut each: impl FnMut(Slot, Condition, Metrics)) -> Option<()> {
    let mut reader = open(value)?;
    for _ in 0..reader.u32()?.min(MAX_MEMBERS) {
        let slot = Slot(reader.u32()?);
        let condition = Condition {
            scraped: reader.u64()?,
            failures: reader.u32()?,
        };
        let metrics = Metrics {
            waiting: reader.number()?,
            running: reader.number()?,
            kv_usage: reader.number()?,
            block_size: Some(reader.u32()?).filter(|size| *size > 0),
            num_blocks: Some(reader.u32()?).filter(|blocks| *blocks > 0),
            lora: Lora {
                max: reader.u32()?,
                active: adapters(&mut reader)?,
                waiting: adapters(&mut reader)?,
            },
        };
        each(slot, condition, metrics);
    }
    Some(())
}

/// Takes over packed metrics; `scraped` is told of each slot whose page is newer than before.
/// `None` where the value is foreign or torn.
pub fn apply_metrics(
    value: &[u8],
    store: &mut Endpoints,
    mut scraped: impl FnMut(Slot),
) -> Option<()> {
    unpack_metrics(value, |slot, condition, metrics| {
        if store.adopt_metrics(slot, condition, metrics) {
            scraped(slot);
        }
    })
}

fn open(value: &[u8]) -> Option<Reader<'_>> {
    let mut reader = Reader::open(value)?;
    let known = reader.u32()? == SCHEMA;
    reader.u32()?;
    known.then_some(reader)
}

fn adapters(reader: &mut Reader<'_>) -> Option<Vec<String>> {
    let count = reader.u32()?;
    (0..count)
        .map(|_| reader.text().map(str::to_owned))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(scraped: u64) -> Endpoints {
        let mut store = Endpoints::default();
        let member = Member {
            name: "p".to_owned(),
            available: true,
            ..Member::default()
        };
        store.set_member(Slot(0), &member);
        if scraped > 0 {
            store.set_metrics(Slot(0), Metrics::default(), false, scraped);
        }
        store
    }

    #[test]
    fn a_poller_that_has_just_begun_takes_nothing_back() {
        let begun = pack_metrics(&store(0), 1);
        let mut own = store(1_000);
        let mut told = 0;
        assert!(apply_metrics(&begun, &mut own, |_| told += 1).is_some());
        assert_eq!((own.condition(Slot(0)).scraped, told), (1_000, 0));
        let later = pack_metrics(&store(2_000), 2);
        assert!(apply_metrics(&later, &mut own, |_| told += 1).is_some());
        assert_eq!((own.condition(Slot(0)).scraped, told), (2_000, 1));
    }

    #[test]
    fn an_older_page_takes_nothing_back_unless_the_clock_was_set_back() {
        let older = pack_metrics(&store(100_000), 1);
        for (known, stays) in [(100_001, true), (102_000, true), (102_001, false)] {
            let mut own = store(known);
            let mut told = 0;
            assert!(apply_metrics(&older, &mut own, |_| told += 1).is_some());
            let expected = if stays { (known, 0) } else { (100_000, 1) };
            assert_eq!((own.condition(Slot(0)).scraped, told), expected);
        }
    }
}

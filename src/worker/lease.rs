//! Who polls: one VM of all those of one Envoy.
//!
//! The lease is a record in shared data: who holds it and how often the holder has beaten. Every VM
//! reads it on each of its ticks; a VM that saw the same record for [`PATIENCE`] ticks takes it by
//! compare-and-swap. There is no clock in it, so that clock steps change nothing: time is counted
//! in ticks, which Envoy's timer drives.
//!
//! The VM of Envoy's main thread serves no requests, so that a page of 2 MB read there delays
//! nobody: whoever has served a request waits longer before it takes the lease, and gives it up
//! once when its first request comes.

use super::SharedData;

/// Ticks without a beat after which the holder is taken for gone: half a second at 50 ms. A holder
/// beats each tick; ten missed ones are no hiccup.
const PATIENCE: u32 = 10;

/// Further ticks that a VM which serves requests leaves to one that does not.
const COURTESY: u32 = 5;

/// The record: schema, holder, beat.
const SIZE: usize = 20;
const SCHEMA: u32 = 1;

/// One VM's view of the lease.
#[derive(Debug)]
pub struct Lease {
    key: String,
    own: u64,
    beat: u64,
    seen: Option<(u64, u64)>,
    unchanged: u32,
    holds: bool,
    serves: bool,
    yielded: bool,
}

impl Lease {
    /// A VM's view; `own` tells it from the others.
    pub fn new(key: String, own: u64) -> Self {
        Self {
            key,
            // Zero stands for nobody.
            own: own.max(1),
            beat: 0,
            seen: None,
            unchanged: 0,
            holds: false,
            serves: false,
            yielded: false,
        }
    }

    /// Whether this VM polls.
    pub fn holds(&self) -> bool {
        self.holds
    }

    /// This VM serves requests.
    pub fn serve(&mut self) {
        self.serves = true;
    }

    /// Whether this VM serves requests.
    pub fn serves(&self) -> bool {
        self.serves
    }

    /// One tick: beats, gives up, or waits and takes. Returns whether this VM polls until the next.
    pub fn tick(&mut self, host: &mut dyn SharedData) -> bool {
        let found = host.get(&self.key);
        let cas = found.as_ref().map(|(_, cas)| *cas);
        let record = found.and_then(|(bytes, _)| unpack(&bytes));
        self.holds = match record {
            Some((holder, _)) if holder == self.own => self.keep(host, cas),
            record => self.wait(host, cas, record),
        };
        self.holds
    }

    fn keep(&mut self, host: &mut dyn SharedData, cas: Option<u32>) -> bool {
        self.unchanged = 0;
        self.beat += 1;
        if self.serves && !self.yielded {
            self.yielded = true;
            host.set(&self.key, &pack(0, self.beat), cas);
            return false;
        }
        host.set(&self.key, &pack(self.own, self.beat), cas)
    }

    fn wait(
        &mut self,
        host: &mut dyn SharedData,
        cas: Option<u32>,
        record: Option<(u64, u64)>,
    ) -> bool {
        if record == self.seen && record.is_some() {
            self.unchanged += 1;
        } else {
            self.unchanged = 0;
            self.seen = record;
        }
        let vacant = record.is_none_or(|(holder, _)| holder == 0);
        let patience = if vacant { 0 } else { PATIENCE };
        let courtesy = if self.serves { COURTESY } else { 0 };
        if self.unchanged < patience + courtesy {
            return false;
        }
        self.unchanged = 0;
        self.seen = None;
        // Whoever is left alone with requests keeps it from then on.
        self.yielded = self.serves;
        self.beat = record.map_or(0, |(_, beat)| beat) + 1;
        host.set(&self.key, &pack(self.own, self.beat), cas)
    }
}

fn pack(holder: u64, beat: u64) -> [u8; SIZE] {
    let mut bytes = [0; SIZE];
    let parts = SCHEMA.to_le_bytes().into_iter().chain(holder.to_le_bytes());
    for (place, byte) in bytes.iter_mut().zip(parts.chain(beat.to_le_bytes())) {
        *place = byte;
    }
    bytes
}

fn unpack(bytes: &[u8]) -> Option<(u64, u64)> {
    let (schema, rest) = bytes.split_first_chunk::<4>()?;
    let (holder, rest) = rest.split_first_chunk::<8>()?;
    let (beat, rest) = rest.split_first_chunk::<8>()?;
    let whole = rest.is_empty() && u32::from_le_bytes(*schema) == SCHEMA;
    whole.then(|| (u64::from_le_bytes(*holder), u64::from_le_bytes(*beat)))
}

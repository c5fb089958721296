//! Presence records, by which the VMs of one Envoy find each other: each takes a numbered worker slot in the store and
//! sends heartbeats there.
//!
//! What a VM publishes of itself is small and absolute: that it lives, how far its journal goes, and what it
//! has in flight. A record that stays the same for twenty ticks is cleared by the VM that sees it first,
//! whatever became of its owner: what it said counts no more, and a VM that starts may take the slot, so that
//! VMs that come and go leave nothing behind. No clock is involved.

use epp_core::picker::peers::{Backlog, EndpointLoad};
use serde::{Deserialize, Serialize};

use crate::codec::{self, MAX_ENDPOINTS};
use crate::shared::Shared;

/// Ticks without a heartbeat after which a worker slot is free: a second at 50 ms.
pub const MISSED_HEARTBEATS: u32 = 20;

/// Worker slots looked at. The entries of an index tell no more than 254 other workers apart, in one byte each, and each VM
/// reads the records of all others with each tick. A VM that finds no free slot learns from the others and publishes nothing.
const MAX_WORKERS: u32 = 256;

/// Looks at something corrupt before it is given up.
pub const MAX_CORRUPT_READS: u32 = 4;

/// Ticks that a heartbeat may be late.
const PUNCTUAL_TICKS: u32 = 2;

/// A version that no value has: with it a key is set only where it is missing.
pub const MISSING: Option<u32> = Some(u32::MAX);

/// The data that a VM publishes about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Presence {
    /// Identifies how prompts are cut and keyed: journals of VMs with another fingerprint mean nothing here.
    /// None where this VM shares nothing.
    pub fingerprint: Option<u64>,
    /// Whether it requests the others' index.
    pub requests_index: bool,
    /// Whether it serves requests.
    pub serves: bool,
    /// Segments of its journal written so far.
    pub segments: u64,
    /// Requests that it holds and has not decided.
    pub held: u32,
    /// Its requests in flight.
    pub loads: Vec<EndpointLoad>,
    /// The requests in its queues.
    pub waiting: Backlog,
}

/// A presence record's value in the store.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Record {
    /// The VM's number.
    pub owner: u64,
    /// Its heartbeats so far.
    pub heartbeat: u64,
    /// The published data.
    pub presence: Presence,
}

impl Record {
    fn is_sound(&self) -> bool {
        let Presence { loads, waiting, .. } = &self.presence;
        loads.len() <= MAX_ENDPOINTS && waiting.is_sound()
    }
}

/// The VM in one worker slot, as its peers see it.
#[derive(Debug, Default)]
pub struct Peer {
    /// The VM's number; none where the slot is free or not recognised.
    pub owner: Option<u64>,
    /// Its last published data.
    pub presence: Presence,
    /// Segments of its journal that were read.
    pub read: u64,
    /// How often in a row the segment that comes next was corrupt.
    pub corrupt_segments: u32,
    /// Version of the value that was read last; `None`: it is read again, whether or not it changes.
    version: Option<u32>,
    /// Ticks for which the record was the same.
    unchanged: u32,
    /// Whether a change was seen between two ticks.
    changed_between_ticks: bool,
    /// Whether it was ever seen to send a heartbeat.
    sends_heartbeats: bool,
    /// Looks in a row that found something corrupt or not ours.
    corrupt_reads: u32,
}

impl Peer {
    /// Returns whether a VM sends heartbeats there.
    pub fn is_live(&self) -> bool {
        self.owner.is_some() && self.sends_heartbeats && self.unchanged < MISSED_HEARTBEATS
    }

    /// Returns whether its last heartbeat came in time.
    pub fn is_punctual(&self) -> bool {
        self.is_live() && self.unchanged <= PUNCTUAL_TICKS
    }

    fn is_free(&self) -> bool {
        self.owner.is_none() && self.corrupt_reads == 0 && self.version.is_some()
    }

    /// Reads the current values. Returns whether the VM `own` has new counts in flight to adopt.
    fn read(&mut self, value: &[u8], own: u64, shared: &mut Shared<'_>) -> bool {
        let corrupt_reads = std::mem::take(&mut self.corrupt_reads);
        if value == cleared() {
            let version = self.version;
            *self = Self {
                version,
                ..Self::default()
            };
            return false;
        }
        let record: Option<Record> = codec::decode(value).filter(Record::is_sound);
        shared.count(record.is_none());
        match record {
            Some(record) if record.owner == own => self.owner = Some(own),
            Some(record) => {
                if self.owner != Some(record.owner) {
                    self.owner = Some(record.owner);
                    self.read = 0;
                }
                let news = self.presence.loads != record.presence.loads;
                self.presence = record.presence;
                return news;
            }
            None => {
                self.corrupt_reads = corrupt_reads + 1;
                if self.corrupt_reads < MAX_CORRUPT_READS {
                    self.version = None;
                } else {
                    self.owner = None;
                }
            }
        }
        false
    }
}

/// One VM's view of the worker slots, and its own.
#[derive(Debug)]
pub struct WorkerSlots {
    base: String,
    own: u64,
    slot: Option<u32>,
    heartbeat: u64,
    peers: Vec<Peer>,
    /// Whether the slots were looked at before: one that is new then has just been taken.
    looked: bool,
}

impl WorkerSlots {
    /// Returns a view under these keys; `own` distinguishes this VM from the others.
    pub fn new(base: String, own: u64) -> Self {
        Self {
            base,
            own,
            slot: None,
            heartbeat: 0,
            peers: Vec::new(),
            looked: false,
        }
    }

    /// Returns this VM's number.
    pub fn own(&self) -> u64 {
        self.own
    }

    /// Returns this VM's slot, once it has one.
    pub fn slot(&self) -> Option<u32> {
        self.slot
    }

    /// Returns the other slots, with their numbers.
    pub fn others(&mut self) -> impl Iterator<Item = (u32, &mut Peer)> {
        let own = self.slot;
        let peers = (0..).zip(&mut self.peers);
        peers.filter(move |(number, _)| Some(*number) != own)
    }

    /// Returns the other VMs that send heartbeats.
    pub fn live(&self) -> impl Iterator<Item = &Peer> {
        let own = self.slot;
        let others = (0..)
            .zip(&self.peers)
            .filter(move |(number, _)| Some(*number) != own);
        others.map(|(_, peer)| peer).filter(|peer| peer.is_live())
    }

    /// Looks at all slots, once a tick. Returns whether anything changed that another VM published.
    pub fn look(&mut self, shared: &mut Shared<'_>) -> bool {
        let mut news = false;
        for number in 0..MAX_WORKERS {
            let key = key(&self.base, number);
            let Some((value, version)) = shared.bytes(&key) else {
                break;
            };
            let fresh = self.peers.len() <= number as usize;
            if fresh {
                self.peers.push(Peer::default());
            }
            let looked = self.looked;
            let Some(peer) = self.peers.get_mut(number as usize) else {
                break;
            };
            let lived = peer.is_live();
            let changed_between_ticks = std::mem::take(&mut peer.changed_between_ticks);
            if !fresh && peer.version == Some(version) {
                if changed_between_ticks {
                    continue;
                }
                peer.unchanged = peer.unchanged.saturating_add(1);
                news |= lived != peer.is_live();
                if peer.unchanged == MISSED_HEARTBEATS && value != cleared() {
                    shared.set(&key, &cleared(), Some(version));
                }
                continue;
            }
            peer.version = Some(version);
            peer.unchanged = 0;
            peer.sends_heartbeats = !fresh || looked;
            news |= peer.read(&value, self.own, shared) || lived != peer.is_live();
        }
        self.looked = true;
        if let Some(own) = self.slot {
            let peer = self.peers.get(own as usize);
            if peer.is_none_or(|peer| peer.owner != Some(self.own)) {
                // This VM was silent for so long that another one took its slot.
                self.slot = None;
            }
        }
        news
    }

    /// Looks between two ticks at the slots that are known. Silence is not counted, since heartbeats come with
    /// ticks. Returns whether anything changed that another VM published.
    pub fn look_between_ticks(&mut self, shared: &mut Shared<'_>) -> bool {
        let mut news = false;
        for (number, peer) in (0..).zip(&mut self.peers) {
            let Some((value, version)) = shared.bytes(&key(&self.base, number)) else {
                break;
            };
            if peer.version != Some(version) {
                let lived = peer.is_live();
                peer.version = Some(version);
                peer.unchanged = 0;
                // What is in flight at one that is gone counts no more, and the next tick sees no change of it.
                news |= peer.read(&value, self.own, shared) || lived != peer.is_live();
                // Not before: a slot that was cleared forgets it.
                peer.changed_between_ticks = true;
            }
        }
        news
    }

    /// Takes a slot, if this VM has none: the first that is free or missing. Returns whether it has one.
    pub fn register(&mut self, shared: &mut Shared<'_>) -> bool {
        if self.slot.is_some() {
            return true;
        }
        let known = self.peers.len() as u32;
        let free = (0..).zip(&self.peers).find(|(_, peer)| peer.is_free());
        let (number, version) = match free {
            Some((number, peer)) => (number, peer.version),
            None if known < MAX_WORKERS => (known, MISSING),
            None => return false,
        };
        let record = Record {
            owner: self.own,
            heartbeat: self.heartbeat,
            presence: Presence::default(),
        };
        let key = key(&self.base, number);
        if shared.put(&key, &record, version) {
            if number == known {
                self.peers.push(Peer::default());
            }
            let peer = self.peers.get_mut(number as usize);
            if let (Some(peer), Some((_, version))) = (peer, shared.bytes(&key)) {
                peer.owner = Some(self.own);
                peer.version = Some(version);
                peer.unchanged = 0;
            }
            self.slot = Some(number);
        }
        self.slot.is_some()
    }

    /// Gives this VM's slot up.
    pub fn leave(&mut self, shared: &mut Shared<'_>) {
        let Some(number) = self.slot.take() else {
            return;
        };
        let key = key(&self.base, number);
        let (record, version) = shared.get(&key, Record::is_sound);
        if record
            .value()
            .is_some_and(|record| record.owner == self.own)
        {
            shared.set(&key, &cleared(), version);
        }
    }

    /// Sends a heartbeat, with what this VM says of itself.
    pub fn publish(&mut self, presence: &Presence, shared: &mut Shared<'_>) {
        let Some(number) = self.slot else {
            return;
        };
        self.heartbeat += 1;
        let version = self
            .peers
            .get(number as usize)
            .and_then(|peer| peer.version);
        let record = (self.own, self.heartbeat, presence);
        if !shared.put(&key(&self.base, number), &record, version) {
            self.slot = None;
        }
    }
}

/// Returns the presences under these keys with their slots, for a reader that has none itself.
pub fn published(base: &str, shared: &mut Shared<'_>) -> Vec<(u32, Record)> {
    let values =
        (0..MAX_WORKERS).map_while(|number| Some((number, shared.bytes(&key(base, number))?.0)));
    values
        .filter_map(|(number, value)| {
            let record: Record = codec::decode(&value)?;
            record.is_sound().then_some((number, record))
        })
        .collect()
}

/// Returns the key of a worker slot.
pub fn key(base: &str, number: u32) -> String {
    format!("{base}/worker/{number}")
}

/// Returns the value of a slot that was cleared.
fn cleared() -> Vec<u8> {
    codec::encode(&())
}

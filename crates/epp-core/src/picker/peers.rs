//! A picker beside others: what it has to tell the other pickers of one proxy, and what it takes in of what
//! they know. How that travels between them is not its concern.

use super::learnt::{Evidence, LearntLog, Placement};
use super::load::EndpointLoad;
use super::Picker;
use crate::endpoints::monitor::Revisions;
use crate::endpoints::outlier::OutlierDetector;
use crate::endpoints::store::{Condition, Member, Store};
use crate::prefix::index::{Provenance, SentBlocks};
use crate::prefix::key::{Key, Secret};
use crate::scheduling::{Metrics, Pool, Slot};
use crate::time::Timestamp;

/// Counts of the sharing itself, which the picker exports with its own metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SharingStatistics {
    /// Pickers that share, this one included.
    pub sharers: u64,
    /// Requests that the other pickers hold.
    pub held_by_others: u64,
    /// Bytes written so far.
    pub written_bytes: u64,
    /// Bytes read so far.
    pub read_bytes: u64,
    /// Values read so far that were corrupt or not ours.
    pub unrecognised: u64,
}

/// Who polls.
impl Picker {
    /// Returns whether this picker has served a request.
    pub fn serves(&self) -> bool {
        self.serves
    }

    /// Returns whether this picker polls.
    pub fn polls(&self) -> bool {
        self.monitor.polls()
    }

    /// Starts or stops polling. A new picker polls.
    pub fn set_polling(&mut self, polling: bool) {
        self.monitor.set_polling(polling);
    }
}

/// Members and metrics, which one picker polls and the others adopt.
impl Picker {
    /// Returns the endpoints with their conditions, to be published.
    pub fn endpoints(&self) -> &Store {
        &self.monitor.store
    }

    /// Returns how often members and metrics have changed by this picker's own polling.
    pub fn revisions(&self) -> Revisions {
        self.monitor.revisions()
    }

    /// Takes over the members that another picker found, in its slots.
    pub fn adopt_members(&mut self, members: Vec<(Slot, Member)>) {
        let changes = self.monitor.adopt_members(members);
        self.apply_changes(&changes);
    }

    /// Takes over what another picker read on the page of the endpoint in this slot.
    pub fn adopt_metrics(&mut self, slot: Slot, condition: Condition, metrics: Metrics) {
        if self.monitor.store.adopt_metrics(slot, condition, metrics) {
            self.scraped(slot);
        }
    }

    /// Updates which metrics can be trusted, before the first tick after they were adopted.
    pub fn refresh(&mut self, now: Timestamp) {
        self.monitor.refresh(now.as_millis());
    }
}

/// Whether, and with whom.
impl Picker {
    /// Returns whether the plan lets this picker rely on what others know, and tell them.
    pub fn may_share(&self) -> bool {
        self.plan.proxy.share_state
    }

    /// Says whether others learn from this picker, and probe ejected endpoints in turns with it. Where they
    /// do not, nothing is logged for them and every probe is its own.
    pub fn set_sharing(&mut self, sharing: bool) {
        self.sharing = sharing;
        self.learnt.set_enabled(sharing);
    }

    /// Takes over the counts of the sharing, to be exported with this picker's.
    pub fn set_sharing_statistics(&mut self, statistics: SharingStatistics) {
        self.sharing_statistics = statistics;
    }
}

/// The prefix indexes.
impl Picker {
    /// Returns a fingerprint of how prompts are cut into blocks and keyed: hashes of a picker with another
    /// fingerprint mean nothing here. The secret cannot be had from it.
    pub fn prompt_fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Returns the secret that keys digests and indexes.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Replaces the secret. The indexes begin empty if it is another one.
    pub fn set_secret(&mut self, secret: Secret) {
        if secret != self.secret {
            self.key = Key::Secret(secret.clone());
            self.secret = secret;
            self.begin_indexes();
        }
    }

    /// Returns the log of what the indexes have learnt, to be drained with every tick.
    pub fn learnt(&mut self) -> &mut LearntLog {
        &mut self.learnt
    }

    /// Learns what another picker has learnt of the blocks of a prompt from number `from` on; the hashes
    /// before are what it takes to find them. `peer` distinguishes the others: what one of them has sent
    /// only that one can refute.
    pub fn learn_from_peer(&mut self, peer: u32, learnt: Placement, prompt: &[u64], from: usize) {
        let producer = self.plan.producers.get(usize::from(learnt.producer));
        let index = self.indexes.get_mut(usize::from(learnt.producer));
        let endpoint = self.monitor.store.pool.get(Slot(learnt.slot));
        let endpoint = endpoint.filter(|_| self.loads.tag(Slot(learnt.slot)) == learnt.tag);
        if let (Some((_, producer)), Some(index), Some(_)) = (producer, index, endpoint) {
            let capacity = producer.capacity_of(endpoint);
            let teller = Provenance::of_worker(peer);
            let provenance = match learnt.evidence {
                Evidence::Sent => teller,
                Evidence::Proven => Provenance::PROVEN,
                Evidence::Refuted => {
                    index.retract(learnt.slot, prompt, from..prompt.len(), teller, &mut |_| {});
                    return;
                }
            };
            let sent = SentBlocks {
                slot: learnt.slot,
                prompt,
                from,
                provenance,
            };
            index.record(sent, capacity, &mut |_, _| {});
        }
    }

    /// Says whether blocks may come without those before them, as they do while a whole index is handed
    /// over.
    pub fn allow_gaps(&mut self, allowed: bool) {
        self.gaps_allowed = allowed;
        let indexes = self.indexes.iter_mut();
        indexes.for_each(|index| index.allow_gaps(allowed));
    }

    /// Writes into `hashes` all blocks that one endpoint holds for one producer, in the order of their use,
    /// the last used one at the end. There is one such list for each pair; `None` past the last.
    pub fn index_list(&self, number: usize, hashes: &mut Vec<u64>) -> Option<Placement> {
        let width = self.monitor.store.pool.width().max(1);
        let (producer, slot) = (number / width, (number % width) as u32);
        self.indexes.get(producer)?.list(slot, hashes);
        Some(Placement {
            // Little is in doubt while it is handed over, and not worth a second list.
            evidence: Evidence::Proven,
            producer: producer as u8,
            slot,
            tag: self.loads.tag(Slot(slot)),
        })
    }
}

/// Requests in flight.
impl Picker {
    /// Returns how many requests this picker holds.
    pub fn held(&self) -> usize {
        self.holding
    }

    /// Appends what this picker has in flight at each endpoint.
    pub fn own_loads(&self, loads: &mut Vec<EndpointLoad>) {
        self.loads.append_own(&self.monitor.store, loads);
    }

    /// Replaces what the other pickers have in flight, one list each.
    pub fn set_peer_loads(&mut self, others: &mut dyn Iterator<Item = &[EndpointLoad]>) {
        self.loads.set_others(others, &mut self.monitor.store);
    }

    /// Returns whether pages came or endpoints went since it was last asked: then what the others have in
    /// flight has to be set again.
    pub fn take_loads_outdated(&mut self) -> bool {
        std::mem::take(&mut self.loads_outdated)
    }
}

/// Ejections.
impl Picker {
    /// Returns which endpoints are ejected, to be merged with what others found, and the pool to mark them in.
    pub fn outliers(&mut self) -> (&mut OutlierDetector, &mut Pool) {
        (&mut self.monitor.outliers, &mut self.monitor.store.pool)
    }
}

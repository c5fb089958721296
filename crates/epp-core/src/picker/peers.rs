//! What the pickers of one proxy exchange: [`PeerView`] is one of them as the others see it. How the values
//! travel between them is the concern of the crate `epp-sync`.

use super::status::{PlanSummary, Status};
use super::Picker;
use crate::endpoints::monitor::Revisions;
use crate::endpoints::outlier::OutlierDetector;
use crate::endpoints::store::{Condition, Member, Store};
use crate::prefix::index::{Provenance, SentBlocks};
use crate::prefix::key::{Key, Secret};
use crate::scheduling::{Metrics, Pool, Slot};
use crate::time::Timestamp;

pub use super::learnt::{Evidence, LearntLog, Placement, Span, MAX_LOGGED_HASHES};
pub use super::load::EndpointLoad;
pub use super::models::{ModelNames, MAX_NAMES, MAX_NAME_BYTES};

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

/// A picker as its peers see it: what it publishes for them, and what it adopts of what they published.
///
/// Returned by [`Picker::peers`].
pub struct PeerView<'a>(&'a mut Picker);

impl Picker {
    /// Returns what this picker exchanges with the other pickers of its pool.
    pub fn peers(&mut self) -> PeerView<'_> {
        PeerView(self)
    }
}

/// Polling: one picker polls, the others adopt what it found.
impl PeerView<'_> {
    /// Returns whether this picker has served a request.
    pub fn serves(&self) -> bool {
        self.0.serves
    }

    /// Returns whether this picker polls.
    pub fn polls(&self) -> bool {
        self.0.monitor.polls()
    }

    /// Starts or stops polling. A new picker polls.
    pub fn set_polling(&mut self, polling: bool) {
        if polling && !self.polls() {
            self.0.take_over_gauges();
        }
        self.0.monitor.set_polling(polling);
    }
}

/// Members and metrics, which one picker polls and the others adopt.
impl PeerView<'_> {
    /// Returns the endpoints with their conditions, to be published.
    pub fn endpoints(&self) -> &Store {
        &self.0.monitor.store
    }

    /// Returns how often members and metrics have changed by this picker's own polling.
    pub fn revisions(&self) -> Revisions {
        self.0.monitor.revisions()
    }

    /// Takes over the members that another picker found, in its slots.
    pub fn adopt_members(&mut self, members: Vec<(Slot, Member)>) {
        let changes = self.0.monitor.adopt_members(members);
        self.0.apply_changes(&changes);
    }

    /// Takes over what another picker read on the endpoints' pages.
    pub fn adopt_metrics(&mut self, pages: Vec<(Slot, Condition, Metrics)>) {
        for slot in self.0.monitor.store.adopt_metrics(pages) {
            self.0.scraped(slot);
        }
    }

    /// Updates which metrics can be trusted, before the first tick after they were adopted.
    pub fn refresh(&mut self, now: Timestamp) {
        self.0.timing.clock.advance(now);
        self.0.monitor.refresh(&self.0.timing.clock);
    }
}

/// Whether anything is shared.
impl PeerView<'_> {
    /// Returns whether the plan lets this picker use what others publish, and publish itself.
    pub fn may_share(&self) -> bool {
        self.0.plan.settings.share_state
    }

    /// Says whether others learn from this picker, and probe ejected endpoints in turns with it. Where they
    /// do not, nothing is logged for them and every probe is its own.
    pub fn set_sharing(&mut self, sharing: bool) {
        self.0.sharing = sharing;
        self.0.learnt.set_enabled(sharing);
    }

    /// Takes over the counts of the sharing, to be exported with this picker's.
    pub fn set_sharing_statistics(&mut self, statistics: SharingStatistics) {
        self.0.sharing_statistics = statistics;
    }
}

/// The prefix indexes.
impl PeerView<'_> {
    /// Returns a fingerprint of how prompts are cut into blocks and keyed: hashes of a picker with another
    /// fingerprint mean nothing here. The secret cannot be had from it.
    pub fn prompt_fingerprint(&self) -> u64 {
        self.0.fingerprint
    }

    /// Returns the secret that keys digests and indexes.
    pub fn secret(&self) -> &Secret {
        &self.0.secret
    }

    /// Replaces the secret. The indexes begin empty if it is another one.
    pub fn set_secret(&mut self, secret: Secret) {
        if secret != self.0.secret {
            self.0.key = Key::Secret(secret.clone());
            self.0.secret = secret;
            self.0.begin_indexes();
        }
    }

    /// Returns the log of what the indexes have learnt, to be drained with every tick.
    pub fn learnt(&mut self) -> &mut LearntLog {
        &mut self.0.learnt
    }

    /// Learns what another picker has learnt of the blocks of a prompt from number `from` on; the hashes
    /// before are what it takes to find them. `peer` distinguishes the others: what one of them has sent
    /// only that one can refute.
    pub fn learn_from_peer(&mut self, peer: u32, learnt: Placement, prompt: &[u64], from: usize) {
        let producer = self.0.plan.producers.get(usize::from(learnt.producer));
        let index = self.0.indexes.get_mut(usize::from(learnt.producer));
        let endpoint = self.0.monitor.store.pool.get(Slot(learnt.slot));
        let endpoint = endpoint.filter(|_| self.0.loads.tag(Slot(learnt.slot)) == learnt.tag);
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
        self.0.gaps_allowed = allowed;
        let indexes = self.0.indexes.iter_mut();
        indexes.for_each(|index| index.allow_gaps(allowed));
    }

    /// Writes into `hashes` all blocks that one endpoint holds for one producer, in the order of their use,
    /// the last used one at the end. There is one such list for each pair; `None` past the last.
    pub fn index_list(&self, number: usize, hashes: &mut Vec<u64>) -> Option<Placement> {
        let width = self.0.monitor.store.pool.width().max(1);
        let (producer, slot) = (number / width, (number % width) as u32);
        self.0.indexes.get(producer)?.list(slot, hashes);
        Some(Placement {
            // Little is in doubt while it is handed over, and not worth a second list.
            evidence: Evidence::Proven,
            producer: producer as u8,
            slot,
            tag: self.0.loads.tag(Slot(slot)),
        })
    }
}

/// Requests in flight.
impl PeerView<'_> {
    /// Returns how many requests this picker holds.
    pub fn held(&self) -> usize {
        self.0.exchanges.held()
    }

    /// Appends what this picker has in flight at each endpoint.
    pub fn own_loads(&self, loads: &mut Vec<EndpointLoad>) {
        self.0.loads.append_own(&self.0.monitor.store, loads);
    }

    /// Replaces what the other pickers have in flight, one list each.
    pub fn set_peer_loads(&mut self, others: &mut dyn Iterator<Item = &[EndpointLoad]>) {
        self.0.loads.set_others(others, &mut self.0.monitor.store);
    }

    /// Returns whether pages came or endpoints went since it was last asked: then what the others have in
    /// flight has to be set again.
    pub fn take_loads_outdated(&mut self) -> bool {
        std::mem::take(&mut self.0.loads_outdated)
    }
}

/// Ejections.
impl PeerView<'_> {
    /// Returns which endpoints are ejected, to be merged with what others found, and the pool to mark them in.
    pub fn outliers(&mut self) -> (&mut OutlierDetector, &mut Pool) {
        (&mut self.0.monitor.outliers, &mut self.0.monitor.store.pool)
    }
}

/// Models that have statistics of their own: as many for all peers together as one would have alone.
impl PeerView<'_> {
    /// Returns the models that have statistics of their own, and how many endpoints the pool has, which
    /// bounds their number.
    pub fn models_mut(&mut self) -> (&mut ModelNames, usize) {
        self.0.models_mut()
    }
}

/// The report for the status page.
impl PeerView<'_> {
    /// Returns the status. From now on decisions are recorded for the next one.
    pub fn status(&mut self) -> Status {
        self.0.status()
    }

    /// Stops recording decisions until the status is asked for again, and forgets those recorded.
    pub fn stop_recording(&mut self) {
        self.0.stop_recording();
    }

    /// Returns a summary of the plan in force.
    pub fn plan_summary(&self) -> PlanSummary {
        self.0.plan_summary()
    }
}

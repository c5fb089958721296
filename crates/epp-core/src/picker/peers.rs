//! Peers: the pickers of one proxy, and what they exchange. How the values travel between them is the concern of the
//! crate `epp-sync`.

use super::admission::Admission;
use super::dispatcher::Dispatcher;
use super::status::{PlanSummary, Status};
use super::view::{digest, summary};
use super::Picker;
use crate::endpoints::monitor::Revisions;
use crate::endpoints::outlier::OutlierDetector;
use crate::endpoints::store::{self, EndpointStore, Member};
use crate::findings::Condition;
use crate::prefix::key::{Key, Secret};
use crate::scheduling::state::MAX_KEYS;
use crate::scheduling::{Metrics, Pool, Slot, States};
use crate::time::Timestamp;

pub use super::admission::ModelWish;
pub use super::learnt::{
    Binding, Evidence, LearntLog, PlacedBlocks, Placement, Span, MAX_LOGGED_HASHES,
};
pub use super::load::EndpointLoad;
pub use super::models::{ModelEvidence, ModelNames, MAX_NAMES};
pub use super::shares::{Backlog, WaitingBand, MAX_SAMPLED_FLOWS, MAX_WAITING_BANDS};

/// Counts of the sharing itself, which the picker exports with its own metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SharingStatistics {
    /// Pickers that share, this one included.
    pub sharers: u64,
    /// Whether another picker that shares serves requests.
    pub others_serve: bool,
    /// Whether no picker polls, and has not for seconds.
    pub lacks_poller: bool,
    /// Requests that the other pickers hold.
    pub held_by_others: u64,
    /// Bytes written so far.
    pub written_bytes: u64,
    /// Bytes read so far.
    pub read_bytes: u64,
    /// Values read so far that were corrupt or not ours.
    pub unrecognised: u64,
}

/// A picker's sharing with its peers.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    /// Whether others learn from this picker, and probe in turns with it.
    pub enabled: bool,
    /// Its statistics so far.
    pub statistics: SharingStatistics,
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
        self.0.dispatcher.endpoints.monitor.polls()
    }

    /// Starts or stops polling. A new picker polls.
    pub fn set_polling(&mut self, polling: bool) {
        if polling != self.polls() {
            self.0.hand_over_gauges();
        }
        self.0.dispatcher.endpoints.monitor.set_polling(polling);
    }

    /// Resets the gauges of ejections that a picker which is gone may have left behind.
    pub fn reset_ejection_gauges(&mut self) {
        self.0.dispatcher.statistics.reset_ejections();
    }
}

/// Members and metrics, which one picker polls and the others adopt.
impl PeerView<'_> {
    /// Returns the endpoints with their conditions, to be published.
    pub fn endpoints(&self) -> &EndpointStore {
        &self.0.dispatcher.endpoints.monitor.store
    }

    /// Returns how often members and metrics have changed by this picker's own polling.
    pub fn revisions(&self) -> Revisions {
        self.0.dispatcher.endpoints.monitor.revisions()
    }

    /// Takes over the members that another picker found, in its slots.
    pub fn adopt_members(&mut self, members: Vec<(Slot, Member)>) {
        let changes = self.0.dispatcher.endpoints.monitor.adopt_members(members);
        self.0.apply_changes(&changes);
    }

    /// Takes over what another picker read on the endpoints' pages.
    pub fn adopt_metrics(&mut self, pages: Vec<(Slot, store::Condition, Metrics)>) {
        let endpoints = &mut self.0.dispatcher.endpoints;
        for slot in endpoints.monitor.store.adopt_metrics(pages) {
            endpoints.mark_scraped(slot);
        }
    }

    /// Updates which metrics can be trusted, before the first tick after they were adopted.
    pub fn refresh(&mut self, now: Timestamp) {
        let dispatcher = &mut self.0.dispatcher;
        dispatcher.clock.advance(now);
        dispatcher.endpoints.monitor.refresh(&dispatcher.clock);
    }
}

/// The conditions of sharing.
impl PeerView<'_> {
    /// Returns whether the plan allows this picker to use what others publish, and to publish itself.
    pub fn may_share(&self) -> bool {
        self.0.plan().settings.share_state
    }

    /// Says whether others learn from this picker, and probe ejected endpoints in turns with it. Where they
    /// do not, nothing is logged for them and every probe is its own.
    pub fn set_sharing(&mut self, sharing: bool) {
        self.0.sharing.enabled = sharing;
        self.0.dispatcher.prefixes.learnt.set_enabled(sharing);
    }

    /// Takes over the counts of the sharing, to be exported with this picker's.
    pub fn set_sharing_statistics(&mut self, statistics: SharingStatistics) {
        self.0.sharing.statistics = statistics;
        let sharers = usize::try_from(statistics.sharers).unwrap_or(usize::MAX);
        self.0.dispatcher.prefixes.set_sharers(sharers);
    }
}

/// The secret of the prefix indexes and of plugins' state.
impl PeerView<'_> {
    /// Returns the secret that keys digests, indexes and plugins' state.
    pub fn secret(&self) -> &Secret {
        self.0.dispatcher.prefixes.secret()
    }

    /// Replaces the secret. Indexes and plugins' state begin empty if it is another one.
    pub fn set_secret(&mut self, secret: Secret) {
        if secret != *self.secret() {
            let dispatcher = &mut self.0.dispatcher;
            dispatcher.states = States::new(&dispatcher.plan.states, &secret);
            dispatcher.flow.queues.set_key(Key::Secret(secret.clone()));
            dispatcher.prefixes.set_secret(secret, &dispatcher.plan);
            self.0.stop_reading_all();
        }
    }
}

/// What the pickers of a pool learn from each other between two ticks: their indexes, their plugins' state, and what is
/// in flight. A tool or a test can take a picker's place.
pub trait IndexPeer {
    /// Returns a fingerprint of how prompts are cut into blocks and keyed, and of which state plugins keep: hashes of a
    /// picker with another fingerprint mean nothing here. The secret cannot be derived from it.
    fn fingerprint(&self) -> u64;
    /// Returns the log of what the indexes have learnt, to be drained with every tick.
    fn learnt(&mut self) -> &mut LearntLog;
    /// Learns what another picker has learnt of the blocks of a prompt from number `from` on; the hashes
    /// before are what it takes to find them. `peer` distinguishes the others: what one of them has sent
    /// only that one can refute.
    fn learn(&mut self, peer: u32, learnt: Placement, prompt: &[u64], from: usize);
    /// Says whether blocks may come without those before them, as they do while a whole index is handed
    /// over.
    fn allow_gaps(&mut self, allowed: bool);
    /// Writes into `hashes` all blocks that one endpoint holds for one producer, in the order of their use,
    /// the last used one at the end. There is one such list for each pair, and then one for each plugin's state; `None`
    /// past the last.
    fn index_list(&self, number: usize, hashes: &mut Vec<u64>) -> Option<Placement>;
    /// Empties all that [`Self::index_list`] lists.
    fn clear_index(&mut self);
    /// Returns the bound on the memory of all indexes, in bytes.
    fn max_index_bytes(&self) -> usize;
    /// Returns how many blocks all indexes, and keys all plugin states, may have at the endpoints that there are.
    fn max_index_blocks(&self) -> usize {
        usize::MAX
    }
    /// Takes over a part, of an even number of hashes unless it is the last, of a list that another picker has written
    /// by [`Self::index_list`], or placements as [`Self::learn`] gets them, whose order alone is known.
    fn take_over(&mut self, list: Placement, hashes: &mut dyn Iterator<Item = u64>) {
        // In order of use, so that nothing is known of what stood before each. Which picker sent a block is not known
        // either: those of an archive that no response has confirmed can be refuted by any of their senders.
        hashes.for_each(|hash| self.learn(0, list, &[hash], 0));
    }
    /// Returns how many requests this picker holds.
    fn held(&self) -> u32;
    /// Appends what this picker has in flight at each endpoint.
    fn own_loads(&self, loads: &mut Vec<EndpointLoad>);
    /// Replaces what the other pickers have in flight, one list each.
    fn set_peer_loads(&mut self, others: &mut dyn Iterator<Item = &[EndpointLoad]>);
    /// Returns what waits in this picker's queues.
    fn own_waiting(&self) -> Backlog {
        Backlog::default()
    }
    /// Replaces what waits in the other pickers' queues. With each look at what these publish, whether or
    /// not it has changed: until the next look, what this picker sends counts for what they may send.
    fn set_peer_waiting(&mut self, _others: &mut dyn Iterator<Item = &Backlog>) {}
}

impl IndexPeer for PeerView<'_> {
    fn fingerprint(&self) -> u64 {
        let dispatcher = &self.0.dispatcher;
        dispatcher.prefixes.fingerprint() ^ dispatcher.states.fingerprint()
    }

    fn learnt(&mut self) -> &mut LearntLog {
        &mut self.0.dispatcher.prefixes.learnt
    }

    fn learn(&mut self, peer: u32, learnt: Placement, prompt: &[u64], from: usize) {
        let dispatcher = &mut self.0.dispatcher;
        match learnt {
            Placement::Blocks(blocks) => {
                let pool = &dispatcher.endpoints;
                let prefixes = &mut dispatcher.prefixes;
                prefixes.learn_from_peer(peer, blocks, (prompt, from), pool);
            }
            Placement::Binding(binding) => dispatcher.learn_binding(binding, prompt),
            // Handed over, but never logged.
            Placement::State(_) => {}
        }
    }

    fn allow_gaps(&mut self, allowed: bool) {
        self.0.dispatcher.prefixes.allow_gaps(allowed);
    }

    fn index_list(&self, number: usize, hashes: &mut Vec<u64>) -> Option<Placement> {
        let dispatcher = &self.0.dispatcher;
        let (prefixes, endpoints) = (&dispatcher.prefixes, &dispatcher.endpoints);
        match number.checked_sub(prefixes.lists(endpoints)) {
            Some(state) => dispatcher.list_bindings(state, hashes),
            None => prefixes.list(number, hashes, endpoints),
        }
    }

    fn clear_index(&mut self) {
        let Dispatcher {
            prefixes,
            states,
            plan,
            ..
        } = &mut self.0.dispatcher;
        *states = States::new(&plan.states, prefixes.secret());
        prefixes.begin(plan);
    }

    fn max_index_bytes(&self) -> usize {
        self.0.plan().settings.max_index_bytes
    }

    fn max_index_blocks(&self) -> usize {
        let Dispatcher {
            prefixes,
            endpoints,
            plan,
            ..
        } = &self.0.dispatcher;
        let keys = plan.states.len().saturating_mul(MAX_KEYS);
        prefixes.max_blocks(endpoints).saturating_add(keys)
    }

    fn take_over(&mut self, list: Placement, hashes: &mut dyn Iterator<Item = u64>) {
        match list {
            Placement::Blocks(_) => hashes.for_each(|hash| self.learn(0, list, &[hash], 0)),
            // Of an archive.
            Placement::Binding(binding) => {
                let words: Vec<u64> = hashes.collect();
                self.0.dispatcher.learn_binding(binding, &words);
            }
            Placement::State(state) => self.0.dispatcher.take_over_state(state, hashes),
        }
    }

    fn held(&self) -> u32 {
        u32::try_from(self.0.exchanges.held()).unwrap_or(u32::MAX)
    }

    fn own_loads(&self, loads: &mut Vec<EndpointLoad>) {
        let dispatcher = &self.0.dispatcher;
        dispatcher.endpoints.append_loads(loads, &dispatcher.clock);
    }

    fn set_peer_loads(&mut self, others: &mut dyn Iterator<Item = &[EndpointLoad]>) {
        let endpoints = &mut self.0.dispatcher.endpoints;
        endpoints
            .loads
            .set_others(others, &mut endpoints.monitor.store);
    }

    fn own_waiting(&self) -> Backlog {
        Backlog::of(&self.0.dispatcher.flow.queues)
    }

    fn set_peer_waiting(&mut self, others: &mut dyn Iterator<Item = &Backlog>) {
        let dispatcher = &mut self.0.dispatcher;
        dispatcher.flow.set_others(others);
        dispatcher.endpoints.forget_unreported();
        dispatcher.take_share();
        self.0.dispatch();
    }
}

/// Requests in flight.
impl PeerView<'_> {
    /// Returns whether pages arrived or endpoints left since the last call: then the others' requests in
    /// flight has to be set again.
    pub fn take_loads_outdated(&mut self) -> bool {
        self.0.dispatcher.endpoints.take_loads_outdated()
    }
}

/// Ejections.
impl PeerView<'_> {
    /// Returns which endpoints are ejected, to be merged with what others found, and the pool to mark them in.
    pub fn outliers(&mut self) -> (&mut OutlierDetector, &mut Pool) {
        let monitor = &mut self.0.dispatcher.endpoints.monitor;
        (&mut monitor.outliers, &mut monitor.store.pool)
    }
}

/// Models that have statistics of their own: as many for all peers together as one would have alone.
impl PeerView<'_> {
    /// Returns the models that have statistics of their own, and how many endpoints the pool has, which
    /// bounds their number.
    pub fn models_mut(&mut self) -> (&mut ModelNames, usize) {
        let endpoints = self.0.pool().width();
        (&mut self.0.dispatcher.statistics.models, endpoints)
    }

    /// Admits models only by agreement with the peers, from now on: see [`Self::take_model_wish`].
    pub fn agree_on_models(&mut self) {
        let admission = &mut self.0.dispatcher.statistics.admission;
        if let Admission::Alone = admission {
            *admission = Admission::Agreed(Vec::new());
        }
    }

    /// Returns a model that is due statistics of its own, if there is one. To be called after each event, so that the
    /// first response counts under its model.
    pub fn take_model_wish(&mut self) -> Option<ModelWish> {
        match &mut self.0.dispatcher.statistics.admission {
            Admission::Agreed(wishes) => wishes.pop(),
            Admission::Alone => None,
        }
    }

    /// Counts the request of a wish that was granted under its model's name.
    pub fn grant_model(&mut self, wish: &ModelWish) {
        self.0.grant_model(wish);
    }
}

/// Findings.
impl PeerView<'_> {
    /// Returns the conditions that only this picker knows to be met, for the one that polls.
    pub fn own_conditions(&self) -> &[Condition] {
        &self.0.verdict.own
    }

    /// Says which conditions the other pickers know to be met.
    pub fn set_peer_conditions(&mut self, conditions: Vec<Condition>) {
        self.0.verdict.peers = conditions;
    }

    /// Returns a number that changes with the open findings.
    pub fn findings_revision(&self) -> u64 {
        self.0.verdict.findings.revision()
    }

    /// Returns the open findings, the worst first.
    pub fn open_findings(&self) -> Vec<Condition> {
        self.0.verdict.findings.open(&self.0.dispatcher.clock)
    }

    /// Takes over the findings that another picker had opened until now.
    pub fn adopt_findings(&mut self, open: Vec<Condition>) {
        self.0.adopt_findings(open);
    }
}

/// The report for the status page.
impl PeerView<'_> {
    /// Returns the status. From now on decisions are recorded for the next one.
    pub fn status(&mut self) -> Status {
        self.0.status()
    }

    /// Stops recording decisions until the status is requested again, and drops those recorded.
    pub fn stop_recording(&mut self) {
        self.0.stop_recording();
    }

    /// Returns a digest of the plan in force, which changes with anything in it.
    pub fn plan_digest(&self) -> u64 {
        digest(self.0.plan())
    }

    /// Returns a summary of the plan in force.
    pub fn plan_summary(&self) -> PlanSummary {
        summary(self.0.plan())
    }
}

//! The exchange between the workers of one Envoy with each tick: the latest updates of their indexes, their requests
//! in flight, and the whole index for a worker that starts.

use epp_core::picker::peers::{EndpointLoad, IndexPeer};

use crate::handover::Handover;
use crate::journal::{Journal, PeerJournal};
use crate::presence::{self, Peer, Presence, WorkerSlots, MAX_CORRUPT_READS};
use crate::shared::Shared;

/// Hashes of others' journals that are taken in per tick: 5 ms of work at 0.17 µs each, and more than
/// twice what 16 workers place in a tick where all that they are sent is new (docs/workers.md). What is
/// more waits for the next tick, or is lost as soon as the ring has gone round.
pub(super) const HASHES_PER_TICK: usize = 32_768;

/// Hashes of others' journals that a VM takes in before it keeps an archive: those of some hundred long prompts, with
/// which a worker under load serves a request itself.
pub(super) const MIN_TAKEN_IN: usize = 65_536;

/// One VM's part in the exchange.
#[derive(Debug)]
pub struct Peers {
    base: String,
    pub(super) workers: WorkerSlots,
    journal: Journal,
    pub(super) handover: Handover,
    /// Whether decisions may be based on what others say.
    sharing: bool,
    presence: Presence,
    /// Hashes of others' journals that were taken in so far.
    pub(super) taken_in: usize,
    /// Whose journal is read first, where not all can be read in one tick.
    turn: usize,
}

impl Peers {
    /// Returns the part of a VM that has just started, under these keys; `own` distinguishes it from the others.
    pub fn new(base: &str, own: u64) -> Self {
        Self {
            base: base.to_owned(),
            workers: WorkerSlots::new(base.to_owned(), own),
            journal: Journal::new(base.to_owned(), own),
            handover: Handover::new(base, own),
            sharing: true,
            presence: Presence::default(),
            taken_in: 0,
            turn: 0,
        }
    }

    /// Returns whether this VM shares its state with others.
    pub fn is_sharing(&self) -> bool {
        self.sharing
    }

    /// Switches the sharing on or off.
    pub fn set_sharing(&mut self, sharing: bool) {
        if sharing && !self.sharing {
            // What was learnt alone cannot be found block by block, as a handover needs it.
            self.handover.cancel_request();
        }
        self.sharing = sharing;
    }

    /// Returns the key of this VM's worker slot, once it has one, and its number.
    pub fn slot(&self) -> Option<(String, u64)> {
        let number = self.workers.slot()?;
        Some((presence::key(&self.base, number), self.workers.own()))
    }

    /// Returns the worker slots and numbers of the other VMs that send heartbeats.
    pub fn live(&mut self) -> Vec<(u32, u64)> {
        let others = self.workers.others();
        let live = others.filter(|(_, peer)| peer.is_live());
        let live = live.filter_map(|(number, peer)| Some((number, peer.owner?)));
        live.collect()
    }

    /// Returns whether another VM's index may be handed over to this one.
    pub fn is_requesting(&self) -> bool {
        self.sharing && self.handover.is_requesting()
    }

    /// Returns whether blocks may come without those before them.
    pub fn allows_gaps(&self) -> bool {
        self.sharing && self.handover.allows_gaps()
    }

    /// Chooses whether this VM has an index or an archive. It begins an archive when it polls, has never served a request,
    /// and has taken in much from the others, and keeps it even if another VM polls later. Such a VM is nearly always the
    /// main thread's; a worker among them requests the index with its first request.
    pub fn choose_knowledge(&mut self, serves: bool, polls: bool, picker: &mut dyn IndexPeer) {
        let may_archive = !serves && (polls || self.handover.archive().is_some());
        let archives = self.sharing && may_archive && self.taken_in >= MIN_TAKEN_IN;
        self.handover.set_archiving(archives, picker);
    }

    /// Returns how many VMs share, this one included.
    pub fn sharers(&self) -> usize {
        if !self.sharing {
            return 0;
        }
        self.workers.live().count() + usize::from(self.workers.slot().is_some())
    }

    /// Returns whether another VM serves requests.
    pub fn others_serve(&self) -> bool {
        self.workers.live().any(|peer| peer.presence.serves)
    }

    /// Returns how many requests the other VMs hold and have not decided. A VM that is gone counts no more as
    /// soon as its heartbeats are missed.
    pub fn held_by_others(&self) -> u64 {
        let others = self.workers.live();
        others.map(|peer| u64::from(peer.presence.held)).sum()
    }

    /// Publishes this VM's changes, and imports those of others. `loads_outdated`: pages or members have changed, so the
    /// others' loads must be applied again. With sharing off, it publishes only what gauges and the status page sum up, and
    /// takes in nothing that a decision could be based on.
    pub fn tick(
        &mut self,
        serves: bool,
        loads_outdated: bool,
        shared: &mut Shared<'_>,
        picker: &mut dyn IndexPeer,
    ) {
        let news = self.workers.look(shared);
        let counts = self.sharing || !serves;
        if news || loads_outdated {
            self.set_peer_loads(counts, picker);
        }
        self.set_peer_waiting(counts, picker);
        self.publish(serves, shared, picker);
        if self.sharing {
            self.learn(shared, picker);
        }
        if self.sharing {
            self.hand_over(shared, picker);
        }
        picker.allow_gaps(self.allows_gaps());
    }

    /// Returns whether there was something to exchange between ticks as of the last one: something in flight,
    /// and another VM that serves.
    pub fn wants_fast_exchange(&self) -> bool {
        let busy = |presence: &Presence| !presence.loads.is_empty();
        self.sharing
            && self.others_serve()
            && (busy(&self.presence) || self.workers.live().any(|peer| busy(&peer.presence)))
    }

    /// Exchanges counts in flight between two ticks, because they age fastest. If workers exchanged them
    /// with each tick only, all of them would send to the same endpoint meanwhile.
    pub fn exchange_in_flight(&mut self, shared: &mut Shared<'_>, picker: &mut dyn IndexPeer) {
        if !self.sharing {
            return;
        }
        if self.workers.look_between_ticks(shared) {
            self.set_peer_loads(true, picker);
        }
        self.set_peer_waiting(true, picker);
        let mut loads = Vec::with_capacity(self.presence.loads.len());
        picker.own_loads(&mut loads);
        let waiting = picker.own_waiting();
        if self.presence.loads != loads || self.presence.waiting != waiting {
            self.presence.loads = loads;
            self.presence.waiting = waiting;
            self.presence.held = picker.held();
            self.workers.publish(&self.presence, shared);
        }
    }

    /// This VM is destroyed. If it is the last one that knows the index, it leaves it to those that start.
    pub fn leave(&mut self, shared: &mut Shared<'_>, picker: &mut dyn IndexPeer) {
        let version = self.handover.version(shared);
        // Before it looks at the others: of two that do so at the same time, both are the last.
        self.workers.leave(shared);
        if !self.sharing || self.handover.is_requesting() {
            return;
        }
        self.workers.look(shared);
        let knows = |peer: &Peer| {
            let presence = &peer.presence;
            presence.fingerprint == self.presence.fingerprint && !presence.requests_index
        };
        if !self.workers.live().any(knows) {
            self.handover.leave_behind(version, picker, shared);
        }
    }

    fn set_peer_loads(&mut self, counts: bool, picker: &mut dyn IndexPeer) {
        let live = self.workers.live();
        if counts {
            let mut loads = live.map(|peer| peer.presence.loads.as_slice());
            return picker.set_peer_loads(&mut loads);
        }
        // No decision is based on these, but the VM that polls does so for all: pages of endpoints with requests do not
        // become rarer.
        let loads = live.flat_map(|peer| &peer.presence.loads);
        let pages: Vec<EndpointLoad> = loads.map(needs_page).collect();
        picker.set_peer_loads(&mut std::iter::once(pages.as_slice()));
    }

    /// Tells the picker what waits at the others. That is done with each look at them, whether or not it brings news:
    /// what the picker has sent since the last one counts for the others as well until then.
    fn set_peer_waiting(&mut self, counts: bool, picker: &mut dyn IndexPeer) {
        let live = self.workers.live().filter(|_| counts);
        let mut waiting = live.map(|peer| &peer.presence.waiting);
        picker.set_peer_waiting(&mut waiting);
    }

    fn hand_over(&mut self, shared: &mut Shared<'_>, picker: &mut dyn IndexPeer) {
        let (requesters, sends) = self.roles();
        if sends {
            self.handover.send(&requesters, picker, shared);
        } else {
            self.handover.stop_sending();
        }
    }

    fn publish(&mut self, serves: bool, shared: &mut Shared<'_>, picker: &mut dyn IndexPeer) {
        if !self.workers.register(shared) {
            return;
        }
        if let Some(number) = self.workers.slot() {
            self.journal.write(number, picker.learnt(), shared);
        }
        self.presence.fingerprint = self.sharing.then(|| picker.fingerprint());
        self.presence.requests_index = self.is_requesting();
        self.presence.serves = serves;
        self.presence.segments = self.journal.written();
        self.presence.held = picker.held();
        self.presence.loads.clear();
        picker.own_loads(&mut self.presence.loads);
        self.presence.waiting = picker.own_waiting();
        self.workers.publish(&self.presence, shared);
    }

    fn learn(&mut self, shared: &mut Shared<'_>, picker: &mut dyn IndexPeer) {
        let fingerprint = picker.fingerprint();
        let has_news = |peer: &Peer| {
            let presence = &peer.presence;
            presence.fingerprint == Some(fingerprint) && peer.read != presence.segments
        };
        let others = self.workers.others();
        let mut peers: Vec<_> = others
            .filter_map(|(number, peer)| Some((number, peer.owner?, peer)))
            .filter(|(_, _, peer)| has_news(peer))
            .collect();
        // Each comes first once, so that a busy one does not keep the others waiting.
        self.turn = self.turn.wrapping_add(1);
        let turn = self.turn.checked_rem(peers.len()).unwrap_or(0);
        peers.rotate_left(turn);
        let (mut left, mut waiting) = (HASHES_PER_TICK, peers.len());
        for (worker, owner, peer) in peers {
            let room = left / waiting.max(1);
            waiting -= 1;
            let mut take = |learnt, prompt: &[u64], from| match self.handover.archive() {
                Some(archive) => archive.append(learnt, prompt.get(from..).unwrap_or_default()),
                None => picker.learn(worker, learnt, prompt, from),
            };
            let journal = PeerJournal {
                base: &self.base,
                worker,
                owner,
                read: peer.read,
                written: peer.presence.segments,
            };
            let before = shared.unrecognised();
            let (reached, taken) = journal.read(room, shared, &mut take);
            left = left.saturating_sub(taken);
            self.taken_in = self.taken_in.saturating_add(taken);
            let corrupt = shared.unrecognised() != before;
            peer.corrupt_segments = if corrupt {
                peer.corrupt_segments.saturating_add(1)
            } else {
                0
            };
            // One that stays corrupt is passed over.
            let passed = u64::from(peer.corrupt_segments >= MAX_CORRUPT_READS);
            peer.read = reached.saturating_add(passed);
        }
        let mut take = |list, hashes: &mut dyn Iterator<Item = u64>| {
            picker.take_over(list, hashes);
        };
        self.handover.receive(fingerprint, shared, &mut take);
    }

    /// Returns which VMs request the index, and whether it is this VM that sends it: the first of those that
    /// do not request it themselves, before all others one that serves requests, since another one may have an
    /// archive only.
    fn roles(&mut self) -> (Vec<u64>, bool) {
        let Some(own) = self.workers.slot() else {
            return (Vec::new(), false);
        };
        let fingerprint = self.presence.fingerprint;
        let mine = (!self.presence.serves, own);
        let mut sends = !self.handover.is_requesting();
        let (mut requesters, mut donor_present) = (Vec::new(), false);
        for (number, peer) in self.workers.others() {
            let presence = &peer.presence;
            if !peer.is_live() || presence.fingerprint != fingerprint {
                continue;
            }
            requesters.extend(peer.owner.filter(|_| presence.requests_index));
            donor_present |= !presence.requests_index;
            // One that is late may be gone.
            sends &=
                !peer.is_punctual() || presence.requests_index || mine < (!presence.serves, number);
        }
        self.handover.observe_donor(donor_present);
        (requesters, sends)
    }
}

/// Returns a load that says no more than that the endpoint's page is needed.
fn needs_page(load: &EndpointLoad) -> EndpointLoad {
    EndpointLoad {
        slot: load.slot,
        tag: load.tag,
        needs_page: true,
        ..EndpointLoad::default()
    }
}

#[cfg(test)]
#[path = "peers_tests.rs"]
mod tests;

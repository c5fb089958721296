//! What the workers of one Envoy tell each other with each tick: placements, what is in flight,
//! and the whole index to one that starts.

use super::handover::{Handover, Known};
use super::journal::{self, Journal};
use super::seats::{self, Post, Seat, Seats, TRIES};
use super::Store;
use epp_core::picker::learnt::{LearntLog, Placement};
use epp_core::picker::load::EndpointLoad;

/// What a VM knows, tells and takes over.
pub trait Knowledge: Known {
    /// Tells prefix blocks of equal cut.
    fn cut(&self) -> u64;
    /// What this VM has learnt that the others were not told of.
    fn learnt(&mut self) -> &mut LearntLog;
    /// The VM at the numbered seat says this of an endpoint and the blocks of a prompt from number `from`
    /// on; those before are what it takes to find them.
    fn place(&mut self, seat: u32, run: Placement, prompt: &[u64], from: usize);
    /// Whether blocks come without those before them, until this is said again.
    fn expect_loose_blocks(&mut self, loose: bool);
    /// Requests that this VM holds and has not decided.
    fn held(&self) -> u32;
    /// What this VM has in flight.
    fn in_flight(&self, loads: &mut Vec<EndpointLoad>);
    /// What the other VMs have in flight, one list each; in the stead of what was said before.
    fn others_in_flight(&mut self, others: &mut dyn Iterator<Item = &[EndpointLoad]>);
}

/// Hashes of others' journals that are taken in per tick: 5 ms of work at 0.17 µs each, and more than
/// twice what 16 workers place in a tick where all that they are sent is new (docs/workers.md). What is
/// more waits for the next tick, or is lost as soon as the ring has gone round.
pub(super) const INTAKE: usize = 32_768;

/// How things are with a VM at a tick.
#[derive(Debug, Clone, Copy, Default)]
pub struct Now {
    /// It serves requests.
    pub serves: bool,
    /// The meaning of what others have in flight has changed.
    pub stirred: bool,
}

/// One VM's part in the sharing.
#[derive(Debug)]
pub struct Share {
    base: String,
    seats: Seats,
    journal: Journal,
    handover: Handover,
    /// Whether decisions rest on what others tell.
    on: bool,
    post: Post,
    traffic: Traffic,
    /// Whose journal is read first, where not all can be read in one tick.
    turn: usize,
}

/// Bytes of shared values written and read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes written.
    pub written: u64,
    /// Bytes read.
    pub read: u64,
}

/// Counts what goes by.
struct Counted<'a> {
    host: &'a mut dyn Store,
    traffic: &'a mut Traffic,
}

impl Store for Counted<'_> {
    fn get(&mut self, key: &str) -> Option<(Vec<u8>, u32)> {
        let found = self.host.get(key)?;
        self.traffic.read += found.0.len() as u64;
        Some(found)
    }

    fn set(&mut self, key: &str, value: &[u8], cas: Option<u32>) -> bool {
        self.traffic.written += value.len() as u64;
        self.host.set(key, value, cas)
    }
}

impl Share {
    /// Of a VM that has just started, under these keys; `own` tells it from the others.
    pub fn new(base: &str, own: u64) -> Self {
        // Zero stands for nobody.
        let own = own.max(1);
        Self {
            base: base.to_owned(),
            seats: Seats::new(base.to_owned(), own),
            journal: Journal::new(base.to_owned(), own),
            handover: Handover::new(base.to_owned(), own),
            on: true,
            post: Post::default(),
            traffic: Traffic::default(),
            turn: 0,
        }
    }

    /// Whether this VM believes others, and they it.
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// Switches the sharing on or off.
    pub fn switch(&mut self, on: bool) {
        if on && !self.on {
            // What was learnt alone cannot be found block by block, as a handover needs it.
            self.handover.do_without();
        }
        self.on = on;
    }

    /// The key of this VM's seat, once it has one, and what tells it from the others.
    pub fn seat(&self) -> Option<(String, u64)> {
        let number = self.seats.seat()?;
        Some((seats::key(&self.base, number), self.seats.own()))
    }

    /// Under which keys is shared.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Whether another VM's index may be handed over to this one.
    pub fn asks(&self) -> bool {
        self.on && self.handover.asks()
    }

    /// VMs that share, this one included.
    pub fn sharers(&self) -> usize {
        if !self.on {
            return 0;
        }
        self.seats.live().count() + usize::from(self.seats.seat().is_some())
    }

    /// Requests that the other VMs hold and have not decided. Of a VM that is gone they count no
    /// more as soon as its seat does not.
    pub fn others_held(&self) -> u64 {
        let others = self.seats.live();
        others.map(|seat| u64::from(seat.post.held)).sum()
    }

    /// Bytes of shared values written and read since this was asked last.
    pub fn take_traffic(&mut self) -> Traffic {
        std::mem::take(&mut self.traffic)
    }

    /// One tick: tells what is new here, and takes in what is new elsewhere. What is foreign or
    /// torn is counted. Switched off, it tells only what gauges and the status page sum up, and takes in
    /// nothing that a decision could rest on.
    pub fn exchange(
        &mut self,
        now: Now,
        host: &mut dyn Store,
        foreign: &mut u64,
        knowledge: &mut dyn Knowledge,
    ) {
        let mut traffic = self.traffic;
        let host = &mut Counted {
            host,
            traffic: &mut traffic,
        };
        let news = self.seats.look(host, foreign);
        self.tell(now.serves, host, knowledge);
        if self.on {
            self.hear(host, foreign, knowledge);
        }
        if news || now.stirred {
            let counts = self.on || !now.serves;
            self.hear_in_flight(counts, knowledge);
        }
        if self.on {
            self.hand_over(host, knowledge);
        }
        knowledge.expect_loose_blocks(self.asks());
        self.traffic = traffic;
    }

    /// Whether there was something to glance for as of the last tick: something in flight, and somebody
    /// else who serves.
    pub fn glances(&self) -> bool {
        let busy = |post: &Post| !post.loads.is_empty();
        self.on
            && self.seats.live().any(|seat| seat.post.serves)
            && (busy(&self.post) || self.seats.live().any(|seat| busy(&seat.post)))
    }

    /// Between two ticks: what is in flight is told and heard, which ages fastest. Where workers knew it
    /// of each other with each tick only, all of them would send to the same endpoint meanwhile.
    pub fn glance(
        &mut self,
        host: &mut dyn Store,
        foreign: &mut u64,
        knowledge: &mut dyn Knowledge,
    ) {
        if !self.on {
            return;
        }
        let mut traffic = self.traffic;
        let host = &mut Counted {
            host,
            traffic: &mut traffic,
        };
        if self.seats.glance(host, foreign) {
            self.hear_in_flight(true, knowledge);
        }
        let mut loads = Vec::with_capacity(self.post.loads.len());
        knowledge.in_flight(&mut loads);
        if self.post.loads != loads {
            self.post.loads = loads;
            self.post.held = knowledge.held();
            self.seats.post(&self.post, host);
        }
        self.traffic = traffic;
    }

    fn hear_in_flight(&mut self, counts: bool, knowledge: &mut dyn Knowledge) {
        let live = self.seats.live().filter(|_| counts);
        let mut loads = live.map(|seat| seat.post.loads.as_slice());
        knowledge.others_in_flight(&mut loads);
    }

    fn hand_over(&mut self, host: &mut dyn Store, knowledge: &mut dyn Knowledge) {
        let (askers, gives) = self.parts();
        if gives {
            let cut = knowledge.cut();
            self.handover.give(&askers, cut, knowledge, host);
        } else {
            self.handover.leave_it();
        }
    }

    fn tell(&mut self, serves: bool, host: &mut dyn Store, knowledge: &mut dyn Knowledge) {
        if !self.seats.sit(host) {
            return;
        }
        if let Some(seat) = self.seats.seat() {
            self.journal.write(seat, knowledge.learnt(), host);
        }
        // Who shares nothing is no match for anybody.
        self.post.cut = if self.on { knowledge.cut() } else { 0 };
        self.post.asks = self.asks();
        self.post.serves = serves;
        self.post.written = self.journal.written();
        self.post.held = knowledge.held();
        self.post.loads.clear();
        knowledge.in_flight(&mut self.post.loads);
        self.seats.post(&self.post, host);
    }

    fn hear(&mut self, host: &mut dyn Store, foreign: &mut u64, knowledge: &mut dyn Knowledge) {
        let cut = knowledge.cut();
        let told =
            |seat: &Seat| seat.owner != 0 && seat.post.cut == cut && seat.read != seat.post.written;
        let mut seats: Vec<_> = self.seats.others().filter(|(_, seat)| told(seat)).collect();
        // Each comes first once, so that a busy one does not keep the others waiting.
        self.turn = self.turn.wrapping_add(1);
        let turn = self.turn.checked_rem(seats.len()).unwrap_or(0);
        seats.rotate_left(turn);
        let (mut left, mut waiting) = (INTAKE, seats.len());
        for (number, seat) in seats {
            let room = left / waiting.max(1);
            waiting -= 1;
            let mut take = |run, prompt: &[u64], from| knowledge.place(number, run, prompt, from);
            let journal = (self.base.as_str(), number, seat.owner);
            let segments = (seat.read, seat.post.written);
            let torn = *foreign;
            let (reached, taken) = journal::read(journal, segments, room, host, foreign, &mut take);
            left = left.saturating_sub(taken);
            seat.stuck = if *foreign == torn { 0 } else { seat.stuck + 1 };
            // One that stays torn is passed over.
            let passed = u64::from(seat.stuck >= TRIES);
            seat.read = reached + passed;
        }
        // In order of use, so that nothing is known of what stood before each; whose seat the giver's is does
        // not matter, since all counts as proven.
        let mut take = |run, hashes: &mut dyn Iterator<Item = u64>| {
            hashes.for_each(|hash| knowledge.place(0, run, &[hash], 0));
        };
        self.handover.ask(cut, host, foreign, &mut take);
    }

    /// Who asks for the index, and whether it is this VM that gives it: the first of those that do
    /// not ask themselves, before all others one that serves no requests.
    fn parts(&mut self) -> (Vec<u64>, bool) {
        let Some(own) = self.seats.seat() else {
            return (Vec::new(), false);
        };
        let cut = self.post.cut;
        let mine = (self.post.serves, own);
        let mut gives = !self.handover.asks();
        let (mut askers, mut knows) = (Vec::new(), false);
        for (number, seat) in self.seats.others() {
            if !seat.is_live() || seat.post.cut != cut {
                continue;
            }
            askers.extend(seat.post.asks.then_some(seat.owner));
            knows |= !seat.post.asks;
            // One that is late may be gone.
            gives &= !seat.is_quick() || seat.post.asks || mine < (seat.post.serves, number);
        }
        self.handover.hope(knows);
        (askers, gives)
    }
}

#[cfg(test)]
#[path = "share_tests.rs"]
mod tests;

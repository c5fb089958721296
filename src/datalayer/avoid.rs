//! Who is avoided for a while, because requests sent there fail.
//!
//! Of each endpoint a moving share of failures is kept, of which the newest answer is a fifth. An
//! endpoint whose share is far above its peers' is avoided: after four failures in a row where
//! they have none, never where they fail like it, because then it is not the endpoint. So is one
//! that shows no sign of life. Each time lasts twice as long as the one before, give or take a
//! fifth; then one request of one worker tries it, and ends or prolongs it. What was long ago is
//! forgotten. At least half of the endpoints that may be picked always stay.

use crate::scheduling::{Freshness, Pool, Slot};

/// How much the newest answer weighs.
const NEWEST: f64 = 0.2;

/// A share this far above three times its peers' is far above them.
const FAR: f64 = 0.55;

/// A share below this is none.
const NO_SHARE: f64 = 0.01;

/// An endpoint whose metrics page still comes is alive, and full rather than broken: it is back
/// within seconds.
const MOST_ALIVE_MS: u64 = 5_000;

/// After so long without a new failure the next one is the first again.
const FORGET_MS: u64 = 60_000;

/// A worker that was to try an endpoint and says nothing for this long leaves it to another.
const TRIAL_MS: u64 = 3_000;

/// For so long a worker that had nothing to send to an endpoint leaves it to the others.
const REST_MS: u64 = 200;

/// Why an endpoint is avoided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reason {
    /// It refused, reset or timed out, or Envoy sent the request elsewhere after its answer.
    #[default]
    Unserved,
    /// It answers 5xx.
    Errors,
    /// It answers 503.
    Overloaded,
    /// Neither an answer nor a metrics page comes.
    Hung,
}

impl Reason {
    /// All, in the order of their numbers in shared data.
    pub const ALL: [Self; 4] = [Self::Unserved, Self::Errors, Self::Overloaded, Self::Hung];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unserved => "unserved",
            Self::Errors => "errors",
            Self::Overloaded => "overloaded",
            Self::Hung => "hung",
        }
    }
}

/// What is known of one endpoint to all workers. Times are in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Entry {
    /// Tells the endpoint from others in its slot.
    pub endpoint: u64,
    /// Why it is or was avoided.
    pub reason: Reason,
    /// How often in a row.
    pub level: u32,
    /// Until when; 0: it is not.
    pub until: u64,
    /// The worker that tries it; 0: nobody does.
    pub trial: u64,
    /// When this was written: of two, the later counts.
    pub changed: u64,
}

/// How long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// The first time, in milliseconds; 0: nobody is avoided.
    pub first: u64,
    /// At most.
    pub most: u64,
}

/// One endpoint, to this worker.
#[derive(Debug, Default)]
struct Seat {
    entry: Entry,
    /// Moving share of failures.
    share: f64,
    /// Whether this worker may send one request to it now.
    open: bool,
    /// The request that tries it.
    trying: Option<u32>,
    /// When this worker last gave up trying it for want of requests.
    rests: u64,
}

impl Seat {
    fn avoided(&self) -> bool {
        self.entry.until > 0
    }
}

/// One worker's view of who is avoided.
#[derive(Debug)]
pub struct Avoider {
    settings: Settings,
    /// This worker's number, never 0.
    own: u64,
    rng: fastrand::Rng,
    seats: Vec<Seat>,
    /// Whether any seat may be or is tried by this worker.
    tries: bool,
    /// Whether any endpoint may be marked in the pool.
    marked: bool,
    /// Whether there is something to tell the others.
    pub dirty: bool,
    /// Avoidances that this worker decided, to be counted.
    pub begun: Vec<(Slot, Reason)>,
}

impl Avoider {
    /// Knows nothing of anybody yet.
    pub fn new(settings: Settings, mut rng: fastrand::Rng) -> Self {
        Self {
            settings,
            own: rng.u64(1..),
            rng,
            seats: Vec::new(),
            tries: false,
            marked: false,
            dirty: false,
            begun: Vec::new(),
        }
    }

    /// Other settings from now on.
    pub fn set(&mut self, settings: Settings) {
        self.settings = settings;
        if settings.first == 0 {
            for seat in &mut self.seats {
                let endpoint = seat.entry.endpoint;
                *seat = Seat::default();
                seat.entry.endpoint = endpoint;
            }
            self.tries = false;
            self.marked = true;
        }
    }

    /// Whether anybody may ever be avoided.
    pub fn is_on(&self) -> bool {
        self.settings.first > 0
    }

    /// A new endpoint in this slot, told from others by this number.
    pub fn join(&mut self, slot: Slot, endpoint: u64) {
        if self.seats.len() <= slot.index() {
            self.seats.resize_with(slot.index() + 1, Seat::default);
        }
        if let Some(seat) = self.seats.get_mut(slot.index()) {
            *seat = Seat::default();
            seat.entry.endpoint = endpoint;
        }
    }

    /// The endpoint in this slot is gone.
    pub fn leave(&mut self, slot: Slot) {
        if let Some(seat) = self.seats.get_mut(slot.index()) {
            *seat = Seat::default();
        }
    }

    /// Whether each answer of this endpoint is worth a look, not just one now and then.
    pub fn suspects(&self, slot: Slot) -> bool {
        let seat = self.seats.get(slot.index());
        seat.is_some_and(|seat| seat.share > NO_SHARE || seat.trying.is_some())
    }

    /// What an endpoint is avoided for.
    pub fn reason(&self, slot: Slot) -> Option<Reason> {
        let seat = self.seats.get(slot.index())?;
        seat.avoided().then_some(seat.entry.reason)
    }

    /// A request was sent to this endpoint. Whether it is the one that tries it.
    pub fn sent(&mut self, slot: Slot, request: u32) -> bool {
        if !self.tries {
            return false;
        }
        let seat = self.seats.get_mut(slot.index()).filter(|seat| seat.open);
        let Some(seat) = seat else {
            return false;
        };
        seat.open = false;
        seat.trying = Some(request);
        self.marked = true;
        true
    }

    /// A request to this endpoint has ended without an answer: if it tried it, nothing was learnt.
    pub fn ended(&mut self, slot: Slot, request: u32, now: u64) {
        if !self.tries {
            return;
        }
        let seat = self.seats.get_mut(slot.index());
        if let Some(seat) = seat.filter(|seat| seat.trying == Some(request)) {
            seat.trying = None;
            seat.entry.trial = 0;
            seat.entry.until = now + self.settings.first;
            seat.entry.changed = now.max(seat.entry.changed + 1);
            self.dirty = true;
        }
    }

    /// An endpoint answered a request, or failed to. `alive`: whether its metrics page still comes.
    pub fn note(
        &mut self,
        slot: Slot,
        request: u32,
        failure: Option<Reason>,
        alive: bool,
        now: u64,
    ) {
        let Some(seat) = self
            .seats
            .get_mut(slot.index())
            .filter(|_| self.settings.first > 0)
        else {
            return;
        };
        let newest = f64::from(u8::from(failure.is_some()));
        seat.share += (newest - seat.share) * NEWEST;
        let tried = seat.trying == Some(request);
        if tried {
            seat.trying = None;
        }
        let avoided = seat.avoided();
        let hung = avoided && seat.entry.reason == Reason::Hung;
        match failure {
            Some(reason) if tried || (!avoided && self.is_far_above_peers(slot)) => {
                self.avoid(slot, reason, alive, now);
            }
            // Who hung and answers, hangs no more.
            None if tried || hung => {
                self.recover(slot, now);
            }
            _ => {}
        }
    }

    /// An endpoint shows no sign of life.
    pub fn hangs(&mut self, slot: Slot, now: u64) {
        let seat = self.seats.get(slot.index());
        if self.is_on() && seat.is_some_and(|seat| !seat.avoided()) {
            self.avoid(slot, Reason::Hung, false, now);
        }
    }

    fn is_far_above_peers(&self, slot: Slot) -> bool {
        let share = |seat: &Seat| seat.share;
        let own = self.seats.get(slot.index()).map_or(0.0, share);
        let others = self.seats.iter().enumerate();
        let others = others.filter(|(index, seat)| {
            // Who is avoided already is no measure.
            *index != slot.index() && seat.entry.endpoint != 0 && !seat.avoided()
        });
        let mut peers: Vec<f64> = others.map(|(_, seat)| seat.share).collect();
        let middle = peers.len().saturating_sub(1) / 2;
        peers.sort_by(f64::total_cmp);
        let peers = peers.get(middle).copied().unwrap_or(0.0);
        own > FAR + 3.0 * peers
    }

    fn avoid(&mut self, slot: Slot, reason: Reason, alive: bool, now: u64) {
        let Settings { first, most } = self.settings;
        let Some(seat) = self.seats.get_mut(slot.index()) else {
            return;
        };
        let entry = &mut seat.entry;
        let forgotten = entry.until == 0 && now.abs_diff(entry.changed) > FORGET_MS;
        let before = if forgotten { 0 } else { entry.level };
        entry.level = before.saturating_add(1);
        entry.reason = reason;
        entry.trial = 0;
        let full = reason == Reason::Overloaded || (reason == Reason::Unserved && alive);
        let most = if full { most.min(MOST_ALIVE_MS) } else { most };
        let doubled = first
            .saturating_mul(1 << before.min(20))
            .min(most.max(first));
        let length = doubled - doubled / 5 + self.rng.u64(0..=doubled * 2 / 5);
        entry.until = now + length.max(1);
        entry.changed = now.max(entry.changed + 1);
        seat.open = false;
        self.dirty = true;
        self.marked = true;
        self.begun.push((slot, reason));
    }

    fn recover(&mut self, slot: Slot, now: u64) {
        let Some(seat) = self.seats.get_mut(slot.index()) else {
            return;
        };
        seat.entry.until = 0;
        seat.entry.trial = 0;
        seat.entry.changed = now.max(seat.entry.changed + 1);
        seat.share = 0.0;
        seat.open = false;
        self.dirty = true;
        self.marked = true;
    }

    /// Endpoints whose time is over, and which nobody tries yet. One that refused or hung is not
    /// tried before its metrics page comes again, unless that takes longer than the longest time.
    pub fn due(&self, pool: &Pool, now: u64) -> Vec<Slot> {
        let seats = self.seats.iter().enumerate();
        let due = seats.filter(|(index, seat)| {
            let entry = &seat.entry;
            // A clock that was set back makes nobody wait longer than the longest time.
            let waits = entry.until > now && entry.until - now <= 2 * self.settings.most;
            if !seat.avoided() || waits {
                return false;
            }
            let taken = entry.trial != 0 && now.abs_diff(entry.changed) <= TRIAL_MS;
            let endpoint = pool.get(Slot(*index as u32));
            let silent = matches!(entry.reason, Reason::Unserved | Reason::Hung)
                && endpoint.is_some_and(|endpoint| endpoint.freshness == Freshness::Stale)
                && now.saturating_sub(entry.until) < self.settings.most;
            let rests = seat.rests != 0 && now.abs_diff(seat.rests) < REST_MS;
            endpoint.is_some() && !taken && !silent && !rests
        });
        due.map(|(index, _)| Slot(index as u32)).collect()
    }

    /// What the entry of an endpoint becomes where this worker is the one to try it.
    pub fn claim(&self, slot: Slot, now: u64) -> Option<Entry> {
        let entry = self.seats.get(slot.index())?.entry;
        Some(Entry {
            trial: self.own,
            changed: now.max(entry.changed + 1),
            ..entry
        })
    }

    /// This worker is the one to try it.
    pub fn claimed(&mut self, slot: Slot, entry: Entry) {
        if let Some(seat) = self.seats.get_mut(slot.index()) {
            seat.entry = entry;
            seat.open = true;
            seat.trying = None;
            self.tries = true;
            self.marked = true;
        }
    }

    /// Says again, now and then, that this worker is still trying.
    pub fn hold_claims(&mut self, now: u64) {
        if !self.tries {
            return;
        }
        self.tries = false;
        for seat in &mut self.seats {
            let mine = seat.entry.trial == self.own && (seat.open || seat.trying.is_some());
            self.tries |= mine;
            if mine && now.abs_diff(seat.entry.changed) > TRIAL_MS / 3 {
                if seat.open {
                    // Nobody came this way: another worker may have more to send.
                    seat.open = false;
                    seat.entry.trial = 0;
                    seat.rests = now;
                }
                seat.entry.changed = now.max(seat.entry.changed + 1);
                self.dirty = true;
                self.marked = true;
            }
        }
    }

    /// What there is to tell the others.
    pub fn entries(&self) -> impl Iterator<Item = (Slot, Entry)> + '_ {
        let seats = self.seats.iter().enumerate();
        let told = seats.filter(|(_, seat)| seat.entry.changed > 0 && seat.entry.endpoint != 0);
        told.map(|(index, seat)| (Slot(index as u32), seat.entry))
    }

    /// Another worker's entry. Whether it is newer than ours, or the same; if not, the other has
    /// not heard of ours.
    pub fn merge(&mut self, slot: Slot, entry: Entry) -> bool {
        let Some(seat) = self.seats.get_mut(slot.index()) else {
            return true;
        };
        if seat.entry.endpoint != entry.endpoint {
            return true;
        }
        if entry.changed < seat.entry.changed {
            return false;
        }
        if seat.entry != entry {
            if entry.until == 0 && seat.avoided() {
                seat.share = 0.0;
            }
            seat.entry = entry;
            if entry.trial != self.own {
                seat.open = false;
                seat.trying = None;
            }
            self.marked = true;
        }
        true
    }

    /// Marks in the pool who is avoided; never more than half of those who may be picked.
    pub fn mark(&mut self, pool: &mut Pool) {
        if !std::mem::take(&mut self.marked) && !self.seats.iter().any(Seat::avoided) {
            return;
        }
        let available = pool.iter().filter(|(_, endpoint)| endpoint.available);
        let most = available.count() / 2;
        let seats = self.seats.iter().enumerate();
        let avoided = seats.filter(|(_, seat)| seat.avoided());
        let mut avoided: Vec<(u32, &Seat)> = avoided
            .map(|(index, seat)| (index as u32, seat))
            .filter(|(index, _)| {
                pool.get(Slot(*index))
                    .is_some_and(|endpoint| endpoint.available)
            })
            .collect();
        // The same for every worker.
        avoided.sort_by_key(|(index, seat)| (u32::MAX - seat.entry.level, *index));
        avoided.truncate(most);
        let avoided = avoided.iter().filter(|(_, seat)| !seat.open);
        let mut avoided: Vec<u32> = avoided.map(|(index, _)| *index).collect();
        avoided.sort_unstable();
        for index in 0..pool.width() as u32 {
            let avoided = avoided.binary_search(&index).is_ok();
            pool.note(Slot(index), |endpoint| &mut endpoint.avoided, avoided);
        }
    }
}

#[cfg(test)]
#[path = "avoid_tests.rs"]
mod tests;

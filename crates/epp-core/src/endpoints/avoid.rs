//! Which endpoints are avoided for a while, because requests sent there fail.
//!
//! Of each endpoint a moving share of failures is kept, of which the newest answer is a fifth. An
//! endpoint whose share is far above its peers' is avoided: after four failures in a row where
//! they have none, never where they fail like it, because then it is not the endpoint. So is one
//! that shows no sign of life. Each time lasts twice as long as the one before, give or take a
//! fifth; then one request of one worker tries it, and ends or prolongs it. What was long ago is
//! forgotten. At least half of the endpoints that may be picked always stay.
//!
//! Most failures can be a request's own doing, and the client that sends them chooses how many there are
//! and, by how prompts begin, where they go. So these need more: they count once per prompt
//! (`prompts.rs`), and the endpoint must have stopped serving what its peers serve, since a
//! client can add failures but cannot take other clients' successes away. Each worker looks at
//! its own requests for that, and does not believe another one's word against them. Where more
//! than half of the endpoints would be avoided for such failures, all stay: then it is the
//! requests.

pub use super::failure::{Failure, Outcome, Reason};
use super::prompts::Prompts;
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

/// After a failure every answer is looked at for this long, whoever gave it: what the peers serve
/// tells whose fault it is.
const ALERT_MS: u64 = 2_000;

/// An endpoint has stopped serving when the pool has served so many requests per endpoint since it
/// last did. Where all get alike many, one of four that works is passed over for so long by chance
/// after one of its answers in 300, and one of a hundred after one in 150; what follows lasts
/// `avoidFirst`. Less would be quicker with a pod that breaks, which fails about six requests now.
const SERVED_MEANWHILE: u64 = 5;

/// It has stopped serving, too, when it has served none for this long, whatever its peers get.
const SILENT_MS: u64 = 1_000;

/// What is known of one endpoint to all workers. Times are in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Entry {
    /// Tells the endpoint from others in its slot.
    pub endpoint: u64,
    /// Why it is or was avoided.
    pub reason: Reason,
    /// Whether no request can have caused it.
    pub certain: bool,
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
    /// Moving share of failures, and of those among them that no request can cause.
    share: f64,
    certain: f64,
    /// When it last changed.
    noted: u64,
    /// When it last served a request with a body; 0: never.
    served: u64,
    /// How many requests this worker had seen served then, by whichever endpoint.
    served_by_all: u64,
    /// Whether this worker may send one request to it now.
    open: bool,
    /// The request that tries it, and since when.
    trying: Option<u32>,
    tried: u64,
    /// When this worker last gave up trying it for want of requests.
    rests: u64,
}

impl Seat {
    fn avoided(&self) -> bool {
        self.entry.until > 0
    }

    /// Forgets what is long ago.
    fn refresh(&mut self, now: u64) {
        if now.abs_diff(self.noted) > FORGET_MS {
            (self.share, self.certain) = (0.0, 0.0);
        }
        self.noted = now;
    }

    fn share(&self, certain: bool, now: u64) -> f64 {
        match now.abs_diff(self.noted) {
            FORGET_MS.. => 0.0,
            _ if certain => self.certain,
            _ => self.share,
        }
    }
}

#[path = "avoid_trials.rs"]
mod trials;

/// One worker's view of which endpoints are avoided.
#[derive(Debug)]
pub struct Avoider {
    settings: Settings,
    /// This worker's number, never 0.
    own: u64,
    rng: fastrand::Rng,
    seats: Vec<Seat>,
    /// Endpoints in the seats.
    members: u64,
    /// Requests with a body that were seen to be served.
    served: u64,
    /// When a request last failed; 0: never.
    failed: u64,
    prompts: Prompts,
    /// Whether more than half would be avoided for what requests can cause.
    withheld: bool,
    /// Whether any seat may be or is tried by this worker.
    tries: bool,
    /// Whether any endpoint may be marked in the pool.
    marked: bool,
    /// Whether there is something to tell the others.
    pub dirty: bool,
    /// Avoidances that this worker decided, to be counted.
    pub begun: Vec<(Slot, Reason)>,
    /// Times that more than half would have been, to be counted.
    majorities: u64,
}

/// How often requests and not endpoints were found to be the cause of failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Blamed {
    /// Prompts that failed at two endpoints and were served by none.
    pub prompts: u64,
    /// Times that more than half of the endpoints would have been avoided.
    pub majorities: u64,
}

impl Avoider {
    /// Knows nothing of anybody yet.
    pub fn new(settings: Settings, mut rng: fastrand::Rng) -> Self {
        Self {
            settings,
            own: rng.u64(1..),
            prompts: Prompts::new(rng.u64(..)),
            rng,
            seats: Vec::new(),
            members: 0,
            served: 0,
            failed: 0,
            withheld: false,
            tries: false,
            marked: false,
            dirty: false,
            begun: Vec::new(),
            majorities: 0,
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
        self.leave(slot);
        if let Some(seat) = self.seats.get_mut(slot.index()) {
            seat.entry.endpoint = endpoint;
            seat.served_by_all = self.served;
            self.members += 1;
        }
    }

    /// The endpoint in this slot is gone.
    pub fn leave(&mut self, slot: Slot) {
        if let Some(seat) = self.seats.get_mut(slot.index()) {
            self.members -= u64::from(seat.entry.endpoint != 0).min(self.members);
            *seat = Seat::default();
            self.prompts.leave(slot);
        }
    }

    /// Whether each answer of this endpoint is worth a look, not just one now and then.
    pub fn suspects(&self, slot: Slot, now: u64) -> bool {
        if self.failed != 0 && now.abs_diff(self.failed) <= ALERT_MS {
            return true;
        }
        let seat = self.seats.get(slot.index());
        seat.is_some_and(|seat| seat.share(false, now) > NO_SHARE || seat.trying.is_some())
    }

    /// What an endpoint is avoided for.
    pub fn reason(&self, slot: Slot) -> Option<Reason> {
        let seat = self.seats.get(slot.index())?;
        seat.avoided().then_some(seat.entry.reason)
    }

    /// An endpoint answered a request, or failed to. `freshness` is that of its metrics page.
    pub fn note(&mut self, slot: Slot, outcome: &Outcome, freshness: Freshness, now: u64) {
        let known = self.seats.get(slot.index());
        if !self.is_on() || known.is_none() {
            return;
        }
        let counts = match (outcome.failure, outcome.prompt) {
            (Some(failure), Some(prompt)) if !failure.certain => {
                self.prompts.fail(prompt, slot, now)
            }
            (Some(_), _) => true,
            (None, prompt) => {
                prompt
                    .into_iter()
                    .for_each(|prompt| self.prompts.serve(prompt, slot));
                true
            }
        };
        let Some(seat) = self.seats.get_mut(slot.index()) else {
            return;
        };
        let tried = seat.trying == Some(outcome.request);
        if tried {
            seat.trying = None;
        }
        if counts {
            seat.refresh(now);
            let share = |failed| f64::from(u8::from(failed));
            let certain = outcome.failure.is_some_and(|failure| failure.certain);
            seat.share += (share(outcome.failure.is_some()) - seat.share) * NEWEST;
            seat.certain += (share(certain) - seat.certain) * NEWEST;
        }
        match outcome.failure {
            None => self.serve(slot, outcome.bodied, tried, now),
            Some(failure) => {
                self.failed = now;
                if counts {
                    self.fail(slot, failure, freshness, tried, now);
                } else if tried {
                    // It is the prompt, which says nothing of the endpoint: the next one tries.
                    seat.open = true;
                    self.marked = true;
                }
            }
        }
    }

    fn serve(&mut self, slot: Slot, bodied: bool, tried: bool, now: u64) {
        let believed = self.believes(slot, now);
        let Some(seat) = self.seats.get_mut(slot.index()) else {
            return;
        };
        if bodied {
            self.served += 1;
            seat.served = now;
            seat.served_by_all = self.served;
        }
        // One that hung and answers hangs no more; nor does one fail that goes on serving here.
        let hung = seat.avoided() && seat.entry.reason == Reason::Hung;
        let serves = seat.avoided() && bodied && !believed;
        if tried || hung || serves {
            self.recover(slot, now);
        }
    }

    fn fail(&mut self, slot: Slot, failure: Failure, freshness: Freshness, tried: bool, now: u64) {
        let Some(seat) = self.seats.get(slot.index()) else {
            return;
        };
        let (avoided, own) = (seat.avoided(), seat.share(failure.certain, now));
        let far = |own: f64| own > FAR + 3.0 * self.share_of_peers(slot, failure.certain, now);
        if tried && !failure.certain && !far(1.0) {
            // Its peers fail as well now: it is not the endpoint.
            self.recover(slot, now);
        } else if tried || (!avoided && far(own) && self.accepts(slot, failure.certain, now)) {
            self.avoid(slot, failure, freshness, tried, now);
        }
    }

    /// An endpoint shows no sign of life.
    pub fn hangs(&mut self, slot: Slot, now: u64) {
        let seat = self.seats.get(slot.index());
        if self.is_on() && seat.is_some_and(|seat| !seat.avoided()) {
            let failure = Failure {
                reason: Reason::Hung,
                certain: true,
            };
            self.avoid(slot, failure, Freshness::Stale, false, now);
        }
    }

    /// The median share of failures of an endpoint's peers. What is avoided already counts with its
    /// last share: prompts that fail wherever they go make one after the other fail.
    fn share_of_peers(&self, slot: Slot, certain: bool, now: u64) -> f64 {
        let others = self.seats.iter().enumerate();
        let others = others
            .filter(|(index, seat)| *index != slot.index() && seat.entry.endpoint != 0)
            .map(|(_, seat)| seat.share(certain, now));
        let mut peers: Vec<f64> = others.collect();
        let middle = peers.len().saturating_sub(1) / 2;
        peers.sort_by(f64::total_cmp);
        peers.get(middle).copied().unwrap_or(0.0)
    }

    /// Whether this worker's own requests are not evidence against a failure of this kind.
    fn accepts(&self, slot: Slot, certain: bool, now: u64) -> bool {
        let Some(seat) = self.seats.get(slot.index()).filter(|_| !certain) else {
            return true;
        };
        let meanwhile = self.served.saturating_sub(seat.served_by_all);
        meanwhile >= SERVED_MEANWHILE * self.members || now.abs_diff(seat.served) >= SILENT_MS
    }

    /// Whether this worker's own requests are not evidence against an avoidance, its own or another
    /// worker's: one that only a few clients use must not decide for all.
    fn believes(&self, slot: Slot, now: u64) -> bool {
        let seat = self.seats.get(slot.index());
        seat.is_none_or(|seat| self.accepts(slot, seat.entry.certain, now))
    }

    fn avoid(&mut self, slot: Slot, failure: Failure, freshness: Freshness, tried: bool, now: u64) {
        let Settings { first, most } = self.settings;
        let Some(seat) = self.seats.get_mut(slot.index()) else {
            return;
        };
        let entry = &mut seat.entry;
        let forgotten = entry.until == 0 && now.abs_diff(entry.changed) > FORGET_MS;
        // What requests can cause is a repetition only where it never served in between.
        let first_of_its_kind = forgotten || !failure.certain && !tried;
        let before = if first_of_its_kind { 0 } else { entry.level };
        entry.level = before.saturating_add(1);
        entry.reason = failure.reason;
        entry.certain = failure.certain;
        entry.trial = 0;
        // What requests can cause needs a page that has stopped coming to last longer.
        let alive = match failure.certain {
            true => freshness == Freshness::Fresh,
            false => freshness != Freshness::Stale || failure.reason == Reason::Overloaded,
        };
        let most = if alive { most.min(MOST_ALIVE_MS) } else { most };
        let doubled = first
            .saturating_mul(1 << before.min(20))
            .min(most.max(first));
        let length = doubled - doubled / 5 + self.rng.u64(0..=doubled * 2 / 5);
        entry.until = now + length.max(1);
        entry.changed = now.max(entry.changed + 1);
        seat.open = false;
        self.dirty = true;
        self.marked = true;
        self.begun.push((slot, failure.reason));
    }

    fn recover(&mut self, slot: Slot, now: u64) {
        let Some(seat) = self.seats.get_mut(slot.index()) else {
            return;
        };
        seat.entry.until = 0;
        seat.entry.trial = 0;
        seat.entry.changed = now.max(seat.entry.changed + 1);
        (seat.share, seat.certain) = (0.0, 0.0);
        seat.open = false;
        self.dirty = true;
        self.marked = true;
    }

    /// What there is to tell the others.
    pub fn entries(&self) -> impl Iterator<Item = (Slot, Entry)> + '_ {
        let seats = self.seats.iter().enumerate();
        let told = seats.filter(|(_, seat)| seat.entry.changed > 0 && seat.entry.endpoint != 0);
        told.map(|(index, seat)| (Slot(index as u32), seat.entry))
    }

    /// Another worker's entry. Whether it is newer than ours, or the same; if not, the other has
    /// not heard of ours.
    pub fn merge(&mut self, slot: Slot, entry: Entry, now: u64) -> bool {
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
                // Another worker has seen it serve a request.
                (seat.share, seat.certain) = (0.0, 0.0);
                seat.served = now;
                seat.served_by_all = self.served;
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

    /// Whether the marks in the pool are out of date.
    pub fn is_stale(&self) -> bool {
        self.marked
    }

    /// Takes how often requests were found to be the cause since it was last asked.
    pub fn take_blamed(&mut self) -> Blamed {
        Blamed {
            prompts: std::mem::take(&mut self.prompts.blamed),
            majorities: std::mem::take(&mut self.majorities),
        }
    }

    /// Marks in the pool which endpoints are avoided; never more than half of those that may be
    /// picked, and none for what requests can cause where that would be more than half.
    pub fn mark(&mut self, pool: &mut Pool, now: u64) {
        if !std::mem::take(&mut self.marked) && !self.seats.iter().any(Seat::avoided) {
            return;
        }
        let available = pool.iter().filter(|(_, endpoint)| endpoint.available);
        let most = available.count() / 2;
        let available = |slot| pool.get(slot).is_some_and(|endpoint| endpoint.available);
        let seats = (0..).map(Slot).zip(&self.seats);
        let avoided = seats.filter(|(slot, seat)| seat.avoided() && available(*slot));
        let mut avoided: Vec<(Slot, &Seat)> = avoided.collect();
        let caused = avoided.iter().filter(|(_, seat)| !seat.entry.certain);
        let withheld = caused.count() > most;
        avoided.retain(|(slot, seat)| seat.entry.certain || !withheld && self.believes(*slot, now));
        // The same for every worker; what is certain comes first.
        avoided
            .sort_by_key(|(slot, seat)| (!seat.entry.certain, u32::MAX - seat.entry.level, slot.0));
        avoided.truncate(most);
        let avoided = avoided.iter().filter(|(_, seat)| !seat.open);
        let mut avoided: Vec<u32> = avoided.map(|(slot, _)| slot.0).collect();
        avoided.sort_unstable();
        for index in 0..pool.width() as u32 {
            let avoided = avoided.binary_search(&index).is_ok();
            pool.note(Slot(index), |endpoint| &mut endpoint.avoided, avoided);
        }
        let began = withheld && !self.withheld;
        self.majorities += u64::from(began);
        self.withheld = withheld;
    }
}

#[cfg(test)]
#[path = "avoid_attack_tests.rs"]
mod attack_tests;
#[cfg(test)]
#[path = "avoid_tests.rs"]
mod tests;

//! The flows of a band: which of its requests have the same fairness id.

use std::time::Duration;

use super::line::Line;
use super::settings::{ProgramAware, Strategy};
use super::table::Table;
use crate::prefix::key::Key;
use crate::time::Instant;

/// Bytes of a fairness id. A longer one stands for its hash.
pub const MAX_ID_BYTES: usize = 128;

/// Flows of a band with ids of their own. Once all of them have requests that wait, further ids share flows.
pub const MAX_FLOWS: usize = 1024;

/// The flows that ids share by their hash.
pub const SHARED_FLOWS: u64 = 64;

/// The flows that a band has at most.
pub const MAX_FLOWS_OF_BAND: usize = MAX_FLOWS + SHARED_FLOWS as usize;

/// A token of output counts as so many of input.
const OUTPUT_WEIGHT: f64 = 2.0;

/// What flows got is scaled down once this many half-lives have passed.
const MAX_HALF_LIVES: f64 = 64.0;

/// The label of a flow without a name in metrics.
pub const UNNAMED: u8 = u8::MAX;

/// The requests of one fairness id in a band.
#[derive(Debug)]
pub struct Flow {
    /// The id.
    pub id: Box<str>,
    /// A keyed hash of it.
    hash: u32,
    /// Its requests in the order in which they go, unless the band orders those of all flows together.
    pub line: Line,
    /// Its requests that wait.
    pub waiting: usize,
    /// Its name in metrics; [`UNNAMED`] before its first dispatch.
    pub label: u8,
    /// When a request last left it, or a response to one ended.
    last_used: Instant,
    /// The tokens that it got, those of now weighted by [`Flows::weight`].
    service: f64,
    /// The requests that were dispatched since it was last inactive.
    turns: u32,
    /// In how many pickers requests of it wait.
    pickers: u32,
    /// Its next turns that are other pickers'.
    passes: u32,
}

impl Flow {
    fn new(id: Box<str>, hash: u32, now: Instant) -> Self {
        Self {
            id,
            hash,
            line: Line::default(),
            waiting: 0,
            label: UNNAMED,
            last_used: now,
            service: 0.0,
            turns: 0,
            pickers: 1,
            passes: 0,
        }
    }

    /// Notes that a request has left, and whether it was dispatched.
    pub fn left(
        &mut self,
        since: Instant,
        dispatched: bool,
        strategy: Option<Strategy>,
        now: Instant,
    ) {
        self.waiting = self.waiting.saturating_sub(1);
        if dispatched {
            self.turns = self.turn(since, strategy);
        }
        self.last_used = now;
    }

    /// Returns which turn of its flow a request is that waits since then.
    fn turn(&self, since: Instant, strategy: Option<Strategy>) -> u32 {
        match strategy {
            Some(Strategy::TurnPriority {
                inactivity: Some(inactivity),
                ..
            }) if since.since(self.last_used) > inactivity => 1,
            _ => self.turns.saturating_add(1),
        }
    }
}

/// The flows of a band. Each has a place, which stays the same while requests of it wait.
#[derive(Debug, Default)]
pub struct Flows {
    flows: Vec<Flow>,
    /// The places in the order of the ids.
    order: Vec<u32>,
    /// Places without a flow.
    free: Vec<u32>,
    /// The id of the flow that went last.
    last: String,
    /// The time at which a token weighs 1.
    epoch: Instant,
    /// Whether a flow's requests may wait in other pickers, too.
    is_shared: bool,
}

impl Flows {
    /// Returns the flow in a place.
    pub fn get_mut(&mut self, place: u32) -> Option<&mut Flow> {
        self.flows.get_mut(place as usize)
    }

    /// Returns all flows.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Flow> {
        self.flows.iter_mut()
    }

    /// Returns how many there are.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Returns the place of the flow of an id, if there is one.
    pub fn find(&self, id: &str, key: &Key) -> Option<u32> {
        if id.len() > MAX_ID_BYTES {
            return self.search(&hashed(id, u64::MAX, key)).ok();
        }
        self.search(id).ok()
    }

    /// Returns the place of the flow of an id, or the position in the order where it belongs.
    fn search(&self, id: &str) -> Result<u32, usize> {
        let found = self
            .order
            .binary_search_by(|place| self.id(*place).cmp(id))?;
        Ok(self.order.get(found).copied().unwrap_or_default())
    }

    fn id(&self, place: u32) -> &str {
        let flow = self.flows.get(place as usize);
        flow.map_or("", |flow| &flow.id)
    }

    /// Returns the place of the flow of an id, which is there from then on.
    pub fn find_or_add(&mut self, id: &str, key: &Key, now: Instant) -> u32 {
        let hash;
        let id = match id.len() > MAX_ID_BYTES {
            true => {
                hash = hashed(id, u64::MAX, key);
                &hash
            }
            false => id,
        };
        if let Ok(place) = self.search(id) {
            return place;
        }
        if self.len() >= MAX_FLOWS {
            let flows = &self.flows;
            let flow = |place: &u32| flows.get(*place as usize);
            let idle = |place: &u32| flow(place).is_some_and(|flow| flow.waiting == 0);
            let idle = self.order.iter().copied().filter(idle);
            let Some(oldest) = idle.min_by_key(|place| flow(place).map(|flow| flow.last_used))
            else {
                let shared = hashed(id, SHARED_FLOWS, key);
                return match self.search(&shared) {
                    Ok(place) => place,
                    Err(_) => self.add(&shared, key, now),
                };
            };
            self.remove(oldest);
        }
        self.add(id, key, now)
    }

    fn add(&mut self, id: &str, key: &Key, now: Instant) -> u32 {
        let at = self.search(id).err().unwrap_or_default();
        let flow = Flow::new(id.into(), key.digest(id.as_bytes()) as u32, now);
        let free = self.free.pop();
        let place = free.unwrap_or(self.flows.len() as u32);
        match self.flows.get_mut(place as usize) {
            Some(vacant) => *vacant = flow,
            None => self.flows.push(flow),
        }
        self.order.insert(at, place);
        place
    }

    fn remove(&mut self, place: u32) {
        self.order.retain(|known| *known != place);
        if let Some(flow) = self.get_mut(place) {
            *flow = Flow::new(Box::default(), 0, Instant::default());
        }
        self.free.push(place);
    }

    /// Forgets flows that have been idle for as long.
    pub fn sweep(&mut self, idle: Duration, now: Instant) {
        for place in (0..).take(self.flows.len()) {
            let flow = self.get_mut(place);
            let idle = |flow: &mut Flow| {
                flow.waiting == 0 && !flow.id.is_empty() && now.since(flow.last_used) >= idle
            };
            if flow.is_some_and(idle) {
                self.remove(place);
            }
        }
        if self.order.is_empty() {
            self.flows = Vec::new();
            self.free = Vec::new();
        }
    }

    /// Notes the flow that goes: others have their turns first.
    pub fn goes(&mut self, place: u32) {
        let mut last = std::mem::take(&mut self.last);
        last.clear();
        last.push_str(self.id(place));
        self.last = last;
        if let Some(flow) = self.get_mut(place) {
            flow.passes = flow.pickers.saturating_sub(1);
        }
    }

    /// Returns the flow that is next in turn. Of the turns of one that waits in several pickers, one in as many is
    /// this picker's.
    pub fn next_in_turn(&mut self) -> Option<u32> {
        let last = self.last.as_str();
        let after = self.order.partition_point(|place| self.id(*place) <= last);
        let (before, after) = self.order.split_at_checked(after)?;
        let flows = &self.flows;
        let flow = |place: &u32| flows.get(*place as usize).filter(|flow| flow.waiting > 0);
        let waiting = after.iter().chain(before);
        let waiting = waiting.filter_map(|place| Some((*place, flow(place)?.passes)));
        let (next, rounds) = match waiting.clone().find(|(_, passes)| *passes == 0) {
            Some(next) => next,
            // As many rounds in which all pass.
            None => waiting.min_by_key(|(_, passes)| *passes)?,
        };
        let mut passed = 1;
        for place in after.iter().chain(before) {
            if *place == next {
                if rounds == 0 {
                    break;
                }
                passed = 0;
            }
            let flow = self.flows.get_mut(*place as usize);
            if let Some(flow) = flow.filter(|flow| flow.waiting > 0) {
                flow.passes = flow.passes.saturating_sub(rounds + passed);
            }
        }
        Some(next)
    }

    /// Returns how many flows have requests that wait, and the smallest of their hashes in order, each once, `most` at
    /// most.
    pub fn sample(&self, most: usize) -> (usize, Vec<u32>) {
        let waiting = self.flows.iter().filter(|flow| flow.waiting > 0);
        let mut hashes: Vec<u32> = waiting.map(|flow| flow.hash).collect();
        let count = hashes.len();
        hashes.sort_unstable();
        hashes.dedup();
        hashes.truncate(most);
        (count, hashes)
    }

    /// Says in how many pickers requests of each flow wait, by its hash.
    pub fn share(&mut self, pickers: &dyn Fn(u32) -> u32) {
        self.is_shared = true;
        for flow in &mut self.flows {
            flow.pickers = pickers(flow.hash).max(1);
            flow.passes = flow.passes.min(flow.pickers - 1);
        }
    }

    /// Requests of the band wait in no other picker.
    pub fn end_sharing(&mut self) {
        if self.is_shared {
            self.share(&|_| 1);
            self.is_shared = false;
        }
    }

    /// Returns the flow with the highest score; of several, the one whose first request has waited longest.
    pub fn best(&mut self, policy: &ProgramAware, table: &Table, now: Instant) -> Option<u32> {
        let waiting = self.flows.iter_mut().zip(0..);
        let heads = waiting.filter_map(|(flow, place)| {
            let (_, id) = flow.line.first(table)?;
            let since = table.get(id)?.since;
            Some((place, since))
        });
        // Heads are looked up once. With one flow, which is the rule, there is nothing to compare.
        let heads: Vec<(u32, Instant)> = heads.collect();
        let mut service = Range::default();
        let mut wait = Range::default();
        for (place, since) in &heads {
            let flow = self.flows.get(*place as usize)?;
            service.include(flow.service);
            wait.include(now.since(*since).as_secs_f64());
        }
        let mut best: Option<(f64, Instant, u32)> = None;
        for (place, since) in heads {
            let flow = self.flows.get(place as usize)?;
            let waited = now.since(since).as_secs_f64();
            let score = match policy.strategy {
                Strategy::Las {
                    service_weight,
                    wait_weight,
                    ..
                } => {
                    service_weight * (1.0 - service.place(flow.service))
                        + wait_weight * wait.place(waited)
                }
                Strategy::TurnPriority { time_weight, .. } => {
                    f64::from(flow.turn(since, Some(policy.strategy))) + time_weight * waited
                }
            };
            let better =
                |(known, known_since, _)| score > known || (score == known && since < known_since);
            if best.is_none_or(better) {
                best = Some((score, since, place));
            }
        }
        best.map(|(_, _, place)| place)
    }

    /// Counts tokens that a flow got.
    pub fn served(
        &mut self,
        place: u32,
        (input, output): (u64, u64),
        half_life: Option<Duration>,
        now: Instant,
    ) {
        let weight = half_life.map_or(1.0, |half_life| self.weight(half_life, now));
        if let Some(flow) = self.get_mut(place) {
            flow.last_used = now;
            flow.service += weight * (input as f64 + OUTPUT_WEIGHT * output as f64);
        }
    }

    /// Returns what a token of now weighs. Rather than that all earlier ones lose weight all the time, later ones weigh
    /// more, which comes to the same in comparisons.
    fn weight(&mut self, half_life: Duration, now: Instant) -> f64 {
        let passed = now.since(self.epoch).as_secs_f64() / half_life.as_secs_f64();
        if passed <= MAX_HALF_LIVES {
            return 2.0_f64.powf(passed);
        }
        let lost = 2.0_f64.powf(-passed);
        self.flows.iter_mut().for_each(|flow| flow.service *= lost);
        self.epoch = now;
        1.0
    }
}

/// The least and the greatest of some values.
#[derive(Debug, Clone, Copy)]
struct Range {
    least: f64,
    greatest: f64,
}

impl Default for Range {
    fn default() -> Self {
        Self {
            least: f64::INFINITY,
            greatest: f64::NEG_INFINITY,
        }
    }
}

impl Range {
    fn include(&mut self, value: f64) {
        self.least = self.least.min(value);
        self.greatest = self.greatest.max(value);
    }

    /// Returns where a value is between both, from 0 to 1; the middle where they are equal.
    fn place(self, value: f64) -> f64 {
        match self.greatest > self.least {
            true => (value - self.least) / (self.greatest - self.least),
            false => 0.5,
        }
    }
}

/// Returns the name of the flow of an id's hash, of which there are as many as `different`. No id of a client is like
/// it, because headers have no such bytes.
fn hashed(id: &str, different: u64, key: &Key) -> String {
    format!("\0{:016x}", key.digest(id.as_bytes()) % different)
}

#[cfg(test)]
#[path = "flows_tests.rs"]
mod tests;

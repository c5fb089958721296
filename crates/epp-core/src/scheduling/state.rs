//! State that plugins keep from request to request: which endpoint a key was last bound to.
//!
//! A plugin declares its state when it is built, reads it through the request's view, and never changes it. A
//! [`Hook`](super::Hook) says what a request that is sent binds; the picker records that, and so do its peers.

use std::collections::VecDeque;
use std::hash::BuildHasherDefault;
use std::time::Duration;

use hashbrown::HashMap;

use super::endpoint::Slot;
use crate::number_hash::NumberHasher;
use crate::prefix::key::{Key, Secret};
use crate::time::Instant;

/// The number of a plugin's state in its plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateId(pub usize);

/// The declaration of a plugin's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateSpec {
    /// The plugin's name in the document.
    pub plugin: String,
    /// Keys that are bound at most; the one that was used longest ago makes room.
    pub capacity: usize,
    /// Whether so many are bound for each endpoint that has any, on average, and [`MAX_KEYS`] at most.
    pub per_endpoint: bool,
    /// How long a key stays bound without use.
    pub ttl: Option<Duration>,
}

/// Keys that one state binds at most, of some 100 bytes each.
pub const MAX_KEYS: usize = 65_536;

/// Keys that all states of a plan bind at most, 26 MB: four of the largest, and a plan with more has smaller ones.
const MAX_KEYS_OF_ALL: usize = 4 * MAX_KEYS;

/// Keys that one call forgets at most because they were not used for long enough: a millisecond of work. A thousand
/// new keys a second come up with 50 per tick.
const MAX_EXPIRED_PER_TICK: usize = 4_096;

/// The endpoint that a key is bound to.
#[derive(Debug, Clone, Copy)]
struct Binding {
    slot: Slot,
    /// How often the key has moved to another endpoint, in any worker; 65,535 stands for more.
    generation: u16,
    /// The number of its last use.
    turn: u64,
}

/// A use of a key; outdated once the key was used again or unbound.
#[derive(Debug, Clone, Copy)]
struct Use {
    key: u64,
    turn: u64,
    at: Instant,
}

/// Keys are hashes under the picker's secret, or slots.
type Keys = HashMap<u64, Binding, BuildHasherDefault<NumberHasher>>;

/// Which endpoint each key is bound to, in the order of their last use.
#[derive(Debug, Clone)]
pub struct Bindings {
    spec: StateSpec,
    /// Keys that are bound at most, whatever the specification says.
    max_keys: usize,
    keys: Keys,
    /// The last use of each key, and outdated ones between them.
    uses: VecDeque<Use>,
    turn: u64,
    /// How many keys are bound to each endpoint, by slot.
    held: Vec<u32>,
    /// How many endpoints have any.
    holders: usize,
}

impl Bindings {
    /// Returns bindings without keys.
    pub fn new(spec: StateSpec) -> Self {
        Self {
            spec,
            max_keys: MAX_KEYS,
            keys: Keys::default(),
            uses: VecDeque::new(),
            turn: 0,
            held: Vec::new(),
            holders: 0,
        }
    }

    /// Returns how many keys may be bound now.
    fn bound(&self) -> usize {
        let endpoints = match self.spec.per_endpoint {
            true => self.holders,
            false => 1,
        };
        self.spec
            .capacity
            .saturating_mul(endpoints)
            .min(self.max_keys)
    }

    fn count(&mut self, slot: Slot, more: bool) {
        if self.held.len() <= slot.index() {
            self.held.resize(slot.index() + 1, 0);
        }
        if let Some(held) = self.held.get_mut(slot.index()) {
            let before = *held;
            *held = match more {
                true => before.saturating_add(1),
                false => before.saturating_sub(1),
            };
            self.holders += usize::from(before == 0 && *held > 0);
            self.holders -= usize::from(before > 0 && *held == 0);
        }
    }

    /// Returns the endpoint that a key is bound to.
    pub fn get(&self, key: u64) -> Option<Slot> {
        self.keys.get(&key).map(|binding| binding.slot)
    }

    /// Returns how often a key has moved from one endpoint to another.
    pub fn generation(&self, key: u64) -> u16 {
        self.keys.get(&key).map_or(0, |binding| binding.generation)
    }

    /// Returns the number of a key's last use; a later one is higher.
    pub fn turn(&self, key: u64) -> Option<u64> {
        self.keys.get(&key).map(|binding| binding.turn)
    }

    /// Returns the number of each key's last use in turn.
    pub fn turns(&self) -> impl Iterator<Item = u64> + '_ {
        self.current().map(|(last, _)| last.turn)
    }

    /// Returns the keys with their endpoints, the key that was used longest ago first.
    pub fn iter(&self) -> impl Iterator<Item = (u64, Slot)> + '_ {
        self.current().map(|(last, slot)| (last.key, slot))
    }

    /// Returns how many keys are bound.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Returns whether no key is bound.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    fn current(&self) -> impl Iterator<Item = (&Use, Slot)> + '_ {
        let uses = self.uses.iter();
        uses.filter_map(|last| {
            let binding = self.keys.get(&last.key)?;
            (binding.turn == last.turn).then_some((last, binding.slot))
        })
    }

    /// A request has used a key, which is bound to the endpoint in this slot from now on.
    pub fn bind(&mut self, key: u64, slot: Slot, at: Instant) {
        let moves = self.get(key).is_some_and(|known| known != slot);
        let generation = self.generation(key).saturating_add(u16::from(moves));
        self.put(key, slot, generation, at);
    }

    fn put(&mut self, key: u64, slot: Slot, generation: u16, at: Instant) {
        self.turn += 1;
        let turn = self.turn;
        let binding = Binding {
            slot,
            generation,
            turn,
        };
        if let Some(before) = self.keys.insert(key, binding) {
            self.count(before.slot, false);
        }
        self.count(slot, true);
        self.uses.push_back(Use { key, turn, at });
        self.make_room();
        if self.uses.len() > 2 * self.keys.len() + 16 {
            let keys = &self.keys;
            let is_last = |last: &Use| keys.get(&last.key).map(|known| known.turn);
            self.uses.retain(|last| is_last(last) == Some(last.turn));
        }
    }

    /// Another picker has bound a key, which has moved this often. Where two have bound it to different endpoints, the
    /// one that has moved more often counts; of two that moved at the same time the endpoint in the lower slot. So all
    /// pickers agree.
    pub fn bind_by_peer(&mut self, key: u64, slot: Slot, generation: u16, at: Instant) {
        let (slot, generation) = match self.keys.get(&key) {
            Some(known) if known.generation > generation => (known.slot, known.generation),
            Some(known) if known.generation == generation => (known.slot.min(slot), generation),
            _ => (slot, generation),
        };
        self.put(key, slot, generation, at);
    }

    fn make_room(&mut self) {
        let bound = self.bound();
        while self.keys.len() > bound {
            self.forget_oldest();
        }
    }

    /// Binds no more keys than this from now on.
    fn set_max_keys(&mut self, max_keys: usize) {
        self.max_keys = max_keys;
        self.make_room();
    }

    fn forget_oldest(&mut self) {
        if let Some(oldest) = self.uses.pop_front() {
            if self.turn(oldest.key) == Some(oldest.turn) {
                let removed = self.keys.remove(&oldest.key);
                removed
                    .into_iter()
                    .for_each(|gone| self.count(gone.slot, false));
            }
        }
    }

    /// Unbinds keys that were not used for long enough.
    pub fn expire(&mut self, now: Instant) {
        let Some(ttl) = self.spec.ttl else {
            return;
        };
        for _ in 0..MAX_EXPIRED_PER_TICK {
            let oldest = self.uses.front();
            if oldest.is_none_or(|oldest| now.since(oldest.at) <= ttl) {
                return;
            }
            self.forget_oldest();
        }
    }

    /// The endpoint in this slot has left.
    pub fn remove_endpoint(&mut self, slot: Slot) {
        self.keys.retain(|_, binding| binding.slot != slot);
        if let Some(held) = self.held.get_mut(slot.index()) {
            self.holders -= usize::from(*held > 0);
            *held = 0;
        }
    }
}

/// The state of all plugins of a plan.
#[derive(Debug, Clone)]
pub struct States {
    key: Key,
    all: Vec<Bindings>,
    fingerprint: u64,
}

static NO_STATES: States = States {
    key: Key::Plain,
    all: Vec::new(),
    fingerprint: 0,
};

impl Default for &States {
    fn default() -> Self {
        &NO_STATES
    }
}

impl States {
    /// Returns empty states.
    pub fn new(specs: &[StateSpec], secret: &Secret) -> Self {
        let mut states = Self {
            key: Key::Secret(secret.clone()),
            all: Vec::new(),
            fingerprint: 0,
        };
        states.install(specs, |_| false);
        states
    }

    /// Puts the states of another plan in force, and keeps those of which `stays` holds and the declaration is the
    /// same.
    pub fn install(&mut self, specs: &[StateSpec], stays: impl Fn(&str) -> bool) {
        let mut before = std::mem::take(&mut self.all);
        let max_keys = MAX_KEYS.min(MAX_KEYS_OF_ALL / specs.len().max(1));
        let kept = specs.iter().map(|spec| {
            let same = |known: &Bindings| known.spec == *spec && stays(&spec.plugin);
            let mut bindings = match before.iter().position(same) {
                Some(place) => before.swap_remove(place),
                None => Bindings::new(spec.clone()),
            };
            bindings.set_max_keys(max_keys);
            bindings
        });
        self.all = kept.collect();
        self.fingerprint = match specs {
            [] => 0,
            _ => self.key.digest(format!("{specs:?}").as_bytes()),
        };
    }

    /// Returns a number that tells these states from those of pickers with other plans. It is 0 where there are none.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Returns the key of a text that a client chooses. Only the picker's secret tells which texts have the same.
    pub fn key(&self, text: &[u8]) -> u64 {
        self.key.digest(text)
    }

    /// Returns a plugin's state.
    pub fn get(&self, StateId(place): StateId) -> Option<&Bindings> {
        self.all.get(place)
    }

    /// Returns a plugin's state, to change.
    pub fn get_mut(&mut self, StateId(place): StateId) -> Option<&mut Bindings> {
        self.all.get_mut(place)
    }

    /// Unbinds keys that were not used for long enough.
    pub fn expire(&mut self, now: Instant) {
        self.all.iter_mut().for_each(|state| state.expire(now));
    }

    /// The endpoint in this slot has left.
    pub fn remove_endpoint(&mut self, slot: Slot) {
        let states = self.all.iter_mut();
        states.for_each(|state| state.remove_endpoint(slot));
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;

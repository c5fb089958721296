//! Plugins' state: what requests bind, here and in the other pickers.
//!
//! A binding travels as a placement of one hash, its key. The key of one that has moved is followed by how often. A
//! whole state travels as one placement: each key is followed by its endpoint's slot, in 16 bits, how often it has moved,
//! in 16, and the endpoint's tag.

use super::dispatcher::Dispatcher;
use super::learnt::{Binding, Placement};
use crate::scheduling::{Record, Slot, StateId};

impl Dispatcher {
    /// Binds a key, here and after the next tick in the other pickers.
    pub fn bind(&mut self, record: Record) {
        let Record { state, key, slot } = record;
        let Some(bindings) = self.states.get_mut(state) else {
            return;
        };
        bindings.bind(key, slot, self.clock.now());
        let generation = bindings.generation(key);
        let tag = self.endpoints.loads.tag(slot);
        let slot = slot.0;
        let placement = Placement::Binding(Binding { state, slot, tag });
        let words = [key, u64::from(generation)];
        let count = if generation > 0 { 2 } else { 1 };
        self.prefixes.learnt.append_run(placement, &words, 0..count);
    }

    /// Binds a key as another picker has bound it.
    pub fn learn_binding(&mut self, learnt: Binding, words: &[u64]) {
        let Some((key, rest)) = words.split_first() else {
            return;
        };
        let generation = rest.first().copied().unwrap_or_default();
        let slot = Slot(learnt.slot);
        let is_present = self.is_member(slot, learnt.tag);
        let state = self.states.get_mut(learnt.state).filter(|_| is_present);
        if let Some(bindings) = state {
            bindings.bind_by_peer(*key, slot, generation as u16, self.clock.now());
        }
    }

    fn is_member(&self, slot: Slot, tag: u32) -> bool {
        let present = self.endpoints.endpoint(slot).is_some();
        present && self.endpoints.loads.tag(slot) == tag
    }

    /// Writes a whole state into `words`, the key that was used longest ago first; `None` past the last state.
    pub fn list_bindings(&self, number: usize, words: &mut Vec<u64>) -> Option<Placement> {
        let state = StateId(number);
        let bindings = self.states.get(state)?;
        for (key, slot) in bindings.iter().filter(|(_, slot)| slot.0 >> 16 == 0) {
            let tag = self.endpoints.loads.tag(slot);
            let moved = slot.0 << 16 | u32::from(bindings.generation(key));
            words.extend([key, u64::from(moved) << 32 | u64::from(tag)]);
        }
        Some(Placement::State(state))
    }

    /// Takes over a part of a state that another picker has listed; a key that is bound here stays as it is.
    pub fn take_over_state(&mut self, state: StateId, words: &mut dyn Iterator<Item = u64>) {
        while let (Some(key), Some(place)) = (words.next(), words.next()) {
            let (slot, generation) = (Slot((place >> 48) as u32), (place >> 32) as u16);
            let tag = place as u32;
            let is_present = self.is_member(slot, tag);
            let state = self.states.get_mut(state).filter(|_| is_present);
            if let Some(bindings) = state.filter(|bindings| bindings.get(key).is_none()) {
                bindings.bind_by_peer(key, slot, generation, self.clock.now());
            }
        }
    }
}

#[cfg(test)]
#[path = "bindings_tests.rs"]
mod tests;

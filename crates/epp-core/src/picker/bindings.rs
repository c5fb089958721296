//! Plugins' state: what requests bind, here and in the other pickers.
//!
//! A binding travels as a placement of one hash, its key, with a producer's number that no index has. So it needs
//! nothing of its own in what the pickers of one proxy exchange. The key of one that has moved is followed by how often.

use super::dispatcher::Dispatcher;
use super::learnt::{Evidence, Placement, FIRST_STATE};
use crate::scheduling::{Record, Slot, StateId};

/// The slot of a placement that lists a whole state: each key is followed by its endpoint's slot, in 16 bits, how often
/// it has moved, in 16, and the endpoint's tag.
const ALL_SLOTS: u32 = u32::MAX;

/// Returns the state that a placement is about, if it is not about an index.
pub fn state_of(placement: Placement) -> Option<StateId> {
    let number = placement.producer.checked_sub(FIRST_STATE)?;
    Some(StateId(usize::from(number)))
}

fn placement(state: StateId, slot: u32, tag: u32) -> Placement {
    Placement {
        evidence: Evidence::Sent,
        // A plan has at most MAX_STATES.
        producer: FIRST_STATE.saturating_add(state.0 as u8),
        slot,
        tag,
    }
}

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
        let placement = placement(state, slot.0, tag);
        let words = [key, u64::from(generation)];
        let count = if generation > 0 { 2 } else { 1 };
        self.prefixes.learnt.append_run(placement, &words, 0..count);
    }

    /// Binds a key as another picker has bound it.
    pub fn learn_binding(&mut self, state: StateId, learnt: Placement, words: &[u64]) {
        let Some((key, rest)) = words.split_first() else {
            return;
        };
        let generation = rest.first().copied().unwrap_or_default();
        let slot = Slot(learnt.slot);
        let is_present = self.is_member(slot, learnt.tag);
        let state = self.states.get_mut(state).filter(|_| is_present);
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
        Some(placement(state, ALL_SLOTS, 0))
    }

    /// Takes over a part of what another picker has listed, whose keys stay as they are where they are bound here, or a
    /// binding that another picker has archived.
    pub fn take_over_bindings(
        &mut self,
        state: StateId,
        list: Placement,
        words: &mut dyn Iterator<Item = u64>,
    ) {
        if list.slot != ALL_SLOTS {
            let words: Vec<u64> = words.collect();
            return self.learn_binding(state, list, &words);
        }
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

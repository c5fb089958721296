//! The exchanges under way.

use super::{Exchange, Phase};
use crate::picker::ids::ById;

/// Exchanges that are kept for later requests, with their buffers: as many as one worker's requests commonly
/// overlap. Beyond, memory is given back.
const MAX_SPARE: usize = 64;

/// The exchanges under way, and how many of them are held.
///
/// An exchange enters and leaves the phase [`Phase::Reading`] only here, and in the same step its part in that
/// number: no panic, caught by the host, can come in between. So nothing ever has to count them again.
#[derive(Debug, Default)]
pub struct Exchanges {
    by_id: ById<Box<Exchange>>,
    held: usize,
    // Boxed in the table, so that a request costs no move of its exchange.
    #[allow(clippy::vec_box)]
    spare: Vec<Box<Exchange>>,
}

impl Exchanges {
    /// Returns an exchange that is not under way.
    pub fn take_spare(&mut self) -> Box<Exchange> {
        self.spare.pop().unwrap_or_default()
    }

    /// Takes back an exchange that has ended.
    pub fn recycle(&mut self, exchange: Box<Exchange>) {
        if self.spare.len() < MAX_SPARE {
            self.spare.push(exchange);
        }
    }

    /// Begins an exchange. Returns a former one with its number.
    pub fn insert(&mut self, id: u32, exchange: Box<Exchange>) -> Option<Box<Exchange>> {
        let is_held = exchange.is_held();
        let former = self.by_id.insert(id, exchange);
        let was_held = former.as_ref().is_some_and(|former| former.is_held());
        self.count(was_held, is_held);
        former
    }

    /// Ends an exchange.
    pub fn remove(&mut self, id: &u32) -> Option<Box<Exchange>> {
        let exchange = self.by_id.remove(id)?;
        self.count(exchange.is_held(), false);
        Some(exchange)
    }

    /// Moves an exchange to another phase.
    pub fn set_phase(&mut self, id: u32, phase: Phase) {
        if let Some(exchange) = self.by_id.get_mut(&id) {
            let was_held = exchange.is_held();
            exchange.phase = phase;
            let is_held = exchange.is_held();
            self.count(was_held, is_held);
        }
    }

    fn count(&mut self, was_held: bool, is_held: bool) {
        self.held = self.held.saturating_sub(usize::from(was_held)) + usize::from(is_held);
    }

    /// Returns how many exchanges are held.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Returns how many exchanges are under way.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Returns an exchange.
    pub fn get(&self, id: &u32) -> Option<&Exchange> {
        self.by_id.get(id).map(Box::as_ref)
    }

    /// Returns an exchange, to change.
    pub fn get_mut(&mut self, id: &u32) -> Option<&mut Exchange> {
        self.by_id.get_mut(id).map(Box::as_mut)
    }

    /// Returns all exchanges with their numbers. Clients choose how many these are: not for what is done with each
    /// tick.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Exchange)> {
        self.by_id
            .iter()
            .map(|(id, exchange)| (*id, exchange.as_ref()))
    }

    /// Brings the values of headers that all requests keep from the order `before` into the order `now`.
    pub fn reorder_headers(&mut self, before: &[String], now: &[String]) {
        let exchanges = self.by_id.values_mut();
        exchanges.for_each(|exchange| exchange.headers.reorder(before, now));
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Target, Targets};
    use super::*;
    use crate::picker::hold::Hold;
    use crate::picker::Head;
    use crate::scheduling::{Slot, TargetRole};
    use crate::time::Instant;

    fn reading() -> Phase {
        Phase::Reading(Hold::new(&Head::default(), 0, Instant::default()))
    }

    #[test]
    fn those_that_are_held_are_counted_whatever_becomes_of_them() {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut exchanges = Exchanges::default();
        for _ in 0..10_000 {
            let id = rng.u32(0..20);
            match rng.u32(0..5) {
                0 => {
                    let mut exchange = exchanges.take_spare();
                    exchange.phase = if rng.bool() { reading() } else { Phase::New };
                    exchanges.insert(id, exchange);
                }
                1 => {
                    if let Some(exchange) = exchanges.remove(&id) {
                        exchanges.recycle(exchange);
                    }
                }
                2 => exchanges.set_phase(id, Phase::Sent(Targets::new())),
                3 => exchanges.set_phase(id, reading()),
                _ => exchanges.set_phase(id, Phase::Done),
            }
            let held = exchanges.iter().filter(|(_, exchange)| exchange.is_held());
            assert_eq!(exchanges.held(), held.count());
        }
    }

    #[test]
    fn targets_are_taken_once() {
        let mut exchange = Exchange::default();
        let target = Target {
            slot: Slot(0),
            tenure: 1,
            role: TargetRole::Primary,
            scrapes: 0,
            unseen: false,
            tokens: None,
        };
        exchange.phase = Phase::Sent(Targets::from_iter([target]));
        assert_eq!(exchange.take_targets().len(), 1);
        assert!(exchange.take_targets().is_empty());
    }
}

//! The exchanges under way.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use super::Exchange;
use crate::number_hash::ById;
use crate::picker::deadlines::Deadlines;
use crate::picker::ExchangeId;
use crate::time::Instant;

/// Exchanges that are kept for later requests, with their buffers: as many as one worker's requests commonly
/// overlap. Beyond, memory is given back.
const MAX_SPARE: usize = 64;

/// The exchanges under way, and which of them wait for what.
#[derive(Debug, Default)]
pub struct Exchanges {
    by_id: ById<Box<Exchange>>,
    waiting: Waiting,
    // Boxed in the table, so that a request costs no move of its exchange.
    #[allow(clippy::vec_box)]
    spare: Vec<Box<Exchange>>,
}

/// The exchanges that wait, by what they wait for. Only [`Change`] writes it.
#[derive(Debug, Default)]
struct Waiting {
    /// How many are held.
    held: usize,
    /// Those that are held, by their deadlines' base ([`Hold::deadline_base`](super::Hold::deadline_base)).
    overdue: Deadlines,
    /// Those that are held with a part of their body left unread, by when it is to be read.
    unread: Deadlines,
    /// The exchange that was being changed when a call panicked last.
    broken: Option<ExchangeId>,
}

/// The waiting state of an exchange before it is changed.
#[derive(Debug, Clone, Copy)]
struct Change {
    was_held: bool,
    had_unread: bool,
}

impl Change {
    /// Begins to change an exchange; `None`: one that is not in the table yet.
    fn of(exchange: Option<&Exchange>) -> Self {
        let hold = exchange.and_then(Exchange::hold);
        Self {
            was_held: hold.is_some(),
            had_unread: hold.is_some_and(|hold| hold.unread_due().is_some()),
        }
    }

    /// Counts what the exchange waits for now; `None`: it is not in the table any more.
    fn count(self, exchange: Option<&Exchange>, waiting: &mut Waiting) {
        let Some((id, hold)) =
            exchange.and_then(|exchange| Some((exchange.id.0, exchange.hold()?)))
        else {
            waiting.held = waiting.held.saturating_sub(usize::from(self.was_held));
            return;
        };
        if !self.was_held {
            waiting.held += 1;
            waiting.overdue.add(id, hold.since());
        }
        if let Some(due) = hold.unread_due().filter(|_| !self.had_unread) {
            waiting.unread.add(id, due);
        }
    }
}

/// An exchange under way, to change. What it waits for is counted once the change is made: when this is dropped,
/// which a panic that the host catches does as well.
#[derive(Debug)]
pub struct ExchangeMut<'a> {
    exchange: &'a mut Exchange,
    waiting: &'a mut Waiting,
    change: Change,
}

impl<'a> ExchangeMut<'a> {
    fn new(exchange: &'a mut Exchange, waiting: &'a mut Waiting) -> Self {
        let change = Change::of(Some(exchange));
        Self {
            exchange,
            waiting,
            change,
        }
    }
}

impl Deref for ExchangeMut<'_> {
    type Target = Exchange;

    fn deref(&self) -> &Exchange {
        self.exchange
    }
}

impl DerefMut for ExchangeMut<'_> {
    fn deref_mut(&mut self) -> &mut Exchange {
        self.exchange
    }
}

impl Drop for ExchangeMut<'_> {
    fn drop(&mut self) {
        self.change.count(Some(self.exchange), self.waiting);
        if std::thread::panicking() {
            self.waiting.broken = Some(self.exchange.id);
        }
    }
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

    /// Begins an exchange. Returns a former one with its number, which the host has not ended.
    pub fn insert(&mut self, exchange: Box<Exchange>) -> Option<Box<Exchange>> {
        let id = exchange.id;
        // Before anything is counted: a panic, as where memory ends, leaves nothing counted that is not in the table.
        let former = self.by_id.insert(id.0, exchange);
        if let Some(former) = &former {
            Change::of(Some(former)).count(None, &mut self.waiting);
        }
        if let Some(exchange) = self.by_id.get(&id.0) {
            Change::of(None).count(Some(exchange), &mut self.waiting);
        }
        former
    }

    /// Ends an exchange.
    pub fn remove(&mut self, ExchangeId(id): ExchangeId) -> Option<Box<Exchange>> {
        let exchange = self.by_id.remove(&id)?;
        Change::of(Some(&exchange)).count(None, &mut self.waiting);
        self.waiting.broken.take_if(|broken| broken.0 == id);
        Some(exchange)
    }

    /// Returns the exchange that was being changed when a call panicked, and forgets which it was.
    pub fn take_broken(&mut self) -> Option<ExchangeId> {
        self.waiting.broken.take()
    }

    /// Returns an exchange.
    pub fn get(&self, ExchangeId(id): ExchangeId) -> Option<&Exchange> {
        self.by_id.get(&id).map(Box::as_ref)
    }

    /// Returns an exchange, to change.
    pub fn get_mut(&mut self, ExchangeId(id): ExchangeId) -> Option<ExchangeMut<'_>> {
        let exchange = self.by_id.get_mut(&id)?;
        Some(ExchangeMut::new(exchange, &mut self.waiting))
    }

    /// Returns how many exchanges are held.
    pub fn held(&self) -> usize {
        self.waiting.held
    }

    /// Returns how many exchanges are under way.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Returns all exchanges.
    #[cfg(test)]
    pub fn iter(&self) -> impl Iterator<Item = &Exchange> {
        self.by_id.values().map(Box::as_ref)
    }

    /// Changes all exchanges. Clients choose how many these are: not for what is done with each tick.
    pub fn for_each_mut(&mut self, mut change_one: impl FnMut(&mut Exchange)) {
        for exchange in self.by_id.values_mut() {
            change_one(&mut ExchangeMut::new(exchange, &mut self.waiting));
        }
    }

    /// Returns the held exchange whose deadline of this timeout has the earliest base, if that is not after `bound`.
    pub fn first_overdue(&mut self, bound: Instant, timeout: Duration) -> Option<ExchangeId> {
        let by_id = &self.by_id;
        let base = |id| Some(by_id.get(&id)?.hold()?.deadline_base(timeout));
        self.waiting.overdue.first_due(bound, base).map(ExchangeId)
    }

    /// Returns a held exchange a part of whose body was left unread and is to be read by now.
    pub fn first_unread(&mut self, now: Instant) -> Option<ExchangeId> {
        let by_id = &self.by_id;
        let due = |id| by_id.get(&id)?.hold()?.unread_due();
        self.waiting.unread.first_due(now, due).map(ExchangeId)
    }

    /// Forgets deadlines of exchanges that are not held any more, once these may be most of them.
    pub fn sweep(&mut self) {
        let Self { by_id, waiting, .. } = self;
        let is_held = |id| by_id.get(&id).is_some_and(|exchange| exchange.is_held());
        waiting.overdue.sweep(waiting.held, is_held);
        waiting.unread.sweep(waiting.held, is_held);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Phase, Target};
    use super::*;
    use crate::picker::hold::Hold;
    use crate::scheduling::{ByRole, Slot};

    fn reading() -> Phase {
        Phase::Reading(Hold::new(None, 0, Instant::default()))
    }

    fn sent() -> ByRole<Target> {
        ByRole::primary(Target {
            slot: Slot(0),
            tenure: 1,
            scrapes: 0,
            unseen: false,
            tokens: None,
        })
    }

    #[test]
    fn held_requests_are_counted_however_they_end() {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut exchanges = Exchanges::default();
        for _ in 0..10_000 {
            let id = ExchangeId(rng.u32(0..20));
            match rng.u32(0..5) {
                0 => {
                    let mut exchange = exchanges.take_spare();
                    exchange.id = id;
                    exchange.phase = if rng.bool() {
                        reading()
                    } else {
                        Phase::Deciding
                    };
                    exchanges.insert(exchange);
                }
                1 => {
                    if let Some(exchange) = exchanges.remove(id) {
                        exchanges.recycle(exchange);
                    }
                }
                step => {
                    if let Some(mut exchange) = exchanges.get_mut(id) {
                        match step {
                            2 => drop(exchange.send(sent())),
                            3 => exchange.skip_body(),
                            _ => drop(exchange.finish()),
                        }
                    }
                }
            }
            let held = exchanges.iter().filter(|exchange| exchange.is_held());
            assert_eq!(exchanges.held(), held.count());
        }
    }

    #[test]
    fn a_panic_while_an_exchange_is_changed_leaves_the_count_right() {
        let mut exchanges = Exchanges::default();
        let mut exchange = exchanges.take_spare();
        exchange.phase = reading();
        exchanges.insert(exchange);
        assert_eq!(exchanges.held(), 1);
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut exchange = exchanges.get_mut(ExchangeId::default()).unwrap();
            let _ = exchange.send(sent());
            panic!("in the middle of it");
        }));
        assert!(caught.is_err());
        assert_eq!(exchanges.held(), 0);
        assert_eq!(exchanges.take_broken(), Some(ExchangeId::default()));
        assert_eq!(exchanges.take_broken(), None);
    }

    #[test]
    fn what_was_decided_is_neither_queued_nor_served_as_a_dry_run() {
        let hold = Hold::new(None, 0, Instant::default());
        let mut exchange = Exchange::default();
        assert_eq!(exchange.serve(sent()), Err(sent()), "it is not decided");
        exchange.leave_picked(None);
        exchange.queue(hold);
        assert_eq!(exchange.serve(sent()), Ok(()));
        assert_eq!(
            exchange.serve(sent()),
            Err(sent()),
            "it counts there already"
        );
        exchange.queue(hold);
        assert_eq!(exchange.finish(), Some(sent()));
        exchange.queue(hold);
        assert!(!exchange.is_undecided());
        assert_eq!(exchange.serve(sent()), Err(sent()), "it has ended");
    }

    #[test]
    fn targets_are_taken_once() {
        let mut exchange = Exchange::default();
        assert_eq!(exchange.send(sent()), Ok(()));
        assert!(exchange.send(sent()).is_err(), "it was sent before");
        assert!(exchange.finish().is_some());
        assert!(exchange.finish().is_none());
        assert!(exchange.send(sent()).is_err(), "it has ended");
    }
}

//! A worker's picker, and what goes from it to streams, to the main thread and to the other workers.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::abi::StreamScheduler;
use super::guard::{self, Callback};
use super::statistics::{Sample, Statistics};
use epp_core::config::settings::ReadBody;
use epp_core::config::Plan;
use epp_core::picker::{
    ById, Effect, ExchangeId, FailedTicks, Fetch, FetchId, HostState, LocalReply, Picker,
    MAX_LOST_EFFECTS,
};
use epp_core::prefix::key::Secret;
use epp_core::time::Timestamp;
use epp_envoy::logging;
use epp_sync::{InProcess, Sharing};

/// A message to a stream, which its worker carries out.
#[derive(Debug)]
pub enum Message {
    /// What the picker wants done to it.
    Effect(Effect),
    /// Its decision was lost in a panic: the failure mode handles it.
    Defect,
}

/// How to reach a stream outside of its hooks.
#[derive(Debug)]
struct Reach {
    scheduler: StreamScheduler,
    messages: Vec<Message>,
    /// Whether its request is held.
    held: bool,
}

/// A worker's picker.
pub struct Seat {
    /// The picker.
    pub picker: Picker,
    sharing: Sharing,
    store: InProcess,
    statistics: Statistics,
    /// When the clock was read last.
    now: Timestamp,
    /// The streams to which effects may come outside of their hooks.
    reach: ById<Reach>,
    /// Fetches for the main thread to begin.
    orders: Vec<(FetchId, Fetch, Duration)>,
    /// The last number of a stream.
    last_id: u32,
    /// The local reply to a request whose hook panicked, unless it goes on. Prepared with the plan, because the picker
    /// itself may be broken then.
    reply_on_defect: Option<LocalReply>,
    failed_ticks: FailedTicks,
    /// Whether a hook has panicked since the last tick.
    panicked: bool,
}

impl Seat {
    /// Returns the seat of a worker in the pool of this name, whose seats share a store.
    pub fn new(plan: Plan, name: &str, store: InProcess) -> Self {
        let mut secret = [0; epp_core::prefix::key::SECRET_BYTES];
        let secret = match getrandom::fill(&mut secret) {
            Ok(()) => Secret::new(secret),
            Err(error) => {
                log::error!(
                    "the system gives no randomness ({error}): what keeps clients from aiming at the prefix index is \
                     made of the time, which can be guessed"
                );
                Secret::from(read_clock().as_nanos())
            }
        };
        let sharing = Sharing::new(name, plan.cluster(), secret.number("sharing"));
        let mut picker = Picker::new(plan, secret);
        picker.peers().set_polling(false);
        let mut seat = Self {
            picker,
            sharing,
            store,
            statistics: Statistics::default(),
            now: read_clock(),
            reach: ById::default(),
            orders: Vec::new(),
            last_id: 0,
            reply_on_defect: None,
            failed_ticks: FailedTicks::default(),
            panicked: false,
        };
        seat.plan_installed();
        seat
    }

    /// Puts another plan in force.
    pub fn install(&mut self, plan: Plan) {
        self.picker.install(plan);
        self.plan_installed();
    }

    /// The pool ends, and no request of it is left: the gauges become zero.
    pub fn retire(&mut self) {
        self.sharing.leave(&mut self.picker, &mut self.store);
        self.picker.retire();
    }

    fn plan_installed(&mut self) {
        self.reply_on_defect = LocalReply::on_defect(self.picker.plan());
        self.sharing.plan_changed(&mut self.picker);
        self.read_clock();
        self.sharing
            .join(&mut self.picker, &mut self.store, self.now);
    }

    /// Returns a number for another stream.
    pub fn next_id(&mut self) -> ExchangeId {
        self.last_id = self.last_id.wrapping_add(1);
        ExchangeId(self.last_id)
    }

    /// Reads the clock.
    pub fn read_clock(&mut self) -> Timestamp {
        self.now = read_clock();
        self.now
    }

    /// Returns the time when the clock was read last.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Hands an event to the picker that may decide a request, and reports how long that took if the picker measures it.
    pub fn hand(&mut self, event: impl FnOnce(&mut Picker, Timestamp)) {
        let timed = self.picker.wants_timing();
        let begun = self.read_clock();
        event(&mut self.picker, begun);
        if timed {
            let taken = self.read_clock().since(begun);
            self.picker.observe_event(taken);
        }
    }

    /// Has effects reach a stream outside of its hooks from now on. `held` says whether its request is held.
    pub fn open(
        &mut self,
        id: ExchangeId,
        held: bool,
        scheduler: impl FnOnce() -> StreamScheduler,
    ) {
        let reach = self.reach.entry(id.0).or_insert_with(|| Reach {
            scheduler: scheduler(),
            messages: Vec::new(),
            held,
        });
        reach.held = held;
    }

    /// A stream's request is held no more. It can still be reached where it may be evicted.
    pub fn released(&mut self, id: ExchangeId) {
        if self.picker.plan().flow.is_none() {
            self.reach.remove(&id.0);
        } else if let Some(reach) = self.reach.get_mut(&id.0) {
            reach.held = false;
        }
    }

    /// Takes a stream's messages.
    pub fn messages(&mut self, id: ExchangeId) -> Vec<Message> {
        let reach = self.reach.get_mut(&id.0);
        reach.map_or_else(Vec::new, |reach| std::mem::take(&mut reach.messages))
    }

    /// A stream has ended, or its state is lost.
    pub fn close(&mut self, id: ExchangeId) {
        self.reach.remove(&id.0);
        let now = self.read_clock();
        let picker = &mut self.picker;
        // Its record may be the broken part.
        if guard::catch(|| picker.closed(now, id)).is_none() {
            self.count_panic(Callback::Delete);
            let picker = &mut self.picker;
            guard::catch(|| picker.recovery().drop_exchange(id));
        }
    }

    /// Returns the next effect on the stream whose hook runs. Those on other streams become messages, and fetches wait
    /// for the main thread.
    pub fn next_effect(&mut self, current: Option<ExchangeId>) -> Option<Effect> {
        while let Some(effect) = self.picker.poll_effect() {
            match effect {
                Effect::Fetch { id, fetch, timeout } => self.orders.push((id, fetch, timeout)),
                Effect::Log { level, text } => logging::log(level, &text),
                effect if effect.exchange() == current => return Some(effect),
                effect => {
                    let id = effect.exchange().unwrap_or_default();
                    self.send(id, Message::Effect(effect));
                }
            }
        }
        None
    }

    fn send(&mut self, ExchangeId(id): ExchangeId, message: Message) {
        if let Some(reach) = self.reach.get_mut(&id) {
            reach.messages.push(message);
            reach.scheduler.wake();
        }
    }

    /// Carries out what follows from an event.
    pub fn settle(&mut self) {
        self.admit_models();
        self.next_effect(None);
    }

    /// Gives models that ask for statistics of their own these, if there is room.
    pub fn admit_models(&mut self) {
        self.sharing.admit_models(&mut self.picker, &mut self.store);
    }

    /// One tick, 50 ms after the one before. It does not panic.
    pub fn tick(&mut self) {
        match guard::catch(|| self.try_tick()) {
            Some(()) => self.failed_ticks.reset(),
            None => self.recover_tick(),
        }
        if std::mem::take(&mut self.panicked) {
            self.release_lost(None, false);
        }
    }

    fn try_tick(&mut self) {
        #[cfg(any(test, feature = "fault-injection"))]
        super::fault::inject_tick(super::fault::address(self), self.picker.peers().polls());
        let now = self.read_clock();
        self.picker.set_host_state(HostState {
            memory_bytes: 0,
            shows_bodies: self.picker.plan().settings.read_body != ReadBody::Never,
            untested_version: None,
        });
        self.sharing.before_tick(&mut self.picker, &mut self.store);
        self.picker.tick(now);
        self.sharing
            .after_tick(&mut self.picker, &mut self.store, now);
        self.settle();
    }

    /// Exchanges counts in flight with the other workers, between two ticks. It does not panic.
    pub fn exchange(&mut self) {
        let exchanged = guard::catch(|| {
            self.sharing
                .exchange_in_flight(&mut self.picker, &mut self.store);
            self.settle();
        });
        if exchanged.is_none() {
            self.count_panic(Callback::Tick);
        }
    }

    /// Returns whether there is something to exchange with other workers before the next tick.
    pub fn wants_fast_exchange(&mut self) -> bool {
        self.sharing.wants_fast_exchange(&mut self.picker)
    }

    /// Returns what the picker has counted since the last time.
    pub fn samples(&mut self) -> Vec<Sample> {
        let updates = std::iter::from_fn(|| self.picker.poll_metric());
        let statistics = &mut self.statistics;
        updates
            .filter_map(|update| statistics.take(update))
            .collect()
    }

    /// Takes the fetches that the main thread is to begin.
    pub fn orders(&mut self) -> Vec<(FetchId, Fetch, Duration)> {
        std::mem::take(&mut self.orders)
    }

    /// Returns whether there are fetches for the main thread.
    pub fn has_orders(&self) -> bool {
        !self.orders.is_empty()
    }

    /// Returns the local reply to a request that a panic has struck; `None` if it goes on.
    pub fn reply_on_defect(&self) -> Option<&LocalReply> {
        self.reply_on_defect.as_ref()
    }

    /// Counts a panic that was caught, unless it panics, too.
    pub fn count_panic(&mut self, callback: Callback) {
        self.panicked = true;
        guard::catch(|| self.picker.recovery().count_panic(callback.name()));
    }

    /// A tick panicked. What it decided is carried out now. Requests whose decision is lost are handled by the failure
    /// mode, and so are the one that the tick was about, and all if every tick panics.
    fn recover_tick(&mut self) {
        self.count_panic(Callback::Tick);
        for _ in 0..MAX_LOST_EFFECTS {
            if guard::catch(|| self.settle()).is_some() {
                break;
            }
        }
        let broken = self.picker.recovery().take_broken();
        let all = self.failed_ticks.add();
        self.release_lost(broken, all);
    }

    /// Has held requests handled by the failure mode: `broken`, those that the picker does not hold and has not decided,
    /// or all.
    fn release_lost(&mut self, broken: Option<ExchangeId>, all: bool) {
        let picker = &self.picker;
        let is_lost = |id: u32, reach: &Reach| {
            let holds = guard::catch(|| picker.holds(ExchangeId(id))).unwrap_or(false);
            let undecided = reach.messages.is_empty() && !holds;
            reach.held && (all || undecided || broken == Some(ExchangeId(id)))
        };
        let lost = self.reach.iter().filter(|(id, reach)| is_lost(**id, reach));
        let lost: Vec<u32> = lost.map(|(id, _)| *id).collect();
        for id in lost {
            self.send(ExchangeId(id), Message::Defect);
        }
    }
}

/// Returns the time by the system's wall clock.
pub fn read_clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanos = since.map_or(0, |since| since.as_nanos());
    Timestamp::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

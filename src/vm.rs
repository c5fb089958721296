//! The state of one VM: the pools of its plugins, and the requests under way.

mod ownership;

use std::sync::Arc;

use hashbrown::HashMap;

use super::abi::{self, Action, BodyAction, Status};
use super::guard::{self, Callback};
use super::pool::Pool;
use super::stream::Stream;
use epp_core::config::Loaded;
use epp_core::metrics::definitions::REJECTED_CONFIGURATIONS;
use epp_core::picker::{ById, ExchangeId, FailedTicks, Memory, MAX_LOST_EFFECTS};
use epp_sync::Timer;

/// A root context.
#[derive(Debug, Clone, Copy)]
struct Root {
    /// The place of its pool.
    pool: usize,
    timer: Timer,
}

/// The state of one VM.
#[derive(Default)]
pub struct Vm {
    /// The pools, each in a place of its own until it is given up.
    pools: Vec<Option<Pool>>,
    /// The root contexts that were configured.
    roots: HashMap<u32, Root>,
    /// Requests of ours.
    streams: ById<Stream>,
    /// Whether this VM serves the status page.
    serves_page: bool,
    /// Requests whose body has ended and is to be handed back to Envoy by the next tick.
    due: Vec<u32>,
    /// Ticks in a row that panicked.
    failed_ticks: FailedTicks,
    /// The memory that the requests of all pools share.
    memory: Arc<Memory>,
}

impl Vm {
    /// A root context's configuration has come. Whether it was accepted.
    pub fn configure(&mut self, root: u32) -> bool {
        super::host::log_to_envoy();
        guard::log_panics();
        let plugin = super::pool::Plugin::asking();
        if plugin.is_page() {
            self.serves_page = true;
            return self.keeps_page_apart();
        }
        super::configuration::introduce();
        let Some(Loaded { plan, warnings }) = super::configuration::load() else {
            // Envoy tries a configuration in a VM of its own before any other gets it, which has no pool.
            super::host::count(REJECTED_CONFIGURATIONS);
            return false;
        };
        let same = |pool: &Pool| pool.is(&plugin, &plan);
        let mut known = self.pools.iter();
        let place = known.position(|pool| pool.as_ref().is_some_and(same));
        let place = place.or_else(|| self.pools.iter().position(Option::is_none));
        let place = place.unwrap_or_else(|| {
            self.pools.push(None);
            self.pools.len() - 1
        });
        if let Some(pool) = self.pools.get_mut(place) {
            let pool = match pool {
                Some(pool) => {
                    pool.picker.install(plan);
                    pool
                }
                // A plan that is cloned would take 10 KB of code.
                None => pool.insert(Pool::new(root, plugin, plan)),
            };
            pool.picker.share_memory(&self.memory);
            pool.plan_installed(root, &warnings);
        }
        let timer = Timer::default();
        self.roots.insert(root, Root { pool: place, timer });
        self.keeps_page_apart();
        abi::set_tick_period(timer.period()).is_ok()
    }

    fn has_no_pool(&self) -> bool {
        self.pools.iter().all(Option::is_none)
    }

    /// Returns whether the status page has this VM for itself, as it must: whatever becomes of it, no
    /// request may be changed, and no client of a pool may see it.
    fn keeps_page_apart(&self) -> bool {
        let apart = !self.serves_page || self.has_no_pool();
        if !apart {
            log::error!(
                "the status page needs a VM of its own, and is not served: give its vm_config a \
                 `configuration` that the pickers' does not have"
            );
        }
        apart
    }

    /// Returns the pools.
    #[cfg(test)]
    pub fn pools(&self) -> impl Iterator<Item = &Pool> {
        self.pools.iter().flatten()
    }

    /// Returns the pools, to change.
    #[cfg(test)]
    pub fn pools_mut(&mut self) -> impl Iterator<Item = &mut Pool> {
        self.pools.iter_mut().flatten()
    }

    /// A root context's timer has fired: for a tick, or for an exchange between two ticks.
    pub fn on_timer(&mut self, root: u32) {
        let Some(known) = self.roots.get_mut(&root) else {
            return;
        };
        if known.timer.fire() {
            self.tick(root);
            self.failed_ticks.reset();
            if self.pool_of(root).is_some_and(Pool::take_panicked) {
                self.release_lost(root, None, false);
            }
            self.adjust_timer(root);
        } else {
            let place = known.pool;
            let Vm { pools, streams, .. } = self;
            if let Some(Some(pool)) = pools.get_mut(place) {
                pool.exchange_in_flight(root, streams);
            }
        }
    }

    /// Adjusts a root context's timer to whether there is something to exchange between ticks.
    fn adjust_timer(&mut self, root: u32) {
        let exchanges = self
            .pool_of(root)
            .is_some_and(|pool| pool.wants_fast_exchange(root));
        let known = self.roots.get_mut(&root);
        if let Some(period) = known.and_then(|known| known.timer.adjust(exchanges)) {
            let _: Result<(), Status> = abi::set_tick_period(period);
        }
    }

    fn pool_of(&mut self, root: u32) -> Option<&mut Pool> {
        let root = self.roots.get(&root)?;
        self.pools.get_mut(root.pool)?.as_mut()
    }

    /// One tick of a root context.
    pub fn tick(&mut self, root: u32) {
        self.reattach(root);
        let place = self.roots.get(&root);
        let Some(pool) = place.and_then(|root| self.pools.get_mut(root.pool)?.as_mut()) else {
            return;
        };
        pool.tick(root, &mut self.streams);
    }

    /// Hands back to Envoy what was set aside of bodies that have ended since.
    fn reattach(&mut self, root: u32) {
        while let Some(id) = self.due.pop() {
            let Some(stream) = self.streams.get_mut(&id) else {
                continue;
            };
            if abi::set_effective_context(id).is_ok() {
                stream.reattach();
                let _: Result<(), Status> = abi::resume_request();
                let _: Result<(), Status> = abi::set_effective_context(root);
            }
        }
    }

    /// Handles the end of a root context's callout.
    pub fn called_back(&mut self, root: u32, token: u32, headers: usize, body: usize) {
        let place = self.roots.get(&root).map(|root| root.pool);
        let Vm { pools, streams, .. } = self;
        if let Some(pool) = place.and_then(|place| pools.get_mut(place)?.as_mut()) {
            pool.called_back(token, headers, body);
            pool.carry_out(streams, root);
        }
    }

    /// A request's headers have come.
    pub fn request_headers(&mut self, id: u32, end: bool) -> Action {
        if self.serves_page && self.has_no_pool() {
            return super::page::serve();
        }
        let Some((place, pool)) = self.pool_of_request() else {
            return Action::Continue;
        };
        let mut stream = Stream::new(id, place);
        if stream.request_headers(pool, end).is_none() {
            return super::stream::unreadable(pool);
        }
        let Vm { pools, streams, .. } = self;
        streams.insert(id, stream);
        let pool = pools.get_mut(place).and_then(Option::as_mut);
        let replied = pool.is_some_and(|pool| pool.carry_out(streams, id));
        let held = streams.get(&id).is_some_and(Stream::is_paused);
        match replied || held {
            true => Action::Pause,
            false => Action::Continue,
        }
    }

    fn of_stream(&mut self, id: u32) -> Option<(&mut Stream, &mut Pool)> {
        let stream = self.streams.get_mut(&id)?;
        let pool = self.pools.get_mut(stream.pool)?.as_mut()?;
        Some((stream, pool))
    }

    /// A part of a request's body has come.
    pub fn request_body(&mut self, id: u32, size: usize, end: bool) -> BodyAction {
        let replied = self.act(id, |stream, pool| stream.request_body(pool, size, end));
        let Some(stream) = self.streams.get_mut(&id) else {
            return BodyAction::Continue;
        };
        let action = stream.pass_body(replied);
        // Even where its pool is gone.
        let Some(action) = stream.rejoin(size, end) else {
            return action;
        };
        if stream.is_due() {
            self.due.push(id);
        }
        action
    }

    /// A request's trailers have come: its body has ended.
    pub fn request_trailers(&mut self, id: u32) -> Action {
        let replied = self.act(id, Stream::request_trailers);
        let Some(stream) = self.streams.get_mut(&id) else {
            return Action::Continue;
        };
        if stream.end_detached() {
            // Envoy passes trailers on before what the filter gives back now.
            self.due.push(id);
            return Action::Pause;
        }
        match replied {
            true => Action::Pause,
            false => Action::Continue,
        }
    }

    /// Hands an event about a request to its pool's picker, and carries out what follows. Returns whether the
    /// request got a local reply.
    fn act(&mut self, id: u32, event: impl FnOnce(&mut Stream, &mut Pool)) -> bool {
        let Vm { pools, streams, .. } = self;
        let Some(stream) = streams.get_mut(&id) else {
            return false;
        };
        let Some(Some(pool)) = pools.get_mut(stream.pool) else {
            return false;
        };
        event(stream, pool);
        pool.carry_out(streams, id)
    }

    /// Handles the headers of a response.
    pub fn response_headers(&mut self, id: u32) {
        self.act(id, Stream::response_headers);
    }

    /// Handles a part of a response's body.
    pub fn response_body(&mut self, id: u32, size: usize) {
        self.act(id, |stream, pool| stream.response_body(pool, size));
    }

    /// Handles the deletion of a context: of a request that has ended in any way, or of a root.
    pub fn delete(&mut self, context: u32) {
        if let Some(stream) = self.streams.get(&context) {
            if let Some(Some(pool)) = self.pools.get_mut(stream.pool) {
                let now = pool.read_clock();
                #[cfg(test)]
                guard::inject("close");
                pool.picker.closed(now, ExchangeId(context));
                // Its end may let others go on.
                pool.carry_out(&mut self.streams, context);
            }
            // Not before: where that panics, its pool is still known, which counts the request.
            self.streams.remove(&context);
        } else if let Some(Root { pool: place, .. }) = self.roots.remove(&context) {
            // A hot reload makes the new root before the old one goes: what was learnt stays.
            if self.roots.values().all(|other| other.pool != place) {
                if let Some(pool) = self.pools.get_mut(place).and_then(Option::take) {
                    pool.retire();
                }
            }
        }
    }

    /// A callback panicked. Only what it was about is forgotten; a request that was not decided yet
    /// is handled by the failure mode. Returns whether it must not continue, because it got a local reply.
    pub fn recover(&mut self, callback: Callback, context: u32) -> bool {
        let recovered = guard::catch(|| self.try_to_recover(callback, context));
        recovered.unwrap_or_else(|| {
            let pool = self
                .strictest()
                .and_then(|place| self.pools.get(place)?.as_ref());
            pool.is_some_and(Pool::fails_closed)
        })
    }

    fn try_to_recover(&mut self, callback: Callback, context: u32) -> bool {
        match callback {
            Callback::Tick => self.recover_tick(context),
            Callback::Configure | Callback::CalloutResponse => {
                self.count_panic(callback, context);
                false
            }
            Callback::RequestHeaders => {
                self.streams.remove(&context);
                let place = guard::catch(|| self.place_of_request());
                let place = place.map_or_else(|| self.strictest(), Result::ok);
                if place.is_none() {
                    self.strip_destination();
                }
                self.give_up(callback, context, place, true)
            }
            _ => {
                let stream = self.streams.get(&context);
                let pool = stream.map(|stream| stream.pool);
                let ended = callback == Callback::Delete;
                let undecided = !ended && stream.is_some_and(Stream::is_paused);
                let waits = guard::catch(|| self.recover_detached(callback, context));
                self.give_up(callback, context, pool, undecided) || waits.unwrap_or(false)
            }
        }
    }

    /// Forgets a stream whose callback panicked, unless part of its body is still set aside, which has to
    /// follow. Returns whether it waits for a tick or the next part to take that along.
    fn recover_detached(&mut self, callback: Callback, id: u32) -> bool {
        let Some(mut stream) = self.streams.remove(&id) else {
            return false;
        };
        let waits = stream.recover(callback);
        if stream.has_detached() && callback != Callback::Delete {
            if waits {
                self.due.push(id);
            }
            self.streams.insert(id, stream);
        }
        waits
    }

    /// Returns whether this VM polls for any of its pools.
    #[cfg(feature = "fault-injection")]
    pub fn polls(&mut self) -> bool {
        let mut pools = self.pools.iter_mut().flatten();
        pools.any(|pool| pool.picker.peers().polls())
    }

    /// The place of a pool that fails closed, if any does, or else of any: for a request of which it
    /// cannot be known whose it is.
    fn strictest(&self) -> Option<usize> {
        let pools = self.pools.iter().enumerate();
        let pools = pools.filter_map(|(place, pool)| Some((place, pool.as_ref()?)));
        let strictest = pools.max_by_key(|(_, pool)| pool.fails_closed());
        strictest.map(|(place, _)| place)
    }

    /// A tick panicked. What it decided is carried out now. A request whose decision is lost Envoy would hold
    /// without end: it is handled by the failure mode, and so are the one that the tick was about, and all if
    /// every tick panics.
    fn recover_tick(&mut self, root: u32) -> bool {
        self.count_panic(Callback::Tick, root);
        self.carry_out_rest(root);
        // Left where it is, it may make every tick panic.
        let broken = self.pool_of(root);
        let broken = broken.and_then(|pool| pool.picker.recovery().take_broken());
        let all = self.failed_ticks.add();
        self.release_lost(root, broken, all);
        false
    }

    /// Handles the requests of which Envoy waits for a decision that was lost in a panic by the failure mode: `broken`,
    /// those that the picker does not hold, or all. Requests of other pools may wait for a reply in their next tick.
    fn release_lost(&mut self, root: u32, broken: Option<ExchangeId>, all: bool) {
        let place = self.roots.get(&root).map(|root| root.pool);
        let pools = &self.pools;
        let waits = |id: u32, stream: &Stream| {
            let pool = pools.get(stream.pool).and_then(Option::as_ref);
            let waits = |pool: &Pool| guard::catch(|| pool.picker.holds(ExchangeId(id)));
            pool.and_then(waits).unwrap_or(false)
        };
        let lost = |(id, stream): &(&u32, &Stream)| {
            let is_broken = broken == Some(ExchangeId(**id));
            let is_lost = is_broken || Some(stream.pool) == place && !waits(**id, stream);
            stream.is_paused() && (all || is_lost)
        };
        let lost = self.streams.iter().filter(lost);
        let lost: Vec<(u32, usize)> = lost.map(|(id, stream)| (*id, stream.pool)).collect();
        // The streams stay: they know what Envoy has of their bodies.
        for (id, place) in lost {
            let reached = abi::set_effective_context(id).is_ok();
            let replied = self.give_up(Callback::Tick, id, Some(place), reached);
            let free = self.of_stream(id).is_some_and(|(stream, pool)| {
                let buffered = stream.let_go();
                // If it was not reached, another request's body is the current one.
                reached && !replied && (!buffered || stream.detach(&pool.picker))
            });
            if free {
                let _: Result<(), Status> = abi::resume_request();
            }
        }
        let _: Result<(), Status> = abi::set_effective_context(root);
    }

    /// Carries out what a tick had decided before it panicked. Each effect is taken from the picker before it is
    /// carried out: one that panics costs its own request only.
    fn carry_out_rest(&mut self, root: u32) {
        let place = self.roots.get(&root).map(|root| root.pool);
        let Vm { pools, streams, .. } = self;
        let pool = place.and_then(|place| pools.get_mut(place)?.as_mut());
        let Some(pool) = pool else {
            return;
        };
        for _ in 0..MAX_LOST_EFFECTS {
            let done = guard::catch(|| {
                // The panic may have left another context as the current one.
                let _: Result<(), Status> = abi::set_effective_context(root);
                pool.carry_out(streams, root);
            });
            if done.is_some() {
                break;
            }
        }
    }

    /// Drops a request; one that was not decided is handled by the failure mode. Returns whether it got a
    /// local reply.
    fn give_up(
        &mut self,
        callback: Callback,
        id: u32,
        pool: Option<usize>,
        undecided: bool,
    ) -> bool {
        let pool = pool.and_then(|place| self.pools.get_mut(place)?.as_mut());
        let Some(pool) = pool else {
            return false;
        };
        let now = pool.now();
        pool.count_panic(callback);
        let picker = &mut pool.picker;
        // Its record may be the broken part.
        if guard::catch(|| picker.closed(now, ExchangeId(id))).is_none() {
            guard::catch(|| picker.recovery().drop_exchange(ExchangeId(id)));
        }
        if !undecided {
            return false;
        }
        // Even if the local reply panics, the request does not continue under `FailClose`.
        guard::catch(|| pool.fail()).unwrap_or_else(|| pool.fails_closed())
    }

    fn count_panic(&mut self, callback: Callback, root: u32) {
        if let Some(pool) = self.pool_of(root) {
            pool.count_panic(callback);
        }
    }
}

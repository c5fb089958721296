//! Everything that one VM knows: its plugins' pools and the requests under way.

use std::sync::Arc;

use hashbrown::HashMap;

use super::abi::{self, Action, BodyAction, Map, Status};
use super::clock::Clock;
use super::guard::{self, Callback};
use super::pool::Pool;
use super::stream::Stream;
use crate::director::ids::ById;
use crate::director::memory::Memory;

/// Ticks in a row that may panic before what is held is let go: no longer than a body is waited
/// for (five seconds, with the default `bodyTimeout`).
pub const FAILED_TICKS: u32 = 100;

/// A root context.
#[derive(Debug, Clone, Copy)]
struct Root {
    /// The place of its pool.
    pool: usize,
    clock: Clock,
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
    /// Ticks in a row that panicked.
    failed_ticks: u32,
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
        let Some(plan) = super::pool::plan() else {
            return false;
        };
        let same = |pool: &Pool| pool.is(&plugin, &plan);
        let known = self.pools.iter();
        let place = known
            .clone()
            .position(|pool| pool.as_ref().is_some_and(same))
            .or_else(|| known.clone().position(Option::is_none));
        let place = place.unwrap_or_else(|| {
            self.pools.push(None);
            self.pools.len() - 1
        });
        if let Some(pool) = self.pools.get_mut(place) {
            let pool = pool.get_or_insert_with(|| Pool::new(root, plugin, plan.clone()));
            pool.director.share_memory(&self.memory);
            pool.director.install(plan, root);
            pool.director.look(&mut super::host::Shared);
        }
        let clock = Clock::default();
        self.roots.insert(root, Root { pool: place, clock });
        self.keeps_page_apart();
        abi::set_tick_period(clock.period()).is_ok()
    }

    fn has_no_pool(&self) -> bool {
        self.pools.iter().all(Option::is_none)
    }

    /// Whether the status page has this VM for itself, as it must: whatever becomes of it, no
    /// request may be touched, and no client of a pool may come to see it.
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

    /// A root context's clock strikes. That is a tick, or a glance between two of them.
    pub fn strike(&mut self, root: u32) {
        let Some(known) = self.roots.get_mut(&root) else {
            return;
        };
        if known.clock.strike() {
            self.tick(root);
            self.failed_ticks = 0;
            self.pace(root);
        } else if let Some(pool) = self.pool_of(root) {
            pool.director.glance(root, &mut super::host::Shared);
        }
    }

    /// Sets a root context's clock to what there is to glance for.
    fn pace(&mut self, root: u32) {
        let glances = self
            .pool_of(root)
            .is_some_and(|pool| pool.director.glances(root));
        let known = self.roots.get_mut(&root);
        if let Some(period) = known.and_then(|known| known.clock.pace(glances)) {
            let _: Result<(), Status> = abi::set_tick_period(period);
        }
    }

    fn pool_of(&mut self, root: u32) -> Option<&mut Pool> {
        let root = self.roots.get(&root)?;
        self.pools.get_mut(root.pool)?.as_mut()
    }

    /// One tick of a root context.
    pub fn tick(&mut self, root: u32) {
        let place = self.roots.get(&root);
        let Some(pool) = place.and_then(|root| self.pools.get_mut(root.pool)?.as_mut()) else {
            return;
        };
        for id in pool.tick(root) {
            let Some(stream) = self.streams.get_mut(&id) else {
                continue;
            };
            let reached = abi::set_effective_context(id).is_ok();
            if reached && stream.catch_up(&mut pool.director) {
                let _: Result<(), Status> = abi::resume_request();
            }
        }
        let _: Result<(), Status> = abi::set_effective_context(root);
    }

    /// A root context's callout was answered.
    pub fn called_back(&mut self, root: u32, token: u32, headers: usize, body: usize) {
        if let Some(pool) = self.pool_of(root) {
            pool.called_back(token, headers, body);
        }
    }

    /// A request's headers have come.
    pub fn request_headers(&mut self, id: u32, end: bool) -> Action {
        if self.serves_page && self.has_no_pool() {
            return super::page::answer();
        }
        let Some((place, pool)) = self.pool_of_request() else {
            return Action::Continue;
        };
        let mut stream = Stream::new(id, place);
        match stream.request_headers(&mut pool.director, end) {
            Some(action) => {
                self.streams.insert(id, stream);
                action
            }
            None => super::stream::unreadable(&mut pool.director),
        }
    }

    /// The pool whose filter the request is passing, if its route leads to that pool's cluster.
    fn pool_of_request(&mut self) -> Option<(usize, &mut Pool)> {
        let place = self.place_of_request()?;
        Some((place, self.pools.get_mut(place)?.as_mut()?))
    }

    fn place_of_request(&self) -> Option<usize> {
        let pools = self.pools.iter().enumerate();
        let mut pools = pools.filter_map(|(place, pool)| Some((place, pool.as_ref()?)));
        let mut others = pools.clone().skip(1);
        // Nearly always there is one.
        let plugin = others.next().map(|_| super::pool::Plugin::asking());
        if plugin.is_none()
            && pools
                .clone()
                .all(|(_, pool)| !pool.director.asks_for_cluster())
        {
            return Some(pools.next()?.0);
        }
        let Ok(cluster) = abi::property("xds\0cluster_name") else {
            // Without memory for the name it is taken for ours: its client may not choose.
            return Some(pools.next()?.0);
        };
        let cluster = cluster?;
        let found = pools.find(|(_, pool)| {
            let ours = plugin.as_ref().is_none_or(|plugin| pool.serves(plugin));
            ours && pool.director.owns(&cluster)
        });
        Some(found?.0)
    }

    fn of_stream(&mut self, id: u32) -> Option<(&mut Stream, &mut Pool)> {
        let stream = self.streams.get_mut(&id)?;
        let pool = self.pools.get_mut(stream.pool)?.as_mut()?;
        Some((stream, pool))
    }

    /// A part of a request's body has come.
    pub fn request_body(&mut self, id: u32, size: usize, end: bool) -> BodyAction {
        match self.of_stream(id) {
            Some((stream, pool)) => stream.request_body(&mut pool.director, size, end),
            None => BodyAction::Continue,
        }
    }

    /// A request's trailers have come: its body has ended.
    pub fn request_trailers(&mut self, id: u32) -> Action {
        match self.of_stream(id) {
            Some((stream, pool)) => stream.request_trailers(&mut pool.director),
            None => Action::Continue,
        }
    }

    /// The headers of an answer have come.
    pub fn response_headers(&mut self, id: u32, _end: bool) {
        if let Some((stream, pool)) = self.of_stream(id) {
            stream.response_headers(&mut pool.director);
        }
    }

    /// A part of an answer's body has come.
    pub fn response_body(&mut self, id: u32, size: usize, _end: bool) {
        if let Some((stream, pool)) = self.of_stream(id) {
            stream.response_body(&mut pool.director, size);
        }
    }

    /// A context is gone: a request that has ended, however, or a root.
    pub fn delete(&mut self, context: u32) {
        if let Some(stream) = self.streams.remove(&context) {
            if let Some(Some(pool)) = self.pools.get_mut(stream.pool) {
                pool.director.close(context);
            }
        } else if let Some(Root { pool: place, .. }) = self.roots.remove(&context) {
            // A hot reload makes the new root before the old one goes: what was learnt stays.
            if self.roots.values().all(|other| other.pool != place) {
                if let Some(pool) = self.pools.get_mut(place) {
                    *pool = None;
                }
            }
        }
    }

    /// A callback panicked. Only what it was about is forgotten; a request that was not decided yet
    /// goes on under the failure mode. Whether it was answered instead.
    pub fn recover(&mut self, callback: Callback, context: u32) -> bool {
        match callback {
            Callback::Tick => self.recover_tick(context),
            Callback::Configure | Callback::CalloutAnswer => {
                self.count_panic(callback, context);
                false
            }
            Callback::RequestHeaders => {
                let pool = guard::catch(|| self.place_of_request()).flatten();
                self.give_up(callback, context, pool, true)
            }
            _ => {
                let stream = self.streams.remove(&context);
                let pool = stream.as_ref().map(|stream| stream.pool);
                let undecided = stream.is_some_and(|stream| stream.is_held());
                self.give_up(callback, context, pool, undecided)
            }
        }
    }

    /// Whether this VM polls for any of its pools.
    #[cfg(feature = "fault-injection")]
    pub fn polls(&self) -> bool {
        let mut pools = self.pools.iter().flatten();
        pools.any(|pool| pool.director.polls())
    }

    fn recover_tick(&mut self, root: u32) -> bool {
        self.count_panic(Callback::Tick, root);
        self.failed_ticks += 1;
        if self.failed_ticks < FAILED_TICKS {
            return false;
        }
        self.failed_ticks = 0;
        let held: Vec<(u32, usize)> = self
            .streams
            .iter()
            .filter(|(_, stream)| stream.is_held())
            .map(|(id, stream)| (*id, stream.pool))
            .collect();
        // The streams stay: Envoy shows once more what it sends now.
        for (id, place) in held {
            let reached = abi::set_effective_context(id).is_ok();
            let answered = self.give_up(Callback::Tick, id, Some(place), reached);
            if reached && !answered {
                let _: Result<(), Status> = abi::resume_request();
            }
        }
        let _: Result<(), Status> = abi::set_effective_context(root);
        false
    }

    /// Forgets a request; one that was not decided goes on under the failure mode. Whether it was
    /// answered.
    fn give_up(
        &mut self,
        callback: Callback,
        id: u32,
        pool: Option<usize>,
        undecided: bool,
    ) -> bool {
        let pool = pool.and_then(|place| self.pools.get_mut(place)?.as_mut());
        let Some(Pool { director, .. }) = pool else {
            return false;
        };
        guard::catch(|| director.count_panic(callback.name()));
        let undecided = undecided && (callback == Callback::RequestHeaders || director.holds(id));
        // Its record may be what is broken.
        if guard::catch(|| director.close(id)).is_none() {
            guard::catch(|| director.drop_record(id));
        }
        if !undecided {
            return false;
        }
        let header = director.destination_header();
        // It may be the client's own still.
        let _: Result<(), Status> = abi::remove_header(Map::Request, header);
        let release = guard::catch(|| director.recover()).unwrap_or_default();
        super::pool::carry_out(&release, "");
        release.refusal.is_some()
    }

    fn count_panic(&mut self, callback: Callback, root: u32) {
        if let Some(pool) = self.pool_of(root) {
            guard::catch(|| pool.director.count_panic(callback.name()));
        }
    }
}

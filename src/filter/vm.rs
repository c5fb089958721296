//! Everything that one VM knows: its plugins' pools and the requests under way.

use hashbrown::HashMap;

use super::abi::{self, Action, BodyAction, Status};
use super::pool::Pool;
use super::stream::Stream;
use crate::director::ids::ById;

/// The state of one VM.
#[derive(Default)]
pub struct Vm {
    /// The pools, each in a place of its own until it is given up.
    pools: Vec<Option<Pool>>,
    /// The pool of each root context that was configured.
    roots: HashMap<u32, usize>,
    /// Requests of ours.
    streams: ById<Stream>,
}

impl Vm {
    /// A root context's configuration has come. Whether it was accepted.
    pub fn configure(&mut self, root: u32) -> bool {
        super::host::log_to_envoy();
        let Some(plan) = super::pool::plan() else {
            return false;
        };
        let plugin = super::pool::Plugin::asking();
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
            pool.director.install(plan, root);
        }
        self.roots.insert(root, place);
        abi::set_tick_period(super::pool::TICK_MS).is_ok()
    }

    /// A root context's clock ticks.
    pub fn tick(&mut self, root: u32) {
        let place = self.roots.get(&root);
        let Some(pool) = place.and_then(|place| self.pools.get_mut(*place)?.as_mut()) else {
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
        let place = self.roots.get(&root);
        if let Some(pool) = place.and_then(|place| self.pools.get_mut(*place)?.as_mut()) {
            pool.called_back(token, headers, body);
        }
    }

    /// A request's headers have come.
    pub fn request_headers(&mut self, id: u32, end: bool) -> Action {
        let Some((place, pool)) = self.pool_of_request() else {
            return Action::Continue;
        };
        let mut stream = Stream::new(id, place);
        match stream.request_headers(&mut pool.director, end) {
            Some(action) => {
                self.streams.insert(id, stream);
                action
            }
            None => Action::Continue,
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
        let cluster = abi::property("xds\0cluster_name").ok().flatten()?;
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
        } else if let Some(place) = self.roots.remove(&context) {
            // A hot reload makes the new root before the old one goes: what was learnt stays.
            if self.roots.values().all(|other| *other != place) {
                if let Some(pool) = self.pools.get_mut(place) {
                    *pool = None;
                }
            }
        }
    }
}

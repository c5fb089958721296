//! The event loop.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::pod::{Model, Next, Part, Pod};
use crate::policy::{Decision, Kind, Picked, Policy, Refusal, Servers};
use crate::report::{Fate, Outcome, Times};
use crate::trace::{Request, Trace};
use crate::SECOND;

/// The number of requests that have arrived so far; another thread may read it.
pub type Progress = AtomicUsize;

/// The time without any event but ticks after which a run ends: longer than any reasonable limit of a queue.
const STUCK: u64 = 3_600 * SECOND;

/// An event, in the order of events at the same time: servers first, so that a policy sees their results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// The next event of a server, by its count of changes: void if the server has changed since.
    Server(usize, u64),
    /// The policy's tick.
    Tick,
    /// The next request arrives.
    Arrival,
}

struct Run<'t> {
    requests: &'t [Request],
    pods: Vec<Pod>,
    changes: Vec<u64>,
    events: BinaryHeap<Reverse<(u64, Event)>>,
    /// The servers of each request that has arrived.
    picked: Vec<Option<Picked>>,
    times: Vec<Times>,
    left: usize,
}

/// A pool with the gateways in front of it.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolModel {
    /// The performance of each server.
    pub model: Model,
    /// The servers.
    pub servers: Servers,
    /// The number of gateways, each with a policy of its own.
    pub gateways: usize,
}

/// Plays a trace to its end.
pub fn simulate(
    trace: &Trace,
    kind: &Kind,
    pool: &PoolModel,
    seed: u64,
    progress: &Progress,
) -> Result<Outcome, String> {
    let PoolModel {
        model,
        servers,
        gateways,
    } = pool;
    let servers = *servers;
    let mut policy = kind.start(servers, *gateways, trace, seed)?;
    let pods = (0..servers.all).map(|_| Pod::new(model, trace.block_tokens));
    let mut run = Run {
        requests: &trace.requests,
        pods: pods.collect(),
        changes: vec![0; servers.all],
        events: BinaryHeap::new(),
        picked: vec![None; trace.requests.len()],
        times: vec![Times::default(); trace.requests.len()],
        left: trace.requests.len(),
    };
    run.go(policy.as_mut(), progress);
    let prefilled = run.picked.iter().flatten();
    let disaggregated = prefilled.filter(|picked| picked.prefiller.is_some());
    Ok(Outcome {
        disaggregated: disaggregated.count(),
        ..Outcome::new(trace, &run.pods, &run.times)
    })
}

impl Run<'_> {
    fn go(&mut self, policy: &mut dyn Policy, progress: &Progress) {
        // A picker begins without endpoints: it gets them before the load begins.
        if policy.tick_interval().is_some() {
            policy.tick(0, &self.pods);
            policy.tick(0, &self.pods);
            self.events.push(Reverse((0, Event::Tick)));
        }
        let mut next = 0;
        if let Some(first) = self.requests.first() {
            self.events.push(Reverse((first.at, Event::Arrival)));
        }
        let mut last = 0;
        while let Some(Reverse((now, event))) = self.events.pop() {
            match event {
                Event::Tick if now - last > STUCK => break,
                Event::Tick => {}
                Event::Server(..) | Event::Arrival => last = now,
            }
            if self.left == 0 {
                break;
            }
            match event {
                Event::Tick => {
                    policy.tick(now, &self.pods);
                    if let Some(each) = policy.tick_interval() {
                        self.events.push(Reverse((now + each, Event::Tick)));
                    }
                }
                Event::Arrival => {
                    self.arrive(now, next, policy);
                    next += 1;
                    progress.store(next, Ordering::Relaxed);
                    if let Some(request) = self.requests.get(next) {
                        self.events.push(Reverse((request.at, Event::Arrival)));
                    }
                }
                Event::Server(pod, change) => {
                    if self.changes.get(pod) == Some(&change) {
                        self.advance(now, pod, policy);
                    }
                }
            }
            while let Some((number, decision)) = policy.decided() {
                self.carry_out(now, number, decision, policy);
            }
        }
    }

    fn arrive(&mut self, now: u64, number: usize, policy: &mut dyn Policy) {
        let Some(request) = self.requests.get(number) else {
            return;
        };
        if let Some(picked) = policy.pick(now, number, request, &self.pods) {
            self.carry_out(now, number, Decision::Send(picked), policy);
        }
    }

    fn carry_out(&mut self, now: u64, number: usize, decision: Decision, policy: &mut dyn Policy) {
        let fate = match decision {
            Decision::Send(picked) if self.send(now, number, picked) => return,
            Decision::Send(_) | Decision::Refuse(Refusal::Shed) => Fate::Shed,
            Decision::Refuse(Refusal::Expired) => Fate::Expired,
            Decision::Evict => {
                self.abort(now, number);
                Fate::Evicted
            }
        };
        if let Some(times) = self.times.get_mut(number) {
            times.fate = fate;
        }
        self.left -= 1;
        policy.ended(now, number);
    }

    /// Sends a request. Returns false if a server's cache is too small for it.
    fn send(&mut self, now: u64, number: usize, picked: Picked) -> bool {
        let (pod, part) = match picked.prefiller {
            Some(prefiller) => (prefiller, Part::Prefill),
            None => (picked.server, Part::Whole),
        };
        let request = self.requests.get(number);
        if !request.is_some_and(|request| self.could_hold(request, &picked)) {
            return false;
        }
        let server = self.pods.get_mut(pod);
        if !server.is_some_and(|server| server.arrive(now, number, part, self.requests)) {
            return false;
        }
        if let Some(place) = self.picked.get_mut(number) {
            *place = Some(picked);
        }
        if let Some(times) = self.times.get_mut(number) {
            times.sent = Some(now);
        }
        self.schedule(pod);
        true
    }

    /// Has the servers of a request abort it.
    fn abort(&mut self, now: u64, number: usize) {
        let Some(picked) = self.picked.get(number).copied().flatten() else {
            return;
        };
        for pod in picked.prefiller.into_iter().chain([picked.server]) {
            if let Some(server) = self.pods.get_mut(pod) {
                server.abort(now, number, self.requests);
            }
            self.schedule(pod);
        }
    }

    /// Returns whether the server that decodes has a cache that is large enough.
    fn could_hold(&self, request: &Request, picked: &Picked) -> bool {
        let server = self.pods.get(picked.server);
        server.is_some_and(|server| server.could_hold(request, Part::Decode))
    }

    fn advance(&mut self, now: u64, pod: usize, policy: &mut dyn Policy) {
        let Some(server) = self.pods.get_mut(pod) else {
            return;
        };
        if let Some((_, next)) = server.next() {
            let usage = match next {
                Next::FirstToken(number) => server.usage(number, self.requests),
                Next::Prefilled(_) | Next::End(_) => None,
            };
            server.advance(now, next, self.requests);
            match next {
                Next::Prefilled(number) => self.hand_over(now, number),
                Next::FirstToken(number) => {
                    policy.first_token(now, number, usage);
                    if let Some(times) = self.times.get_mut(number) {
                        times.first_token = Some(now);
                    }
                }
                Next::End(number) => {
                    policy.ended(now, number);
                    self.left -= 1;
                    if let Some(times) = self.times.get_mut(number) {
                        times.end = Some(now);
                        times.fate = Fate::Completed;
                    }
                }
            }
        }
        self.schedule(pod);
    }

    /// Gives a request whose prompt is computed to the server that decodes.
    fn hand_over(&mut self, now: u64, number: usize) {
        let Some(picked) = self.picked.get(number).copied().flatten() else {
            return;
        };
        if let Some(server) = self.pods.get_mut(picked.server) {
            server.arrive(now, number, Part::Decode, self.requests);
        }
        self.schedule(picked.server);
    }

    /// Schedules the next event of a server, which replaces the one that was scheduled.
    fn schedule(&mut self, pod: usize) {
        let next = self.pods.get(pod).and_then(Pod::next);
        if let (Some(change), Some((at, _))) = (self.changes.get_mut(pod), next) {
            *change += 1;
            self.events.push(Reverse((at, Event::Server(pod, *change))));
        }
    }
}

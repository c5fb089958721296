//! The event loop.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::pod::{Model, Next, Pod};
use crate::policy::{Kind, Policy};
use crate::report::Outcome;
use crate::trace::{Request, Trace};

/// The number of requests that have arrived so far; another thread may read it.
pub type Progress = AtomicUsize;

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
    first_token: Vec<Option<u64>>,
    left: usize,
    refused: usize,
    end: u64,
}

/// Plays a trace to its end.
pub fn simulate(
    trace: &Trace,
    kind: &Kind,
    model: &Model,
    pods: usize,
    seed: u64,
    progress: &Progress,
) -> Result<Outcome, String> {
    let mut policy = kind.start(pods, trace.block_tokens, seed)?;
    let servers = (0..pods).map(|_| Pod::new(model, trace.block_tokens));
    let mut run = Run {
        requests: &trace.requests,
        pods: servers.collect(),
        changes: vec![0; pods],
        events: BinaryHeap::new(),
        first_token: vec![None; trace.requests.len()],
        left: trace.requests.len(),
        refused: 0,
        end: 0,
    };
    run.go(policy.as_mut(), progress);
    Ok(Outcome::new(
        trace,
        &run.pods,
        &run.first_token,
        run.refused,
        run.end,
    ))
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
        while let Some(Reverse((now, event))) = self.events.pop() {
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
        }
    }

    fn arrive(&mut self, now: u64, number: usize, policy: &mut dyn Policy) {
        let Some(request) = self.requests.get(number) else {
            return;
        };
        let picked = policy.pick(now, number, request, &self.pods);
        let pod = picked.and_then(|pod| self.pods.get_mut(pod));
        let taken = pod.is_some_and(|pod| pod.arrive(now, number, self.requests));
        match picked {
            Some(pod) if taken => self.schedule(pod),
            _ => {
                self.refused += 1;
                self.left -= 1;
                policy.ended(now, number);
            }
        }
    }

    fn advance(&mut self, now: u64, pod: usize, policy: &mut dyn Policy) {
        let Some(server) = self.pods.get_mut(pod) else {
            return;
        };
        if let Some((_, next)) = server.next() {
            server.advance(now, next, self.requests);
            match next {
                Next::FirstToken(number) => {
                    policy.first_token(now, number);
                    if let Some(place) = self.first_token.get_mut(number) {
                        *place = Some(now);
                    }
                }
                Next::End(number) => {
                    policy.ended(now, number);
                    self.left -= 1;
                    self.end = now;
                }
            }
        }
        self.schedule(pod);
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

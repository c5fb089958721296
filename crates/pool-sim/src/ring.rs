//! Envoy's ring hash over a header by which clients identify their conversations.

use std::collections::HashMap;

use xxhash_rust::xxh64::xxh64;

use crate::pod::Pod;
use crate::policy::{Picked, Policy, Servers};
use crate::trace::{Request, Trace};

/// Points of all servers together, at least: Envoy's default.
const RING_SIZE: usize = 1024;

/// Sends each conversation to the server that owns the next point on the ring.
pub struct RingHash {
    /// The points in ascending order, each with its server.
    points: Vec<(u64, usize)>,
    /// The conversation of each request.
    conversations: Vec<usize>,
}

impl RingHash {
    /// Creates the ring of these servers, and finds the conversations of a trace.
    pub fn new(servers: Servers, trace: &Trace) -> Self {
        let each = RING_SIZE.div_ceil(servers.all.max(1));
        let points = (0..servers.all).flat_map(|server| {
            let point = move |number| xxh64(format!("pod-{server}_{number}").as_bytes(), 0);
            (0..each).map(move |number| (point(number), server))
        });
        let mut points: Vec<(u64, usize)> = points.collect();
        points.sort_unstable();
        Self {
            points,
            conversations: conversations(&trace.requests),
        }
    }
}

impl Policy for RingHash {
    fn pick(&mut self, _: u64, number: usize, _: &Request, _: &[Pod]) -> Option<Picked> {
        let conversation = *self.conversations.get(number)?;
        let hash = xxh64(&conversation.to_le_bytes(), 0);
        let next = self.points.partition_point(|(point, _)| *point < hash);
        let (_, server) = self.points.get(next).or(self.points.first())?;
        Some(Picked::whole(*server))
    }
}

/// Returns the conversation of each request, by the number of its first one: a prompt that begins with the whole blocks
/// of an earlier one continues it.
fn conversations(requests: &[Request]) -> Vec<usize> {
    let mut ends: HashMap<u64, usize> = HashMap::new();
    let found = requests.iter().enumerate().map(|(number, request)| {
        let mut blocks = request.blocks.iter().rev();
        let earlier = blocks.find_map(|block| ends.get(block).copied());
        let conversation = earlier.unwrap_or(number);
        let last = request.blocks.last();
        ends.extend(last.map(|last| (*last, conversation)));
        conversation
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_stays_at_one_server_and_others_are_spread() {
        let trace = Trace::multi_turn(500, 10.0, 1);
        let mut ring = RingHash::new(Servers { all: 8, prefill: 0 }, &trace);
        let mut servers: HashMap<usize, usize> = HashMap::new();
        for (number, request) in trace.requests.iter().enumerate() {
            let picked = ring.pick(0, number, request, &[]).unwrap().server;
            let conversation = ring.conversations[number];
            assert_eq!(*servers.entry(conversation).or_insert(picked), picked);
        }
        // Five turns each, of which some are cut off at the end of the trace.
        assert!((90..=160).contains(&servers.len()), "{}", servers.len());
        for server in 0..8 {
            let own = servers.values().filter(|picked| **picked == server);
            assert!(own.count() >= 4, "{server}");
        }
    }
}

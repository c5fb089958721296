//! What should wait, as a plain list.

use std::collections::BTreeMap;
use std::time::Duration;

use epp_core::flow::{Arrival, BandSpec, Dropped, Fairness, FlowControl, Full, Ordering};
use epp_core::time::Instant;
use epp_core::ExchangeId;

/// A request that waits.
#[derive(Debug, Clone)]
pub struct Waiting {
    pub id: ExchangeId,
    pub priority: i32,
    pub flow: String,
    pub bytes: u64,
    pub since: Instant,
    /// How long it has waited for a pool with endpoints, and for one without.
    pub with_endpoints: Duration,
    pub without_endpoints: Duration,
    received: Instant,
    ttl: Option<Duration>,
    slo_ttft: Option<Duration>,
}

impl Waiting {
    pub fn of(arrival: &Arrival<'_>, spec: &BandSpec, control: &FlowControl, now: Instant) -> Self {
        let limit = spec.ttl.unwrap_or(control.ttl);
        let own = arrival.ttl.filter(|ttl| *ttl > Duration::ZERO);
        Self {
            id: arrival.id,
            priority: arrival.priority,
            flow: arrival.fairness_id.to_owned(),
            bytes: arrival.bytes,
            since: now,
            with_endpoints: Duration::ZERO,
            without_endpoints: Duration::ZERO,
            received: arrival.received,
            ttl: limit.into_iter().chain(own).min(),
            slo_ttft: arrival.slo_ttft,
        }
    }

    /// What orders it: those without a deadline come last, in the order in which they came.
    fn key(&self, ordering: Ordering) -> (bool, Instant) {
        let due = match ordering {
            Ordering::Fcfs => return (false, self.since),
            Ordering::Edf => self.ttl.map(|ttl| self.since.after(ttl)),
            Ordering::SloDeadline => self.slo_ttft.map(|slo| self.received.after(slo)),
        };
        // Deadlines centuries away are as far as any.
        let far = Instant::default().after(Duration::from_nanos(1 << 63));
        match due {
            Some(due) => (false, due.min(far)),
            None => (true, self.since),
        }
    }
}

/// What should wait.
#[derive(Debug, Default)]
pub struct Model {
    pub waiting: Vec<Waiting>,
    /// By flow of a band: which flows have not had their turn since its last one, though they waited all the time.
    overtaken: BTreeMap<(i32, String), Vec<String>>,
}

impl Model {
    /// The settings of a band.
    pub fn spec(&self, control: &FlowControl, priority: i32) -> BandSpec {
        let fixed = control.bands.iter().find(|band| band.priority == priority);
        let template = match priority < 0 {
            true => control.negative_band,
            false => control.default_band,
        };
        BandSpec {
            priority,
            ..*fixed.unwrap_or(&template)
        }
    }

    /// Whether a request has room.
    pub fn room(&self, control: &FlowControl, spec: &BandSpec, bytes: u64) -> Result<(), Full> {
        let fits = |waiting: &mut dyn Iterator<Item = &Waiting>,
                    requests: Option<u64>,
                    most: Option<u64>| {
            let (mut count, mut sum) = (1, bytes);
            for one in waiting {
                (count, sum) = (count + 1, sum.saturating_add(one.bytes));
            }
            requests.is_none_or(|limit| count <= limit) && most.is_none_or(|limit| sum <= limit)
        };
        let mut own = self
            .waiting
            .iter()
            .filter(|one| one.priority == spec.priority);
        if !fits(
            &mut self.waiting.iter(),
            control.max_requests,
            control.max_bytes,
        ) {
            return Err(Full::Pool);
        }
        match fits(&mut own, spec.max_requests, spec.max_bytes) {
            true => Ok(()),
            false => Err(Full::Band),
        }
    }

    /// Why a request is dropped that has waited as long as it may.
    pub fn due(&self, control: &FlowControl, one: &Waiting) -> Option<Dropped> {
        let reached = |waited, limit: Option<Duration>| limit.is_some_and(|limit| waited >= limit);
        if reached(one.with_endpoints, one.ttl) {
            return Some(Dropped::Expired);
        }
        reached(one.without_endpoints, control.empty_pool_ttl)
            .then_some(Dropped::ExpiredWithoutEndpoints)
    }

    /// Checks that a request is the first of its flow, or of its band where flows do not matter.
    pub fn check_order(&self, spec: &BandSpec, id: ExchangeId) {
        let own = self
            .waiting
            .iter()
            .find(|one| one.id == id)
            .expect("it waits");
        let by_flow = spec.fairness != Fairness::GlobalStrict;
        let rivals = self
            .waiting
            .iter()
            .filter(|one| one.priority == own.priority && (!by_flow || one.flow == own.flow));
        let first = rivals.map(|one| one.key(spec.ordering)).min();
        assert_eq!(
            Some(own.key(spec.ordering)),
            first,
            "{own:?} goes before its turn"
        );
    }

    /// Notes that a request went: where flows take turns, all that waited since its flow's last turn have had theirs.
    pub fn goes(&mut self, spec: &BandSpec, gone: &Waiting) {
        if spec.fairness != Fairness::RoundRobin {
            return;
        }
        let waits = |flow: &String| {
            let mut waiting = self.waiting.iter();
            waiting.any(|one| one.priority == gone.priority && one.flow == *flow)
        };
        for ((priority, _), overtaken) in &mut self.overtaken {
            if *priority == gone.priority {
                overtaken.retain(|flow| *flow != gone.flow && waits(flow));
            }
        }
        let place = (gone.priority, gone.flow.clone());
        let overtaken = self.overtaken.get(&place);
        assert!(
            overtaken.is_none_or(Vec::is_empty),
            "{gone:?} overtakes {overtaken:?}"
        );
        let own = self
            .waiting
            .iter()
            .filter(|one| one.priority == gone.priority);
        let mut others: Vec<String> = own.map(|one| one.flow.clone()).collect();
        others.retain(|flow| *flow != gone.flow);
        others.sort();
        others.dedup();
        self.overtaken.insert(place, others);
    }

    /// Another plan is in force.
    pub fn reinstall(&mut self) {
        self.overtaken.clear();
    }
}

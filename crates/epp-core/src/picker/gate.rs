//! What an operator sees of flow control: what waits, why it does, and what is wrong.

use super::dispatcher::Dispatcher;

use super::shares::MAX_WAITING_BANDS;
use super::verdict::Met;
use super::Picker;
use crate::findings::Finding;
use crate::flow::{Blocked, FlowControl, Partition, Saturation};
use crate::metrics::labels::FlowOutcome;
use crate::scheduling::Freshness;
use crate::time::{whole_millis, Instant};

impl Dispatcher {
    /// Returns the state of flow control and what waits in each band, as sentences; nothing where the plan does not have
    /// it.
    pub(super) fn flow_report(&self) -> Vec<String> {
        let Some(control) = &self.plan.flow else {
            return Vec::new();
        };
        let now = self.clock.now();
        let mut report = vec![self.flow_state(control)];
        let waiting = self.flow.queues.bands().filter(|band| band.requests > 0);
        report.extend(waiting.take(MAX_WAITING_BANDS).map(|band| {
            let oldest = band.oldest.map_or(0, |since| whole_millis(now.since(since)));
            let (priority, requests, kib) = (band.priority, band.requests, band.bytes >> 10);
            let ceiling = band.ceiling * 100.0;
            format!(
                "priority {priority}: {requests} requests wait ({kib} KiB), the first for {oldest} ms; \
                 stops at {ceiling:.0} %"
            )
        }));
        report
    }

    /// Returns how full the pool is, why requests wait, and how many did not go on, as a part of a sentence.
    fn flow_state(&self, control: &FlowControl) -> String {
        let percent = self.saturation(control).effective * 100.0;
        let (wait, why) = match self.shut(control) {
            Some(why) => ("requests wait: ", why),
            None => ("nothing has to wait", String::new()),
        };
        let metrics = &self.statistics;
        let rejected = metrics.flow_counted(FlowOutcome::RejectedCapacity)
            + metrics.flow_counted(FlowOutcome::RejectedNoEndpoints);
        let expired = metrics.flow_counted(FlowOutcome::EvictedTtl)
            + metrics.flow_counted(FlowOutcome::EvictedNoEndpoints);
        let evicted = metrics.evicted();
        format!(
            "saturation {percent:.0} %; {wait}{why}; {rejected} rejected, {expired} expired, {evicted} evicted"
        )
    }

    fn saturation(&self, control: &FlowControl) -> Saturation {
        Saturation::of(&*control.detector, self.endpoints.pool())
    }

    /// Returns why the first request that waits here is not sent; `None` where none waits, or it is about to be sent.
    fn shut(&self, control: &FlowControl) -> Option<String> {
        let highest = self.flow.queues.highest_waiting()?;
        if self.endpoints.is_empty() {
            return Some("the pool has no endpoints".to_owned());
        }
        let elsewhere = self.flow.others.priority();
        if let Some(floor) = elsewhere.filter(|floor| highest < *floor) {
            return Some(format!(
                "requests of priority {floor} wait in another worker"
            ));
        }
        if let Some(blocked) = self.flow.queues.blocked(control) {
            return Some(self.full(control, blocked));
        }
        let in_flight = self.endpoints.loads.all_in_flight() as f64;
        let shared = self.flow.has_its_share(in_flight);
        shared.then(|| {
            "this worker has its share of the places; others wait in other workers".to_owned()
        })
    }

    /// Returns why a full pool keeps a band back: which detector found which of its endpoints to be full.
    fn full(&self, control: &FlowControl, blocked: Blocked) -> String {
        let saturation = self.saturation(control);
        let (_, stage) = fuller(saturation);
        let detector = &control.detector_name;
        let why = match self.unmeasured(control) {
            Some(_) => "no endpoint has fresh metrics; ",
            None => "",
        };
        let Blocked { priority, ceiling } = blocked;
        let (percent, ceiling) = (saturation.effective * 100.0, ceiling * 100.0);
        format!(
            "{why}{detector} measures {percent:.0} %{stage}, and priority {priority} stops at \
             {ceiling:.0} %"
        )
    }

    /// Returns how many endpoints there are, where the gate is shut because none of them has fresh metrics.
    fn unmeasured(&self, control: &FlowControl) -> Option<usize> {
        self.flow.queues.blocked(control)?;
        let pool = self.endpoints.pool();
        let (partition, _) = fuller(self.saturation(control));
        let detector = control.fullest(pool, partition);
        let mut endpoints = pool.iter();
        let fresh = endpoints.any(|(_, endpoint)| endpoint.freshness == Freshness::Fresh);
        let reads = detector.needs().any_metric();
        (reads && !fresh && !pool.is_empty()).then_some(pool.len())
    }
}

/// Returns the partition that shuts the gate, and how a text names it beside another one.
fn fuller(saturation: Saturation) -> (Partition, &'static str) {
    match (saturation.prefill, saturation.decode) {
        (None, None) => (Partition::All, ""),
        (None, Some(_)) => (Partition::Decode, ""),
        (Some(_), None) => (Partition::Prefill, ""),
        (Some(prefill), Some(decode)) => match prefill > decode {
            true => (Partition::Prefill, " for prefill"),
            false => (Partition::Decode, " for decode"),
        },
    }
}

impl Picker {
    /// Returns why the first request that waits is not sent; `None` where none waits.
    pub fn why_requests_wait(&self) -> Option<String> {
        self.dispatcher.shut(self.plan().flow.as_ref()?)
    }

    /// Adds what is wrong with what waits here.
    pub(super) fn flow_conditions(&mut self, now: Instant, met: &mut Met) {
        let dispatcher = &self.dispatcher;
        let counted = |outcome| dispatcher.statistics.flow_counted(outcome);
        let rejected = counted(FlowOutcome::RejectedCapacity);
        let rejected = self.verdict.rejected.growth(rejected, now);
        let expired = counted(FlowOutcome::EvictedTtl);
        let expired = self.verdict.expired.growth(expired, now);
        let control = dispatcher.plan.flow.as_ref();
        // In a dry run nothing is rejected.
        let Some(control) = control.filter(|_| !dispatcher.plan.settings.dry_run) else {
            return;
        };
        if !dispatcher.endpoints.is_empty() {
            if let Some(all) = dispatcher.unmeasured(control) {
                let waiting = dispatcher.flow.queues.len();
                let detail =
                    format_args!("{waiting} waiting, 0 of {all} endpoints with fresh metrics");
                // The others follow from it.
                return met.add(Finding::GateShut, detail);
            }
        }
        if let Some(count) = rejected {
            met.add(Finding::QueueFull, format_args!("{count} requests"));
        }
        if let Some(count) = expired {
            met.add(Finding::RequestsExpire, format_args!("{count} requests"));
        }
    }
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;

//! The metrics of flow control.

use std::time::Duration;

use super::shares::WaitingBand;
use super::statistics::Statistics;
use super::Picker;
use crate::flow::Saturation;
use crate::metrics::definitions::{
    EVICTIONS, FLOW_QUEUE_BYTES, FLOW_QUEUE_SIZE, FLOW_REQUESTS, QUEUE_TIME, SATURATION,
};
use crate::metrics::labels::{Departed, Flow, FlowOutcome, Priority, SaturationStage};
use crate::metrics::{CounterHandle, HistogramHandle};

/// The series of flow control that were counted so far. A priority is one of a few in the document, and a label one of
/// those that the queues name.
#[derive(Debug, Default)]
pub struct FlowMetrics {
    outcomes: Vec<((i32, FlowOutcome), CounterHandle)>,
    /// Sorted.
    waits: Vec<((i32, FlowOutcome, u8), HistogramHandle)>,
    /// The bands whose gauges are not 0.
    shown: Vec<i32>,
    evicted: u64,
}

impl Statistics {
    /// Sets the gauges of how full the pool is, to 0 where it is not measured.
    fn set_saturation(&mut self, saturation: Option<Saturation>) {
        for (stage, value) in [
            ("prefill", saturation.and_then(|of| of.prefill)),
            ("decode", saturation.and_then(|of| of.decode)),
            ("effective", saturation.map(|of| of.effective)),
        ] {
            let stage = SaturationStage(stage);
            match value {
                Some(value) => {
                    let value = (value * 1e6).round() as u64;
                    self.registry.set(SATURATION, stage, value);
                }
                None => self.registry.reset(&SATURATION, stage),
            }
        }
    }

    /// Leaves no gauge behind that says that requests wait, or how full the pool is.
    pub(super) fn reset_flow(&mut self) {
        for priority in std::mem::take(&mut self.flow.shown) {
            self.set_waiting(priority, 0, 0);
        }
        self.set_saturation(None);
    }

    /// Sets the gauges of what waits in a band.
    fn set_waiting(&mut self, priority: i32, requests: u64, bytes: u64) {
        let priority = priority.to_string();
        let labels = Priority(&priority);
        self.registry.set(FLOW_QUEUE_SIZE, labels, requests);
        self.registry.set(FLOW_QUEUE_BYTES, labels, bytes);
    }

    /// Counts what became of a request of this priority.
    pub fn count_flow(&mut self, outcome: FlowOutcome, priority: i32) {
        let key = (priority, outcome);
        let mut known = self.flow.outcomes.iter();
        let known = known
            .find(|(known, _)| *known == key)
            .map(|(_, known)| *known);
        let handle = known.unwrap_or_else(|| {
            let priority = priority.to_string();
            let labels = Departed {
                priority: &priority,
                outcome,
            };
            let handle = self.registry.counter(FLOW_REQUESTS, labels);
            self.flow.outcomes.push((key, handle));
            handle
        });
        self.registry.count(handle, 1);
    }

    /// Returns how many requests had this outcome.
    pub fn flow_counted(&self, outcome: FlowOutcome) -> u64 {
        let series = self.flow.outcomes.iter();
        let same = series.filter(|((_, known), _)| *known == outcome);
        same.map(|(_, handle)| self.registry.counted(*handle)).sum()
    }

    /// Counts a request that was evicted.
    pub fn count_eviction(&mut self, priority: i32) {
        self.flow.evicted += 1;
        let priority = priority.to_string();
        self.registry.add(EVICTIONS, Priority(&priority), 1);
    }

    /// Returns how many requests were evicted.
    pub fn evicted(&self) -> u64 {
        self.flow.evicted
    }

    /// Records how long a request waited, by the number and the text of its flow's label.
    pub fn observe_wait(
        &mut self,
        outcome: FlowOutcome,
        priority: i32,
        (number, fairness_id): (u8, &str),
        waited: Duration,
    ) {
        let key = (priority, outcome, number);
        let waits = &mut self.flow.waits;
        let place = waits.binary_search_by_key(&key, |(known, _)| *known);
        let known = place.ok().and_then(|place| waits.get(place));
        let handle = known.map(|(_, handle)| *handle).unwrap_or_else(|| {
            let priority = priority.to_string();
            let labels = Flow {
                priority: &priority,
                outcome,
                fairness_id,
            };
            let handle = self.registry.histogram(QUEUE_TIME, labels);
            if let Err(place) = place {
                waits.insert(place, (key, handle));
            }
            handle
        });
        self.registry.observe(handle, waited.as_secs_f64());
    }
}

impl Picker {
    /// Sets the gauges of what waits, over all pickers that share, and of how full the pool is.
    pub(super) fn set_flow_gauges(&mut self) {
        let dispatcher = &mut self.dispatcher;
        let own = dispatcher.flow.queues.waiting().map(WaitingBand::from);
        let mut bands: Vec<WaitingBand> = own.collect();
        bands.extend(&dispatcher.flow.others.bands);
        let metrics = &mut dispatcher.statistics;
        let emptied = metrics.flow.shown.iter().map(|priority| WaitingBand {
            priority: *priority,
            ..WaitingBand::default()
        });
        bands.extend(emptied);
        metrics.flow.shown.clear();
        bands.sort_unstable_by_key(|band| band.priority);
        for same in bands.chunk_by(|one, next| one.priority == next.priority) {
            let Some(WaitingBand { priority, .. }) = same.first() else {
                continue;
            };
            let requests = same.iter().map(|band| u64::from(band.requests)).sum();
            let bytes = same
                .iter()
                .fold(0, |sum: u64, band| sum.saturating_add(band.bytes));
            if requests > 0 {
                metrics.flow.shown.push(*priority);
            }
            metrics.set_waiting(*priority, requests, bytes);
        }
        let pool = dispatcher.endpoints.pool();
        let meter = &mut dispatcher.flow.meter;
        let saturation = dispatcher.plan.flow.as_ref().map(|_| meter.measure(pool));
        metrics.set_saturation(saturation);
    }
}

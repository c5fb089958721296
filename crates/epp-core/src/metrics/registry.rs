//! Counts, until the host takes what was counted.
//!
//! Histograms are Prometheus histograms in their written form, a counter for each bucket: Envoy's own hold whole
//! numbers without a unit, which no histogram in seconds can be.

use std::collections::VecDeque;

use hashbrown::HashMap;

use super::definitions::{Counter, Gauge, Histogram};
use super::labels::Labels;
use super::{MetricId, MetricKind, MetricUpdate};

/// Series that are kept apart, a histogram counting for each of its buckets. Envoy keeps a statistic until
/// another build of the module takes over, and new endpoints keep coming: later ones are counted without their labels.
/// An endpoint has some 140 with one model.
pub const MAX_SERIES: usize = 400_000;

/// Counters of a histogram beside those of its bounds: beyond all bounds, the sum, and the count.
const BEYOND_BOUNDS: usize = 3;

/// A counter with its labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CounterHandle(usize);

/// A histogram with its labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistogramHandle(usize);

/// A counter or gauge with its labels.
#[derive(Debug)]
struct Cell {
    /// Empty once the host has it.
    name: String,
    value: Value,
    /// Whether it is among those of which the host is to get something, now or with the next flush.
    queued: bool,
}

#[derive(Debug, Clone, Copy)]
enum Value {
    /// A counter's growth that the host has not got yet, and what it has got.
    Counter {
        growth: u64,
        before: u64,
    },
    Gauge(u64),
}

impl Value {
    const ZERO: Self = Self::Counter {
        growth: 0,
        before: 0,
    };
}

#[derive(Debug)]
struct HistogramCells {
    bounds: &'static [f64],
    /// Values in each bucket alone that its counters have not got yet, the last one beyond all bounds.
    pending: Box<[u64]>,
    sum: f64,
    /// Whether it was observed since the last flush.
    queued: bool,
    /// Counters up to each bound, beyond all, of the sum, and of the count; made when they, or the next one, first
    /// count something.
    counters: Box<[Option<CounterHandle>]>,
    name: &'static str,
    labels: String,
}

/// The metrics of one pool.
#[derive(Debug)]
pub struct Registry {
    /// The first label of all.
    pool: String,
    cells: Vec<Cell>,
    histograms: Vec<HistogramCells>,
    /// Places in `cells` or `histograms`, by the metric's name and its labels.
    known: HashMap<(&'static str, String), usize>,
    /// The maximum number of series.
    series: usize,
    /// Counters and histograms that have something for the host, which gets it with the next flush.
    grown: Vec<CounterHandle>,
    observed: Vec<HistogramHandle>,
    /// Places in `cells` of those that have something for the host now.
    ready: VecDeque<usize>,
    /// Labels are written here, to be looked up.
    labels: String,
}

impl Registry {
    /// Returns a registry whose metrics all have this pool as a label.
    pub fn new(pool: &str) -> Self {
        let mut label = String::new();
        push_label(&mut label, "pool", pool);
        Self {
            pool: label,
            cells: Vec::new(),
            histograms: Vec::new(),
            known: HashMap::new(),
            series: 0,
            grown: Vec::new(),
            observed: Vec::new(),
            ready: VecDeque::new(),
            labels: String::new(),
        }
    }

    /// Returns a counter with these labels.
    pub fn counter<L: Labels>(&mut self, counter: Counter<L>, labels: L) -> CounterHandle {
        self.write_labels(labels);
        CounterHandle(self.find_cell(counter.name(), Value::ZERO))
    }

    /// Returns a histogram with these labels.
    pub fn histogram<L: Labels>(&mut self, histogram: Histogram<L>, labels: L) -> HistogramHandle {
        self.write_labels(labels);
        self.find_histogram(histogram.name(), histogram.bounds())
    }

    /// Adds to a counter. What is a sum over all VMs is not a counter that each VM adds to and takes off again,
    /// but a gauge that the polling VM sets: what a VM had added would stay once that has trapped.
    pub fn add<L: Labels>(&mut self, counter: Counter<L>, labels: L, growth: u64) {
        let handle = self.counter(counter, labels);
        self.count(handle, growth);
    }

    /// Adds to a counter.
    pub fn count(&mut self, handle: CounterHandle, by: u64) {
        let Some(cell) = self.cells.get_mut(handle.0) else {
            return;
        };
        if let Value::Counter { growth, .. } = &mut cell.value {
            *growth = growth.saturating_add(by);
            if !std::mem::replace(&mut cell.queued, true) {
                self.grown.push(handle);
            }
        }
    }

    /// Adds a value to a histogram.
    pub fn observe(&mut self, handle: HistogramHandle, value: f64) {
        let Some(histogram) = self.histograms.get_mut(handle.0) else {
            return;
        };
        let bucket = histogram.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = histogram.pending.get_mut(bucket) {
            *count += 1;
        }
        histogram.sum += value;
        if !std::mem::replace(&mut histogram.queued, true) {
            self.observed.push(handle);
        }
    }

    /// Sets a gauge, which does not wait for the next flush.
    pub fn set<L: Labels>(&mut self, gauge: Gauge<L>, labels: L, value: u64) {
        self.write_labels(labels);
        self.set_gauge(gauge.name(), value);
    }

    /// Sets a gauge to 0 if it was ever set with these labels here.
    pub fn reset<L: Labels>(&mut self, gauge: &Gauge<L>, labels: L) {
        self.write_labels(labels);
        if self.known.contains_key(&Key(gauge.name(), &self.labels)) {
            self.set_gauge(gauge.name(), 0);
        }
    }

    /// Returns whether new labels are left out: there may be no more series.
    pub fn is_full(&self) -> bool {
        self.series >= MAX_SERIES
    }

    /// Returns what a counter has counted here.
    pub fn counted(&self, handle: CounterHandle) -> u64 {
        match self.cells.get(handle.0).map(|cell| cell.value) {
            Some(Value::Counter { growth, before }) => before.saturating_add(growth),
            Some(Value::Gauge(_)) | None => 0,
        }
    }

    /// Returns what a counter has counted here, under all labels together.
    pub fn total<L>(&self, counter: &Counter<L>) -> u64 {
        let known = self.known.iter();
        let known = known.filter(|((name, _), _)| *name == counter.name());
        known
            .map(|(_, cell)| self.counted(CounterHandle(*cell)))
            .sum()
    }

    /// Lets the host have what was counted until now.
    pub fn flush(&mut self) {
        let mut observed = std::mem::take(&mut self.observed);
        for histogram in observed.drain(..) {
            self.flush_histogram(histogram);
        }
        self.observed = observed;
        let grown = self.grown.drain(..);
        self.ready.extend(grown.map(|handle| handle.0));
    }

    /// Returns what the host is to do next, until there is nothing more.
    pub fn poll(&mut self) -> Option<MetricUpdate> {
        loop {
            let place = *self.ready.front()?;
            let id = MetricId(place as u32);
            let Some(cell) = self.cells.get_mut(place) else {
                self.ready.pop_front();
                continue;
            };
            if !cell.name.is_empty() {
                let kind = match cell.value {
                    Value::Counter { .. } => MetricKind::Counter,
                    Value::Gauge(_) => MetricKind::Gauge,
                };
                let name = std::mem::take(&mut cell.name);
                return Some(MetricUpdate::Define { id, kind, name });
            }
            cell.queued = false;
            self.ready.pop_front();
            match &mut cell.value {
                Value::Gauge(value) => return Some(MetricUpdate::Set { id, value: *value }),
                Value::Counter { growth: 0, before } if *before > 0 => {}
                // A host may show a counter from its first update on, even if it has counted nothing.
                Value::Counter { growth, before } => {
                    let by = std::mem::take(growth);
                    *before = before.saturating_add(by);
                    return Some(MetricUpdate::Add { id, by });
                }
            }
        }
    }

    /// Writes labels where they are looked up.
    fn write_labels<L: Labels>(&mut self, labels: L) {
        self.labels.clear();
        push_labels(&mut self.labels, labels);
    }

    /// Returns where a metric with the labels that were written last is, if there is one. Where there may be no
    /// more, the labels are dropped.
    fn find(&mut self, name: &'static str) -> Option<usize> {
        let known = self.known.get(&Key(name, &self.labels)).copied();
        if known.is_some() || self.series < MAX_SERIES {
            return known;
        }
        self.labels.clear();
        self.known.get(&Key(name, "")).copied()
    }

    fn find_cell(&mut self, name: &'static str, value: Value) -> usize {
        if let Some(known) = self.find(name) {
            return known;
        }
        let text = [name, &self.pool, &self.labels].concat();
        let place = self.add_cell(text, value);
        self.series += 1;
        self.known.insert((name, self.labels.clone()), place);
        place
    }

    fn add_cell(&mut self, name: String, value: Value) -> usize {
        self.cells.push(Cell {
            name,
            value,
            queued: false,
        });
        self.cells.len() - 1
    }

    fn set_gauge(&mut self, name: &'static str, value: u64) {
        let place = self.find_cell(name, Value::Gauge(value));
        if let Some(cell) = self.cells.get_mut(place) {
            cell.value = Value::Gauge(value);
            if !std::mem::replace(&mut cell.queued, true) {
                self.ready.push_back(place);
            }
        }
    }

    fn find_histogram(&mut self, name: &'static str, bounds: &'static [f64]) -> HistogramHandle {
        if let Some(known) = self.find(name) {
            return HistogramHandle(known);
        }
        let counters = bounds.len() + BEYOND_BOUNDS;
        let place = self.histograms.len();
        self.series += counters;
        self.histograms.push(HistogramCells {
            bounds,
            pending: vec![0; bounds.len() + 1].into(),
            sum: 0.0,
            queued: false,
            counters: vec![None; counters].into(),
            name,
            labels: self.labels.clone(),
        });
        self.known.insert((name, self.labels.clone()), place);
        HistogramHandle(place)
    }

    /// Turns what was observed into growth of the histogram's counters.
    fn flush_histogram(&mut self, handle: HistogramHandle) {
        let Some(histogram) = self.histograms.get_mut(handle.0) else {
            return;
        };
        histogram.queued = false;
        // Whole numbers are all that Envoy counts: the rest stays for the next time.
        let whole = histogram.sum.floor();
        histogram.sum -= whole;
        let mut below = 0;
        let mut growth = Vec::with_capacity(histogram.counters.len());
        for pending in &mut histogram.pending {
            below += std::mem::take(pending);
            growth.push(below);
        }
        growth.extend([whole as u64, below]);
        for (place, by) in growth.iter().enumerate() {
            // The bucket below the lowest that has counted is exported as 0: without its bound, a reader takes 0 as the
            // lower end of the lowest one, and finds quantiles that are too low.
            let is_below = growth.get(place + 1).is_some_and(|next| *next > 0);
            let histogram = self.histograms.get(handle.0);
            let counters = histogram.map(|histogram| &histogram.counters);
            let is_there = counters.and_then(|known| *known.get(place)?).is_some();
            if *by == 0 && (is_there || !is_below) {
                continue;
            }
            if let Some(counter) = self.histogram_counter(handle, place) {
                self.count(counter, *by);
            }
        }
    }

    /// Returns the counter at a place of [`HistogramCells::counters`].
    fn histogram_counter(
        &mut self,
        handle: HistogramHandle,
        place: usize,
    ) -> Option<CounterHandle> {
        let histogram = self.histograms.get(handle.0)?;
        if let Some(counter) = histogram.counters.get(place)? {
            return Some(*counter);
        }
        let bound = histogram.bounds.get(place).map(f64::to_string);
        let (part, bound) = match place.saturating_sub(histogram.bounds.len()) {
            0 => ("_bucket", bound.as_deref().or(Some("+Inf"))),
            1 => ("_sum", None),
            _ => ("_count", None),
        };
        let mut name = [histogram.name, part, &self.pool, &histogram.labels].concat();
        if let Some(bound) = bound {
            push_label(&mut name, "le", bound);
        }
        let counter = CounterHandle(self.add_cell(name, Value::ZERO));
        let histogram = self.histograms.get_mut(handle.0)?;
        *histogram.counters.get_mut(place)? = Some(counter);
        Some(counter)
    }
}

/// Returns the name of a gauge that belongs to no pool, with its labels.
pub fn without_pool<L: Labels>(gauge: &Gauge<L>, labels: L) -> String {
    let mut name = gauge.name().to_owned();
    push_labels(&mut name, labels);
    name
}

/// Appends labels.
fn push_labels<L: Labels>(text: &mut String, labels: L) {
    for (name, value) in L::NAMES.iter().zip(labels.values()) {
        if let Some(value) = value {
            push_label(text, name, value);
        }
    }
}

/// Appends a label. In its value a semicolon or an equals sign would end it.
fn push_label(text: &mut String, name: &str, value: &str) {
    text.push(';');
    text.push_str(name);
    text.push('=');
    let mut parts = value.split([';', '=']);
    text.push_str(parts.next().unwrap_or_default());
    for part in parts {
        text.push('_');
        text.push_str(part);
    }
}

/// Looks a metric up without copying its labels.
#[derive(Hash)]
struct Key<'a>(&'static str, &'a str);

impl hashbrown::Equivalent<(&'static str, String)> for Key<'_> {
    fn equivalent(&self, key: &(&'static str, String)) -> bool {
        self.0 == key.0 && self.1 == key.1
    }
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;

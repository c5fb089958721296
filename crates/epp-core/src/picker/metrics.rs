//! Statistics on their way to Envoy: counted here, handed over once a second.
//!
//! A host call per event would cost more than the decision that it counts. Distributions are
//! Prometheus histograms in their written form, a counter for each bucket: Envoy's own hold whole
//! numbers without a unit, which no histogram in seconds can be.

use hashbrown::HashMap;

use super::meter::{Kind, Meter, Metric, MetricId};

/// Series that are kept apart, a distribution counting for each of its buckets. Envoy never forgets
/// a statistic, and new endpoints keep coming: later ones are counted without their labels. An
/// endpoint has some 300: of what it does, of one model, and of all other models.
const MOST: usize = 400_000;

/// A counter or gauge of one set of labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handle(usize);

/// A distribution of one set of labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Series(usize);

#[derive(Debug)]
struct Cell {
    gauge: bool,
    name: String,
    /// Once it is defined; `Some(None)` where Envoy did not take it.
    id: Option<Option<MetricId>>,
    waiting: i64,
    /// What was handed over.
    total: i64,
}

#[derive(Debug)]
struct Distribution {
    bounds: &'static [f64],
    /// Events in each bucket alone that were not handed over, the last one beyond all bounds.
    waiting: Box<[u64]>,
    sum: f64,
    /// Whether anything waits.
    dirty: bool,
    /// Counters up to each bound, of the sum, and of all; made when they first count something.
    cells: Box<[Option<Handle>]>,
    name: &'static str,
    labels: String,
}

/// The metrics of one pool.
#[derive(Debug)]
pub struct Metrics {
    meter: Box<dyn Meter>,
    pool: String,
    cells: Vec<Cell>,
    distributions: Vec<Distribution>,
    known: HashMap<(Metric, String), usize>,
    /// Series that these may come to.
    series: usize,
    /// Cells and distributions that have something waiting.
    dirty: (Vec<Handle>, Vec<Series>),
}

impl Metrics {
    /// The metrics of this pool.
    pub fn new(meter: Box<dyn Meter>, pool: &str) -> Self {
        Self {
            meter,
            pool: label_value(pool),
            cells: Vec::new(),
            distributions: Vec::new(),
            known: HashMap::new(),
            series: 0,
            dirty: (Vec::new(), Vec::new()),
        }
    }

    /// A counter or gauge; `label` is empty or `name=value`, further ones after a semicolon.
    pub fn handle(&mut self, metric: Metric, label: &str) -> Handle {
        let label = self.label(label);
        if let Some(known) = self.known.get(&Key(metric, label)) {
            return Handle(*known);
        }
        let (kind, name) = metric.spec();
        let name = self.name(name, label);
        let handle = self.cell(kind == Kind::Gauge, name);
        self.series += 1;
        self.known.insert((metric, label.to_owned()), handle.0);
        handle
    }

    /// A distribution.
    pub fn series(&mut self, metric: Metric, label: &str) -> Series {
        let label = self.label(label);
        if let Some(known) = self.known.get(&Key(metric, label)) {
            return Series(*known);
        }
        let (kind, name) = metric.spec();
        let bounds = match kind {
            Kind::Distribution(bounds) => bounds,
            Kind::Counter | Kind::Gauge => &[],
        };
        let number = self.distributions.len();
        self.series += bounds.len() + 3;
        self.distributions.push(Distribution {
            bounds,
            waiting: vec![0; bounds.len() + 1].into(),
            sum: 0.0,
            dirty: false,
            cells: vec![None; bounds.len() + 3].into(),
            name,
            labels: label.to_owned(),
        });
        self.known.insert((metric, label.to_owned()), number);
        Series(number)
    }

    /// Counts.
    pub fn count(&mut self, handle: Handle, by: i64) {
        if let Some(cell) = self.cells.get_mut(handle.0) {
            if cell.waiting == 0 {
                self.dirty.0.push(handle);
            }
            cell.waiting += by;
        }
    }

    /// Adds a value to a distribution.
    pub fn observe(&mut self, series: Series, value: f64) {
        if let Some(distribution) = self.distributions.get_mut(series.0) {
            let bucket = distribution.bounds.partition_point(|bound| *bound < value);
            if let Some(count) = distribution.waiting.get_mut(bucket) {
                *count += 1;
            }
            distribution.sum += value;
            if !std::mem::replace(&mut distribution.dirty, true) {
                self.dirty.1.push(series);
            }
        }
    }

    /// What a counter has counted here.
    pub fn counted(&self, handle: Handle) -> i64 {
        let cell = self.cells.get(handle.0);
        cell.map_or(0, |cell| cell.total + cell.waiting)
    }

    /// What a counter has counted here, under all labels.
    pub fn sum(&self, metric: Metric) -> i64 {
        let known = self.known.iter().filter(|((of, _), _)| *of == metric);
        known.map(|(_, cell)| self.counted(Handle(*cell))).sum()
    }

    /// Adds to a counter. A gauge that is a sum over all VMs is not moved but set, by the VM that polls:
    /// what a VM had added could nobody take off again once that has trapped.
    pub fn add(&mut self, metric: Metric, label: &str, by: i64) {
        let handle = self.handle(metric, label);
        self.count(handle, by);
    }

    /// Sets a gauge, at once.
    pub fn set(&mut self, metric: Metric, label: &str, value: u64) {
        let handle = self.handle(metric, label);
        if let Some(id) = self.id(handle) {
            self.meter.set(id, value);
        }
    }

    /// Hands over what was counted.
    pub fn flush(&mut self) {
        let mut series = std::mem::take(&mut self.dirty.1);
        for series in series.drain(..) {
            self.flush_distribution(series);
        }
        self.dirty.1 = series;
        let mut handles = std::mem::take(&mut self.dirty.0);
        for handle in handles.drain(..) {
            let id = self.id(handle);
            let cell = self.cells.get_mut(handle.0);
            let waiting = cell.map_or(0, |cell| {
                cell.total += cell.waiting;
                std::mem::take(&mut cell.waiting)
            });
            if let Some(id) = id.filter(|_| waiting != 0) {
                self.meter.add(id, waiting);
            }
        }
        self.dirty.0 = handles;
    }

    /// Turns what waits in a distribution into what its counters are to grow by.
    fn flush_distribution(&mut self, series: Series) {
        let Some(distribution) = self.distributions.get_mut(series.0) else {
            return;
        };
        distribution.dirty = false;
        let bounds = distribution.bounds;
        // Whole numbers are all that Envoy counts: the rest stays for the next time.
        let whole = distribution.sum.floor();
        distribution.sum -= whole;
        let mut below = 0;
        let mut growth = Vec::with_capacity(bounds.len() + 3);
        for waiting in &mut distribution.waiting {
            below += std::mem::take(waiting);
            growth.push(below as i64);
        }
        growth.extend([whole as i64, below as i64]);
        for (place, by) in growth.into_iter().enumerate().filter(|(_, by)| *by > 0) {
            if let Some(handle) = self.distribution_cell(series, place) {
                self.count(handle, by);
            }
        }
    }

    /// The counter at a place of [`Distribution::cells`].
    fn distribution_cell(&mut self, series: Series, place: usize) -> Option<Handle> {
        let distribution = self.distributions.get(series.0)?;
        if let Some(handle) = distribution.cells.get(place)? {
            return Some(*handle);
        }
        let (name, labels) = (distribution.name, &distribution.labels);
        let name = match place.checked_sub(distribution.bounds.len()) {
            None => {
                let bound = distribution.bounds.get(place)?;
                self.name(
                    &format!("{name}_bucket"),
                    &joined(labels, &bound.to_string()),
                )
            }
            Some(0) => self.name(&format!("{name}_bucket"), &joined(labels, "+Inf")),
            Some(1) => self.name(&format!("{name}_sum"), labels),
            Some(_) => self.name(&format!("{name}_count"), labels),
        };
        let handle = self.cell(false, name);
        let distribution = self.distributions.get_mut(series.0)?;
        *distribution.cells.get_mut(place)? = Some(handle);
        Some(handle)
    }

    fn cell(&mut self, gauge: bool, name: String) -> Handle {
        self.cells.push(Cell {
            gauge,
            name,
            id: None,
            waiting: 0,
            total: 0,
        });
        Handle(self.cells.len() - 1)
    }

    fn id(&mut self, handle: Handle) -> Option<MetricId> {
        let cell = self.cells.get_mut(handle.0)?;
        if let Some(id) = cell.id {
            return id;
        }
        let id = self.meter.define(cell.gauge, &cell.name);
        cell.id = Some(id);
        cell.name = String::new();
        id
    }

    fn name(&self, name: &str, label: &str) -> String {
        let pool = &self.pool;
        match label {
            "" => format!("{name};pool={pool}"),
            label => format!("{name};pool={pool};{label}"),
        }
    }

    fn label<'a>(&self, label: &'a str) -> &'a str {
        if self.series < MOST {
            label
        } else {
            ""
        }
    }
}

/// A label's value: a semicolon or an equals sign would end it.
pub fn label_value(value: &str) -> String {
    value.replace([';', '='], "_")
}

fn joined(labels: &str, bound: &str) -> String {
    match labels {
        "" => format!("le={bound}"),
        labels => format!("{labels};le={bound}"),
    }
}

/// Looks a metric up without copying its label.
#[derive(Hash)]
struct Key<'a>(Metric, &'a str);

impl hashbrown::Equivalent<(Metric, String)> for Key<'_> {
    fn equivalent(&self, key: &(Metric, String)) -> bool {
        self.0 == key.0 && self.1 == key.1
    }
}

#[cfg(test)]
pub mod tests {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// The names that were defined, and the value of each.
    type Defined = (Vec<String>, BTreeMap<String, i64>);

    /// Keeps what is counted.
    #[derive(Debug, Default, Clone)]
    pub struct Kept(pub Arc<Mutex<Defined>>);

    impl Meter for Kept {
        fn define(&mut self, _: bool, name: &str) -> Option<MetricId> {
            let mut kept = self.0.lock().unwrap();
            kept.0.push(name.to_owned());
            Some(MetricId(kept.0.len() as u32 - 1))
        }

        fn add(&mut self, metric: MetricId, by: i64) {
            let mut kept = self.0.lock().unwrap();
            let name = kept.0[metric.0 as usize].clone();
            *kept.1.entry(name).or_default() += by;
        }

        fn set(&mut self, metric: MetricId, value: u64) {
            let mut kept = self.0.lock().unwrap();
            let name = kept.0[metric.0 as usize].clone();
            kept.1.insert(name, value as i64);
        }
    }

    fn metrics() -> (Metrics, Kept) {
        let kept = Kept::default();
        (Metrics::new(Box::new(kept.clone()), "a;b"), kept)
    }

    #[test]
    fn counters_are_handed_over_as_sums() {
        let (mut metrics, kept) = metrics();
        for _ in 0..3 {
            metrics.add(Metric::Picks, "endpoint_name=x", 1);
        }
        assert!(kept.0.lock().unwrap().1.is_empty());
        metrics.flush();
        metrics.flush();
        let name = "llm_d_epp_scheduler_attempts_total;pool=a_b;endpoint_name=x";
        assert_eq!(
            kept.0.lock().unwrap().1,
            BTreeMap::from([(name.to_owned(), 3)])
        );
    }

    #[test]
    fn a_distribution_is_a_counter_for_each_bound() {
        let (mut metrics, kept) = metrics();
        let series = metrics.series(Metric::NormalizedTimePerToken, "model_name=m");
        for value in [0.001, 0.6, 0.7, 100.0] {
            metrics.observe(series, value);
        }
        metrics.flush();
        let kept = kept.0.lock().unwrap();
        let get = |part: &str, le: &str| {
            let name = format!("llm_d_epp_request_ntpot_seconds_{part};pool=a_b;model_name=m{le}");
            kept.1.get(&name).copied()
        };
        assert_eq!(
            get("bucket", ";le=0.001"),
            Some(1),
            "a bound is in its bucket"
        );
        assert_eq!(get("bucket", ";le=0.5"), Some(1));
        assert_eq!(get("bucket", ";le=1"), Some(3));
        assert_eq!(get("bucket", ";le=+Inf"), Some(4));
        assert_eq!(get("count", ""), Some(4));
        assert_eq!(get("sum", ""), Some(101), "whole seconds; the rest is kept");
    }

    #[test]
    fn fractions_add_up_over_time() {
        let (mut metrics, kept) = metrics();
        let series = metrics.series(Metric::TimeToFirstToken, "");
        for _ in 0..10 {
            metrics.observe(series, 0.25);
            metrics.flush();
        }
        assert_eq!(
            kept.0.lock().unwrap().1["llm_d_epp_request_ttft_seconds_sum;pool=a_b"],
            2
        );
    }

    #[test]
    fn past_the_bound_new_labels_are_left_out() {
        let (mut metrics, kept) = metrics();
        for number in 0..MOST {
            let label = format!("endpoint_name={number}");
            metrics.series(Metric::OutputTokens, &label);
            if metrics.series >= MOST {
                break;
            }
        }
        // A distribution counts for all its buckets.
        assert!(metrics.known.len() <= MOST / 12);
        for number in 0..10 {
            metrics.add(Metric::Picks, &format!("endpoint_name={number}"), 1);
        }
        metrics.flush();
        let kept = kept.0.lock().unwrap();
        assert_eq!(kept.1["llm_d_epp_scheduler_attempts_total;pool=a_b"], 10);
    }
}

//! Envoy's statistics of a pool.
//!
//! Envoy makes a metric for a configuration only while that is created: its name and the names of its labels. So each
//! configuration defines all of the catalogue. The values of labels come with each update.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use super::abi::{Config, MetricKind};
use epp_core::metrics::definitions::CATALOGUE;
use epp_core::metrics::{self, MetricId, MetricUpdate};

/// A metric of Envoy's: one of the catalogue, or a part of a histogram.
struct Family {
    name: String,
    kind: MetricKind,
    labels: Vec<&'static str>,
}

/// All metrics, in the order in which each configuration defines them.
struct Families {
    list: Vec<Family>,
    places: HashMap<String, usize>,
}

impl Families {
    fn get() -> &'static Self {
        static FAMILIES: OnceLock<Families> = OnceLock::new();
        FAMILIES.get_or_init(Self::new)
    }

    fn new() -> Self {
        let mut list = Vec::new();
        for metric in CATALOGUE {
            let pool: &[&'static str] = if metric.of_pool { &["pool"] } else { &[] };
            let labels = [pool, metric.labels].concat();
            let mut add = |part: &str, kind, more: &[&'static str]| {
                list.push(Family {
                    name: format!("{}{part}", metric.name),
                    kind,
                    labels: [labels.as_slice(), more].concat(),
                });
            };
            match metric.kind {
                "Gauge" => add("", MetricKind::Gauge, &[]),
                "Histogram" => {
                    add("_bucket", MetricKind::Counter, &["le"]);
                    add("_sum", MetricKind::Counter, &[]);
                    add("_count", MetricKind::Counter, &[]);
                }
                _ => add("", MetricKind::Counter, &[]),
            }
        }
        let places = list.iter().enumerate();
        let places = places.map(|(place, family)| (family.name.clone(), place));
        let places = places.collect();
        Self { list, places }
    }
}

/// One configuration's numbers of all metrics.
#[derive(Debug)]
pub struct Defined(Vec<Option<usize>>);

impl Defined {
    /// Defines all metrics for a configuration that is being created.
    pub fn new(config: &Config) -> Self {
        let families = Families::get().list.iter();
        let define = |family: &Family| config.define(family.kind, &family.name, &family.labels);
        Self(families.map(define).collect())
    }

    /// Hands values over to Envoy.
    pub fn export(&self, config: &Config, samples: &[Sample]) {
        for sample in samples {
            let family = Families::get().list.get(sample.series.family);
            let id = self.0.get(sample.series.family).copied().flatten();
            if let (Some(family), Some(id)) = (family, id) {
                config.update(family.kind, id, &sample.series.labels, sample.value);
            }
        }
    }
}

/// A metric with the values of its labels.
#[derive(Debug)]
struct Series {
    family: usize,
    labels: Vec<String>,
}

/// A value of a series: of a counter, its growth.
#[derive(Debug)]
pub struct Sample {
    series: Arc<Series>,
    value: u64,
}

/// The series of one picker by its numbers.
#[derive(Debug, Default)]
pub struct Statistics(Vec<Option<Arc<Series>>>);

impl Sample {
    /// Returns a value of a series by its name, outside of pickers.
    pub fn of(name: String, kind: metrics::MetricKind, value: u64) -> Option<Self> {
        let (id, mut statistics) = (MetricId(0), Statistics::default());
        statistics.take(MetricUpdate::Define { id, kind, name });
        statistics.take(MetricUpdate::Set { id, value })
    }
}

impl Statistics {
    /// Takes an update of the picker's. Returns the value to export, if that is one.
    pub fn take(&mut self, update: MetricUpdate) -> Option<Sample> {
        let (MetricId(id), value) = match update {
            MetricUpdate::Define { id, kind, name } => {
                self.define(id, kind, &name);
                return None;
            }
            MetricUpdate::Add { id, by } => (id, by),
            MetricUpdate::Set { id, value } => (id, value),
        };
        let series = Arc::clone(self.0.get(id as usize)?.as_ref()?);
        Some(Sample { series, value })
    }

    /// Notes a series by its name, which is `name;label=value;…`. A label that is absent is empty.
    fn define(&mut self, MetricId(id): MetricId, kind: metrics::MetricKind, text: &str) {
        let families = Families::get();
        let mut parts = text.split(';');
        let family = families.places.get(parts.next().unwrap_or_default());
        let family = family.and_then(|place| Some((*place, families.list.get(*place)?)));
        let series = family.map(|(family, found)| {
            debug_assert_eq!(
                found.kind == MetricKind::Gauge,
                kind == metrics::MetricKind::Gauge
            );
            let pairs: Vec<_> = parts.filter_map(|part| part.split_once('=')).collect();
            let value = |label: &&str| pairs.iter().find(|(name, _)| name == label);
            let value = |label| value(label).map_or("", |(_, value)| value).to_owned();
            let labels = found.labels.iter().map(value).collect();
            Arc::new(Series { family, labels })
        });
        let place = id as usize;
        if self.0.len() <= place {
            self.0.resize(place + 1, None);
        }
        if let Some(known) = self.0.get_mut(place) {
            *known = series;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use epp_core::metrics::definitions::{DECISION_TIME, READY_ENDPOINTS, SCRAPE_ERRORS};
    use epp_core::metrics::labels::{NoLabels, PollError};
    use epp_core::metrics::Registry;
    use epp_core::FetchError;

    fn samples(registry: &mut Registry, statistics: &mut Statistics) -> Vec<(String, u64)> {
        registry.flush();
        let updates = std::iter::from_fn(|| registry.poll());
        let samples = updates.filter_map(|update| statistics.take(update));
        let text = |sample: Sample| {
            let family = &Families::get().list[sample.series.family];
            let labels = family.labels.iter().zip(&sample.series.labels);
            let labels: Vec<_> = labels
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            (
                format!("{} {}", family.name, labels.join(",")),
                sample.value,
            )
        };
        samples.map(text).collect()
    }

    #[test]
    fn each_update_has_its_metric_and_the_values_of_its_labels_in_order() {
        let (mut registry, mut statistics) = (Registry::new("a"), Statistics::default());
        registry.set(READY_ENDPOINTS, NoLabels, 3);
        let (endpoint, reason) = ("10.0.0.1:80", FetchError::Unreachable);
        registry.add(SCRAPE_ERRORS, PollError { endpoint, reason }, 2);
        let handle = registry.histogram(DECISION_TIME, NoLabels);
        registry.observe(handle, 1.0);
        let mut found = samples(&mut registry, &mut statistics);
        found.sort();
        let errors = "llm_d_epp_datalayer_poll_errors_total pool=a,endpoint_name=10.0.0.1:80";
        let errors = format!("{errors},reason=unreachable");
        let time = "llm_d_epp_scheduler_e2e_duration_seconds";
        let expected = [
            (errors.clone(), 2),
            ("llm_d_epp_ready_endpoints pool=a".to_owned(), 3),
            (format!("{time}_bucket pool=a,le=+Inf"), 1),
            (format!("{time}_bucket pool=a,le=0.1"), 0),
            (format!("{time}_count pool=a"), 1),
            (format!("{time}_sum pool=a"), 1),
        ];
        assert_eq!(found, expected);
        registry.add(SCRAPE_ERRORS, PollError { endpoint, reason }, 1);
        assert_eq!(samples(&mut registry, &mut statistics), [(errors, 1)]);
    }
}

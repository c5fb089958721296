//! The filter's statistics in Envoy.

use std::collections::BTreeMap;
use std::time::Instant;

use epp_core::endpoints::sample::Sample as Line;
use epp_core::metrics::definitions;

/// The metric families of endpoints, by their short names.
const GAUGES: [(&str, &str); 8] = [
    ("fresh", definitions::FRESHNESS.name()),
    ("age", definitions::SCRAPE_AGE.name()),
    ("queue", definitions::QUEUE_SIZE.name()),
    ("running", definitions::RUNNING_REQUESTS.name()),
    ("kv", definitions::KV_CACHE_UTILIZATION.name()),
    ("in_flight", definitions::INFLIGHT_REQUESTS.name()),
    ("ejected", definitions::EJECTED.name()),
    ("picks", definitions::PICKS.name()),
];

const DECISION: &str = "llm_d_epp_scheduler_e2e_duration_seconds_bucket";
const HITS: &str = definitions::PREFIX_HIT_BLOCKS.name();
const QUERIED: &str = definitions::PREFIX_QUERIED_BLOCKS.name();
const WAITING: &str = definitions::FLOW_QUEUE_SIZE.name();
const SATURATION: &str = definitions::SATURATION.name();
const OUTCOMES: &str = definitions::FLOW_REQUESTS.name();
const READY: &str = definitions::READY_ENDPOINTS.name();
const DECISION_MODE: &str = definitions::DECISION_MODE.name();

/// What Envoy puts before the names of a dynamic module's metrics, unless its runtime says otherwise.
const PREFIX: &str = "envoy_dynamicmodulescustom_";

/// Returns the series of a page in Prometheus' text format, as Envoy writes it: the names without the prefix of dynamic
/// modules, and the rest of each line. Lines that are not in the format are left out.
pub fn series(page: &str) -> impl Iterator<Item = (&str, Line<'_>)> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| {
        let name = line.find(['{', ' ', '\t']).unwrap_or(line.len());
        let (family, rest) = line.split_at(name);
        let family = family.strip_prefix(PREFIX).unwrap_or(family);
        Some((family, Line::parse(rest.as_bytes())?))
    })
}

/// A sample of the statistics.
#[derive(Debug)]
pub struct Sample {
    /// When it was taken.
    pub at: Instant,
    /// Values by pool and address, and by the short names in [`GAUGES`].
    pub endpoints: BTreeMap<(String, String), BTreeMap<&'static str, f64>>,
    /// Statistics of pools, by cluster.
    pub pools: BTreeMap<String, Counts>,
}

/// The statistics of a pool.
#[derive(Debug, Default, Clone)]
pub struct Counts {
    /// Endpoints that may be picked.
    pub ready: f64,
    /// The decision mode: 2 metrics, 1 this Envoy's own counts, 0 no members are known.
    pub decision_mode: Option<f64>,
    /// Blocks of prompts that the picked endpoints were expected to hold.
    pub hits: f64,
    /// All blocks of these prompts.
    pub queried: f64,
    /// Requests that wait under flow control, by priority.
    pub waiting: BTreeMap<i32, f64>,
    /// How full the pool is, where it has flow control.
    pub saturation: Option<f64>,
    /// Requests of flow control by what became of them.
    pub outcomes: BTreeMap<String, f64>,
    /// Cumulative counts of decisions by upper bound in seconds, ascending.
    decisions: Vec<(f64, f64)>,
}

impl Sample {
    /// Parses Prometheus' text format, as Envoy writes it.
    pub fn parse(page: &str, at: Instant) -> Self {
        let mut sample = Self {
            at,
            endpoints: BTreeMap::new(),
            pools: BTreeMap::new(),
        };
        for (family, line) in series(page) {
            sample.add(family, &line);
        }
        for counts in sample.pools.values_mut() {
            counts.decisions.sort_by(|a, b| a.0.total_cmp(&b.0));
        }
        sample
    }

    /// Returns whether there are no statistics of the filter.
    pub fn is_empty(&self) -> bool {
        self.pools.is_empty()
    }

    fn add(&mut self, family: &str, series: &Line<'_>) {
        let label = |name| series.labels.get(name);
        let value = series.value;
        let Some(pool) = label("pool") else {
            return;
        };
        let gauge = GAUGES.iter().find(|(_, name)| *name == family);
        if let (Some((short, _)), Some(endpoint)) = (gauge, label("endpoint_name")) {
            let key = (pool.clone().into_owned(), endpoint.into_owned());
            let values = self.endpoints.entry(key).or_default();
            *values.entry(short).or_default() += value;
        }
        let counts = self.pools.entry(pool.into_owned()).or_default();
        match family {
            READY => counts.ready = value,
            DECISION_MODE => counts.decision_mode = Some(value),
            HITS => counts.hits = value,
            QUERIED => counts.queried = value,
            WAITING => {
                let priority = label("priority").and_then(|priority| priority.parse().ok());
                counts.waiting.insert(priority.unwrap_or(0), value);
            }
            SATURATION if label("stage").as_deref() == Some("effective") => {
                counts.saturation = Some(value / 1e6);
            }
            OUTCOMES => {
                let outcome = label("outcome").unwrap_or_default().into_owned();
                *counts.outcomes.entry(outcome).or_default() += value;
            }
            DECISION => {
                let bound = label("le").and_then(|bound| bound.parse().ok());
                counts
                    .decisions
                    .push((bound.unwrap_or(f64::INFINITY), value));
            }
            _ => {}
        }
    }
}

impl Counts {
    /// Returns the smallest upper bound on this share of the decision times, in microseconds.
    pub fn decision(&self, share: f64) -> Option<f64> {
        let all = self.decisions.last()?.1;
        let mut bounds = self.decisions.iter();
        let found = bounds.find(|(_, count)| *count >= all * share)?;
        found.0.is_finite().then_some(found.0 * 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_of_a_dynamic_module_are_known_by_their_prefix() {
        let page = "# TYPE x gauge\nllm_d_epp_ready_endpoints{pool=\"p\"} 3\n";
        let prefixed = page.replace("llm_d", &format!("{PREFIX}llm_d"));
        for page in [page, &prefixed] {
            let sample = Sample::parse(page, Instant::now());
            assert_eq!(sample.pools["p"].ready, 3.0, "{page}");
        }
    }
}

//! Facts of a pool, from its statistics.

use std::collections::BTreeMap;

use epp_core::metrics::{definitions, MAX_SERIES};
use serde::Serialize;

use super::envoy::Hosts;
use super::series::Statistics;

/// A pool. Requests and polls are counted since the module was loaded.
#[derive(Serialize)]
pub struct PoolFacts {
    /// Its cluster.
    pub pool: String,
    /// Endpoints that may be picked.
    pub ready: f64,
    /// Endpoints by how far their metrics can be trusted: fresh, stale, never scraped.
    pub fresh: usize,
    /// See [`Self::fresh`].
    pub stale: usize,
    /// See [`Self::fresh`].
    pub unknown: usize,
    /// 2 metrics, 1 this Envoy's own counts, 0 nothing yet.
    pub decision_mode: Option<f64>,
    /// Ejected endpoints, each with the reason.
    pub ejected: Vec<String>,
    /// Requests that were given an endpoint.
    pub picked: f64,
    /// Requests that were rejected, by error code.
    pub rejected: BTreeMap<String, f64>,
    /// Requests that were left to Envoy's load balancing, by error code.
    pub left_to_envoy: BTreeMap<String, f64>,
    /// Its flow control, if it has it.
    pub flow: Option<FlowFacts>,
    /// Requests that another endpoint than the picked one served.
    pub served_elsewhere: f64,
    /// Requests that passed the filter to another cluster.
    pub left_alone: f64,
    /// Share of the prompts' blocks that the picked endpoints were expected to hold.
    pub expected_hit_ratio: Option<f64>,
    /// Share of the prompts' tokens that the servers reported as cached.
    pub reported_hit_ratio: Option<f64>,
    /// Whether servers report cached tokens; absent before the first response with usage.
    pub reports_cached_tokens: Option<bool>,
    /// Failed polls by reason, since the module was loaded.
    pub poll_errors: BTreeMap<String, f64>,
    /// Series by family, all values of a histogram together.
    pub series: BTreeMap<String, usize>,
    /// The most series that one VM exports for a pool.
    pub series_bound: usize,
}

/// The flow control of a pool.
#[derive(Serialize)]
pub struct FlowFacts {
    /// How full the pool is, by stage: `effective` is what the gate goes by.
    pub saturation: BTreeMap<String, f64>,
    /// Requests that wait, by priority.
    pub waiting: BTreeMap<i32, f64>,
    /// Bytes of their bodies.
    pub bytes: f64,
    /// Requests by what became of them.
    pub outcomes: BTreeMap<String, f64>,
    /// Requests in flight that were evicted.
    pub evicted: f64,
}

impl FlowFacts {
    fn of(statistics: &Statistics<'_>, pool: &str) -> Option<Self> {
        statistics.sum(definitions::SATURATION.name(), pool)?;
        let sum = |family: &str| statistics.sum(family, pool).unwrap_or_default();
        let saturation = statistics.by(definitions::SATURATION.name(), pool, "stage");
        let saturation = saturation.into_iter();
        let waiting = statistics.by(definitions::FLOW_QUEUE_SIZE.name(), pool, "priority");
        let waiting = waiting.into_iter();
        Some(Self {
            saturation: saturation.map(|(stage, ppm)| (stage, ppm / 1e6)).collect(),
            waiting: waiting
                .filter_map(|(priority, requests)| Some((priority.parse().ok()?, requests)))
                .collect(),
            bytes: sum(definitions::FLOW_QUEUE_BYTES.name()),
            outcomes: statistics.by(definitions::FLOW_REQUESTS.name(), pool, "outcome"),
            evicted: sum(definitions::EVICTIONS.name()),
        })
    }
}

impl PoolFacts {
    /// Returns all pools that a VM still reports: Envoy never forgets the statistics of one that a configuration has left
    /// out, and the last VM leaves a 0 behind.
    pub fn all(statistics: &Statistics<'_>, hosts: Option<&Hosts>) -> Vec<Self> {
        let sharing = |pool: &String| statistics.sum(definitions::SHARING_VMS.name(), pool);
        let pools = statistics.pools().into_iter();
        pools
            .filter(|pool| sharing(pool) != Some(0.0))
            .map(|pool| Self::of(statistics, hosts, pool))
            .collect()
    }

    fn of(statistics: &Statistics<'_>, hosts: Option<&Hosts>, pool: String) -> Self {
        let sum = |family: &str| statistics.sum(family, &pool).unwrap_or_default();
        let freshness = freshness(statistics, hosts, &pool);
        let count = |level: f64| freshness.iter().filter(|(_, at)| *at == level).count();
        let values = |histogram: &str| sum(&format!("{histogram}_count"));
        let usage = values(definitions::INPUT_TOKENS.name()) > 0.0;
        let cached = values(definitions::CACHED_TOKENS.name()) > 0.0;
        Self {
            ready: sum(definitions::READY_ENDPOINTS.name()),
            fresh: count(2.0),
            stale: count(1.0),
            unknown: count(0.0),
            decision_mode: statistics.sum(definitions::DECISION_MODE.name(), &pool),
            ejected: ejected(statistics, &pool),
            picked: sum(definitions::PICKS.name()),
            rejected: statistics.by(definitions::REQUEST_ERRORS.name(), &pool, "error_code"),
            left_to_envoy: statistics.by(definitions::FALLBACKS.name(), &pool, "error_code"),
            flow: FlowFacts::of(statistics, &pool),
            served_elsewhere: sum(definitions::SERVED_ELSEWHERE.name()),
            left_alone: sum(definitions::LEFT_ALONE.name()),
            expected_hit_ratio: share(
                sum(definitions::PREFIX_HIT_BLOCKS.name()),
                sum(definitions::PREFIX_QUERIED_BLOCKS.name()),
            ),
            reported_hit_ratio: share(
                sum(&format!("{}_sum", definitions::CACHED_TOKENS.name())),
                sum(definitions::REPORTING_INPUT_TOKENS.name()),
            ),
            reports_cached_tokens: usage.then_some(cached),
            poll_errors: statistics.by(definitions::SCRAPE_ERRORS.name(), &pool, "reason"),
            series: series(statistics, &pool),
            series_bound: MAX_SERIES,
            pool,
        }
    }
}

fn share(part: f64, of: f64) -> Option<f64> {
    (of > 0.0).then(|| part / of)
}

/// Returns the endpoints of a pool with their freshness.
pub fn freshness(
    statistics: &Statistics<'_>,
    hosts: Option<&Hosts>,
    pool: &str,
) -> Vec<(String, f64)> {
    let series = statistics.of_pool(definitions::FRESHNESS.name(), pool);
    let endpoints = series.map(|series| (series.label("endpoint_name"), series.value()));
    endpoints
        .filter(|(address, _)| hosts.is_none_or(|hosts| hosts.has(address)))
        .collect()
}

/// Returns the ejected endpoints of a pool, each with the reason.
pub fn ejected(statistics: &Statistics<'_>, pool: &str) -> Vec<String> {
    let series = statistics.of_pool(definitions::EJECTED.name(), pool);
    let ejected = series.filter(|series| series.value() > 0.0);
    ejected
        .map(|series| {
            format!(
                "{} ({})",
                series.label("endpoint_name"),
                series.label("reason")
            )
        })
        .collect()
}

fn series(statistics: &Statistics<'_>, pool: &str) -> BTreeMap<String, usize> {
    let mut families = BTreeMap::new();
    let histogram = |family: &&definitions::Description| family.kind == "Histogram";
    let histograms: Vec<_> = definitions::CATALOGUE.iter().filter(histogram).collect();
    for series in statistics.ours_of(pool) {
        let of = histograms
            .iter()
            .find(|histogram| series.family.starts_with(histogram.name));
        let family = of.map_or(series.family, |histogram| histogram.name);
        *families.entry(family.to_owned()).or_default() += 1;
    }
    families
}

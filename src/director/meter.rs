//! What the outside sees: counters, gauges and distributions, defined once and kept by number.
//!
//! A name carries its labels as `name;label=value;…`, which Envoy's `stats_tags` turn into labels
//! (envoy/envoy.yaml has the expressions). Names are the Endpoint Picker's (llm-d-router) where the
//! meaning is the same; durations are whole microseconds here, because Envoy's histograms hold
//! whole numbers.

use hashbrown::HashMap;

/// The number of a defined metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricId(pub u32);

/// How a metric counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only up.
    Counter,
    /// Any value.
    Gauge,
    /// A distribution.
    Histogram,
}

/// Where metrics go.
pub trait Meter: std::fmt::Debug {
    /// Defines a metric; `None` where it cannot be had.
    fn define(&mut self, kind: Kind, name: &str) -> Option<MetricId>;
    /// Adds to a counter, or moves a gauge.
    fn add(&mut self, metric: MetricId, by: i64);
    /// Sets a gauge, or adds a value to a distribution.
    fn record(&mut self, metric: MetricId, value: u64);
}

/// A metric of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Picks of an endpoint.
    Picks,
    /// Time from having what a decision needs to the decision.
    DecisionTime,
    /// Requests that got no endpoint, by error.
    RequestErrors,
    /// Requests left to Envoy's fallback policy, by error.
    Fallbacks,
    /// Requests that another endpoint than the picked one served.
    ServedElsewhere,
    /// Share of a prompt's blocks that the picked endpoint held, in percent.
    PrefixHitRatio,
    /// Entries of the prefix index.
    PrefixIndexSize,
    /// Memory of the prefix index.
    PrefixIndexBytes,
    /// Requests decided before their body ended.
    EarlyReleases,
    /// Requests decided with what was known: their body was too long, or stopped coming.
    ForcedReleases,
    /// Whether bodies are read: 1, or 0 in headers-only mode.
    BodyMode,
    /// Requests held now.
    Held,
    /// Age of an endpoint's metrics.
    ScrapeAge,
    /// Failed scrapes of an endpoint.
    ScrapeErrors,
    /// Whether an endpoint's metrics can be trusted: 2 fresh, 1 stale, 0 never scraped.
    Freshness,
    /// Endpoints that may be picked.
    ReadyEndpoints,
    /// Whether this VM polls.
    Polling,
    /// Shared values that were not ours, or torn.
    ForeignValues,
    /// Configurations that were refused.
    RejectedConfigurations,
}

impl Metric {
    const fn spec(self) -> (Kind, &'static str) {
        match self {
            Self::Picks => (Kind::Counter, "llm_d_epp_scheduler_attempts_total"),
            Self::DecisionTime => (
                Kind::Histogram,
                "llm_d_epp_scheduler_e2e_duration_microseconds",
            ),
            Self::RequestErrors => (Kind::Counter, "llm_d_epp_request_error_total"),
            Self::Fallbacks => (Kind::Counter, "epp_wasm_fallback_total"),
            Self::ServedElsewhere => (Kind::Counter, "epp_wasm_served_elsewhere_total"),
            Self::PrefixHitRatio => (
                Kind::Histogram,
                "llm_d_epp_prefix_indexer_hit_ratio_percent",
            ),
            Self::PrefixIndexSize => (Kind::Gauge, "llm_d_epp_prefix_indexer_size"),
            Self::PrefixIndexBytes => (Kind::Gauge, "epp_wasm_prefix_indexer_bytes"),
            Self::EarlyReleases => (Kind::Counter, "epp_wasm_early_release_total"),
            Self::ForcedReleases => (Kind::Counter, "epp_wasm_forced_release_total"),
            Self::BodyMode => (Kind::Gauge, "epp_wasm_reads_bodies"),
            Self::Held => (Kind::Gauge, "epp_wasm_held_requests"),
            Self::ScrapeAge => (Kind::Gauge, "epp_wasm_scrape_age_milliseconds"),
            Self::ScrapeErrors => (Kind::Counter, "llm_d_epp_datalayer_poll_errors_total"),
            Self::Freshness => (Kind::Gauge, "epp_wasm_endpoint_freshness"),
            Self::ReadyEndpoints => (Kind::Gauge, "llm_d_epp_ready_endpoints"),
            Self::Polling => (Kind::Gauge, "epp_wasm_polling"),
            Self::ForeignValues => (Kind::Counter, "epp_wasm_foreign_values_total"),
            Self::RejectedConfigurations => {
                (Kind::Counter, "epp_wasm_rejected_configurations_total")
            }
        }
    }
}

/// The metrics of one pool, defined as they are first used.
#[derive(Debug)]
pub struct Metrics {
    meter: Box<dyn Meter>,
    pool: String,
    ids: HashMap<(Metric, String), Option<MetricId>>,
}

impl Metrics {
    /// The metrics of this pool.
    pub fn new(meter: Box<dyn Meter>, pool: &str) -> Self {
        Self {
            meter,
            // A semicolon or an equals sign would end the label.
            pool: pool.replace([';', '='], "_"),
            ids: HashMap::new(),
        }
    }

    /// Adds to a counter; `label` is empty or `name=value`, further ones after a semicolon.
    pub fn add(&mut self, metric: Metric, label: &str, by: u64) {
        self.shift(metric, label, i64::try_from(by).unwrap_or(i64::MAX));
    }

    /// Moves a gauge that is the sum over all workers.
    pub fn shift(&mut self, metric: Metric, label: &str, by: i64) {
        if let Some(id) = self.id(metric, label) {
            self.meter.add(id, by);
        }
    }

    /// Sets a gauge, or adds to a distribution.
    pub fn record(&mut self, metric: Metric, label: &str, value: u64) {
        if let Some(id) = self.id(metric, label) {
            self.meter.record(id, value);
        }
    }

    fn id(&mut self, metric: Metric, label: &str) -> Option<MetricId> {
        if let Some(id) = self.ids.get(&Key(metric, label)) {
            return *id;
        }
        let (kind, name) = metric.spec();
        let pool = &self.pool;
        let name = match label {
            "" => format!("{name};pool={pool}"),
            label => format!("{name};pool={pool};{label}"),
        };
        let id = self.meter.define(kind, &name);
        self.ids.insert((metric, label.to_owned()), id);
        id
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

//! The metrics of a picker, and how their updates reach the host.
//!
//! The [catalogue](definitions) has a constant for each metric. Its type says how the metric counts and which
//! labels it has. A [`Registry`] counts; the host takes the updates from it, since a host call per event would
//! cost more than the decision that it counts.
//!
//! A counter cannot be set:
//!
//! ```compile_fail,E0308
//! # use epp_core::metrics::{definitions::MISSED_REWRITES, labels::NoLabels, Registry};
//! Registry::new("pool").set(MISSED_REWRITES, NoLabels, 1);
//! ```
//!
//! and a metric has no other labels than its own:
//!
//! ```compile_fail,E0308
//! # use epp_core::metrics::{definitions::SCRAPE_ERRORS, labels::NoLabels, Registry};
//! Registry::new("pool").add(SCRAPE_ERRORS, NoLabels, 1);
//! ```
//!
//! With the right ones, an update defines the metric, and the next one adds to it:
//!
//! ```
//! use epp_core::metrics::definitions::SCRAPE_ERRORS;
//! use epp_core::FetchError;
//! use epp_core::metrics::{labels::PollError, MetricKind, MetricUpdate, Registry};
//!
//! let mut registry = Registry::new("pool");
//! let (endpoint, reason) = ("10.0.0.1:80", FetchError::Unreachable);
//! registry.add(SCRAPE_ERRORS, PollError { endpoint, reason }, 1);
//! registry.flush();
//! let Some(MetricUpdate::Define { id, kind, name }) = registry.poll() else {
//!     panic!("it is not defined yet");
//! };
//! assert_eq!(kind, MetricKind::Counter);
//! assert_eq!(
//!     name,
//!     "llm_d_epp_datalayer_poll_errors_total;pool=pool;endpoint_name=10.0.0.1:80;reason=unreachable"
//! );
//! assert_eq!(registry.poll(), Some(MetricUpdate::Add { id, by: 1 }));
//! assert_eq!(registry.poll(), None);
//! ```

pub mod definitions;
pub mod labels;
mod registry;

pub use self::registry::{without_pool, CounterHandle, HistogramHandle, Registry, MAX_SERIES};

/// Identifies a metric with its labels among those of one [`Registry`]. The numbers are small: a host can keep
/// its data on them in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MetricId(pub u32);

/// The kind of one of the host's metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// It only goes up.
    Counter,
    /// It is set to any value.
    Gauge,
}

/// Something for the host to do to its metrics. Where it cannot, it leaves that metric out: metrics never fail
/// a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetricUpdate {
    /// Define a metric, before its first value.
    Define {
        /// Which one.
        id: MetricId,
        /// How it counts.
        kind: MetricKind,
        /// Its name, with its labels as `name;label=value;…`.
        name: String,
    },
    /// Add to a counter.
    Add {
        /// Which one.
        id: MetricId,
        /// How much.
        by: u64,
    },
    /// Set a gauge.
    Set {
        /// Which one.
        id: MetricId,
        /// To what.
        value: u64,
    },
}

#[cfg(test)]
pub use self::testing::Exported;

#[cfg(test)]
mod testing {
    use std::collections::BTreeMap;

    use super::{MetricUpdate, Registry};

    /// A host's metrics.
    #[derive(Debug, Default)]
    pub struct Exported {
        /// The names that were defined.
        pub names: BTreeMap<u32, String>,
        /// The values, by name.
        pub values: BTreeMap<String, u64>,
        /// Updates so far.
        pub updates: usize,
    }

    impl Exported {
        /// Takes what there is.
        pub fn take(&mut self, registry: &mut Registry) {
            while let Some(update) = registry.poll() {
                self.updates += 1;
                match update {
                    MetricUpdate::Define { id, name, .. } => {
                        assert!(!self.names.values().any(|known| *known == name), "{name}");
                        self.names.insert(id.0, name);
                    }
                    MetricUpdate::Add { id, by } => {
                        *self.values.entry(self.names[&id.0].clone()).or_default() += by;
                    }
                    MetricUpdate::Set { id, value } => {
                        self.values.insert(self.names[&id.0].clone(), value);
                    }
                }
            }
        }
    }
}

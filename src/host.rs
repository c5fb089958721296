//! Envoy's shared data as a store, its metrics, and its log.

use super::abi::{self, MetricKind, Status};
use epp_core::metrics::definitions::{Counter, Gauge};
use epp_core::metrics::labels::{Labels, NoPool};
use epp_core::metrics::{self, MetricId, MetricUpdate};
use epp_envoy::logging;
use epp_sync::Store;

/// Envoy's shared data, which all VMs of this vm_id reach.
pub struct Shared;

impl Store for Shared {
    fn get(&mut self, key: &str) -> Option<(Vec<u8>, u32)> {
        abi::shared(key).ok().flatten()
    }

    fn set(&mut self, key: &str, value: &[u8], cas: Option<u32>) -> bool {
        abi::set_shared(key, value, cas).is_ok()
    }
}

/// Envoy's statistics of one picker.
///
/// A metric that Envoy does not take is left out: statistics never fail a request.
#[derive(Debug, Default)]
pub struct Statistics {
    /// Envoy's numbers by the picker's.
    numbers: Vec<Option<u32>>,
}

impl Statistics {
    /// Hands an update over to Envoy.
    pub fn apply(&mut self, update: MetricUpdate) {
        match update {
            MetricUpdate::Define { id, kind, name } => {
                let kind = match kind {
                    metrics::MetricKind::Counter => MetricKind::Counter,
                    metrics::MetricKind::Gauge => MetricKind::Gauge,
                };
                let place = id.0 as usize;
                if self.numbers.len() <= place {
                    self.numbers.resize(place + 1, None);
                }
                if let Some(number) = self.numbers.get_mut(place) {
                    *number = abi::define_metric(kind, &name).ok();
                }
            }
            MetricUpdate::Add { id, by: value } | MetricUpdate::Set { id, value } => {
                if let Some(number) = self.number(id) {
                    let _: Result<(), Status> = abi::record_metric(number, value);
                }
            }
        }
    }

    fn number(&self, MetricId(id): MetricId) -> Option<u32> {
        *self.numbers.get(id as usize)?
    }
}

/// Adds one to a counter that belongs to no picker.
pub fn count(counter: Counter<NoPool>) {
    if let Ok(number) = abi::define_metric(MetricKind::Counter, counter.name()) {
        let _: Result<(), Status> = abi::record_metric(number, 1);
    }
}

/// Sets a gauge that belongs to no picker.
pub fn set<L: Labels>(gauge: Gauge<L>, labels: L, value: u64) {
    let name = metrics::without_pool(&gauge, labels);
    if let Ok(number) = abi::define_metric(MetricKind::Gauge, &name) {
        let _: Result<(), Status> = abi::record_metric(number, value);
    }
}

/// Envoy's log.
struct Log;

impl log::Log for Log {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let level = logging::number(record.level());
        let _: Result<(), Status> = abi::log(level, &record.args().to_string());
    }

    fn flush(&self) {}
}

/// Sends log lines to Envoy, whose own level says which of them are written.
pub fn log_to_envoy() {
    // It fails where a logger is set already: this one, of another root context.
    let _: Result<(), log::SetLoggerError> = log::set_logger(&Log);
    log::set_max_level(log::LevelFilter::Debug);
}

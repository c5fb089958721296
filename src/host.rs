//! The host as the parts below the filter see it.

use super::abi::{self, MetricKind, Status};
use epp_core::picker::meter::{Meter, MetricId};
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

/// Envoy's statistics.
///
/// A metric that Envoy does not take is left out: statistics never fail a request.
#[derive(Debug)]
pub struct Statistics;

impl Meter for Statistics {
    fn define(&mut self, gauge: bool, name: &str) -> Option<MetricId> {
        let kind = if gauge {
            MetricKind::Gauge
        } else {
            MetricKind::Counter
        };
        abi::define_metric(kind, name).ok().map(MetricId)
    }

    fn add(&mut self, metric: MetricId, by: i64) {
        #[cfg(test)]
        super::guard::strike("count");
        let _: Result<(), Status> = abi::increment_metric(metric.0, by);
    }

    fn set(&mut self, metric: MetricId, value: u64) {
        let _: Result<(), Status> = abi::record_metric(metric.0, value);
    }
}

/// Envoy's log.
struct Log;

impl log::Log for Log {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let level = match record.level() {
            log::Level::Trace => 0,
            log::Level::Debug => 1,
            log::Level::Info => 2,
            log::Level::Warn => 3,
            log::Level::Error => 4,
        };
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

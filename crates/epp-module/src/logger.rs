//! Envoy's log, under its component `dynamic_modules`.

use super::abi;
use epp_envoy::logging::number;

/// Envoy's log.
struct Log;

impl log::Log for Log {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        abi::logs(number(metadata.level()))
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            abi::log(number(record.level()), &record.args().to_string());
        }
    }

    fn flush(&self) {}
}

/// Sends log lines to Envoy, whose own level says which of them are written.
pub fn log_to_envoy() {
    // It fails where this was done before.
    let _: Result<(), log::SetLoggerError> = log::set_logger(&Log);
    log::set_max_level(log::LevelFilter::Debug);
}

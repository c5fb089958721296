//! Lines for Envoy's log.

use epp_core::config::value::Problem;
use epp_core::findings::Level;

/// Problems of a document that are logged.
pub const MAX_PROBLEMS: usize = 20;

/// Logs what is wrong with a document.
pub fn log_problems(level: log::Level, kind: &str, problems: &[Problem]) {
    let (logged, more) = problems.split_at(problems.len().min(MAX_PROBLEMS));
    for problem in logged {
        log::log!(level, "{kind}EndpointPickerConfig: {problem}");
    }
    if !more.is_empty() {
        let more = more.len();
        log::log!(
            level,
            "{kind}EndpointPickerConfig: {more} more; eppctl check lists all"
        );
    }
}

/// Logs a picker's line.
pub fn log(level: Level, text: &str) {
    let level = match level {
        Level::Error => log::Level::Error,
        Level::Warning => log::Level::Warn,
        Level::Info => log::Level::Info,
    };
    log::log!(level, "{text}");
}

/// Returns Envoy's number of a level.
pub fn number(level: log::Level) -> u32 {
    match level {
        log::Level::Trace => 0,
        log::Level::Debug => 1,
        log::Level::Info => 2,
        log::Level::Warn => 3,
        log::Level::Error => 4,
    }
}

//! The document of a filter's configuration.

use epp_core::config::{self, Loaded};
use epp_envoy::logging::log_problems;

/// Returns what is in a document; `None` if it is not valid, which is logged.
pub fn load(text: &[u8]) -> Option<Loaded> {
    match config::load_bytes(text) {
        Ok(loaded) => Some(loaded),
        Err(rejected) => {
            log_problems(log::Level::Error, "invalid ", &rejected.errors);
            log::error!(
                "EndpointPickerConfig refused: if another one is in force, it stays in force"
            );
            None
        }
    }
}

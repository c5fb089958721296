//! The rows of the table, in its order.

mod envoy;
mod metrics;
mod module;
mod pods;

use crate::verdict::Measured;

/// A fault.
#[derive(Clone, Copy)]
pub struct Row {
    /// Its name, by which it can be called alone.
    pub name: &'static str,
    /// What breaks, and when.
    pub what: &'static str,
    /// What the Endpoint Picker makes of the same, where that was measured.
    pub epp: &'static str,
    /// Plays it; `true`: in its long form.
    pub play: fn(bool) -> Measured,
}

/// All of them.
pub fn all() -> Vec<Row> {
    let parts = [pods::ROWS, metrics::ROWS, module::ROWS, envoy::ROWS];
    parts.into_iter().flatten().copied().collect()
}

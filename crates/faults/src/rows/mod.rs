//! The rows of the table, in its order.

mod envoy;
mod metrics;
mod module;
mod pods;
mod scale;
mod traps;

use std::time::Duration;

use crate::verdict::Measured;

/// How rows are played.
pub struct Form {
    /// The long form: what lasts, lasts longer.
    pub long: bool,
    /// How long the soak is; none: it is left out.
    pub soak: Option<Duration>,
}

/// A fault.
#[derive(Clone, Copy)]
pub struct Row {
    /// Its name, by which it can be called alone.
    pub name: &'static str,
    /// What breaks, and when.
    pub what: &'static str,
    /// What the Endpoint Picker makes of the same, where that was measured.
    pub epp: &'static str,
    /// Plays it.
    pub play: fn(&Form) -> Measured,
}

/// All that are played in this form.
pub fn all(form: &Form) -> Vec<Row> {
    let parts = [
        pods::ROWS,
        metrics::ROWS,
        traps::ROWS,
        module::ROWS,
        envoy::ROWS,
        scale::ROWS,
    ];
    let rows = parts.into_iter().flatten().copied();
    rows.filter(|row| form.soak.is_some() || row.name != scale::SOAK)
        .collect()
}

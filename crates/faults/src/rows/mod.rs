//! The rows of the table, in its order: one file for each part that breaks.

mod clients;
mod envoy;
mod metrics;
mod module;
mod overload;
mod pods;
mod scale;
mod traps;
mod waiting;

use std::time::Duration;

use envoy_harness::host::Host;
use scale::SOAK;

use crate::verdict::Measured;

/// The rows of the short form: they take seconds, on a busy machine as well.
pub const SHORT: [&str; 24] = [
    "pod killed",
    "pod hung",
    "engine hung",
    "pod failing",
    "pod failing, retried",
    "pool replaced",
    "metrics hang",
    "metrics garbage",
    "admin gone",
    "trap on a worker",
    "trap on the main thread",
    "config updated",
    "bad config",
    "clock stepped",
    "waiting, pod killed",
    "waiting, pool emptied",
    "waiting, config updated",
    "waiting, worker stuck",
    "waiting, clients leave",
    "overload",
    "colliding texts",
    "a prompt that breaks pods",
    "half-open requests",
    "slow bodies",
];

/// The rows of what happens to VMs.
const OF_VMS: [&str; 3] = [
    "trap on a worker",
    "trap on the main thread",
    "waiting, trap",
];

/// The way in which rows are played.
pub struct Form {
    /// The short form, for busy machines: only some rows, and recovery may take any time.
    pub short: bool,
    /// The long form: faults that go on for a while last longer.
    pub long: bool,
    /// The length of the soak; `None` if it is left out.
    pub soak: Option<Duration>,
}

/// A fault.
#[derive(Clone, Copy)]
pub struct Row {
    /// Its name, which selects it on the command line.
    pub name: &'static str,
    /// The fault, and when it happens.
    pub what: &'static str,
    /// The Endpoint Picker's behaviour in the same situation, if it was measured.
    pub epp: &'static str,
    /// Plays it.
    pub play: fn(&Form) -> Measured,
}

/// Returns all rows.
pub fn all() -> impl Iterator<Item = Row> {
    let parts = [
        pods::ROWS,
        metrics::ROWS,
        traps::ROWS,
        waiting::ROWS,
        overload::ROWS,
        module::ROWS,
        envoy::ROWS,
        clients::ROWS,
        scale::ROWS,
    ];
    parts.into_iter().flatten().copied()
}

/// Returns the rows that are played in a form.
pub fn of(form: &Form) -> impl Iterator<Item = Row> + '_ {
    let soaks = |row: &Row| form.soak.is_some() || row.name != SOAK;
    // Only a VM can be lost and made again.
    let in_vms = Host::of_environment() == Host::Wasm;
    let own = all().filter(move |row| in_vms || !OF_VMS.contains(&row.name));
    own.filter(move |row| match form.short {
        true => SHORT.contains(&row.name),
        false => soaks(row),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_short_form_is_there() {
        let form = Form {
            short: true,
            long: false,
            soak: None,
        };
        let played = of(&form).count();
        assert_eq!(played, SHORT.len());
        let names: Vec<&str> = all().map(|row| row.name).collect();
        assert!(OF_VMS.iter().all(|name| names.contains(name)));
    }
}

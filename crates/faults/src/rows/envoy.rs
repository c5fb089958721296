//! Envoy itself: replaced by another process.

use std::time::Duration;

use super::{Form, Row};
use crate::stage::{Plan, DRAIN};
use crate::verdict::{Bar, Measured};

/// In the table's order.
pub const ROWS: &[Row] = &[Row {
    name: "Envoy hot restart",
    what: "a second Envoy process takes over (--restart-epoch 1), the first drains for 5 s and ends after 6",
    epp: "not applicable: it is a process of its own",
    play: hot_restart,
}];

fn hot_restart(_: &Form) -> Measured {
    let mut plan = Plan::new(4);
    // Envoys of one base id are one Envoy's; other Envoys on this machine have smaller ones.
    plan.setup.base_id = Some(std::process::id());
    let mut stage = plan.start();
    let first = stage.proxy.process();
    stage.proxy.replace_process();
    stage.run(Duration::from_secs(u64::from(DRAIN) + 4));
    let ended = stage.proxy.ended_process(first);
    let mut measured = stage.end(Bar::nobody(Duration::from_secs(1)));
    measured.require(ended, || "the first process still runs".to_owned());
    measured
}

//! Changes of Envoy itself: it is replaced by another process, and its clock is stepped.

use std::time::Duration;

use envoy_harness::client;

use super::{Form, Row};
use crate::clock::Clock;
use crate::stage::{Plan, DRAIN_SECONDS};
use crate::verdict::{Bar, Measured};

/// The rows, in the order of the table.
pub const ROWS: &[Row] = &[
    Row {
    name: "Envoy hot restart",
    what: "a second Envoy process takes over (--restart-epoch 1); the first drains for 5 s and exits after 6 s",
    epp: "not applicable: it is a separate process",
    play: hot_restart,
    },
    Row {
        name: "clock stepped",
        what: "Envoy's wall clock jumps an hour ahead, 3 s later two hours back, 3 s later to the right time",
        epp: "not measured",
        play: clock_stepped,
    },
];

fn hot_restart(_: &Form) -> Measured {
    let mut plan = Plan::new(4);
    // Envoys share memory by base id; other Envoys on this machine have smaller ids.
    plan.setup.base_id = Some(std::process::id());
    let mut stage = plan.start();
    let first = stage.proxy.process();
    stage.proxy.replace_process();
    stage.run(Duration::from_secs(u64::from(DRAIN_SECONDS) + 4));
    // On a busy machine the second one takes a while to compile the module.
    let ended = (0..100).any(|_| {
        stage.run(Duration::from_millis(200));
        stage.proxy.ended_process(first)
    });
    let mut measured = stage.end(Bar::none(Duration::from_secs(1)));
    measured.require(ended, || "the first process still runs".to_owned());
    measured
}

fn clock_stepped(_: &Form) -> Measured {
    let clock = Clock::new().unwrap();
    let mut plan = Plan::new(4);
    plan.setup.environment = clock.environment();
    let stage = plan.start();
    let date = || {
        let response = client::get(stage.proxy.admin, "/ready").unwrap();
        response.header("date").to_owned()
    };
    let (before, mut steps) = (date(), Vec::new());
    for ahead in [3_600, -3_600, 0] {
        clock.step(ahead).unwrap();
        stage.run(Duration::from_millis(1_500));
        let scrapes = stage.sim.pod(0).scrapes();
        stage.run(Duration::from_millis(1_500));
        steps.push((stage.sim.pod(0).scrapes() - scrapes, date()));
    }
    let mut measured = stage.end(Bar::none(Duration::from_millis(500)));
    let hour = |date: &str| date.get(17..19).map(str::to_owned);
    measured.require(steps.iter().all(|(scrapes, _)| *scrapes > 0), || {
        format!("a pod's metrics were not scraped after a step: {steps:?}")
    });
    measured.require(hour(&steps[0].1) != hour(&before), || {
        format!("Envoy's clock was not stepped: {before}, {steps:?}")
    });
    measured
}

//! Faults of pods: they die, hang, slow down, fail, flap and are replaced.

use std::time::Duration;

use fake_model_server::{Faults, Metrics};
use serde_json::json;

use super::{Form, Row};
use crate::stage::{published_retries, Plan, Stage};
use crate::verdict::{Bar, Measured};

/// The rows, in the order of the table.
pub const ROWS: &[Row] = &[
    Row {
        name: "pod killed",
        what: "1 of 4 pods is gone for 3 s: its connections are cut, new ones refused",
        epp: "a quarter of all requests get 503 while it is listed",
        play: killed,
    },
    Row {
        name: "pod hung",
        what:
            "1 of 4 pods hangs for 4 s: it does not accept or continue requests, nor serve metrics",
        epp: "26 responses, then all clients wait for it",
        play: hung,
    },
    Row {
        name: "engine hung",
        what: "the engine of 1 of 4 pods stands still for 6 s while its metrics page answers; `per_try_timeout` is 60 s, as published",
        epp: "not measured",
        play: engine_hung,
    },
    Row {
        name: "pod slow",
        what: "responses of 1 of 4 pods are delayed by 0.8 s for 5 s",
        epp: "not measured",
        play: slow,
    },
    Row {
        name: "pod failing",
        what: "1 of 4 pods returns 500 for 3 s, which the retry policy does not cover",
        epp: "a quarter of all requests get 500 while it is listed",
        play: failing,
    },
    Row {
        name: "pod failing, retried",
        what: "the same with 500 among the `retriable_status_codes`",
        epp: "not measured; a retry over `ORIGINAL_DST` goes to the same pod",
        play: failing_retried,
    },
    Row {
        name: "all pods hung",
        what: "all 4 pods hang for 10 s; recovery is measured from their return",
        epp: "not measured",
        play: all_hung,
    },
    Row {
        name: "pods flapping",
        what:
            "every second one pod stops and the previous one returns, for 10 s (long form: a minute)",
        epp: "not measured",
        play: flapping,
    },
    Row {
        name: "pool replaced",
        what: "4 pods are replaced by 4 others at once; the old ones exit 3 s later",
        epp: "not measured",
        play: replaced,
    },
];

fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}

/// The whole pod hangs, as when its process is stopped.
fn hanging() -> Faults {
    Faults {
        hang: true,
        metrics: Metrics::Hang,
        ..Faults::default()
    }
}

fn killed(_: &Form) -> Measured {
    let mut stage = Plan::new(4).start();
    stage.allow_loss_on(0);
    stage.sim.stop(0);
    stage.run(seconds(3));
    stage.sim.restart(0).unwrap();
    stage.run(seconds(2));
    stage.end(Bar::begun(seconds(1)))
}

fn hung(_: &Form) -> Measured {
    let stage = Plan::new(4).start();
    stage.set_faults(0, hanging());
    stage.run(seconds(4));
    stage.set_faults(0, Faults::default());
    stage.run(seconds(2));
    stage.end(Bar::none(seconds(3)))
}

fn engine_hung(_: &Form) -> Measured {
    let mut plan = Plan::new(4);
    plan.setup.route = published_retries();
    let stage = plan.start();
    let faults = Faults {
        hang: true,
        ..Faults::default()
    };
    stage.set_faults(0, faults);
    stage.run(seconds(6));
    let ejected = stage.proxy.counted_with("epp_wasm_ejections_total", "hung");
    stage.set_faults(0, Faults::default());
    stage.run(seconds(2));
    let mut measured = stage.end_with_p99(Bar::none(seconds(3)));
    measured.require(ejected > 0, || "it was not ejected as hung".to_owned());
    measured
}

fn slow(_: &Form) -> Measured {
    let stage = Plan::new(4).start();
    stage.set_faults(
        0,
        Faults {
            delay_ms: 800,
            ..Faults::default()
        },
    );
    stage.run(seconds(5));
    stage.set_faults(0, Faults::default());
    stage.run(seconds(2));
    stage.end(Bar::none(seconds(3)))
}

/// Plays a plan in which pod 0 returns 500 for a while.
fn fail(plan: Plan) -> Stage {
    let stage = plan.start();
    stage.set_faults(
        0,
        Faults {
            status: Some(500),
            ..Faults::default()
        },
    );
    stage.run(seconds(3));
    stage.set_faults(0, Faults::default());
    stage.run(seconds(2));
    stage
}

fn failing(_: &Form) -> Measured {
    // Each of the two workers counts only the failures of its own requests, since a client could invent
    // failures: it ejects the pod after about six in a row, then after each failed probe. How long six take depends on how
    // many of the connections the kernel gives a worker; all of 3 s would be about 75.
    fail(Plan::new(4)).end(Bar::some(
        50,
        0,
        "the first 50: a 500 is the pod's response, and is forwarded",
        seconds(2),
    ))
}

fn failing_retried(_: &Form) -> Measured {
    let mut plan = Plan::new(4);
    plan.setup.route["retry_policy"]["retriable_status_codes"] = json!([500, 503]);
    fail(plan).end(Bar::none(seconds(1)))
}

fn all_hung(_: &Form) -> Measured {
    let mut stage = Plan::new(4).start();
    (0..4).for_each(|pod| stage.set_faults(pod, hanging()));
    stage.run(seconds(10));
    (0..4).for_each(|pod| stage.set_faults(pod, Faults::default()));
    stage.recovery_counts();
    stage.run(seconds(4));
    stage.end(Bar::none(seconds(2)))
}

fn flapping(form: &Form) -> Measured {
    let mut stage = Plan::new(4).start();
    let times = if form.long { 60 } else { 10 };
    for time in 0..times {
        let pod = time % 4;
        stage.allow_loss_on(pod);
        stage.sim.stop(pod);
        stage.run(seconds(1));
        stage.sim.restart(pod).unwrap();
    }
    stage.recovery_counts();
    stage.run(seconds(2));
    stage.end(Bar::begun(seconds(1)))
}

fn replaced(_: &Form) -> Measured {
    let mut plan = Plan::new(8);
    let addresses = plan.sim.addresses();
    let (old, new) = addresses.split_at(4);
    plan.setup.pods = old.to_vec();
    let mut stage = plan.start();
    stage.proxy.set_pods(new);
    stage.run(seconds(3));
    (0..4).for_each(|pod| stage.sim.stop(pod));
    stage.run(seconds(2));
    stage.end(Bar::none(seconds(1)))
}

//! Traps of the module: a whole VM lost, on a worker and on the main thread.
//!
//! Both rows run the module with faults on demand (src/fault.rs).

use std::time::{Duration, Instant};

use envoy_harness::client::post;
use envoy_harness::path_of;
use serde_json::json;

use super::Row;
use crate::stage::{Plan, Stage};
use crate::verdict::{Bar, Measured};

/// In the table's order.
pub const ROWS: &[Row] = &[
    Row {
        name: "trap on a worker",
        what: "the module executes `unreachable` in a request's callback on 1 of 2 workers",
        epp: "killed: every request gets 500 from then on; with FailOpen 500 and 503",
        play: |_| on_a_worker(),
    },
    Row {
        name: "trap on the main thread",
        what: "the module executes `unreachable` in the tick of the VM that polls",
        epp: "killed: every request gets 500 from then on; with FailOpen 500 and 503",
        play: |_| on_the_main_thread(),
    },
];

/// Service and knowledge are back within this (issue 5).
const BACK: Duration = Duration::from_secs(2);

fn start() -> Stage {
    let mut plan = Plan::new(4);
    plan.setup.module = path_of("EPP_WASM_FAULTS");
    plan.start()
}

/// A request of its own strikes the fault; what becomes of it is not counted.
fn strike(stage: &Stage, fault: &str) {
    let body = json!({"model": "demo", "max_tokens": 1,
        "messages": [{"role": "user", "content": "strike"}]});
    let headers = [("x-epp-fault", fault)];
    let _ = post(stage.proxy.port, "/v1/chat/completions", &body, &headers);
}

fn on_a_worker() -> Measured {
    let mut stage = start();
    let reloads = |stage: &Stage| stage.proxy.stat_so_far("wasm.epp0.vm_reload_success");
    (0..4).for_each(|pod| stage.holds(pod));
    strike(&stage, "trap@request_headers");
    stage.run(Duration::from_secs(4));
    let reloaded = reloads(&stage);
    let held = stage.held();
    let mut measured = stage.end(Bar::some(
        held,
        held,
        "requests held by the worker, and those that arrived before its VM was recreated",
        BACK,
    ));
    measured.require(reloaded == 1, || format!("{reloaded} VMs were recreated"));
    measured
}

fn on_the_main_thread() -> Measured {
    let stage = start();
    let since = Instant::now();
    strike(&stage, "trap@poller_tick");
    let mut last = stage.sim.pod(0).scrapes();
    let mut silent = Instant::now();
    let mut longest = Duration::ZERO;
    while since.elapsed() < Duration::from_secs(4) {
        stage.run(Duration::from_millis(20));
        let scrapes = stage.sim.pod(0).scrapes();
        if scrapes != last {
            longest = longest.max(silent.elapsed());
            (last, silent) = (scrapes, Instant::now());
        }
    }
    longest = longest.max(silent.elapsed());
    let trapped = stage.proxy.logged().contains("unreachable");
    let mut measured = stage.end(Bar::none(BACK));
    measured.require(trapped, || "nothing was trapped".to_owned());
    measured.require(longest <= BACK, || {
        format!("a pod's metrics were not asked for during {longest:?}")
    });
    measured.note(format!(
        "longest silence of the poller {:.1} s",
        longest.as_secs_f64()
    ));
    measured
}

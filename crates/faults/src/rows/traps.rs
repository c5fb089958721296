//! Traps of the module, each of which destroys a VM: one on a worker, one on the main thread.
//!
//! Both rows run the module with fault injection (src/fault.rs).

use std::time::{Duration, Instant};

use envoy_harness::client::post;
use serde_json::json;

use super::Row;
use crate::stage::{Plan, Stage};
use crate::verdict::{Bar, Measured};

/// The rows, in the order of the table.
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

/// Requests are served and metrics scraped again within this.
const RECOVERED_WITHIN: Duration = Duration::from_secs(2);

fn start() -> Stage {
    let mut plan = Plan::new(4);
    plan.setup.module = plan.setup.host.faulty_file();
    plan.start()
}

/// Injects a fault with a request that does not count.
fn inject(stage: &Stage, fault: &str) {
    let body = json!({"model": "demo", "max_tokens": 1,
        "messages": [{"role": "user", "content": "strike"}]});
    let headers = [("x-epp-fault", fault)];
    let _ = post(stage.proxy.port, "/v1/chat/completions", &body, &headers);
}

fn on_a_worker() -> Measured {
    let mut stage = start();
    let reloads = |stage: &Stage| stage.proxy.stat_so_far("wasm.epp0.vm_reload_success");
    (0..4).for_each(|pod| stage.allow_loss_on(pod));
    inject(&stage, "trap@request_headers");
    stage.run(Duration::from_secs(4));
    let reloaded = reloads(&stage);
    let held = stage.may_be_lost();
    let mut measured = stage.end(Bar::some(
        held,
        held,
        "requests held by the worker, and those that arrived before its VM was recreated",
        RECOVERED_WITHIN,
    ));
    measured.require(reloaded == 1, || format!("{reloaded} VMs were recreated"));
    measured
}

fn on_the_main_thread() -> Measured {
    let stage = start();
    let since = Instant::now();
    inject(&stage, "trap@poller_tick");
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
    let mut measured = stage.end(Bar::none(RECOVERED_WITHIN));
    measured.require(trapped, || "no VM trapped".to_owned());
    measured.require(longest <= RECOVERED_WITHIN, || {
        format!("a pod's metrics were not scraped for {longest:?}")
    });
    measured.note(format!(
        "longest time without a scrape {:.1} s",
        longest.as_secs_f64()
    ));
    measured
}

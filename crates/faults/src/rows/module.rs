//! The module: reconfigured, configured badly, and replaced by another version of itself.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use envoy_harness::path_of;

use super::{Form, Row};
use crate::stage::{document, Plan, DRAIN};
use crate::verdict::{Bar, Measured};

/// In the table's order.
pub const ROWS: &[Row] = &[
    Row {
        name: "config updated",
        what: "20 configurations are pushed within 4 s",
        epp: "not measured; it reads its configuration only when it starts",
        play: updated,
    },
    Row {
        name: "bad config",
        what: "a configuration with a misspelt plugin type is pushed",
        epp: "not measured; it does not start with one",
        play: bad,
    },
    Row {
        name: "module upgraded",
        what: "the listener changes to another .wasm file, and back after 4 s (long form: and is drained)",
        epp: "not measured",
        play: upgraded,
    },
];

/// Until what the last update replaced is gone.
const DRAINED: Duration = Duration::from_secs(DRAIN as u64 + 2);

/// No request waits for a configuration.
const AT_ONCE: Duration = Duration::from_millis(500);

fn updated(_: &Form) -> Measured {
    let mut stage = Plan::new(4).start();
    for number in 0..20 {
        stage
            .proxy
            .set_config(&document(&format!("fallbackEndpoints: {}", 2 + number % 2)));
        stage.run(Duration::from_millis(200));
    }
    stage.run(DRAINED);
    let updates = stage.proxy.stat("listener_manager.lds.update_success");
    let mut measured = stage.end(Bar::none(AT_ONCE));
    // Envoy may see two renames as one.
    measured.require(updates >= 15, || format!("{updates} updates were accepted"));
    measured.note(format!("{updates} updates of the listener"));
    measured
}

fn bad(_: &Form) -> Measured {
    let mut stage = Plan::new(4).start();
    let bad = document("").replace("queue-scorer", "queue-socrer");
    stage.proxy.set_config(&bad);
    stage.run(Duration::from_secs(3));
    let rejected = stage.proxy.stat("listener_manager.lds.update_rejected");
    let told = stage.proxy.logged().contains("did you mean queue-scorer?");
    let mut measured = stage.end(Bar::none(AT_ONCE));
    measured.require(rejected == 1 && told, || {
        format!("{rejected} updates were rejected; the reason was logged: {told}")
    });
    measured
}

/// The same module under another hash: a section at its end that is not read.
fn another_version() -> PathBuf {
    let name = b"version";
    let mut module = fs::read(path_of("EPP_WASM")).unwrap();
    module.extend([0, 1 + name.len() as u8, name.len() as u8]);
    module.extend(name);
    let path = path_of("EPP_WASM").with_file_name("epp_wasm_next.wasm");
    fs::write(&path, module).unwrap();
    path
}

fn upgraded(form: &Form) -> Measured {
    let mut plan = Plan::new(4);
    // Envoy counts its drain time from before it compiles the module, for which its main thread has
    // taken six seconds on a busy machine. Its default is ten minutes.
    plan.setup.drain_seconds = 30;
    let mut stage = plan.start();
    stage.proxy.set_module(&another_version());
    stage.run(Duration::from_secs(4));
    stage.proxy.set_module(&path_of("EPP_WASM"));
    stage.run(Duration::from_secs(if form.long { 34 } else { 4 }));
    let updates = stage.proxy.stat("listener_manager.lds.update_success");
    // Compiling takes a core twice: on two of them answers are slower as long as it lasts.
    let mut measured = stage.end(Bar::none(Duration::from_secs(8)));
    measured.require(updates == 3, || format!("{updates} updates were accepted"));
    measured
}

//! Changes of the module: new configurations, an invalid one, and another version.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use envoy_harness::host::Host;

use super::{Form, Row};
use crate::stage::{document, Plan, DRAIN_SECONDS};
use crate::verdict::{Bar, Measured};

/// The rows, in the order of the table.
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
        what: "the listener changes to another file of the module, and back after 4 s (long form: and is drained)",
        epp: "not measured",
        play: upgraded,
    },
];

/// The time until the listeners that the last update replaced are gone.
const DRAINED: Duration = Duration::from_secs(DRAIN_SECONDS as u64 + 2);

/// The bar for recovery: no request waits for a configuration.
const MAX_RECOVERY: Duration = Duration::from_millis(500);

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
    let mut measured = stage.end(Bar::none(MAX_RECOVERY));
    // Envoy may see two changes of the file as one.
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
    let logged = stage.proxy.logged().contains("did you mean queue-scorer?");
    let mut measured = stage.end(Bar::none(MAX_RECOVERY));
    measured.require(rejected == 1 && logged, || {
        format!("{rejected} updates were rejected; the reason was logged: {logged}")
    });
    measured
}

/// Writes the module with a custom section at its end, which changes only its hash. Returns the path. In a dynamic module it
/// belongs to no section.
fn another_version(host: Host) -> PathBuf {
    let name = b"version";
    let mut module = fs::read(host.file()).unwrap();
    module.extend([0, 1 + name.len() as u8, name.len() as u8]);
    module.extend(name);
    let path = host.file().with_file_name(match host {
        Host::Wasm => "epp_wasm_next.wasm",
        Host::Module => "libepp_next.so",
    });
    fs::write(&path, module).unwrap();
    path
}

fn upgraded(form: &Form) -> Measured {
    let mut plan = Plan::new(4);
    // Envoy counts its drain time from before it compiles the module, for which its main thread has
    // taken six seconds on a busy machine. Its default is ten minutes.
    plan.setup.drain_seconds = 30;
    let mut stage = plan.start();
    let host = stage.proxy.setup.host;
    stage.proxy.set_module(&another_version(host));
    stage.run(Duration::from_secs(4));
    stage.proxy.set_module(&host.file());
    stage.run(Duration::from_secs(if form.long { 34 } else { 4 }));
    let updates = stage.proxy.stat("listener_manager.lds.update_success");
    // The module is compiled twice, each time on one of two cores: responses are slower meanwhile.
    let mut measured = stage.end(Bar::none(Duration::from_secs(8)));
    measured.require(updates == 3, || format!("{updates} updates were accepted"));
    measured
}

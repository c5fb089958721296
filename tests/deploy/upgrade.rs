//! docs/upgrading.md: another module and another configuration by ECDS, under traffic, and back.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use envoy_harness::{path_of, wait_until};
use serde_yaml::Value;

use crate::bootstraps::{production, Running};
use crate::stage::read;

/// The file that Envoy watches.
const FILTER: &str = "ecds/epp.yaml";

/// Returns a counter of the subscription to the filter.
fn updates(running: &Running, name: &str) -> u64 {
    let name = format!("epp_{name}{{");
    let page = running.page();
    let lines = page
        .lines()
        .filter(|line| line.contains("extension_config_discovery"));
    let mut own = lines.filter(|line| line.contains(&name));
    own.next()
        .map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

/// Has Envoy load the filter with this module, and the document changed as said.
fn deploy(running: &Running, module: &str, change: impl Fn(&str) -> String) {
    let mut filter = read(&running.stage.folder.path().join(FILTER));
    let config = &mut filter["resources"][0]["typed_config"]["config"];
    config["vm_config"]["code"]["local"]["filename"] = module.into();
    let document = config["configuration"]["value"].as_str().unwrap();
    config["configuration"]["value"] = Value::from(change(document));
    running.stage.write(FILTER, &filter);
}

/// Writes the module under the name of another version, with a custom section, which changes only its hash.
fn next_version(running: &Running) -> String {
    let mut module = fs::read(path_of("EPP_WASM")).unwrap();
    module.extend(b"\0\x05\x04next");
    let file = running.stage.folder.path().join("epp_wasm-0.2.0.wasm");
    fs::write(&file, module).unwrap();
    file.to_string_lossy().into_owned()
}

#[test]
fn a_module_is_upgraded_and_rolled_back_under_traffic_without_a_failed_request() {
    let running = Running::start(&production("ecds.yaml"));
    wait_until("metrics are fresh", || {
        running.counted("epp_wasm_endpoint_freshness", &[]) == 6
    });
    let module = path_of("EPP_WASM").to_string_lossy().into_owned();
    let next = next_version(&running);
    let (over, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    let picks = || running.counted("llm_d_epp_scheduler_attempts_total", &[]);
    // Requests are decided and served.
    let more = || {
        let (before, picked) = (served.load(Ordering::Relaxed), picks());
        wait_until("requests are served", || {
            served.load(Ordering::Relaxed) > before + 20
        });
        wait_until("they are decided", || picks() > picked + 20);
    };
    thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            let mut failed = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let response = running.ask("*", "Once upon a time");
                match response.status {
                    200 => drop(served.fetch_add(1, Ordering::Relaxed)),
                    _ => failed.push(response),
                }
            }
            failed
        });
        let reloads = updates(&running, "config_reload");
        // Far more blocks than those of all other requests.
        let long = "A prompt of many blocks, which are known. ".repeat(300);
        assert_eq!(running.ask("*", &long).status, 200);
        let is_known = || running.counted("llm_d_epp_prefix_indexer_size", &[]) > 20;
        wait_until("the prompt is known", is_known);
        more();
        deploy(&running, &next, str::to_owned);
        wait_until("the next version is in force", || {
            updates(&running, "config_reload") > reloads
        });
        more();
        wait_until("the index survives", is_known);
        // A configuration that the module rejects changes nothing.
        deploy(&running, &next, |document| {
            document.replace("queue-scorer", "queue-socrer")
        });
        wait_until("it is rejected", || {
            updates(&running, "update_rejected") == 1
        });
        more();
        deploy(&running, &module, |document| {
            document.replace("queue-socrer", "queue-scorer")
        });
        wait_until("the first version is back", || {
            updates(&running, "config_reload") > reloads + 1
        });
        more();
        over.store(true, Ordering::Relaxed);
        let failed = traffic.join().unwrap();
        assert!(failed.is_empty(), "{failed:?}");
    });
}

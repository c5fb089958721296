//! docs/upgrading.md: another module and another configuration by ECDS, under traffic, and back.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use build_stamp::Placeholder;
use envoy_harness::client::Response;
use envoy_harness::statistics::samples;
use envoy_harness::{path_of, wait_until};
use serde_yaml::Value;

use crate::bootstraps::{production, Running};
use crate::endpoint_picker::EndpointPicker;
use crate::envoy;
use crate::stage::{read, Stage};

const OWN_VERSION: &str = env!("CARGO_PKG_VERSION");
/// As long as the own one, in whose place it is written.
const NEXT_VERSION: &str = "0.2.0";

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

/// Writes the module as that of another version. Returns its path.
fn next_version(running: &Running) -> String {
    static STAMP: Placeholder = Placeholder::new(OWN_VERSION);
    let mut module = fs::read(path_of("EPP_WASM")).unwrap();
    // In a stamp, the version comes after a marker of one byte more than this.
    let marker = b"\0epp-wasm-stamp";
    let version = memchr::memmem::find(&module, marker).unwrap() + marker.len() + 1;
    let version = &mut module[version..][..OWN_VERSION.len()];
    assert_eq!(version, OWN_VERSION.as_bytes());
    version.copy_from_slice(NEXT_VERSION.as_bytes());
    STAMP.stamp(&mut module, "0123456789ab").unwrap();
    let file = running.stage.folder.path();
    let file = file.join(format!("epp_wasm-{NEXT_VERSION}.wasm"));
    fs::write(&file, module).unwrap();
    file.to_string_lossy().into_owned()
}

/// Returns the versions that the Envoy says it runs.
fn versions(running: &Running) -> BTreeSet<String> {
    let page = running.page();
    let versions = samples(&page, "epp_wasm_build_info").map(|(labels, value)| {
        assert_eq!(value, 1.0, "{labels}");
        let (_, version) = labels.split_once("version=\"").unwrap();
        version.split('"').next().unwrap().to_owned()
    });
    versions.collect()
}

/// Sends requests until `over`, and counts those that are served. Returns the other responses.
fn keep_asking(running: &Running, over: &AtomicBool, served: &AtomicUsize) -> Vec<Response> {
    let mut failed = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let response = running.ask("*", "Once upon a time");
        match response.status {
            200 => drop(served.fetch_add(1, Ordering::Relaxed)),
            _ => failed.push(response),
        }
    }
    failed
}

/// Sends one request after another, each of which must succeed, while `change` runs; what that gets waits until more have
/// been served.
fn under_traffic(running: &Running, change: impl FnOnce(&dyn Fn())) {
    let (over, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    let more = || {
        let before = served.load(Ordering::Relaxed);
        wait_until("requests are served", || {
            served.load(Ordering::Relaxed) > before + 20
        });
    };
    thread::scope(|scope| {
        let traffic = scope.spawn(|| keep_asking(running, &over, &served));
        let changed = catch_unwind(AssertUnwindSafe(|| change(&more)));
        over.store(true, Ordering::Relaxed);
        let failed = traffic.join().unwrap();
        assert!(failed.is_empty(), "{failed:?}");
        changed.unwrap_or_else(|panic| resume_unwind(panic));
    });
}

fn picks(running: &Running) -> u64 {
    running.counted("llm_d_epp_scheduler_attempts_total", &[])
}

/// Waits until requests are decided by the filter.
fn decides(running: &Running) {
    let before = picks(running);
    wait_until("requests are decided", || picks(running) > before + 20);
}

fn is_fresh(running: &Running) {
    wait_until("metrics are fresh", || {
        running.counted("epp_wasm_endpoint_freshness", &[]) == 6
    });
}

#[test]
fn a_module_is_upgraded_and_rolled_back_under_traffic_without_a_failed_request() {
    let running = Running::start(&production("ecds.yaml"));
    is_fresh(&running);
    let module = path_of("EPP_WASM").to_string_lossy().into_owned();
    let next = next_version(&running);
    under_traffic(&running, |more| {
        let served = || {
            more();
            decides(&running);
        };
        let reloads = updates(&running, "config_reload");
        // Far more blocks than those of all other requests.
        let long = "A prompt of many blocks, which are known. ".repeat(300);
        assert_eq!(running.ask("*", &long).status, 200);
        let is_known = || running.counted("llm_d_epp_prefix_indexer_size", &[]) > 20;
        wait_until("the prompt is known", is_known);
        served();
        deploy(&running, &next, str::to_owned);
        wait_until("the next version is in force", || {
            updates(&running, "config_reload") > reloads
        });
        served();
        wait_until("the index survives", is_known);
        // Dashboards and alerts count builds by these series.
        let only = |version: &str| BTreeSet::from([version.to_owned()]);
        wait_until("the former version is no longer exported", || {
            versions(&running) == only(NEXT_VERSION)
        });
        // A configuration that the module rejects changes nothing, not even the version if the module is another one.
        deploy(&running, &module, |document| {
            document.replace("queue-scorer", "queue-socrer")
        });
        wait_until("it is rejected", || {
            updates(&running, "update_rejected") == 1
        });
        served();
        assert_eq!(versions(&running), only(NEXT_VERSION));
        deploy(&running, &module, |document| {
            document.replace("queue-socrer", "queue-scorer")
        });
        wait_until("the first version is back", || {
            updates(&running, "config_reload") > reloads + 1
        });
        served();
        wait_until("the next version is no longer exported", || {
            versions(&running) == only(OWN_VERSION)
        });
        wait_until("the index survives the way back", is_known);
    });
}

/// The template with the cluster of an Endpoint Picker that picks the first endpoint.
fn with_endpoint_picker() -> (Stage, EndpointPicker) {
    let parent = envoy::folder();
    let text = fs::read_to_string(production("ecds.yaml")).unwrap();
    let (before, cluster) = text.split_once("  # - name: endpoint-picker\n").unwrap();
    let (cluster, after) = cluster.split_once("\n\n").unwrap();
    let cluster = cluster.replace("\n  # ", "\n  ").replacen("  # ", "  ", 1);
    let template = parent.path().join("ecds.yaml");
    let text = format!("{before}  - name: endpoint-picker\n{cluster}\n\n{after}");
    fs::write(&template, text).unwrap();
    let beside = parent.path().join("ecds");
    fs::create_dir(&beside).unwrap();
    fs::copy(production(FILTER), beside.join("epp.yaml")).unwrap();
    let mut stage = Stage::set(&template);
    let endpoint_picker = EndpointPicker::start(stage.sim.addresses()[0]);
    let clusters = stage.config["static_resources"]["clusters"].as_sequence_mut();
    let own = clusters.unwrap().last_mut().unwrap();
    assert_eq!(own["name"], "endpoint-picker");
    let endpoints = &mut own["load_assignment"]["endpoints"][0]["lb_endpoints"];
    endpoints[0]["endpoint"]["address"]["socket_address"]["port_value"] =
        endpoint_picker.address.port().into();
    (stage, endpoint_picker)
}

#[test]
fn an_endpoint_picker_takes_over_and_hands_back_under_traffic_without_a_failed_request() {
    let (stage, endpoint_picker) = with_endpoint_picker();
    let running = Running::of(stage);
    is_fresh(&running);
    let former = read(&running.stage.folder.path().join(FILTER));
    let reloads = updates(&running, "config_reload");
    under_traffic(&running, |more| {
        decides(&running);
        running
            .stage
            .write(FILTER, &read(&production("ecds/ext_proc.yaml")));
        wait_until("the Endpoint Picker is in force", || {
            updates(&running, "config_reload") > reloads
        });
        more();
        let (asked, picked) = (endpoint_picker.asked(), picks(&running));
        more();
        assert!(endpoint_picker.asked() >= asked + 20);
        assert_eq!(picks(&running), picked);
        running.stage.write(FILTER, &former);
        wait_until("the filter is in force again", || {
            updates(&running, "config_reload") > reloads + 1
        });
        decides(&running);
        let asked = endpoint_picker.asked();
        more();
        assert_eq!(endpoint_picker.asked(), asked);
    });
}

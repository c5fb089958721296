//! Many workers, one picker: what they share, and what one that starts receives.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::PathBuf;

use epp_sync::ROOT;
use fake_model_server::{Faults, Settings, Sim};
use serde_json::json;

use crate::client::{complete, get, post};
use crate::proxy::{Proxy, Setup};
use crate::stream::Connection;
use crate::ticks::{self, wait_until_shared, wait_until_vms_share, Vm};
use crate::uploads::{begin, completion, Model, WAYS};
use crate::{document, scorer};
use envoy_harness::path_of;

/// Prompts that were placed, each with its pod. Long enough for some blocks each, and others for each
/// `topic`.
fn placed(proxy: &Proxy, prompts: usize, topic: &str) -> Vec<(String, String)> {
    let place = |number| {
        let long = "much to tell, and at length. ".repeat(20);
        let prompt = format!("{topic}, {number}: {long}");
        let pod = complete(proxy.port, "m", &prompt).pod().to_owned();
        (prompt, pod)
    };
    (0..prompts).map(place).collect()
}

/// Returns how many of these prompts now go to another pod than before.
fn astray(proxy: &Proxy, placed: &[(String, String)]) -> usize {
    let gone = placed.iter().filter(|(prompt, pod)| {
        let response = complete(proxy.port, "m", prompt);
        let astray = response.status != 200 || response.pod() != pod;
        if astray {
            println!("{}, not {pod}: {:?}", response.pod(), prompt.get(..30));
        }
        astray
    });
    gone.count()
}

/// Places prompts, waits until all workers have recorded them, and returns them.
fn shared(proxy: &Proxy, prompts: usize, topic: &str) -> Vec<(String, String)> {
    let placed = placed(proxy, prompts, topic);
    wait_until_shared(proxy);
    assert_eq!(astray(proxy, &placed), 0, "{topic}");
    placed
}

#[test]
fn requests_in_flight_are_counted_over_all_workers_until_they_end() {
    let sim = Sim::start(3, &Settings::default()).unwrap();
    let mut setup = Setup::new(&sim.addresses(), &scorer("active-request-scorer"));
    setup.workers = 4;
    setup.status_page = true;
    let proxy = setup.start();
    let in_flight = || proxy.counted("llm_d_epp_inflight_requests");
    wait_until_vms_share(&proxy, 5);
    let sharing = ticks::pickers(&proxy, 5) as u64;
    proxy.wait_until("a gauge counts them", || {
        proxy.counted("epp_wasm_sharing_vms") == sharing
    });
    let hang = |hang| {
        let faults = Faults {
            hang,
            ..Faults::default()
        };
        sim.pods().for_each(|pod| pod.set_faults(faults.clone()));
    };
    hang(true);
    let (way, body) = (WAYS[0], completion(Model::First, 10));
    let one = |number| {
        let mut connection = Connection::open(proxy.port, way.http);
        let mut request = begin(&mut connection, way, &body);
        request.send(&body);
        // One after the other, so that each is known to all workers before the next comes.
        proxy.wait_until("its worker has published it", || {
            ticks::in_flight(&proxy) == number
        });
        wait_until_shared(&proxy);
        (connection, request)
    };
    let requests: Vec<_> = (1..=9).map(one).collect();
    proxy.wait_until("the gauge shows them", || in_flight() == 9);
    hang(false);
    let pods = requests
        .into_iter()
        .map(|(_connection, request)| request.response());
    let pods: Vec<String> = pods.map(|response| response.pod().to_owned()).collect();
    let count = |pod: &str| pods.iter().filter(|name| *name == pod).count();
    assert_eq!(["pod-1", "pod-2", "pod-3"].map(count), [3, 3, 3]);
    proxy.wait_until("none is left", || in_flight() == 0);
}

/// Starts eight pods behind an Envoy whose module obeys faults, and waits until its two VMs share.
fn with_faults() -> (Sim, Proxy) {
    let sim = Sim::start(8, &Settings::default()).unwrap();
    let mut setup = Setup::new(&sim.addresses(), &scorer("prefix-cache-scorer"));
    setup.module = setup.host.faulty_file();
    setup.status_page = true;
    let proxy = setup.start();
    wait_until_vms_share(&proxy, 2);
    (sim, proxy)
}

#[test]
fn after_a_trap_a_worker_receives_the_prefix_index_of_the_others() {
    let (_sim, proxy) = with_faults();
    let placed = shared(&proxy, 60, "before the trap");
    let mut entries = None;
    proxy.wait_until("both VMs know the same", || {
        let vms = ticks::vms(&proxy);
        entries = vms.values().next().and_then(|vm| vm.entries);
        entries > Some(0) && vms.values().all(|vm| vm.entries == entries)
    });
    trap_and_return(&proxy, entries);
    assert_eq!(astray(&proxy, &placed), 0);
}

/// The worker traps, and comes back with as many entries in its index.
fn trap_and_return(proxy: &Proxy, entries: Option<u64>) {
    let worker = || ticks::vms(proxy).into_values().find(|vm| vm.serves);
    let before = worker().unwrap().heartbeats;
    let body = json!({"model": "m", "prompt": "hello", "max_tokens": 1});
    let fault = [("x-epp-fault", "trap")];
    let response = post(proxy.port, "/v1/completions", &body, &fault);
    assert_ne!(response.status, 200);
    // The first request that is served makes the VM. This one has no prompt.
    proxy.wait_until("the worker serves again", || {
        get(proxy.port, "/v1/models").is_ok_and(|response| response.status == 200)
    });
    let mut now = Vm::default();
    proxy.wait_until("the new VM has the whole index", || {
        now = worker()
            .filter(|vm| vm.heartbeats < before)
            .unwrap_or_default();
        now.entries == entries
    });
    // Counted in its ticks, so that the compilation before them does not count: two seconds if they are on
    // time. The page shows the entries up to half a second late.
    assert!(now.heartbeats <= 40, "{now:?}");
}

#[test]
fn after_a_trap_the_only_worker_receives_what_the_main_thread_has_archived() {
    let (_sim, proxy) = with_faults();
    shared(&proxy, 20, "before there is an archive");
    let main = |known: bool| {
        let vms = ticks::vms(&proxy).into_values();
        let mut others = vms.filter(|vm| !vm.serves && vm.entries.is_some());
        others.any(|vm| (vm.entries > Some(0)) == known)
    };
    proxy.wait_until("the main thread has an index", || main(true));
    let mut sent = 0;
    while !main(false) {
        assert!(sent < 1_000, "it still has an index");
        for _ in 0..20 {
            sent += 1;
            complete(
                proxy.port,
                "m",
                &format!("{sent} {}", "and so on, ".repeat(4_000)),
            );
        }
    }
    // The long prompts have evicted those before.
    let placed = shared(&proxy, 20, "archived");
    let mut entries = None;
    proxy.wait_until("the page shows the worker's entries", || {
        let before = entries;
        let worker = ticks::vms(&proxy).into_values().find(|vm| vm.serves);
        entries = worker.and_then(|vm| vm.entries);
        wait_until_shared(&proxy);
        entries > Some(0) && entries == before
    });
    trap_and_return(&proxy, entries);
    assert_eq!(astray(&proxy, &placed), 0);
}

#[test]
fn requests_that_a_trapped_worker_held_are_no_longer_counted() {
    let sim = Sim::start(2, &Settings::default()).unwrap();
    let plugins =
        "{type: prefix-cache-scorer}, {type: envoy-proxy, parameters: {bodyTimeout: 60s}}";
    let config = document(plugins, "{pluginRef: prefix-cache-scorer}");
    let mut setup = Setup::new(&sim.addresses(), &config);
    setup.module = setup.host.faulty_file();
    let proxy = setup.start();
    let mut uploads = Vec::new();
    for _ in 0..3 {
        let mut upload = TcpStream::connect(("127.0.0.1", proxy.port)).unwrap();
        let head = "POST /v1/completions HTTP/1.1\r\nhost: h\r\ncontent-length: 9999\r\n";
        let start = "content-type: application/json\r\n\r\n{\"prompt\": \"it begins";
        upload
            .write_all(format!("{head}{start}").as_bytes())
            .unwrap();
        uploads.push(upload);
    }
    let held = || proxy.counted("epp_wasm_held_requests");
    proxy.wait_until("they are held", || held() == 3);
    let body = json!({"model": "m", "prompt": "hello", "max_tokens": 1});
    let response = post(
        proxy.port,
        "/v1/completions",
        &body,
        &[("x-epp-fault", "trap")],
    );
    assert_ne!(response.status, 200);
    proxy.wait_until("no worker holds any", || held() == 0);
}

/// The module with another version of the shared data.
fn of_another_layout() -> PathBuf {
    let root = ROOT.as_bytes();
    let mut module = fs::read(path_of("EPP_WASM")).unwrap();
    let found: Vec<usize> = memchr::memmem::find_iter(&module, root).collect();
    assert!(!found.is_empty(), "the module does not name {}", ROOT);
    found
        .iter()
        .for_each(|place| module[place + root.len() - 1] = b'x');
    let path = path_of("EPP_WASM").with_file_name("epp_wasm_other.wasm");
    fs::write(&path, module).unwrap();
    path
}

#[test]
fn two_layouts_of_shared_data_do_not_disturb_each_other() {
    let sim = Sim::start(8, &Settings::default()).unwrap();
    let config = scorer("prefix-cache-scorer");
    let mut setup = Setup::new(&sim.addresses(), &config);
    setup.workers = 2;
    setup.status_page = true;
    setup.module = of_another_layout();
    // The former one stays until the test is over.
    setup.drain_seconds = 600;
    let mut proxy = setup.start();
    placed(&proxy, 20, "the former");
    let installed = |proxy: &Proxy| proxy.logged().matches("in force").count();
    let before = installed(&proxy);
    proxy.setup.module = path_of("EPP_WASM");
    proxy.set_config(&config);
    proxy.wait_until("the new module is installed", || installed(&proxy) > before);
    // Only then new requests all go to the new one: its listener's, and the status page's.
    proxy.wait_until("the former one gets no more connections", || {
        proxy.stat("listener_manager.total_filter_chains_draining") == 2
    });
    wait_until_vms_share(&proxy, 3);
    shared(&proxy, 20, "the new one");
    // The gauge is set every second.
    proxy.wait_until("its VMs count each other and not the former ones", || {
        proxy.counted("epp_wasm_sharing_vms") == 3
    });
    assert_eq!(proxy.counted("epp_wasm_unrecognized_values_total"), 0);
    let polls = || sim.pods().map(|pod| pod.scrapes()).sum::<usize>();
    let before = polls();
    proxy.wait_until("one VM polls", || polls() > before);
}

#[test]
fn an_upgraded_module_receives_the_prefix_index_of_the_previous_one() {
    let sim = Sim::start(8, &Settings::default()).unwrap();
    let config = scorer("prefix-cache-scorer");
    let mut setup = Setup::new(&sim.addresses(), &config);
    setup.workers = 2;
    setup.status_page = true;
    // The former one stays until it has handed over, as in production, where Envoy's default is 600 as well.
    setup.drain_seconds = 600;
    let mut proxy = setup.start();
    wait_until_vms_share(&proxy, 3);
    let placed = shared(&proxy, 60, "before the upgrade");
    let installed = |proxy: &Proxy| proxy.logged().matches("in force").count();
    let before = installed(&proxy);
    // Other code makes other VMs, beside the former ones until their listener is drained.
    proxy.setup.module = proxy.setup.host.faulty_file();
    proxy.set_config(&config);
    proxy.wait_until("the new module is installed", || installed(&proxy) > before);
    proxy.wait_until("the former one gets no more connections", || {
        proxy.stat("listener_manager.total_filter_chains_draining") == 2
    });
    proxy.wait_until("all VMs, former and new, have the same index", || {
        let vms = ticks::vms(&proxy);
        let entries = vms.values().next().and_then(|vm| vm.entries);
        vms.len() == 6 && entries > Some(0) && vms.values().all(|vm| vm.entries == entries)
    });
    assert_eq!(astray(&proxy, &placed), 0);
}

#[test]
fn unrecognized_values_are_counted_and_replaced() {
    let sim = Sim::start(8, &Settings::default()).unwrap();
    let mut setup = Setup::new(&sim.addresses(), &scorer("prefix-cache-scorer"));
    setup.module = setup.host.faulty_file();
    setup.workers = 2;
    setup.status_page = true;
    let proxy = setup.start();
    wait_until_vms_share(&proxy, 3);
    let placed = shared(&proxy, 20, "before the fault");
    let body = json!({"model": "m", "prompt": "hello", "max_tokens": 1});
    let fault = [("x-epp-fault", "scribble")];
    let response = post(proxy.port, "/v1/completions", &body, &fault);
    assert_eq!(response.status, 200);
    assert_eq!(astray(&proxy, &placed), 0, "what was known is known");
    proxy.wait_until("they are counted", || {
        proxy.counted("epp_wasm_unrecognized_values_total") > 0
    });
    proxy.wait_until("all share again", || {
        proxy.counted("epp_wasm_sharing_vms") == 3
    });
    // What one worker places now reaches the other.
    shared(&proxy, 12, "placed later");
    let polls = || sim.pods().map(|pod| pod.scrapes()).sum::<usize>();
    let before = polls();
    proxy.wait_until("one VM polls", || polls() > before);
}

#[test]
fn two_pools_do_not_disturb_each_other() {
    let (one, other) = (
        Sim::start(4, &Settings::default()).unwrap(),
        Sim::start(4, &Settings::default()).unwrap(),
    );
    let config = |cluster: &str| {
        let plugins = format!(
            "{{type: prefix-cache-scorer}}, {{type: envoy-cluster-discovery, parameters: {{clusters: [{cluster}]}}}}"
        );
        document(&plugins, "{pluginRef: prefix-cache-scorer}")
    };
    let mut setup = Setup::new(&one.addresses(), &config("inference-pool"));
    setup.configs.push(config("other"));
    setup.others = vec![("other".to_owned(), other.addresses())];
    setup.workers = 2;
    setup.status_page = true;
    let proxy = setup.start();
    let of_other = |prompt: &str| {
        let body = json!({"model": "m", "prompt": prompt, "max_tokens": 1});
        let response = post(proxy.port, "/other/v1/completions", &body, &[]);
        assert_eq!(response.status, 200, "{response:?}");
        response.pod().to_owned()
    };
    // Another prompt, so that this one is placed once.
    let ready = json!({"model": "m", "prompt": "x", "max_tokens": 1});
    proxy.wait_until("the other pool's members are known", || {
        let ready = |_| post(proxy.port, "/other/v1/completions", &ready, &[]).status == 200;
        (0..8).all(ready)
    });
    // Three VMs of either pool.
    wait_until_vms_share(&proxy, 6);
    let prompt = "the same for both, and long enough for some blocks of it. ".repeat(20);
    let pods = || {
        let pod = complete(proxy.port, "m", &prompt).pod().to_owned();
        (pod, of_other(&prompt))
    };
    let first = pods();
    wait_until_shared(&proxy);
    (0..20).for_each(|_| assert_eq!(pods(), first));
    assert_eq!(proxy.counted("epp_wasm_unrecognized_values_total"), 0);
}

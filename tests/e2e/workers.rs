//! Many workers, one picker: what they tell each other, and what one that starts is told.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::PathBuf;
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use epp_sync::ROOT;
use fake_model_server::{Settings, Sim};
use serde_json::json;

use crate::client::{complete, post};
use crate::proxy::{Proxy, Setup};
use crate::{document, scorer};
use envoy_harness::path_of;

/// Prompts that were placed, each with its pod. Long enough for some blocks each.
fn placed(proxy: &Proxy, prompts: usize) -> Vec<(String, String)> {
    let place = |number| {
        let prompt = format!("{number}: {}", "much to tell, and at length. ".repeat(20));
        let pod = complete(proxy.port, "m", &prompt).pod().to_owned();
        (prompt, pod)
    };
    (0..prompts).map(place).collect()
}

/// How many of these prompts go elsewhere than they went.
fn astray(proxy: &Proxy, placed: &[(String, String)]) -> usize {
    let gone = placed.iter().filter(|(prompt, pod)| {
        let answer = complete(proxy.port, "m", prompt);
        answer.status != 200 || answer.pod() != pod
    });
    gone.count()
}

#[test]
fn what_is_in_flight_is_counted_over_all_workers_and_not_for_ever() {
    let slow = Settings {
        base_latency: Duration::from_secs(3),
        ..Settings::default()
    };
    let sim = Sim::start(3, &slow).unwrap();
    let mut setup = Setup::new(&sim.addresses(), &scorer("active-request-scorer"));
    setup.workers = 4;
    let proxy = setup.start();
    let in_flight = || proxy.counted("llm_d_epp_inflight_requests");
    proxy.wait_until("all VMs share", || {
        proxy.counted("epp_wasm_sharing_vms") == 5
    });
    let pods = scope(|scope| {
        let one = |number: u64| {
            let proxy = &proxy;
            // One after the other, so that each is known to all workers before the next comes.
            sleep(Duration::from_millis(120 * number));
            scope.spawn(move || complete(proxy.port, "m", "x").pod().to_owned())
        };
        let requests: Vec<_> = (0..9).map(|_| one(1)).collect();
        proxy.wait_until("the gauge shows them", || in_flight() == 9);
        let pods = requests.into_iter().map(|request| request.join().unwrap());
        pods.collect::<Vec<_>>()
    });
    for pod in ["pod-1", "pod-2", "pod-3"] {
        let count = pods.iter().filter(|name| *name == pod).count();
        assert_eq!(count, 3, "each goes where the fewest are: {pods:?}");
    }
    proxy.wait_until("none is left", || in_flight() == 0);
}

#[test]
fn after_a_trap_a_worker_is_handed_what_the_others_know() {
    let sim = Sim::start(8, &Settings::default()).unwrap();
    let mut setup = Setup::new(&sim.addresses(), &scorer("prefix-cache-scorer"));
    setup.module = path_of("EPP_WASM_FAULTS");
    let proxy = setup.start();
    let placed = placed(&proxy, 60);
    sleep(Duration::from_millis(200));
    assert_eq!(astray(&proxy, &placed), 0);
    let body = json!({"model": "m", "prompt": "hello", "max_tokens": 1});
    let fault = [("x-epp-fault", "trap")];
    let trapped = Instant::now();
    let answer = post(proxy.port, "/v1/completions", &body, &fault);
    assert_ne!(answer.status, 200);
    // Each try asks for a few only, so that what it places itself does not help the next.
    let mut left = placed.as_slice();
    proxy.wait_until("the worker knows where prompts went", || {
        let (some, rest) = left.split_at(4);
        left = rest;
        sleep(Duration::from_millis(100));
        astray(&proxy, some) == 0
    });
    let took = trapped.elapsed();
    println!("knew again after {took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(astray(&proxy, left), 0);
}

#[test]
fn what_a_worker_held_when_it_trapped_counts_no_more() {
    let sim = Sim::start(2, &Settings::default()).unwrap();
    let plugins =
        "{type: prefix-cache-scorer}, {type: envoy-proxy, parameters: {bodyTimeout: 60s}}";
    let config = document(plugins, "{pluginRef: prefix-cache-scorer}");
    let mut setup = Setup::new(&sim.addresses(), &config);
    setup.module = path_of("EPP_WASM_FAULTS");
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
    let answer = post(
        proxy.port,
        "/v1/completions",
        &body,
        &[("x-epp-fault", "trap")],
    );
    assert_ne!(answer.status, 200);
    proxy.wait_until("nobody holds any", || held() == 0);
}

/// The module with another version of what is shared.
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
fn two_layouts_side_by_side_do_not_disturb_each_other() {
    let sim = Sim::start(8, &Settings::default()).unwrap();
    let config = scorer("prefix-cache-scorer");
    let mut setup = Setup::new(&sim.addresses(), &config);
    setup.workers = 2;
    // The former one stays until the test is over.
    setup.drain_seconds = 60;
    let mut proxy = setup.start();
    placed(&proxy, 20);
    let installed = |proxy: &Proxy| proxy.logged().matches("in force").count();
    let before = installed(&proxy);
    proxy.setup.module = of_another_layout();
    proxy.set_config(&config);
    proxy.wait_until("the new module is installed", || {
        installed(&proxy) >= before + 3
    });
    // Only then new requests all go to the new one. Its VMs need some ticks to find each other: both
    // modules tell the same gauge, so that nothing says when they have.
    proxy.wait_until("the former one gets no more connections", || {
        proxy.stat("listener_manager.total_filter_chains_draining") == 1
    });
    sleep(Duration::from_secs(1));
    let placed = placed(&proxy, 20);
    sleep(Duration::from_secs(1));
    assert_eq!(astray(&proxy, &placed), 0);
    assert_eq!(proxy.counted("epp_wasm_unrecognized_values_total"), 0);
    assert_eq!(proxy.counted("epp_wasm_sharing_vms"), 3);
    let polls = || sim.pods().map(|pod| pod.scrapes()).sum::<usize>();
    let before = polls();
    proxy.wait_until("somebody polls", || polls() > before);
}

#[test]
fn a_module_that_is_upgraded_is_handed_what_the_former_one_knows() {
    let sim = Sim::start(8, &Settings::default()).unwrap();
    let config = scorer("prefix-cache-scorer");
    let mut setup = Setup::new(&sim.addresses(), &config);
    setup.workers = 2;
    let mut proxy = setup.start();
    let placed = placed(&proxy, 60);
    sleep(Duration::from_millis(200));
    let installed = |proxy: &Proxy| proxy.logged().matches("in force").count();
    let before = installed(&proxy);
    // Other code makes other VMs, beside the former ones until their listener is drained (2 s).
    proxy.setup.module = path_of("EPP_WASM_FAULTS");
    proxy.set_config(&config);
    proxy.wait_until("the new module is installed", || {
        installed(&proxy) >= before + 4
    });
    sleep(Duration::from_secs(4));
    assert_eq!(astray(&proxy, &placed), 0);
}

#[test]
fn a_strangers_values_are_counted_and_healed() {
    let sim = Sim::start(8, &Settings::default()).unwrap();
    let mut setup = Setup::new(&sim.addresses(), &scorer("prefix-cache-scorer"));
    setup.module = path_of("EPP_WASM_FAULTS");
    setup.workers = 2;
    let proxy = setup.start();
    let placed = placed(&proxy, 20);
    sleep(Duration::from_millis(300));
    let body = json!({"model": "m", "prompt": "hello", "max_tokens": 1});
    let fault = [("x-epp-fault", "scribble")];
    let answer = post(proxy.port, "/v1/completions", &body, &fault);
    assert_eq!(answer.status, 200);
    assert_eq!(astray(&proxy, &placed), 0, "what was known is known");
    proxy.wait_until("they are counted", || {
        proxy.counted("epp_wasm_unrecognized_values_total") > 0
    });
    proxy.wait_until("all share again", || {
        proxy.counted("epp_wasm_sharing_vms") == 3
    });
    // What one worker places now the other hears of.
    let later = "placed later, and long enough for some blocks of it. ".repeat(20);
    let pod = complete(proxy.port, "m", &later).pod().to_owned();
    sleep(Duration::from_millis(300));
    assert!((0..12).all(|_| complete(proxy.port, "m", &later).pod() == pod));
    let polls = || sim.pods().map(|pod| pod.scrapes()).sum::<usize>();
    let before = polls();
    proxy.wait_until("somebody polls", || polls() > before);
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
    let proxy = setup.start();
    let prompt = "the same for both, and long enough for some blocks of it. ".repeat(20);
    let pod = complete(proxy.port, "m", &prompt).pod().to_owned();
    let body = json!({"model": "m", "prompt": prompt, "max_tokens": 1});
    let of_other = || {
        let answer = post(proxy.port, "/other/v1/completions", &body, &[]);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.pod().to_owned()
    };
    // Another prompt, so that this one is placed once.
    let ready = json!({"model": "m", "prompt": "x", "max_tokens": 1});
    proxy.wait_until("the other pool's members are known", || {
        let ready = |_| post(proxy.port, "/other/v1/completions", &ready, &[]).status == 200;
        (0..8).all(ready)
    });
    let others = of_other();
    sleep(Duration::from_millis(200));
    for _ in 0..20 {
        assert_eq!(complete(proxy.port, "m", &prompt).pod(), pod);
        assert_eq!(of_other(), others);
    }
    assert_eq!(proxy.counted("epp_wasm_unrecognized_values_total"), 0);
}

//! Many workers, one picker: what they share, and what one that starts receives.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::PathBuf;
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use epp_sync::ROOT;
use fake_model_server::{Faults, Settings, Sim};
use serde_json::json;

use crate::client::{complete, post};
use crate::proxy::{Proxy, Setup};
use crate::{document, once_shared, scorer};
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

/// How many of these prompts go elsewhere than they went.
fn astray(proxy: &Proxy, placed: &[(String, String)]) -> usize {
    let gone = placed.iter().filter(|(prompt, pod)| {
        let answer = complete(proxy.port, "m", prompt);
        answer.status != 200 || answer.pod() != pod
    });
    gone.count()
}

/// Waits until all workers know prompts that each of them placed, and returns those.
fn shared(proxy: &Proxy, prompts: usize, topic: &str) -> Vec<(String, String)> {
    let mut known = Vec::new();
    once_shared(topic, |pause| {
        known = placed(proxy, prompts, &format!("{topic}, {pause:?}"));
        sleep(pause);
        astray(proxy, &known) == 0
    });
    known
}

#[test]
fn what_is_in_flight_is_counted_over_all_workers_and_not_for_ever() {
    let sim = Sim::start(3, &Settings::default()).unwrap();
    let mut setup = Setup::new(&sim.addresses(), &scorer("active-request-scorer"));
    setup.workers = 4;
    let proxy = setup.start();
    let in_flight = || proxy.counted("llm_d_epp_inflight_requests");
    proxy.wait_until("all VMs share", || {
        proxy.counted("epp_wasm_sharing_vms") == 5
    });
    let hang = |hang| {
        let faults = Faults {
            hang,
            ..Faults::default()
        };
        sim.pods().for_each(|pod| pod.set_faults(faults.clone()));
    };
    once_shared("each goes where the fewest are", |pause| {
        hang(true);
        let pods = scope(|scope| {
            let one = |_| {
                let proxy = &proxy;
                // One after the other, so that each is known to all workers before the next comes.
                sleep(pause.min(Duration::from_secs(1)));
                scope.spawn(move || complete(proxy.port, "m", "x").pod().to_owned())
            };
            let requests: Vec<_> = (0..9).map(one).collect();
            proxy.wait_until("the gauge shows them", || in_flight() == 9);
            hang(false);
            let pods = requests.into_iter().map(|request| request.join().unwrap());
            pods.collect::<Vec<_>>()
        });
        proxy.wait_until("none is left", || in_flight() == 0);
        let count = |pod: &str| pods.iter().filter(|name| *name == pod).count();
        ["pod-1", "pod-2", "pod-3"].map(count) == [3, 3, 3]
    });
}

#[test]
fn after_a_trap_a_worker_is_handed_what_the_others_know() {
    let sim = Sim::start(8, &Settings::default()).unwrap();
    let mut setup = Setup::new(&sim.addresses(), &scorer("prefix-cache-scorer"));
    setup.module = path_of("EPP_WASM_FAULTS");
    let proxy = setup.start();
    let placed = shared(&proxy, 60, "before the trap");
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
    // Most of it is V8, which compiles the module again while other tests take the cores.
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert!(left.len() >= 20, "{} are left to ask for", left.len());
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
    proxy.wait_until("no worker holds any", || held() == 0);
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
    placed(&proxy, 20, "the former");
    let installed = |proxy: &Proxy| proxy.logged().matches("in force").count();
    let before = installed(&proxy);
    proxy.setup.module = of_another_layout();
    proxy.set_config(&config);
    proxy.wait_until("the new module is installed", || {
        installed(&proxy) >= before + 3
    });
    // Only then new requests all go to the new one.
    proxy.wait_until("the former one gets no more connections", || {
        proxy.stat("listener_manager.total_filter_chains_draining") == 1
    });
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
fn a_module_that_is_upgraded_is_handed_what_the_former_one_knows() {
    let sim = Sim::start(8, &Settings::default()).unwrap();
    let config = scorer("prefix-cache-scorer");
    let mut setup = Setup::new(&sim.addresses(), &config);
    setup.workers = 2;
    let mut proxy = setup.start();
    let placed = shared(&proxy, 60, "before the upgrade");
    let installed = |proxy: &Proxy| proxy.logged().matches("in force").count();
    let before = installed(&proxy);
    // Other code makes other VMs, beside the former ones until their listener is drained (2 s).
    proxy.setup.module = path_of("EPP_WASM_FAULTS");
    proxy.set_config(&config);
    proxy.wait_until("the new module is installed", || {
        installed(&proxy) >= before + 4
    });
    proxy.wait_until("the former one is drained", || {
        proxy.stat("listener_manager.total_filter_chains_draining") == 0
    });
    // Each attempt asks for others, so that what it places itself does not help the next.
    let mut left = placed.chunks(15);
    once_shared("the new one knows where prompts went", |pause| {
        sleep(pause);
        astray(&proxy, left.next().unwrap()) == 0
    });
}

#[test]
fn a_strangers_values_are_counted_and_healed() {
    let sim = Sim::start(8, &Settings::default()).unwrap();
    let mut setup = Setup::new(&sim.addresses(), &scorer("prefix-cache-scorer"));
    setup.module = path_of("EPP_WASM_FAULTS");
    setup.workers = 2;
    let proxy = setup.start();
    let placed = shared(&proxy, 20, "before the fault");
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
    let proxy = setup.start();
    let of_other = |prompt: &str| {
        let body = json!({"model": "m", "prompt": prompt, "max_tokens": 1});
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
    once_shared("each pool keeps to its own", |pause| {
        let long = "the same for both, and long enough for some blocks of it. ".repeat(20);
        let prompt = format!("{pause:?}: {long}");
        let pods = || {
            let pod = complete(proxy.port, "m", &prompt).pod().to_owned();
            (pod, of_other(&prompt))
        };
        let first = pods();
        sleep(pause);
        (0..20).all(|_| pods() == first)
    });
    assert_eq!(proxy.counted("epp_wasm_unrecognized_values_total"), 0);
}

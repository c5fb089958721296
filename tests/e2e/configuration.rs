//! Configurations refused and accepted, at start and while running.

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use fake_model_server::{Pinned, Settings, Sim};

use crate::client::complete;
use crate::preferences::settles_on;
use crate::proxy::Setup;
use crate::{document, scorer, start};
use envoy_harness::host::Host;
use envoy_harness::path_of;

const BAD: &str = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n- type: queue-socrer\nmetadata: {}\n";

#[test]
fn a_bad_configuration_at_start_is_refused_with_every_reason() {
    let sim = Sim::start(1, &Settings::default()).unwrap();
    let proxy = Setup::new(&sim.addresses(), BAD).launch();
    proxy.wait_until("the reasons are logged", || {
        let log = proxy.logged();
        log.contains("plugins[0].type (line 4, column 3): found \"queue-socrer\"")
            && log.contains("did you mean queue-scorer?")
            && log.contains("metadata (line 5, column 1): unknown field")
    });
    assert!(crate::client::get(proxy.port, "/").is_err(), "no listener");
}

#[test]
fn envoy_does_not_start_with_a_listener_whose_configuration_is_bad() {
    let sim = Sim::start(1, &Settings::default()).unwrap();
    let mut setup = Setup::new(&sim.addresses(), BAD);
    setup.listener_fixed = true;
    let mut proxy = setup.launch();
    assert_eq!(proxy.ended(), Some(1));
    assert!(proxy.logged().contains("did you mean queue-scorer?"));
}

#[test]
fn envoys_validate_mode_rejects_a_bad_configuration_only() {
    let sim = Sim::start(1, &Settings::default()).unwrap();
    let (code, log) = Setup::new(&sim.addresses(), BAD).validate();
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("did you mean queue-scorer?"), "{log}");
    let good = scorer("queue-scorer");
    let (code, log) = Setup::new(&sim.addresses(), &good).validate();
    assert_eq!(code, Some(0), "{log}");
}

#[test]
fn a_filter_that_is_removed_ends_and_can_come_again() {
    let sim = Sim::start(2, &Settings::default()).unwrap();
    sim.pod(0).pin(Pinned {
        waiting: Some(9),
        ..Pinned::default()
    });
    let config = scorer("queue-scorer");
    let mut proxy = start(&sim, &config);
    settles_on(proxy.port, "pod-2");
    let tasks = format!("/proc/{}/task", proxy.process());
    let clocks = || {
        let threads = fs::read_dir(&tasks).unwrap().flatten();
        let names = threads.flat_map(|thread| fs::read_to_string(thread.path().join("comm")));
        names.filter(|name| name.trim() == "epp-clock").count()
    };
    let expected = usize::from(proxy.setup.host == Host::Module);
    assert_eq!(clocks(), expected);
    proxy.remove_filters();
    proxy.wait_until("Envoy balances by itself", || {
        complete(proxy.port, "m", "x").pod() == "pod-1"
    });
    // Once the former listener is drained.
    proxy.wait_until("its thread has ended", || clocks() == 0);
    for _ in 0..4 {
        assert_eq!(complete(proxy.port, "m", "x").status, 200);
    }
    proxy.set_config(&config);
    settles_on(proxy.port, "pod-2");
}

#[test]
fn a_rejected_update_leaves_the_running_configuration_in_use() {
    let sim = Sim::start(2, &Settings::default()).unwrap();
    sim.pod(0).pin(Pinned {
        waiting: Some(9),
        ..Pinned::default()
    });
    let mut proxy = start(&sim, &scorer("queue-scorer"));
    settles_on(proxy.port, "pod-2");
    proxy.set_config(BAD);
    proxy.wait_until("the update is refused", || {
        proxy.stat("listener_manager.lds.update_rejected") > 0
    });
    assert!(proxy.logged().contains("did you mean queue-scorer?"));
    let rejected = || proxy.counted("epp_wasm_rejected_configurations_total");
    proxy.wait_until("it is counted", || rejected() == 1);
    for _ in 0..10 {
        assert_eq!(complete(proxy.port, "m", "x").pod(), "pod-2");
    }
}

#[test]
fn an_update_under_traffic_loses_no_request_and_keeps_the_prefix_index() {
    let sim = Sim::start(3, &Settings::default()).unwrap();
    let config = |weight: u32| {
        document(
        "{type: prefix-cache-scorer}, {type: queue-scorer}",
        &format!("{{pluginRef: prefix-cache-scorer, weight: 100}}, {{pluginRef: queue-scorer, weight: {weight}}}"),
    )
    };
    let mut proxy = start(&sim, &config(1));
    // Several, so that an index that was lost does not pass by luck: once in 3^6.
    let prompts: Vec<String> = (0..6)
        .map(|number| format!("{number} was seen before the update came. ").repeat(20))
        .collect();
    let pods = |port: u16| -> Vec<String> {
        let each = prompts.iter();
        each.map(|prompt| complete(port, "m", prompt).pod().to_owned())
            .collect()
    };
    let first = pods(proxy.port);
    let (port, done) = (proxy.port, Arc::new(AtomicBool::new(false)));
    let loads: Vec<_> = (0..4)
        .map(|number| {
            let done = done.clone();
            std::thread::spawn(move || {
                let mut responses = Vec::new();
                while !done.load(Ordering::Relaxed) {
                    responses
                        .push(complete(port, "m", &format!("{number} {}", responses.len())).status);
                }
                responses
            })
        })
        .collect();
    for weight in 2..5 {
        proxy.set_config(&config(weight));
        let updates = u64::from(weight);
        proxy.wait_until("the update is in force", || {
            proxy.stat("listener_manager.lds.update_success") >= updates
                && proxy.logged().contains(&format!("queue-scorer × {weight}"))
        });
    }
    std::thread::sleep(std::time::Duration::from_secs(1));
    done.store(true, Ordering::Relaxed);
    let responses: Vec<u16> = loads
        .into_iter()
        .flat_map(|load| load.join().unwrap())
        .collect();
    assert!(responses.len() > 50, "{}", responses.len());
    assert!(
        responses.iter().all(|status| *status == 200),
        "{responses:?}"
    );
    assert_eq!(pods(proxy.port), first);
}

#[test]
fn the_first_log_line_names_the_version_of_the_host() {
    let said = Command::new(path_of("ENVOY")).arg("--version").output();
    let said = String::from_utf8(said.unwrap().stdout).unwrap();
    // …version: COMMIT/1.40.0/Clean/RELEASE/BoringSSL
    let version = said.split('/').rev().nth(3).unwrap();
    let sim = Sim::start(1, &Settings::default()).unwrap();
    let proxy = start(&sim, &scorer("queue-scorer"));
    let log = proxy.logged();
    let mut lines = log.lines().filter(|line| line.contains("(commit "));
    let (_, host) = lines.next().unwrap().rsplit_once("), Envoy ").unwrap();
    assert_eq!(host.split(';').next(), Some(version), "{host}");
    // Each of the VMs has been given the configuration.
    assert!(lines.next().is_none(), "{log}");
    assert_eq!(log.matches("in force: ").count(), 1, "{log}");
}

//! Endpoints at which requests fail are ejected for a while.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fake_model_server::{Faults, Settings, Sim};
use serde_json::json;

use crate::client::{complete, post};
use crate::document;
use crate::proxy::{Proxy, Setup};
use crate::ticks::wait_for_statistics;

/// Random picks, so that every pod has its share; short times, so that the test has.
fn config(parameters: &str) -> String {
    let plugins =
        format!("{{type: random-picker}}, {{type: envoy-proxy, parameters: {{{parameters}}}}}");
    document(&plugins, "{pluginRef: random-picker}")
}

/// Sends 40 requests, and returns how many of them this pod gets.
fn share(sim: &Sim, pod: usize, mut request: impl FnMut()) -> usize {
    sim.pods().for_each(|pod| pod.forget());
    (0..40).for_each(|_| request());
    sim.pod(pod).seen().len()
}

fn ejected(proxy: &Proxy, reason: &str) -> u64 {
    let label = format!("reason=\"{reason}\"");
    proxy.counted_with("epp_wasm_endpoint_ejected", &label)
}

#[test]
fn a_pod_that_returns_500_is_ejected_until_it_does_not() {
    let sim = Sim::start(4, &Settings::default()).unwrap();
    let mut setup = Setup::new(&sim.addresses(), &config("avoidFirst: 300ms"));
    setup.workers = 2;
    let proxy = setup.start();
    let faults = Faults {
        status: Some(500),
        ..Faults::default()
    };
    sim.pod(0).set_faults(faults);
    let mut failed = 0;
    for _ in 0..400 {
        failed += usize::from(complete(proxy.port, "m", "x").status != 200);
        std::thread::sleep(Duration::from_millis(5));
    }
    // Without ejection a quarter would have failed. Some did before the pod was ejected, and each probe
    // request does.
    assert!(failed < 40, "{failed}");
    proxy.wait_until("it is ejected", || ejected(&proxy, "errors") == 1);
    assert!(proxy.counted("epp_wasm_ejections_total") >= 1);
    sim.pod(0).set_faults(Faults::default());
    proxy.wait_until("it is back", || {
        share(&sim, 0, || {
            assert_eq!(complete(proxy.port, "m", "x").status, 200)
        }) > 3
    });
    proxy.wait_until("the statistic is there", || ejected(&proxy, "errors") == 0);
}

#[test]
fn a_pod_that_refuses_is_ejected_and_no_request_fails() {
    let mut sim = Sim::start(3, &Settings::default()).unwrap();
    let config = config("avoidFirst: 300ms, avoidMost: 2s");
    let mut setup = Setup::new(&sim.addresses(), &config);
    setup.status_page = true;
    let proxy = setup.start();
    sim.stop(1);
    let request = || assert_eq!(complete(proxy.port, "m", "x").status, 200);
    proxy.wait_until("it is ejected", || {
        request();
        ejected(&proxy, "unserved") == 1
    });
    wait_for_statistics(&proxy);
    let elsewhere = proxy.counted("epp_wasm_served_elsewhere_total");
    (0..40).for_each(|_| request());
    wait_for_statistics(&proxy);
    let more = proxy.counted("epp_wasm_served_elsewhere_total") - elsewhere;
    // Without ejection a third of them would have. Some are probe requests.
    assert!(more < 10, "{more} of 40 went there all the same");
    sim.restart(1).unwrap();
    proxy.wait_until("it is back", || share(&sim, 1, request) > 3);
}

#[test]
fn a_pod_that_hangs_is_ejected_once_neither_page_nor_response_comes() {
    let sim = Sim::start(2, &Settings::default()).unwrap();
    let plugins = "{type: queue-scorer}, {type: random-picker}, {type: envoy-proxy, parameters: {avoidFirst: 300ms, correctQueue: false}}, {type: metrics-data-source, parameters: {stalenessThreshold: 500ms}}";
    let references = "{pluginRef: random-picker}, {pluginRef: queue-scorer}";
    let proxy = Setup::new(&sim.addresses(), &document(plugins, references)).start();
    let faults = Faults {
        hang: true,
        metrics: fake_model_server::Metrics::Hang,
        ..Faults::default()
    };
    sim.pod(0).set_faults(faults);
    let port = proxy.port;
    // Some of these get stuck.
    let clients: Vec<_> = (0..8)
        .map(|_| {
            std::thread::spawn(move || {
                let body = json!({"model": "m", "prompt": "x"}).to_string();
                let headers = [("content-type", "application/json")];
                let _ =
                    crate::client::send(port, "POST", "/v1/completions", &headers, body.as_bytes());
            })
        })
        .collect();
    proxy.wait_until("it is ejected", || ejected(&proxy, "hung") == 1);
    for _ in 0..20 {
        assert_eq!(complete(port, "m", "x").status, 200);
    }
    sim.pod(0).set_faults(Faults::default());
    proxy.wait_until("it is back", || {
        share(&sim, 0, || assert_eq!(complete(port, "m", "x").status, 200)) > 3
    });
    drop(clients);
}

/// A plan whose endpoints are polled, with random picks.
fn polled(parameters: &str) -> String {
    let plugins = format!(
        "{{type: queue-scorer}}, {{type: random-picker}}, {{type: envoy-proxy, parameters: {{{parameters}}}}}"
    );
    let references = "{pluginRef: random-picker}, {pluginRef: queue-scorer, weight: 0}";
    document(&plugins, references)
}

#[test]
fn a_pod_whose_engine_hangs_is_ejected_while_its_metrics_page_answers() {
    let sim = Sim::start(3, &Settings::default()).unwrap();
    let mut setup = Setup::new(&sim.addresses(), &polled("avoidFirst: 300ms"));
    setup.workers = 2;
    let proxy = setup.start();
    let port = proxy.port;
    let request = || assert_eq!(complete(port, "m", "x").status, 200);
    // Each page shows that work is done, and each worker knows each pod: one without a history gets 15 s, which is
    // longer than a client of this test waits.
    for _ in 0..200 {
        request();
        std::thread::sleep(Duration::from_millis(10));
    }
    sim.pod(0).set_faults(Faults {
        hang: true,
        ..Faults::default()
    });
    // Those that the pod gets are stuck until it works again.
    let mut clients = Vec::new();
    proxy.wait_until("it is ejected", || {
        clients.extend((0..5).map(|_| std::thread::spawn(move || complete(port, "m", "x").status)));
        ejected(&proxy, "hung") == 1
    });
    assert_eq!(share(&sim, 0, request), 0);
    sim.pod(0).set_faults(Faults::default());
    for client in clients {
        assert_eq!(client.join().unwrap(), 200);
    }
    proxy.wait_until("it is back", || share(&sim, 0, request) > 3);
}

#[test]
fn a_pod_whose_503_envoy_retries_is_overloaded() {
    let sim = Sim::start(3, &Settings::default()).unwrap();
    let mut setup = Setup::new(&sim.addresses(), &polled("avoidFirst: 300ms"));
    setup.route = json!({"retry_policy": {"retry_on": "reset,retriable-status-codes", "retriable_status_codes": [503], "num_retries": 3}});
    let proxy = setup.start();
    sim.pod(0).set_faults(Faults {
        status: Some(503),
        ..Faults::default()
    });
    proxy.wait_until("it is ejected", || {
        assert_eq!(complete(proxy.port, "m", "x").status, 200);
        std::thread::sleep(Duration::from_millis(20));
        ejected(&proxy, "overloaded") == 1
    });
}

#[test]
fn no_pod_is_ejected_where_all_fail() {
    let sim = Sim::start(3, &Settings::default()).unwrap();
    let proxy = Setup::new(&sim.addresses(), &config("avoidFirst: 300ms")).start();
    for pod in sim.pods() {
        pod.set_faults(Faults {
            status: Some(500),
            ..Faults::default()
        });
    }
    for _ in 0..60 {
        assert_eq!(complete(proxy.port, "m", "x").status, 500);
    }
    assert!(proxy.counted("epp_wasm_ejections_total") <= 1);
    for pod in 0..3 {
        let request = || {
            complete(proxy.port, "m", "x");
        };
        // The pod that failed first is ejected for 300 ms, until its peers have failed as well.
        proxy.wait_until("it has its share", || share(&sim, pod, request) > 0);
    }
}

#[test]
fn without_outlier_detection_every_pod_keeps_its_share() {
    let sim = Sim::start(2, &Settings::default()).unwrap();
    let proxy = Setup::new(&sim.addresses(), &config("avoidFailing: false")).start();
    sim.pod(0).set_faults(Faults {
        status: Some(500),
        ..Faults::default()
    });
    let mut failed = 0;
    for _ in 0..60 {
        failed += u32::from(complete(proxy.port, "m", "x").status == 500);
    }
    assert!(failed > 15, "{failed}");
    assert_eq!(proxy.counted("epp_wasm_ejections_total"), 0);
}

/// The effect of an attack on good requests.
#[derive(Debug)]
struct Attacked {
    /// Good requests by pod.
    good: Vec<usize>,
    /// Ejected pods, summed over all samples.
    ejected: usize,
    /// Pods looked at, summed over all samples: four each.
    sampled: usize,
}

/// Four pods that reject prompts with "boom" in them with this status, behind an Envoy that prefers
/// the pod that has seen a prompt before.
fn breakable(status: u16, workers: usize) -> (Sim, Proxy) {
    let sim = Sim::start(4, &Settings::default()).unwrap();
    for pod in sim.pods() {
        pod.set_faults(Faults {
            status: Some(status),
            only: Some("boom".to_owned()),
            ..Faults::default()
        });
    }
    let scorers = [
        ("prefix-cache-scorer", 3),
        ("queue-scorer", 2),
        ("kv-cache-utilization-scorer", 2),
    ];
    let plugins = scorers.map(|(kind, _)| format!("{{type: {kind}}}"));
    let references =
        scorers.map(|(kind, weight)| format!("{{pluginRef: {kind}, weight: {weight}}}"));
    let config = document(&plugins.join(", "), &references.join(", "));
    let mut setup = Setup::new(&sim.addresses(), &config);
    setup.workers = workers;
    let proxy = setup.start();
    (sim, proxy)
}

/// Sends good requests for ten seconds, each with a prompt of its own, beside two clients whose prompts all
/// four pods reject with this status.
fn attacked(status: u16, workers: usize, prompt: impl Fn(u64) -> String + Sync) -> Attacked {
    let (sim, proxy) = breakable(status, workers);
    let (port, done, number) = (proxy.port, AtomicBool::new(false), AtomicU64::new(0));
    let next = || number.fetch_add(1, Ordering::Relaxed);
    let mut seen = Attacked {
        good: Vec::new(),
        ejected: 0,
        sampled: 0,
    };
    let ask = |prompt: &str, kind: &str| {
        let body = json!({"model": "m", "prompt": prompt, "max_tokens": 1});
        post(port, "/v1/completions", &body, &[("x-kind", kind)]).status
    };
    let good = || {
        let unlike = format!("{} is how this begins. ", next()).repeat(50);
        assert_eq!(ask(&unlike, "good"), 200);
    };
    // Some come before.
    (0..40).for_each(|_| good());
    sim.pods().for_each(|pod| pod.forget());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    assert_eq!(ask(&prompt(next()), "bad"), status);
                    std::thread::sleep(Duration::from_millis(10));
                }
            });
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    good();
                    std::thread::sleep(Duration::from_millis(30));
                }
            });
        }
        // Ten seconds, or longer where a sample takes its time: the verdict is on the share of samples.
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(500));
            seen.sampled += 4;
            seen.ejected += proxy.counted("epp_wasm_endpoint_ejected") as usize;
        }
        done.store(true, Ordering::Relaxed);
    });
    let good = |pod: &fake_model_server::Pod| {
        let seen = pod.seen();
        let good = seen
            .iter()
            .filter(|seen| seen.header("x-kind") == Some("good"));
        good.count()
    };
    seen.good = sim.pods().map(|pod| good(pod)).collect();
    seen
}

fn holds(seen: &Attacked) {
    let all: usize = seen.good.iter().sum();
    assert!(all >= 40, "too few to judge: {seen:?}");
    let fair = all / 4;
    assert!(seen.good.iter().all(|own| own * 2 >= fair), "{seen:?}");
    assert!(seen.ejected * 10 <= seen.sampled, "{seen:?}");
}

#[test]
fn a_prompt_that_makes_all_pods_fail_ejects_none() {
    let shared = "the prompt that breaks them. ".repeat(70);
    for status in [500, 503] {
        holds(&attacked(status, 1, |_| format!("{shared} boom")));
    }
    holds(&attacked(500, 2, |number| {
        format!("{shared} {number} boom")
    }));
}

#[test]
fn unlike_prompts_that_make_all_pods_fail_eject_none() {
    let unlike = |number: u64| format!("{number} boom. ").repeat(150);
    holds(&attacked(500, 1, unlike));
    holds(&attacked(500, 2, unlike));
}

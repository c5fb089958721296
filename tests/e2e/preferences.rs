//! Scorers' preferences among endpoints.

use std::time::{Duration, Instant};

use fake_model_server::{Pinned, Settings, Sim};

use crate::client::{complete, explain};
use crate::proxy::Setup;
use crate::ticks::{wait_until_shared, wait_until_vms_share};
use crate::{document, explained, scorer, start};
use envoy_harness::wait_until;

/// Long enough for some prefix blocks of 64 bytes.
fn prompt(topic: &str) -> String {
    format!(
        "{topic}: {}",
        "tell me more of it, in many words and with examples. ".repeat(10)
    )
}

#[test]
fn a_prompt_goes_where_it_went_before_but_not_for_another_model() {
    let sim = Sim::start(4, &Settings::default()).unwrap();
    let proxy = start(&sim, &explained("prefix-cache-scorer"));
    for topic in ["trains", "tides", "trees"] {
        let first = complete(proxy.port, "m", &prompt(topic)).pod().to_owned();
        for _ in 0..5 {
            assert_eq!(
                complete(proxy.port, "m", &prompt(topic)).pod(),
                first,
                "{topic}"
            );
        }
        let longer = explain(proxy.port, "m", &(prompt(topic) + "And then?"));
        assert_eq!(longer.pod(), first);
        assert!(longer.scores()[0] > 0.5, "most of it was seen there");
        let other = explain(proxy.port, "other", &prompt(topic));
        assert_eq!(other.scores(), [0.0; 4]);
    }
}

/// Waits until requests go to this pod, once the pods' metrics have been scraped. Fourteen in a row
/// are not chance.
pub fn settles_on(port: u16, pod: &str) {
    wait_until(&format!("requests go to {pod}"), || {
        (0..14).all(|number| complete(port, "sql", &format!("{number}")).pod() == pod)
    });
}

#[test]
fn the_shortest_queue_is_preferred_as_queues_change() {
    let sim = Sim::start(3, &Settings::default()).unwrap();
    let queue = |lengths: [usize; 3]| {
        for (number, waiting) in lengths.into_iter().enumerate() {
            sim.pod(number).pin(Pinned {
                waiting: Some(waiting),
                ..Pinned::default()
            });
        }
    };
    queue([40, 0, 40]);
    let proxy = start(&sim, &scorer("queue-scorer"));
    settles_on(proxy.port, "pod-2");
    queue([40, 50, 0]);
    settles_on(proxy.port, "pod-3");
}

#[test]
fn the_fewest_running_requests_are_preferred() {
    let sim = Sim::start(2, &Settings::default()).unwrap();
    sim.pod(0).pin(Pinned {
        running: Some(9),
        ..Pinned::default()
    });
    sim.pod(1).pin(Pinned {
        running: Some(3),
        ..Pinned::default()
    });
    let proxy = start(&sim, &scorer("running-requests-size-scorer"));
    settles_on(proxy.port, "pod-2");
}

#[test]
fn the_emptiest_kv_cache_is_preferred_as_caches_fill() {
    let sim = Sim::start(2, &Settings::default()).unwrap();
    let usage = |shares: [f64; 2]| {
        for (number, usage) in shares.into_iter().enumerate() {
            sim.pod(number).pin(Pinned {
                kv_usage: Some(usage),
                ..Pinned::default()
            });
        }
    };
    usage([0.9, 0.1]);
    let proxy = start(&sim, &scorer("kv-cache-utilization-scorer"));
    settles_on(proxy.port, "pod-2");
    usage([0.2, 0.8]);
    settles_on(proxy.port, "pod-1");
}

#[test]
fn endpoints_with_the_lora_adapter_come_first_then_those_with_room_for_it() {
    let sim = Sim::start(3, &Settings::default()).unwrap();
    let adapters = |number: usize, active: &[&str], max: usize| {
        let active = active.iter().map(|name| (*name).to_owned()).collect();
        sim.pod(number).pin(Pinned {
            active: Some(active),
            max_lora: Some(max),
            ..Pinned::default()
        });
    };
    adapters(0, &["chat"], 1);
    adapters(1, &["chat", "sql"], 2);
    adapters(2, &["chat"], 4);
    let proxy = start(&sim, &scorer("lora-affinity-scorer"));
    settles_on(proxy.port, "pod-2");
    adapters(1, &["chat", "law"], 2);
    settles_on(proxy.port, "pod-3");
}

#[test]
fn a_list_of_picks_is_the_order_of_retries_and_no_pod_sees_it() {
    let sim = Sim::start(3, &Settings::default()).unwrap();
    for (number, waiting) in [10, 0, 5].into_iter().enumerate() {
        sim.pod(number).pin(Pinned {
            waiting: Some(waiting),
            ..Pinned::default()
        });
    }
    let plugins =
        "{type: queue-scorer}, {type: max-score-picker, parameters: {maxNumOfEndpoints: 2}}, \
                   {type: envoy-proxy, parameters: {fallbackEndpoints: 0, correctQueue: false}}";
    let proxy = start(
        &sim,
        &document(
            plugins,
            "{pluginRef: queue-scorer}, {pluginRef: max-score-picker}",
        ),
    );
    settles_on(proxy.port, "pod-2");
    sim.pod(1).set_faults(fake_model_server::Faults {
        status: Some(503),
        ..Default::default()
    });
    for _ in 0..5 {
        let response = complete(proxy.port, "m", "hello");
        assert_eq!((response.status, response.pod()), (200, "pod-3"));
    }
    for pod in sim.pods() {
        for seen in pod.seen() {
            assert_eq!(seen.header("x-gateway-destination-endpoint"), None);
        }
    }
}

#[test]
fn four_workers_share_placements_and_poll_as_one() {
    let sim = Sim::start(4, &Settings::default()).unwrap();
    let mut setup = Setup::new(&sim.addresses(), &scorer("prefix-cache-scorer"));
    setup.workers = 4;
    setup.configs = vec![document(
        "{type: prefix-cache-scorer}, {type: queue-scorer}, \
         {type: metrics-data-source, parameters: {maxInterval: 200ms}}",
        "{pluginRef: prefix-cache-scorer, weight: 100}, {pluginRef: queue-scorer}",
    )];
    setup.status_page = true;
    let proxy = setup.start();
    wait_until_vms_share(&proxy, 5);
    // Every request comes over a connection of its own, and so to any of the workers.
    let pod = || {
        complete(proxy.port, "m", &prompt("rivers"))
            .pod()
            .to_owned()
    };
    let first = pod();
    wait_until_shared(&proxy);
    (0..24).for_each(|_| assert_eq!(pod(), first));
    // One poll per pod and 200 ms, not five (four workers and the main thread). Ten polls of each pod are
    // nine intervals; the first and the last poll may have been on their way for some time.
    let polls = || sim.pods().map(|pod| pod.scrapes()).sum::<usize>();
    let (since, before) = (Instant::now(), polls());
    proxy.wait_until("each pod was polled ten times", || polls() >= before + 40);
    let took = since.elapsed();
    assert!(took >= Duration::from_millis(8 * 200), "{took:?}");
}

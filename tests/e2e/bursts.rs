//! Conversations whose turns follow each other at once: what keeps each at one pod, and what does not.
//! docs/workers.md has the numbers.

use std::collections::BTreeSet;
use std::thread::scope;

use fake_model_server::{Settings, Sim};

use crate::client::complete;
use crate::document;
use crate::proxy::{Proxy, Setup};
use crate::ticks::{wait_until_shared, wait_until_vms_share};

/// Starts an Envoy with the Endpoint Picker's default plan.
fn proxy(sim: &Sim, workers: usize, share: bool) -> Proxy {
    let envoy = format!("{{type: envoy-proxy, parameters: {{shareState: {share}}}}}");
    let plugins =
        "{type: queue-scorer}, {type: kv-cache-utilization-scorer}, {type: prefix-cache-scorer}";
    let references = "{pluginRef: queue-scorer, weight: 2}, {pluginRef: kv-cache-utilization-scorer, weight: 2}, {pluginRef: prefix-cache-scorer, weight: 3}";
    let config = document(&format!("{plugins}, {envoy}"), references);
    let mut setup = Setup::new(&sim.addresses(), &config);
    setup.workers = workers;
    setup.status_page = true;
    let proxy = setup.start();
    wait_until_vms_share(&proxy, workers + 1);
    proxy
}

/// The pods that serve the turns of a conversation, each of which begins with all before it. With `pauses`
/// a turn comes once all workers know the turns before it.
fn turns(proxy: &Proxy, chat: usize, pauses: bool) -> BTreeSet<String> {
    let mut prompt = format!("{chat}: {}", "what this is about, at length. ".repeat(40));
    let mut turn = |number: usize| {
        prompt.push_str(&format!("{number}: {}", "and what was said. ".repeat(15)));
        let pod = complete(proxy.port, "m", &prompt).pod().to_owned();
        if pauses {
            wait_until_shared(proxy);
        }
        pod
    };
    (0..12).map(&mut turn).collect()
}

/// Returns how many of eight simultaneous conversations stay at one pod.
fn stay(proxy: &Proxy, pauses: bool) -> usize {
    scope(|scope| {
        let chats = (0..8).map(|chat| scope.spawn(move || turns(proxy, chat, pauses)));
        let chats: Vec<_> = chats.collect();
        let pods = chats.into_iter().map(|chat| chat.join().unwrap());
        pods.filter(|pods| pods.len() == 1).count()
    })
}

#[test]
fn one_worker_keeps_the_turns_of_a_burst_together() {
    let sim = Sim::start(4, &Settings::default()).unwrap();
    assert_eq!(stay(&proxy(&sim, 1, true), false), 8);
}

#[test]
fn two_workers_keep_turns_together_once_each_has_what_the_other_placed() {
    let stayed = |share| {
        let sim = Sim::start(4, &Settings::default()).unwrap();
        stay(&proxy(&sim, 2, share), true)
    };
    assert_eq!(stayed(true), 8);
    // Eight conversations without sharing stay by chance once in 4^8 at most.
    assert_ne!(stayed(false), 8);
}

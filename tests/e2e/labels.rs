//! Names that clients invent do not fill Envoy with statistics.

use envoy_harness::statistics::samples;
use fake_model_server::{Faults, Settings, Sim};
use serde_json::json;

use crate::client::{agent, send, send_by};
use crate::proxy::{Proxy, Setup};
use crate::scorer;
use crate::ticks::wait_for_statistics;

fn ask(port: u16, model: &str) -> u16 {
    asker(port)(model)
}

/// Requests models over one connection: ten thousand connections would use up the machine's ports.
fn asker(port: u16) -> impl Fn(&str) -> u16 {
    let agent = agent();
    move |model| {
        let body = json!({"model": model, "prompt": "hello", "max_tokens": 1}).to_string();
        let headers = [("content-type", "application/json")];
        let (path, body) = ("/v1/completions", body.as_bytes());
        let response = send_by(&agent, port, "POST", path, &headers, body);
        response.unwrap().status
    }
}

fn start(sim: &Sim) -> Proxy {
    let mut setup = Setup::new(&sim.addresses(), &scorer("prefix-cache-scorer"));
    setup.workers = 2;
    setup.status_page = true;
    let proxy = setup.start();
    // Each pod gets some.
    for _ in 0..200 {
        assert_eq!(ask(proxy.port, "demo"), 200);
    }
    wait_for_statistics(&proxy);
    assert!(is_counted(&proxy, "demo"));
    proxy
}

fn is_counted(proxy: &Proxy, model: &str) -> bool {
    let label = format!("model_name=\"{model}\"");
    proxy.prometheus().contains(&label)
}

/// Returns the number of lines that this many invented names add to the metrics page.
fn growth(proxy: &Proxy, names: usize, name: impl Fn(usize) -> String + Sync) -> usize {
    let before = proxy.prometheus().len();
    let port = proxy.port;
    std::thread::scope(|scope| {
        for part in 0..8 {
            let name = &name;
            scope.spawn(move || {
                let ask = asker(port);
                for number in (part..names).step_by(8) {
                    ask(&name(number));
                }
            });
        }
    });
    wait_for_statistics(proxy);
    let after = proxy.prometheus().len();
    println!("{names} names: {before} to {after} bytes");
    after.saturating_sub(before)
}

fn long(number: usize) -> String {
    format!("{number:x>4096}")
}

#[test]
fn names_that_no_server_knows_are_counted_together() {
    let sim = Sim::start(4, &Settings::default()).unwrap();
    for pod in sim.pods() {
        pod.set_faults(Faults {
            strict: true,
            ..Faults::default()
        });
    }
    let proxy = start(&sim);
    assert_eq!(ask(proxy.port, "invented"), 404);
    assert!(growth(&proxy, 10_000, long) < 100_000);
    assert!(growth(&proxy, 2_000, |number| format!("invented-{number}")) < 100_000);
    assert!(is_counted(&proxy, "other") && !proxy.prometheus().contains("invented"));
    // A real one that comes now has its place.
    sim.pods().for_each(|pod| pod.set_faults(Faults::default()));
    (0..20).for_each(|_| assert_eq!(ask(proxy.port, "real"), 200));
    proxy.wait_until("the statistic is there", || is_counted(&proxy, "real"));
}

#[test]
fn names_that_servers_take_are_bounded() {
    // The bound does not grow with the pool.
    let sim = Sim::start(16, &Settings::default()).unwrap();
    let proxy = start(&sim);
    assert!(growth(&proxy, 10_000, long) < 100_000);
    // Names of an ordinary length: 64 for all workers together; further ones are counted as "other".
    growth(&proxy, 2_000, |number| format!("invented-{number}"));
    let page = proxy.prometheus();
    let models = page.lines().filter_map(|line| {
        let (_, after) = line.split_once("model_name=\"")?;
        after.split('"').next()
    });
    let models: std::collections::BTreeSet<&str> = models.collect();
    assert!(models.contains("demo") && models.contains("other"));
    assert!(models.len() <= 66, "{models:?}");
}

/// Clusters of Envoy, more than a worker counts apart.
const CLUSTERS: usize = 12;

#[test]
fn clusters_that_clients_name_are_bounded() {
    let sim = Sim::start(1, &Settings::default()).unwrap();
    let mut setup = Setup::new(&sim.addresses(), &scorer("queue-scorer"));
    setup.workers = 2;
    // A route that has its clients say where it leads.
    setup.route = json!({"cluster": null, "cluster_header": "x-cluster"});
    let clusters = (0..CLUSTERS).map(|number| (format!("cluster-{number}"), sim.addresses()));
    setup.others = clusters.collect();
    let proxy = setup.launch();
    let ask = |cluster: &str| {
        let headers = [("x-cluster", cluster)];
        send(proxy.port, "GET", "/v1/models", &headers, b"").map(|response| response.status)
    };
    proxy.wait_until("the pool responds", || {
        ask("inference-pool").is_ok_and(|status| status == 200)
    });
    for number in 0..200 {
        assert_eq!(ask(&format!("invented-{number}")).unwrap(), 503);
        assert_eq!(ask(&long(number)).unwrap(), 503);
    }
    let rounds = 10;
    for _ in 0..rounds {
        for number in 0..CLUSTERS {
            assert_eq!(ask(&format!("cluster-{number}")).unwrap(), 200);
        }
    }
    let counted = || proxy.counted("epp_wasm_left_alone_total");
    proxy.wait_until("all are counted", || counted() >= rounds * CLUSTERS as u64);
    // Those that Envoy does not have are no cluster's.
    assert_eq!(counted(), rounds * CLUSTERS as u64);
    let page = proxy.prometheus();
    let series: Vec<_> = samples(&page, "epp_wasm_left_alone_total").collect();
    assert!(
        series
            .iter()
            .any(|(labels, _)| labels.contains("\"other\"")),
        "{series:?}"
    );
}

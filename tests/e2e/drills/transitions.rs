//! States that come and go while Envoy runs. Each is told once when it comes and once when it is over.

use epp_core::findings::Finding;
use fake_model_server::{Faults, Metrics, Settings, Sim};

use super::{is_over, is_told, open, pool};
use crate::client::get;
use crate::proxy::{Proxy, Setup};

const SHORT: &str = "{type: metrics-data-source, parameters: {stalenessThreshold: 500ms}}, \
                     {type: envoy-proxy, parameters: {avoidFirst: 300ms, avoidMost: 1s}},";

#[test]
fn what_comes_and_goes_is_told_once_each_way() {
    let start = || Sim::start(2, &Settings::default()).unwrap();
    let (emptied, silent, mut refusing) = (start(), start(), start());
    let mut setup = Setup::new(&emptied.addresses(), &pool("inference-pool", "", SHORT));
    for (name, sim) in [("silent", &silent), ("refusing", &refusing)] {
        setup.configs.push(pool(name, "", SHORT));
        setup.others.push((name.to_owned(), sim.addresses()));
    }
    setup.status_page = true;
    let mut proxy = setup.start();
    let addresses = |sim: &Sim| [0, 1].map(|pod| sim.addresses()[pod].to_string());
    let send = |proxy: &Proxy| {
        for name in ["silent", "refusing"] {
            let _ = get(proxy.port, &format!("/{name}/v1/models"));
        }
    };

    proxy.set_pods(&[]);
    let fault = |metrics| Faults {
        metrics,
        ..Faults::default()
    };
    silent
        .pods()
        .for_each(|pod| pod.set_faults(fault(Metrics::Error)));
    refusing.stop(1);
    proxy.wait_until("the pod that refuses is ejected", || {
        send(&proxy);
        open(&proxy, "refusing", Finding::EndpointsEjected) == Some(1)
    });
    is_told(
        &proxy,
        "inference-pool",
        Finding::PoolEmpty,
        "cluster inference-pool",
    );
    what_came_is_told(&proxy, addresses(&silent), addresses(&refusing));

    proxy.set_pods(&emptied.addresses());
    silent
        .pods()
        .for_each(|pod| pod.set_faults(fault(Metrics::Fine)));
    refusing.restart(1).unwrap();
    proxy.wait_until("the pod is back", || {
        send(&proxy);
        open(&proxy, "refusing", Finding::EndpointsEjected) == Some(0)
    });
    what_came_is_over(&proxy);
}

/// Checks what is told of the pods that lost their pages, and of the pool one of whose pods refuses.
fn what_came_is_told(proxy: &Proxy, silent: [String; 2], refusing: [String; 2]) {
    let [first, second] = silent;
    for detail in ["2 of 2 endpoints: ", &format!("{first} (status 500)")] {
        is_told(proxy, "silent", Finding::PollsFail, detail);
    }
    for detail in ["2 of 2 endpoints: ", &second] {
        is_told(proxy, "silent", Finding::MetricsStale, detail);
    }
    is_told(
        proxy,
        "silent",
        Finding::OwnCounts,
        "0 of 2 endpoints have fresh metrics",
    );
    let [_, stopped] = refusing;
    let ejected = format!("1 of 2 endpoints: {stopped} (unserved)");
    is_told(proxy, "refusing", Finding::EndpointsEjected, &ejected);
}

fn what_came_is_over(proxy: &Proxy) {
    is_over(proxy, "refusing", Finding::EndpointsEjected);
    is_over(proxy, "inference-pool", Finding::PoolEmpty);
    for finding in [
        Finding::PollsFail,
        Finding::MetricsStale,
        Finding::OwnCounts,
    ] {
        is_over(proxy, "silent", finding);
    }
}

//! States that come and go while Envoy runs. Each is told once when it comes and once when it is over.

use epp_core::findings::Finding;
use fake_model_server::{Faults, Metrics, Settings, Sim};

use super::{is_over, is_told, open, pool, section};
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
    configurations_are_told(&mut proxy);
}

/// Sends another configuration, and one that is refused.
fn configurations_are_told(proxy: &mut Proxy) {
    let former = section(proxy, "inference-pool");
    let digest = |page: &str| {
        let (_, rest) = page.split_once(", configuration <code>").unwrap();
        rest.split('<').next().unwrap().to_owned()
    };
    let config = pool("inference-pool", "", SHORT);
    proxy.set_config(&config.replace(
        "{pluginRef: queue-scorer}",
        "{pluginRef: queue-scorer, weight: 3}",
    ));
    let line = "pool inference-pool: another configuration was accepted: queue-scorer in default: weight 1 → 3";
    proxy.wait_until("what has changed is logged", || {
        proxy.logged().contains(line)
    });
    proxy.wait_until("the page has the configuration", || {
        let page = section(proxy, "inference-pool");
        page.contains("queue-scorer × 3") && digest(&page) != digest(&former)
    });
    assert_eq!(proxy.logged().matches(line).count(), 1);
    let accepted = digest(&section(proxy, "inference-pool"));
    proxy.set_config(&config.replace("queue-scorer", "queue-socrer"));
    proxy.wait_until("the configuration is refused", || {
        proxy.counted("epp_wasm_rejected_configurations_total") == 1
    });
    let log = proxy.logged();
    for part in [
        "did you mean queue-scorer?",
        "EndpointPickerConfig refused: if another one is in force, it stays in force",
    ] {
        assert!(log.contains(part), "no {part}");
    }
    assert_eq!(digest(&section(proxy, "inference-pool")), accepted);
}

/// Checks what is told of the pods that lost their pages, and of the pool one of whose pods refuses.
fn what_came_is_told(proxy: &Proxy, silent: [String; 2], refusing: [String; 2]) {
    let [first, second] = silent;
    for detail in ["2 of 2 endpoints: ", &format!("{first} (status 500)")] {
        is_told(proxy, "silent", Finding::PollsFail, detail);
    }
    let both = format!("{second} (status 500)");
    is_told(proxy, "silent", Finding::PollsFail, &both);
    // One cause.
    assert_eq!(open(proxy, "silent", Finding::MetricsStale), None);
    assert_eq!(open(proxy, "refusing", Finding::MetricsStale), None);
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
    for finding in [Finding::PollsFail, Finding::OwnCounts] {
        is_over(proxy, "silent", finding);
    }
}

//! Decisions on headers alone, because Envoy does not deliver bodies before it routes
//! (`allow_on_headers_stop_iteration` is not set), or because the filter is configured not to wait for them.

use std::thread::sleep;
use std::time::{Duration, Instant};

use fake_model_server::{Pinned, Settings, Sim};

use crate::client::{complete, get};
use crate::document;
use crate::preferences::settles_on;
use crate::proxy::{Proxy, Setup};
use crate::stream::Connection;
use crate::ticks::wait_for_statistics;
use crate::uploads::{
    arrives_whole, begin, completion, Model, FIRST_PART_BYTES, UPLOAD_BYTES, WAYS,
};
use crate::witness::{RespondWhen, Witness};

/// A document with prefix and queue scorers, which read bodies, and settings of the proxy.
fn config(settings: &str) -> String {
    document(
        &format!(
            "{{type: prefix-cache-scorer}}, {{type: queue-scorer}}, \
             {{type: envoy-proxy, parameters: {{{settings}}}}}"
        ),
        "{pluginRef: prefix-cache-scorer}, {pluginRef: queue-scorer}",
    )
}

/// Two pods, the second of which is the idle one.
fn pods() -> Sim {
    let sim = Sim::start(2, &Settings::default()).unwrap();
    sim.pod(0).pin(Pinned {
        waiting: Some(50),
        ..Pinned::default()
    });
    sim
}

/// An Envoy that does not deliver bodies before it routes.
fn without_bodies(sim: &Sim, settings: &str, workers: usize) -> Proxy {
    let mut setup = Setup::new(&sim.addresses(), &config(settings));
    setup.bodies_first = false;
    setup.workers = workers;
    setup.status_page = true;
    setup.start()
}

/// Returns the duration of a request that gets status 200.
fn timed(proxy: &Proxy) -> Duration {
    let since = Instant::now();
    assert_eq!(complete(proxy.port, "m", "x").status, 200);
    since.elapsed()
}

fn shows(proxy: &Proxy, reads: u64) {
    let reads = format!("epp_wasm_reads_bodies{{pool=\"inference-pool\"}} {reads}\n");
    proxy.wait_until("a gauge shows the mode", || {
        proxy.prometheus().contains(&reads)
    });
}

/// Returns how often Envoy's log contains the warning that names the setting.
fn warnings(proxy: &Proxy) -> usize {
    proxy
        .logged()
        .matches("allow_on_headers_stop_iteration")
        .count()
}

#[test]
fn where_bodies_are_not_delivered_only_three_requests_wait_for_them() {
    let sim = pods();
    let proxy = without_bodies(&sim, "", 1);
    let waited = [(); 3].map(|()| timed(&proxy));
    let not = [(); 10].map(|()| timed(&proxy));
    wait_for_statistics(&proxy);
    // At which tick a wait ends is a matter for the filter's own tests, where time does not depend on the machine.
    let waits = proxy.counted("epp_wasm_forced_release_total");
    assert_eq!(waits, 3, "{waited:?}, then {not:?}");
    assert!(
        waited
            .iter()
            .all(|took| *took >= Duration::from_millis(300)),
        "{waited:?}"
    );
    settles_on(proxy.port, "pod-2");
    shows(&proxy, 0);
    assert_eq!(warnings(&proxy), 1, "{}", proxy.logged());
}

#[test]
fn all_threads_report_the_same_body_mode() {
    let sim = pods();
    let proxy = without_bodies(&sim, "", 1);
    settles_on(proxy.port, "pod-2");
    shows(&proxy, 0);
    // Each thread of Envoy, the main thread too, sets its gauges once a second.
    let since = Instant::now();
    while since.elapsed() < Duration::from_millis(2500) {
        assert_eq!(proxy.counted("epp_wasm_reads_bodies"), 0);
    }
}

#[test]
fn all_workers_together_warn_once() {
    let sim = pods();
    let proxy = without_bodies(&sim, "", 2);
    let mut quick = 0;
    // Each request comes over a connection of its own, to either worker.
    proxy.wait_until("no worker waits", || {
        quick = if timed(&proxy) < Duration::from_millis(300) {
            quick + 1
        } else {
            0
        };
        quick == 20
    });
    assert_eq!(warnings(&proxy), 1, "{}", proxy.logged());
}

#[test]
fn a_request_that_waited_in_vain_for_its_body_arrives_whole() {
    let witness = Witness::start(RespondWhen::AtTheEnd);
    let mut setup = Setup::new(&[witness.address], &config(""));
    setup.bodies_first = false;
    let proxy = setup.start();
    let body = completion(Model::First, 5 << 20);
    for way in WAYS {
        let mut connection = Connection::open(proxy.port, way.http);
        let mut upload = begin(&mut connection, way, &body);
        upload.send(&body);
        arrives_whole(upload, &body, way);
    }
    shows(&proxy, 0);
}

#[test]
fn where_bodies_are_delivered_slow_ones_are_waited_for() {
    let witness = Witness::start(RespondWhen::AtTheEnd);
    let proxy = Setup::new(&[witness.address], &config("")).start();
    let body = completion(Model::Last, UPLOAD_BYTES);
    complete(proxy.port, "m", "x");
    for way in WAYS {
        let arrived = witness.arrivals().len();
        let mut connection = Connection::open(proxy.port, way.http);
        let mut upload = begin(&mut connection, way, &body);
        sleep(Duration::from_millis(500));
        assert_eq!(
            witness.arrivals().len(),
            arrived,
            "{way:?}: it waits for its body"
        );
        upload.send(&body);
        arrives_whole(upload, &body, way);
    }
    shows(&proxy, 1);
    assert_eq!(warnings(&proxy), 0);
}

#[test]
fn with_read_body_always_each_request_waits() {
    let sim = pods();
    let proxy = without_bodies(&sim, "readBody: always, bodyTimeout: 450ms", 1);
    for _ in 0..5 {
        let took = timed(&proxy);
        assert!(took >= Duration::from_millis(450), "{took:?}");
    }
    shows(&proxy, 1);
    assert_eq!(warnings(&proxy), 0);
}

#[test]
fn with_read_body_never_no_request_waits_even_where_bodies_are_delivered() {
    let witness = Witness::start(RespondWhen::AtTheEnd);
    let proxy = Setup::new(&[witness.address], &config("readBody: never")).start();
    let body = completion(Model::Last, UPLOAD_BYTES);
    for (number, way) in WAYS.into_iter().enumerate() {
        let mut connection = Connection::open(proxy.port, way.http);
        let mut upload = begin(&mut connection, way, &body);
        upload.send(&body[..FIRST_PART_BYTES]);
        proxy.wait_until("the pod has what was sent", || {
            witness.arrivals().len() == number + 1 && witness.last().bytes == FIRST_PART_BYTES
        });
        upload.send(&body[FIRST_PART_BYTES..]);
        arrives_whole(upload, &body, way);
    }
    assert_eq!(proxy.counted("epp_wasm_forced_release_total"), 0);
    assert_eq!(warnings(&proxy), 0);
}

#[test]
fn with_read_body_never_the_gauge_shows_that_bodies_are_not_read() {
    let sim = pods();
    let proxy = without_bodies(&sim, "readBody: never", 1);
    settles_on(proxy.port, "pod-2");
    assert_eq!(get(proxy.port, "/v1/models").unwrap().status, 200);
    assert_eq!(warnings(&proxy), 0);
    shows(&proxy, 0);
}

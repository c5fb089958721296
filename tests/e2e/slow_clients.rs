//! Clients that open requests and do not send their bodies, or send them in trickling: they cost others
//! neither their affinity nor their places.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use fake_model_server::{Settings, Sim};
use serde_json::json;

use crate::client::complete;
use crate::proxy::{Proxy, Setup};
use crate::scorer;
use crate::stream::{Connection, Http, Upload};
use crate::ticks::{wait_until_shared, wait_until_vms_share};

/// A request of which its headers come, and a part of its body if there is one.
fn half(port: u16, headers: &str, body: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\n{headers}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    stream
}

/// A pool of four in which prompts alone decide.
fn pool(workers: usize) -> (Sim, Proxy) {
    let sim = Sim::start(4, &Settings::default()).unwrap();
    let mut setup = Setup::new(&sim.addresses(), &scorer("prefix-cache-scorer"));
    setup.workers = workers;
    // As in our templates: a released request waits for its body at the pods.
    let most =
        json!({"max_connections": 16384, "max_pending_requests": 16384, "max_requests": 16384});
    setup.cluster = json!({"circuit_breakers": {"thresholds": [most]}});
    setup.status_page = true;
    let proxy = setup.start();
    wait_until_vms_share(&proxy, workers + 1);
    (sim, proxy)
}

/// Eight prompts that are placed go four times more where they went first. Chance would let that
/// pass once in 4^32.
fn have_affinity(proxy: &Proxy) {
    let pod = |number| {
        let long = "much to tell, and at length. ".repeat(20);
        let response = complete(proxy.port, "m", &format!("{number}: {long}"));
        assert_eq!(response.status, 200);
        response.pod().to_owned()
    };
    let pods = || (0..8).map(pod).collect::<Vec<_>>();
    let placed = pods();
    wait_until_shared(proxy);
    (0..4).for_each(|_| assert_eq!(pods(), placed));
}

#[test]
fn requests_without_bodies_do_not_switch_bodies_off() {
    let (_sim, proxy) = pool(2);
    let mut silent = Vec::new();
    for headers in [
        "content-length: 999",
        "transfer-encoding: chunked",
        "content-length: 999\r\nexpect: 100-continue",
    ] {
        silent.extend((0..4).map(|_| half(proxy.port, headers, b"")));
    }
    let mut connection = Connection::open(proxy.port, Http::Two);
    let streams: Vec<Upload> = (0..4)
        .map(|_| connection.post("/v1/completions", &[]))
        .collect();
    let since = Instant::now();
    while since.elapsed() < Duration::from_millis(2_500) {
        assert_eq!(proxy.counted("epp_wasm_reads_bodies"), 1);
        sleep(Duration::from_millis(50));
    }
    have_affinity(&proxy);
    assert!(!proxy
        .logged()
        .contains("does not deliver bodies before routing"));
    drop((silent, streams));
}

/// Bodies that look as if Envoy withheld them, because they come when their requests have waited for 0.3 s, and a
/// tick more.
#[test]
fn bodies_that_arrive_after_a_wait_do_not_switch_bodies_off() {
    let (_sim, proxy) = pool(1);
    // Enough that some fall into each phase of a tick.
    let open = |_| half(proxy.port, "content-length: 999", b"");
    let mut late: Vec<TcpStream> = (0..200).map(open).collect();
    let since = Instant::now();
    let mut first = Duration::from_millis(352);
    for stream in &mut late {
        sleep(first.saturating_sub(since.elapsed()));
        first += Duration::from_micros(400);
        stream.write_all(b"{\"prompt\": \"").unwrap();
    }
    sleep(Duration::from_millis(1_200));
    assert_eq!(proxy.counted("epp_wasm_reads_bodies"), 1);
    have_affinity(&proxy);
}

/// Requests that never get further than a byte every 3.5 s, more of them than a worker holds.
const TRICKLING_CLIENTS: usize = 2_300;

fn chunk() -> &'static [u8] {
    b"1\r\n \r\n"
}

/// Bodies in trickling over connections of their own, until `over`. One that Envoy has closed or sent on
/// makes room for another.
fn drip(port: u16, over: &AtomicBool) {
    let open = || half(port, "transfer-encoding: chunked", chunk());
    let mut trickling: Vec<TcpStream> = (0..TRICKLING_CLIENTS).map(|_| open()).collect();
    let mut since = Instant::now();
    while !over.load(Ordering::Relaxed) {
        sleep(Duration::from_millis(50));
        if since.elapsed() < Duration::from_millis(3_500) {
            continue;
        }
        since = Instant::now();
        for stream in &mut trickling {
            if stream.write_all(chunk()).is_err() {
                *stream = open();
            }
        }
    }
}

#[test]
fn trickling_bodies_do_not_take_the_places_of_others() {
    let (_sim, proxy) = pool(2);
    let over = AtomicBool::new(false);
    scope(|scope| {
        scope.spawn(|| drip(proxy.port, &over));
        let held = || proxy.counted_with("epp_wasm_forced_release_total", "reason=\"held\"");
        let full = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            proxy.wait_until("all places are taken", || held() > 100);
            have_affinity(&proxy);
        }));
        over.store(true, Ordering::Relaxed);
        if let Err(panic) = full {
            std::panic::resume_unwind(panic);
        }
    });
    proxy.wait_until("the gauge of the index is set", || {
        proxy.counted("llm_d_epp_prefix_indexer_size") > 0
    });
    assert_eq!(proxy.counted("epp_wasm_caught_panics_total"), 0);
}

#[test]
fn streams_of_few_connections_do_not_take_the_places_of_others() {
    let (_sim, proxy) = pool(1);
    let mut connections: Vec<Connection> = (0..13)
        .map(|_| Connection::open(proxy.port, Http::Two))
        .collect();
    let mut streams: Vec<Upload> = Vec::new();
    for connection in &mut connections {
        streams.extend((0..90).map(|_| connection.post("/v1/completions", &[])));
    }
    streams.iter_mut().for_each(|stream| {
        stream.send(b" ");
    });
    let held = || proxy.counted_with("epp_wasm_forced_release_total", "reason=\"held\"");
    proxy.wait_until("all places are taken", || held() > 100);
    have_affinity(&proxy);
    assert!(proxy.counted("epp_wasm_held_requests") <= 1_024);
}

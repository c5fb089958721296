//! HTTP beyond plain requests and responses: trailers, early responses, clients that disconnect, `Expect`, and
//! uploads by curl.

use std::io::{stderr, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use fake_model_server::{body_hash, Settings, Sim};

use crate::client::{complete, explain, TIMEOUT};
use crate::proxy::{Proxy, Setup};
use crate::stream::{Connection, Http, Upload};
use crate::uploads::{
    arrives_whole, begin, completion, Model, Way, FIRST_PART_BYTES, UPLOAD_BYTES, WAYS,
};
use crate::witness::{RespondWhen, Witness};
use crate::{document, scorer, start};

/// Starts an Envoy in front of these pods that waits for the model, and counts the requests that it sent to
/// each pod since the pod's last scrape. No further scrape succeeds, so a count that is not taken back stays.
fn counting(witnesses: &[Witness]) -> Proxy {
    let plugins = "{type: queue-scorer}, {type: lora-affinity-scorer}, \
        {type: metrics-data-source, parameters: {stalenessThreshold: 600s}}, \
        {type: core-metrics-extractor}, {type: envoy-proxy, parameters: {explain: true}}";
    let references = "{pluginRef: queue-scorer}, {pluginRef: lora-affinity-scorer}";
    let config = document(plugins, references)
        + "dataLayer: {sources: [{pluginRef: metrics-data-source, extractors: [{pluginRef: core-metrics-extractor}]}]}\n";
    let pods: Vec<_> = witnesses.iter().map(|witness| witness.address).collect();
    let proxy = Setup::new(&pods, &config).start();
    proxy.wait_until("all metrics are known", || {
        proxy.counted("epp_wasm_endpoint_freshness") == 2 * pods.len() as u64
    });
    witnesses.iter().for_each(Witness::hide_metrics);
    // Scrapes that are under way end.
    sleep(Duration::from_millis(300));
    proxy
}

/// Returns whether both pods score the same, which means that neither has a request in flight.
fn balanced(proxy: &Proxy) -> bool {
    let response = explain(proxy.port, "m", "x");
    let scores = response.scores();
    assert_eq!(scores.len(), 2);
    scores[0] == scores[1]
}

fn held(proxy: &Proxy) -> u64 {
    proxy.counted("epp_wasm_held_requests")
}

/// Checks that requests over this connection get responses.
fn serves(connection: &mut Connection, http: Http) {
    let body = completion(Model::First, 10);
    let way = Way { http, length: true };
    let mut upload = begin(connection, way, &body);
    upload.send(&body);
    arrives_whole(upload, &body, way);
}

/// Breaks a request off, and sends another: over HTTP/2 on the same connection.
fn disconnects(proxy: &Proxy, http: Http, mut connection: Connection, upload: Upload) {
    drop(upload);
    if http == Http::One {
        connection = Connection::open(proxy.port, http);
    }
    serves(&mut connection, http);
    proxy.wait_until("nothing is held", || held(proxy) == 0);
    proxy.wait_until("no pod counts as busy with it", || balanced(proxy));
}

#[test]
fn a_client_that_disconnects_before_release_leaves_no_count_behind() {
    let witnesses = [(); 2].map(|()| Witness::start(RespondWhen::AtTheEnd));
    let proxy = counting(&witnesses);
    let body = completion(Model::Last, UPLOAD_BYTES);
    for way in WAYS {
        let mut connection = Connection::open(proxy.port, way.http);
        let mut upload = begin(&mut connection, way, &body);
        upload.send(&body[..FIRST_PART_BYTES]);
        proxy.wait_until("it is held", || held(&proxy) == 1);
        disconnects(&proxy, way.http, connection, upload);
        let arrivals = witnesses.iter().flat_map(Witness::arrivals);
        assert!(
            arrivals
                .into_iter()
                .all(|arrival| arrival.ended == Some(true)),
            "{way:?}"
        );
    }
}

#[test]
fn a_client_that_disconnects_during_a_released_upload_leaves_no_count_behind() {
    let witnesses = [(); 2].map(|()| Witness::start(RespondWhen::AtTheEnd));
    let proxy = counting(&witnesses);
    let body = completion(Model::First, UPLOAD_BYTES);
    for (number, way) in WAYS.into_iter().enumerate() {
        let mut connection = Connection::open(proxy.port, way.http);
        let mut upload = begin(&mut connection, way, &body);
        upload.send(&body[..FIRST_PART_BYTES]);
        let ended = |ended: Option<bool>| {
            let arrivals = witnesses.iter().flat_map(Witness::arrivals);
            arrivals.filter(|arrival| arrival.ended == ended).count()
        };
        proxy.wait_until("a pod has its beginning", || ended(None) == 1);
        assert!(!balanced(&proxy), "{way:?}: the pod that has it is busier");
        disconnects(&proxy, way.http, connection, upload);
        proxy.wait_until("the pod has recorded that it broke off", || {
            ended(Some(false)) == number + 1
        });
    }
}

#[test]
fn a_client_that_disconnects_during_its_response_stops_the_pod() {
    let slow = Settings {
        token_time: Duration::from_millis(20),
        ..Settings::default()
    };
    let sim = Sim::start(1, &slow).unwrap();
    let proxy = start(&sim, &scorer("prefix-cache-scorer"));
    let body = br#"{"model": "m", "prompt": "p", "stream": true, "max_tokens": 1000}"#;
    for way in WAYS {
        let mut connection = Connection::open(proxy.port, way.http);
        let mut upload = begin(&mut connection, way, body);
        upload.send(body);
        upload.end();
        let head = upload.head();
        assert_eq!(head.status(), 200, "{way:?}");
        // A simulated pod sends the headers of a stream before it begins to compute.
        proxy.wait_until("the pod computes", || sim.pod(0).shown().running == 1);
        drop((head, upload, connection));
        proxy.wait_until("the pod stops", || sim.pod(0).shown().running == 0);
        assert_eq!(complete(proxy.port, "m", "x").status, 200);
    }
}

#[test]
fn a_response_before_the_end_of_the_body_reaches_the_client() {
    let witnesses = [(); 2].map(|()| Witness::start(RespondWhen::AtOnce));
    let proxy = counting(&witnesses);
    let body = completion(Model::First, UPLOAD_BYTES);
    for way in WAYS {
        let mut connection = Connection::open(proxy.port, way.http);
        let mut upload = begin(&mut connection, way, &body);
        upload.send(&body[..FIRST_PART_BYTES]);
        assert_eq!(upload.head().status(), 400, "{way:?}");
        proxy.wait_until("no pod counts as busy with it", || balanced(&proxy));
        proxy.wait_until("nothing is held", || held(&proxy) == 0);
    }
}

#[test]
fn trailers_end_a_body_and_arrive() {
    let witness = Witness::start(RespondWhen::AtTheEnd);
    let plugins =
        "{type: prefix-cache-scorer}, {type: envoy-proxy, parameters: {bodyTimeout: 200ms}}";
    let config = document(plugins, "{pluginRef: prefix-cache-scorer}");
    let proxy = Setup::new(&[witness.address], &config).start();
    let long = completion(Model::First, UPLOAD_BYTES);
    // Its JSON never ends: it is held until something else ends it.
    let unending = &completion(Model::Last, FIRST_PART_BYTES)[..FIRST_PART_BYTES];
    let mut expected = 0;
    for http in [Http::One, Http::Two] {
        let way = Way {
            http,
            length: false,
        };
        for (body, pauses) in [(&long[..], false), (unending, false), (unending, true)] {
            let mut connection = Connection::open(proxy.port, http);
            let mut upload = connection.post("/v1/completions", &[("trailer", "x-end")]);
            upload.send(body);
            expected += 1;
            if pauses {
                proxy.wait_until("it is released", || witness.arrivals().len() == expected);
            }
            assert!(upload.trailer("x-end", "of the body"));
            arrives_whole(upload, body, way);
            let trailers = [("x-end".to_owned(), "of the body".to_owned())];
            assert_eq!(witness.last().trailers, trailers, "{way:?} {pauses}");
        }
    }
}

#[test]
fn a_held_stream_does_not_delay_another_of_its_connection() {
    let witness = Witness::start(RespondWhen::AtTheEnd);
    let config = scorer("prefix-cache-scorer");
    let proxy = Setup::new(&[witness.address], &config).start();
    let body = completion(Model::Last, UPLOAD_BYTES);
    let way = Way {
        http: Http::Two,
        length: false,
    };
    let mut connection = Connection::open(proxy.port, way.http);
    let mut upload = begin(&mut connection, way, &body);
    upload.send(&body[..FIRST_PART_BYTES]);
    proxy.wait_until("it is held", || held(&proxy) == 1);
    serves(&mut connection, way.http);
    assert_eq!(witness.arrivals().len(), 1, "the held one is still held");
    upload.send(&body[FIRST_PART_BYTES..]);
    arrives_whole(upload, &body, way);
}

#[test]
fn a_client_that_waits_for_100_continue_gets_it() {
    let sim = Sim::start(1, &Settings::default()).unwrap();
    let proxy = start(&sim, &scorer("prefix-cache-scorer"));
    let body = completion(Model::Last, UPLOAD_BYTES);
    let mut stream = TcpStream::connect(("127.0.0.1", proxy.port)).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    write!(
        stream,
        "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         expect: 100-continue\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .unwrap();
    let mut first = [0; 25];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(&body).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    let hash = format!("x-body-xxh64: {}\r\n", body_hash(&body));
    assert!(response.contains(&hash), "{response}");
}

/// Returns whether `curl` on this machine can do this. Where it cannot, that is printed although the test
/// passes, and with CI=true it fails.
fn curl_can(feature: &str) -> bool {
    let version = Command::new("curl").arg("--version").output();
    let able =
        version.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(feature));
    if !able {
        let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
        assert!(!in_ci, "no curl with {feature} on this machine");
        let _ = writeln!(stderr(), "SKIPPED: no curl with {feature} on this machine");
    }
    able
}

/// Uploads a body through curl's standard input, and returns the response's headers.
fn curl(port: u16, options: &[&str], body: &[u8]) -> String {
    let seconds = TIMEOUT.as_secs().to_string();
    let mut curl = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", &seconds])
        .args(["--request", "POST", "--upload-file", "-"])
        .args(["--header", "content-type: application/json"])
        .args(["--dump-header", "-", "--output", "/dev/null"])
        .args(options)
        .arg(format!("http://127.0.0.1:{port}/v1/completions"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    curl.stdin.take().unwrap().write_all(body).unwrap();
    let output = curl.wait_with_output().unwrap();
    assert!(output.status.success(), "{options:?}: {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn uploads_by_curl_arrive_in_chunks_and_over_http_2() {
    let sim = Sim::start(1, &Settings::default()).unwrap();
    let proxy = start(&sim, &scorer("prefix-cache-scorer"));
    // Longer than curl would wait for a 100 that does not come.
    let patient = [
        "--header",
        "expect: 100-continue",
        "--expect100-timeout",
        "60",
    ];
    for (feature, options) in [
        ("libcurl", &["--http1.1"][..]),
        ("libcurl", &patient),
        ("HTTP2", &["--http2-prior-knowledge"]),
    ] {
        if !curl_can(feature) {
            continue;
        }
        for model in [Model::First, Model::Last] {
            let body = completion(model, 5 << 20);
            let response = curl(proxy.port, options, &body);
            assert!(response.contains(" 200"), "{response}");
            let hash = format!("x-body-xxh64: {}\r\n", body_hash(&body));
            assert!(response.contains(&hash), "{options:?}: {response}");
        }
    }
}

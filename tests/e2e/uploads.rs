//! Uploads that take their time, and long ones: when they leave for a pod, and that they arrive
//! whole.

use std::thread::sleep;
use std::time::Duration;

use fake_model_server::{body_hash, Pinned, Settings, Sim};

use crate::client::send;
use crate::preferences::settles_on;
use crate::proxy::{Proxy, Setup};
use crate::stream::{Connection, Http, Upload};
use crate::witness::{RespondWhen, Witness};
use crate::{document, scorer};

/// The way in which a body is sent.
#[derive(Debug, Clone, Copy)]
pub struct Way {
    /// Over which HTTP.
    pub http: Http,
    /// Whether its length is declared.
    pub length: bool,
}

/// All of them.
pub const WAYS: [Way; 4] = [
    Way {
        http: Http::One,
        length: true,
    },
    Way {
        http: Http::One,
        length: false,
    },
    Way {
        http: Http::Two,
        length: true,
    },
    Way {
        http: Http::Two,
        length: false,
    },
];

/// The position of the model in a body.
#[derive(Debug, Clone, Copy)]
pub enum Model {
    /// Before the prompt.
    First,
    /// After it.
    Last,
}

/// A completion of some size, no part of which is like another.
pub fn completion(model: Model, size: usize) -> Vec<u8> {
    let mut prompt = String::with_capacity(size + 16);
    for number in 0.. {
        prompt += &format!("{number} ");
        if prompt.len() >= size {
            break;
        }
    }
    match model {
        Model::First => format!("{{\"model\": \"m\", \"prompt\": \"{prompt}\"}}"),
        Model::Last => format!("{{\"prompt\": \"{prompt}\", \"model\": \"m\"}}"),
    }
    .into_bytes()
}

/// Bytes of an upload.
pub const UPLOAD_BYTES: usize = 300 << 10;

/// Bytes of its first part: more than the prefix window of 16 KB.
pub const FIRST_PART_BYTES: usize = 40 << 10;

/// Enough for Envoy to see pieces apart, most times.
const PAUSE_BETWEEN_PARTS: Duration = Duration::from_millis(20);

/// Begins to send a body.
pub fn begin(connection: &mut Connection, way: Way, body: &[u8]) -> Upload {
    let length = body.len().to_string();
    let headers = [("content-length", length.as_str())];
    let headers = if way.length { &headers[..] } else { &[] };
    connection.post("/v1/completions", headers)
}

/// Starts an Envoy with these settings in front of one witness. Its plan needs bodies, for their prefixes.
fn before(witness: &Witness, settings: &str) -> Proxy {
    let plugins =
        format!("{{type: prefix-cache-scorer}}, {{type: envoy-proxy, parameters: {{{settings}}}}}");
    Setup::new(
        &[witness.address],
        &document(&plugins, "{pluginRef: prefix-cache-scorer}"),
    )
    .start()
}

/// Ends an upload, which a witness must have got whole.
pub fn arrives_whole(upload: Upload, body: &[u8], way: Way) {
    let response = upload.response();
    assert_eq!(response.status, 200, "{way:?}");
    assert_eq!(
        response.header("x-body-bytes"),
        body.len().to_string(),
        "{way:?}"
    );
    assert_eq!(
        response.header("x-body-xxh64"),
        body_hash(body).to_string(),
        "{way:?}"
    );
}

#[test]
fn a_slow_upload_is_released_once_its_prompt_window_is_read() {
    let witness = Witness::start(RespondWhen::AtTheEnd);
    let proxy = before(&witness, "");
    let body = completion(Model::First, UPLOAD_BYTES);
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
}

#[test]
fn early_releases_are_counted() {
    let witness = Witness::start(RespondWhen::AtTheEnd);
    let proxy = before(&witness, "");
    let body = completion(Model::First, UPLOAD_BYTES);
    for (number, way) in WAYS.into_iter().enumerate() {
        let mut connection = Connection::open(proxy.port, way.http);
        let mut upload = begin(&mut connection, way, &body);
        upload.send(&body[..FIRST_PART_BYTES]);
        proxy.wait_until("it was released", || witness.arrivals().len() == number + 1);
        upload.send(&body[FIRST_PART_BYTES..]);
        arrives_whole(upload, &body, way);
    }
    let early = || proxy.counted("epp_wasm_early_release_total");
    proxy.wait_until("all four are counted", || early() == 4);
}

#[test]
fn a_slow_upload_whose_model_comes_last_waits_for_it() {
    let witness = Witness::start(RespondWhen::AtTheEnd);
    let proxy = before(&witness, "");
    let body = completion(Model::Last, UPLOAD_BYTES);
    for (number, way) in WAYS.into_iter().enumerate() {
        let mut connection = Connection::open(proxy.port, way.http);
        let mut upload = begin(&mut connection, way, &body);
        upload.send(&body[..FIRST_PART_BYTES]);
        let held = || proxy.counted("epp_wasm_held_requests");
        proxy.wait_until("it is held", || held() == 1);
        assert_eq!(witness.arrivals().len(), number, "{way:?}");
        upload.send(&body[FIRST_PART_BYTES..]);
        arrives_whole(upload, &body, way);
        proxy.wait_until("it is held no longer", || held() == 0);
    }
}

#[test]
fn an_upload_that_pauses_is_released_after_the_timeout_and_arrives_whole() {
    let witness = Witness::start(RespondWhen::AtTheEnd);
    let proxy = before(&witness, "bodyTimeout: 200ms");
    let long = completion(Model::Last, UPLOAD_BYTES);
    // Its JSON does not end, or it would leave with its last brace.
    let short = long[..FIRST_PART_BYTES].to_vec();
    let mut released = 0;
    for way in WAYS {
        // In the middle of it, before its first byte, and between its last byte and its end.
        for (body, first) in [(&long, FIRST_PART_BYTES), (&long, 0), (&short, short.len())] {
            if way.length && first == body.len() {
                continue;
            }
            let mut connection = Connection::open(proxy.port, way.http);
            let mut upload = begin(&mut connection, way, body);
            upload.send(&body[..first]);
            released += 1;
            proxy.wait_until("the pod has it", || witness.arrivals().len() == released);
            for piece in body[first..].chunks(100 << 10) {
                upload.send(piece);
                sleep(PAUSE_BETWEEN_PARTS);
            }
            arrives_whole(upload, body, way);
            let forced = || proxy.counted("epp_wasm_forced_release_total");
            proxy.wait_until("it is counted", || forced() == released as u64);
        }
    }
}

#[test]
fn an_upload_that_is_too_long_to_hold_is_decided_with_what_is_known() {
    let witness = Witness::start(RespondWhen::AtTheEnd);
    let proxy = before(&witness, "decideAfterBytes: 131072");
    // Three quarters of that and a little.
    let held = 100 << 10;
    let body = completion(Model::Last, UPLOAD_BYTES);
    for (number, way) in WAYS.into_iter().enumerate() {
        let mut connection = Connection::open(proxy.port, way.http);
        let mut upload = begin(&mut connection, way, &body);
        upload.send(&body[..held]);
        proxy.wait_until("the pod has what was sent", || {
            witness.arrivals().len() == number + 1 && witness.last().bytes == held
        });
        upload.send(&body[held..]);
        arrives_whole(upload, &body, way);
        let forced = || proxy.counted_with("epp_wasm_forced_release_total", "reason=\"bytes\"");
        proxy.wait_until("it is counted", || forced() == number as u64 + 1);
    }
    assert_eq!(proxy.stat("http.e2e.downstream_rq_4xx"), 0);
}

#[test]
fn an_early_decision_follows_the_prompts_beginning() {
    let sim = Sim::start(4, &Settings::default()).unwrap();
    let proxy = crate::start(&sim, &scorer("prefix-cache-scorer"));
    // Several, so that luck does not pass: once in 4^6.
    for (number, way) in WAYS
        .into_iter()
        .chain(WAYS[..2].iter().copied())
        .enumerate()
    {
        let body = completion(Model::First, UPLOAD_BYTES + number);
        let body = String::from_utf8(body).unwrap();
        let body = body.replacen("0 1", &format!("{number} {number}"), 1);
        let json = [("content-type", "application/json")];
        let first = send(
            proxy.port,
            "POST",
            "/v1/completions",
            &json,
            body.as_bytes(),
        )
        .unwrap();
        let mut connection = Connection::open(proxy.port, way.http);
        let mut upload = begin(&mut connection, way, body.as_bytes());
        upload.send(&body.as_bytes()[..FIRST_PART_BYTES]);
        sleep(PAUSE_BETWEEN_PARTS);
        upload.send(&body.as_bytes()[FIRST_PART_BYTES..]);
        assert_eq!(upload.response().pod(), first.pod(), "{way:?}");
    }
}

/// Bytes uploaded over HTTP/1.1, and the growth of Envoy's memory allowed meanwhile; measured: 1 MB.
const HTTP1_UPLOAD: (usize, u64) = (50 << 20, 8 << 20);

/// Bytes uploaded over HTTP/2, and the growth allowed meanwhile. There Envoy itself holds up to two windows
/// of 16 MiB, one received and one to be sent, depending on the pod's speed; with what its allocator keeps,
/// growth was measured as up to 50 MB, with and without the filter. A filter that held the body would need
/// memory for all of it.
const HTTP2_UPLOAD: (usize, u64) = (100 << 20, 64 << 20);

#[test]
fn fifty_megabytes_pass_at_the_default_limits() {
    let sim = Sim::start(2, &Settings::default()).unwrap();
    sim.pod(0).pin(Pinned {
        waiting: Some(50),
        ..Pinned::default()
    });
    let config = document(
        "{type: prefix-cache-scorer}, {type: queue-scorer}",
        "{pluginRef: prefix-cache-scorer}, {pluginRef: queue-scorer}",
    );
    let proxy = crate::start(&sim, &config);
    settles_on(proxy.port, "pod-2");
    let upload = |way: Way, body: &[u8]| {
        let mut connection = Connection::open(proxy.port, way.http);
        let mut upload = begin(&mut connection, way, body);
        for piece in body.chunks(64 << 10) {
            upload.send(piece);
        }
        let response = upload.response();
        // The pod responds with 400 to bodies that it does not keep whole; it still hashes all of them.
        assert_eq!(response.status, 400, "{way:?}");
        let hash = body_hash(body).to_string();
        assert_eq!(response.header("x-body-xxh64"), hash, "{way:?}");
        assert_eq!(response.pod(), "pod-2", "{way:?}");
    };
    for ((size, most), ways) in [(HTTP1_UPLOAD, &WAYS[..2]), (HTTP2_UPLOAD, &WAYS[2..])] {
        let bodies = [Model::First, Model::Last].map(|model| completion(model, size));
        let before = proxy.peak_memory();
        for way in ways {
            bodies.iter().for_each(|body| upload(*way, body));
        }
        let growth = proxy.peak_memory() - before;
        assert!(growth < most, "{ways:?}: {growth} bytes");
    }
    assert_eq!(proxy.stat("http.e2e.downstream_rq_too_large"), 0);
}

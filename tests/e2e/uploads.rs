//! Uploads that take their time, and long ones: when they leave for a pod, and that they arrive
//! whole.

use std::thread::sleep;
use std::time::Duration;

use modelsim::body_hash;

use crate::document;
use crate::proxy::{Proxy, Setup};
use crate::stream::{Connection, Http, Upload};
use crate::witness::{Answers, Witness};

/// How a body is sent.
#[derive(Debug, Clone, Copy)]
pub struct Way {
    /// Over which HTTP.
    pub http: Http,
    /// Whether its length is told before.
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

/// Where a body has its model.
#[derive(Debug, Clone, Copy)]
enum Model {
    First,
    Last,
}

/// A completion of some size, no part of which is like another.
fn completion(model: Model, size: usize) -> Vec<u8> {
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

/// What one upload has, and how much of it comes at first: more than the prefix window of 16 KB.
const SIZE: usize = 300 << 10;
const FIRST: usize = 40 << 10;

/// Enough for Envoy to see pieces apart, most times.
const BETWEEN: Duration = Duration::from_millis(20);

/// Begins to send a body.
pub fn begin(connection: &mut Connection, way: Way, body: &[u8]) -> Upload {
    let length = body.len().to_string();
    let headers = [("content-length", length.as_str())];
    let headers = if way.length { &headers[..] } else { &[] };
    connection.post("/v1/completions", headers)
}

/// An Envoy before one witness, which needs bodies for their prefixes; with settings of its own.
fn before(witness: &Witness, settings: &str) -> Proxy {
    let plugins =
        format!("{{type: prefix-cache-scorer}}, {{type: envoy-proxy, parameters: {{{settings}}}}}");
    Setup::new(
        &[witness.address],
        &document(&plugins, "{pluginRef: prefix-cache-scorer}"),
    )
    .start()
}

fn arrives_whole(upload: Upload, body: &[u8], way: Way) {
    let answer = upload.answer();
    assert_eq!(answer.status, 200, "{way:?}");
    assert_eq!(
        answer.header("x-body-bytes"),
        body.len().to_string(),
        "{way:?}"
    );
    assert_eq!(
        answer.header("x-body-xxh64"),
        body_hash(body).to_string(),
        "{way:?}"
    );
}

#[test]
fn a_slow_upload_leaves_when_its_window_was_read() {
    let witness = Witness::start(Answers::AtTheEnd);
    let proxy = before(&witness, "");
    let body = completion(Model::First, SIZE);
    for (number, way) in WAYS.into_iter().enumerate() {
        let mut connection = Connection::open(proxy.port, way.http);
        let mut upload = begin(&mut connection, way, &body);
        upload.send(&body[..FIRST]);
        proxy.wait_until("the pod has what was sent", || {
            witness.arrivals().len() == number + 1 && witness.last().bytes == FIRST
        });
        upload.send(&body[FIRST..]);
        arrives_whole(upload, &body, way);
    }
    assert_eq!(proxy.counted("epp_wasm_forced_release_total"), 0);
}

#[test]
fn early_releases_are_counted() {
    let witness = Witness::start(Answers::AtTheEnd);
    let proxy = before(&witness, "");
    let body = completion(Model::First, SIZE);
    for way in WAYS {
        let mut connection = Connection::open(proxy.port, way.http);
        let mut upload = begin(&mut connection, way, &body);
        upload.send(&body[..FIRST]);
        sleep(BETWEEN);
        upload.send(&body[FIRST..]);
        arrives_whole(upload, &body, way);
    }
    let early = || proxy.counted("epp_wasm_early_release_total");
    proxy.wait_until("all four are counted", || early() == 4);
}

#[test]
fn a_slow_upload_whose_model_comes_last_waits_for_it() {
    let witness = Witness::start(Answers::AtTheEnd);
    let proxy = before(&witness, "");
    let body = completion(Model::Last, SIZE);
    for (number, way) in WAYS.into_iter().enumerate() {
        let mut connection = Connection::open(proxy.port, way.http);
        let mut upload = begin(&mut connection, way, &body);
        upload.send(&body[..FIRST]);
        let held = || proxy.counted("epp_wasm_held_requests");
        proxy.wait_until("it is held", || held() == 1);
        assert_eq!(witness.arrivals().len(), number, "{way:?}");
        upload.send(&body[FIRST..]);
        arrives_whole(upload, &body, way);
        proxy.wait_until("it is held no longer", || held() == 0);
    }
}

#[test]
fn an_upload_that_pauses_leaves_after_the_timeout_and_arrives_whole() {
    let witness = Witness::start(Answers::AtTheEnd);
    let proxy = before(&witness, "bodyTimeout: 200ms");
    let long = completion(Model::Last, SIZE);
    // Its JSON does not end, or it would leave with its last brace.
    let short = long[..FIRST].to_vec();
    let mut released = 0;
    for way in WAYS {
        // In the middle of it, before its first byte, and between its last byte and its end.
        for (body, first) in [(&long, FIRST), (&long, 0), (&short, short.len())] {
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
                sleep(BETWEEN);
            }
            arrives_whole(upload, body, way);
            let forced = || proxy.counted("epp_wasm_forced_release_total");
            proxy.wait_until("it is counted", || forced() == released as u64);
        }
    }
}

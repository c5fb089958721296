//! Uploads that pause and are released by the timeout: the pod gets each byte once, wherever the upload pauses,
//! whatever part of it the router keeps for retries, and however it ends.

use std::thread::sleep;
use std::time::Duration;

use serde_json::{json, Value};

use crate::document;
use crate::proxy::{Proxy, Setup};
use crate::stream::{Connection, Http};
use crate::uploads::{arrives_whole, completion, Model, Way, FIRST_PART_BYTES, UPLOAD_BYTES, WAYS};
use crate::witness::{RespondWhen, Witness};

/// The pause of an upload: well beyond `bodyTimeout` in these tests and a tick.
const PAUSE: Duration = Duration::from_millis(300);

/// Starts an Envoy in front of this pod that releases uploads that are silent for 100 ms.
fn impatient(witness: &Witness, route: Value) -> Proxy {
    setup(witness, route).start()
}

fn setup(witness: &Witness, route: Value) -> Setup {
    let plugins =
        "{type: prefix-cache-scorer}, {type: envoy-proxy, parameters: {bodyTimeout: 100ms}}";
    let config = document(plugins, "{pluginRef: prefix-cache-scorer}");
    Setup {
        route,
        ..Setup::new(&[witness.address], &config)
    }
}

/// Uploads a body that pauses at these places, and the last of it, trailer or not, behind a pause as well
/// where `late_end` says so.
fn uploads(
    proxy: &Proxy,
    witness: &Witness,
    way: Way,
    body: &[u8],
    cuts: &[usize],
    late_end: bool,
) {
    let before = witness.arrivals().len();
    let mut connection = Connection::open(proxy.port, way.http);
    let length = body.len().to_string();
    let headers = [("trailer", "x-end"), ("content-length", length.as_str())];
    let headers = if way.length {
        &headers[..]
    } else {
        &headers[..1]
    };
    let mut upload = connection.post("/v1/completions", headers);
    let mut sent = 0;
    for (number, cut) in cuts.iter().enumerate() {
        upload.send(&body[sent..*cut]);
        sent = *cut;
        match number {
            0 => proxy.wait_until("the pod has it", || witness.arrivals().len() == before + 1),
            _ => sleep(PAUSE),
        }
    }
    upload.send(&body[sent..]);
    if late_end {
        sleep(PAUSE);
    }
    // A pod that has as many bytes as the declared length responds, even if more comes behind them.
    if !way.length || way.http == Http::Two && !late_end {
        let taken = upload.trailer("x-end", "of the body");
        // Its response may come before the trailer does.
        assert!(taken || way.length);
    }
    arrives_whole(upload, body, way);
}

/// Each way with pauses in each kind of place.
fn pauses_everywhere(route: Value) {
    let witness = Witness::start(RespondWhen::AtTheEnd);
    let proxy = impatient(&witness, route);
    let body = completion(Model::Last, UPLOAD_BYTES);
    // Behind the model's value it would be released at once.
    let in_model = body.len() - 8;
    // More than half of what Envoy buffers, from where on its router keeps nothing for a retry.
    let long = completion(Model::Last, 1000 << 10);
    for way in WAYS {
        uploads(&proxy, &witness, way, &body, &[1], false);
        uploads(
            &proxy,
            &witness,
            way,
            &body,
            &[FIRST_PART_BYTES, FIRST_PART_BYTES + 1],
            false,
        );
        uploads(
            &proxy,
            &witness,
            way,
            &body,
            &[FIRST_PART_BYTES, 2 * FIRST_PART_BYTES, 200 << 10],
            true,
        );
        uploads(&proxy, &witness, way, &body, &[in_model], false);
        uploads(&proxy, &witness, way, &long, &[600 << 10, 700 << 10], false);
        // All of it has come, but not its end.
        if way.http == Http::Two || !way.length {
            uploads(
                &proxy,
                &witness,
                way,
                &body[..FIRST_PART_BYTES],
                &[FIRST_PART_BYTES],
                true,
            );
        }
    }
    let forced = || proxy.counted_with("epp_wasm_forced_release_total", "reason=\"timeout\"");
    proxy.wait_until("all are counted", || {
        forced() == witness.arrivals().len() as u64
    });
}

#[test]
fn no_byte_is_lost_or_doubled_where_the_router_keeps_what_it_sent() {
    pauses_everywhere(json!({}));
}

#[test]
fn no_byte_is_lost_or_doubled_where_the_router_keeps_nothing() {
    pauses_everywhere(json!({"retry_policy": null}));
}

#[test]
fn an_upload_that_has_paused_is_retried_whole() {
    let witness = Witness::start(RespondWhen::AfterFailure);
    let proxy = impatient(&witness, json!({}));
    let body = completion(Model::Last, UPLOAD_BYTES);
    // Behind the model's value it would be released at once.
    let in_model = body.len() - 8;
    for way in WAYS {
        uploads(
            &proxy,
            &witness,
            way,
            &body,
            &[FIRST_PART_BYTES, 200 << 10],
            false,
        );
        uploads(&proxy, &witness, way, &body, &[in_model], false);
    }
    let arrivals = witness.arrivals();
    assert_eq!(arrivals.len(), 4 * WAYS.len());
    for arrival in arrivals {
        assert_eq!(arrival.bytes, body.len());
    }
}

#[test]
fn a_panic_at_the_end_of_an_upload_that_has_paused_loses_no_byte() {
    let witness = Witness::start(RespondWhen::AtTheEnd);
    let mut setup = setup(&witness, json!({}));
    setup.module = setup.host.faulty_file();
    let proxy = setup.start();
    // Its JSON does not end, or it would leave with its last brace.
    let body = &completion(Model::Last, UPLOAD_BYTES)[..FIRST_PART_BYTES];
    let length = body.len().to_string();
    let way = Way {
        http: Http::Two,
        length: true,
    };
    let mut connection = Connection::open(proxy.port, way.http);
    let headers = [
        ("trailer", "x-end"),
        ("content-length", length.as_str()),
        ("x-epp-fault", "panic@request_trailers"),
    ];
    let mut upload = connection.post("/v1/completions", &headers);
    upload.send(body);
    proxy.wait_until("the pod has it", || witness.arrivals().len() == 1);
    assert!(upload.trailer("x-end", "of the body"));
    arrives_whole(upload, body, way);
    let caught = || proxy.counted("epp_wasm_caught_panics_total");
    proxy.wait_until("the panic is counted", || caught() == 1);
}

//! The model's name in a body, replaced on its way to the pod; every other byte arrives as it was
//! sent, and the length is right.

use std::thread::sleep;
use std::time::Duration;

use fake_model_server::{body_hash, Settings, Sim};

use crate::client::complete;
use crate::document;
use crate::proxy::Proxy;
use crate::stream::Connection;
use crate::uploads::{completion, Model, Way, FIRST_PART_BYTES, UPLOAD_BYTES, WAYS};

/// Prefix scoring, with further plugins.
fn config(others: &str) -> String {
    let plugins = format!("{{type: prefix-cache-scorer}}{others}");
    document(&plugins, "{pluginRef: prefix-cache-scorer}")
}

/// The body with another model.
fn renamed(body: &[u8], model: &str) -> Vec<u8> {
    let text = std::str::from_utf8(body).unwrap();
    assert_eq!(text.matches("\"m\"").count(), 1);
    text.replacen("\"m\"", &format!("\"{model}\""), 1)
        .into_bytes()
}

/// Sends a body in two pieces with these headers, and sees that the other one arrives.
fn arrives_as(
    (sim, proxy): (&Sim, &Proxy),
    way: Way,
    headers: &[(&str, &str)],
    (body, first): (&[u8], usize),
    expected: &[u8],
) {
    let what = format!("{way:?}, {} bytes, first {first}", body.len());
    let length = body.len().to_string();
    let mut headers = headers.to_vec();
    if way.length {
        headers.push(("content-length", &length));
    }
    let mut connection = Connection::open(proxy.port, way.http);
    let mut upload = connection.post("/v1/completions", &headers);
    upload.send(&body[..first]);
    // Most times Envoy sees them apart.
    sleep(Duration::from_millis(if first == 0 { 0 } else { 20 }));
    upload.send(&body[first..]);
    let response = upload.response();
    assert_eq!(response.status, 200, "{what}");
    let bytes = expected.len().to_string();
    assert_eq!(response.header("x-body-bytes"), bytes, "{what}");
    let hash = body_hash(expected).to_string();
    assert_eq!(response.header("x-body-xxh64"), hash, "{what}");
    let seen = sim.pod(0).seen().pop().unwrap();
    let declared = way.length.then_some(bytes.as_str());
    assert_eq!(seen.header("content-length"), declared, "{what}");
}

const HEADER: &str = "x-llm-d-model-name-rewrite";

/// Lets the header name a model.
const OBEYED: &str = ", {type: envoy-proxy, parameters: {rewriteHeader: true}}";

#[test]
fn the_model_in_the_body_is_rewritten_to_that_of_a_header() {
    let sim = Sim::start(1, &Settings::default()).unwrap();
    let proxy = crate::start(&sim, &config(OBEYED));
    for way in WAYS {
        for model in [Model::First, Model::Last] {
            for (size, first) in [
                (10, 0),
                (10, 5),
                (UPLOAD_BYTES, 0),
                (UPLOAD_BYTES, 100),
                (UPLOAD_BYTES, FIRST_PART_BYTES),
            ] {
                let body = completion(model, size);
                // A longer name, a shorter one, one that must be escaped, and the same.
                for (name, written) in [
                    ("another-model", "another-model"),
                    ("", "m"),
                    ("a \"b\"", "a \\\"b\\\""),
                    ("m", "m"),
                ] {
                    let expected = renamed(&body, written);
                    let headers = [(HEADER, name)];
                    arrives_as((&sim, &proxy), way, &headers, (&body, first), &expected);
                }
            }
        }
    }
    assert_eq!(proxy.counted("epp_wasm_missed_rewrites_total"), 0);
}

#[test]
fn a_client_cannot_set_the_model_by_a_header() {
    let sim = Sim::start(1, &Settings::default()).unwrap();
    let proxy = crate::start(&sim, &config(""));
    for way in WAYS {
        for header in [HEADER, "x-gateway-model-name-rewrite"] {
            let body = completion(Model::First, UPLOAD_BYTES);
            let headers = [(header, "premium-model"), (header, "another")];
            arrives_as(
                (&sim, &proxy),
                way,
                &headers,
                (&body, FIRST_PART_BYTES),
                &body,
            );
            let seen = sim.pod(0).seen().pop().unwrap();
            assert_eq!(seen.header(header), None, "{way:?}");
        }
    }
}

#[test]
fn a_rewrite_rule_sets_the_model() {
    let sim = Sim::start(1, &Settings::default()).unwrap();
    let rules =
        ", {type: model-rewrite, parameters: {rules: [{models: [m], targets: [{model: real}]}]}}";
    let proxy = crate::start(&sim, &config(&format!("{rules}{OBEYED}")));
    for way in WAYS {
        for model in [Model::First, Model::Last] {
            let body = completion(model, UPLOAD_BYTES);
            let expected = renamed(&body, "real");
            let over = [(HEADER, "overruled")];
            for headers in [&[][..], &over] {
                arrives_as(
                    (&sim, &proxy),
                    way,
                    headers,
                    (&body, FIRST_PART_BYTES),
                    &expected,
                );
            }
        }
    }
    let response = complete(proxy.port, "other", "x");
    assert!(response.body.contains("\"other\""), "{}", response.body);
}

#[test]
fn a_model_that_comes_too_late_is_not_rewritten_and_is_counted() {
    let sim = Sim::start(1, &Settings::default()).unwrap();
    let settings =
        ", {type: envoy-proxy, parameters: {decideAfterBytes: 65536, rewriteHeader: true}}";
    let proxy = crate::start(&sim, &config(settings));
    let body = completion(Model::Last, UPLOAD_BYTES);
    for (number, way) in WAYS.into_iter().enumerate() {
        let headers = [(HEADER, "another-model")];
        arrives_as(
            (&sim, &proxy),
            way,
            &headers,
            (&body, FIRST_PART_BYTES),
            &body,
        );
        let missed = || proxy.counted("epp_wasm_missed_rewrites_total");
        proxy.wait_until("it is counted", || missed() == number as u64 + 1);
    }
}

//! Bodies of all kinds and sizes: routed, never refused, whole.

use std::time::Duration;

use fake_model_server::{body_hash, Pinned, Settings, Sim};
use serde_json::json;

use crate::client::{raw, send};
use crate::preferences::settles_on;
use crate::{document, start};

/// Prefix and queue together, which needs the body.
fn both() -> String {
    document(
        "{type: prefix-cache-scorer}, {type: queue-scorer}",
        "{pluginRef: prefix-cache-scorer}, {pluginRef: queue-scorer}",
    )
}

#[test]
fn bodies_of_all_sizes_arrive_whole() {
    let sim = Sim::start(2, &Settings::default()).unwrap();
    let proxy = start(&sim, &both());
    for size in [1, 60 << 10, (1 << 20) - 1, (1 << 20) + 1, 5 << 20, 50 << 20] {
        let body = json!({"messages": [{"role": "user", "content": "x".repeat(size)}], "model": "m", "max_tokens": 1});
        let body = body.to_string().into_bytes();
        let response = send(
            proxy.port,
            "POST",
            "/v1/chat/completions",
            &[("content-type", "application/json")],
            &body,
        )
        .unwrap();
        // A pod keeps 8 MB of a body and cannot parse more; its hash shows that it came whole.
        assert!(
            [200, 400].contains(&response.status),
            "{size}: {}",
            response.status
        );
        assert_eq!(response.header("x-body-bytes"), body.len().to_string());
        assert_eq!(
            response.header("x-body-xxh64"),
            body_hash(&body).to_string()
        );
    }
    assert_eq!(proxy.stat("http.e2e.downstream_rq_4xx"), 1);
}

#[test]
fn chunked_bodies_arrive_whole() {
    let sim = Sim::start(2, &Settings::default()).unwrap();
    let proxy = start(&sim, &both());
    let piece = "y".repeat(700 << 10);
    let head = "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n";
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    let start = chunk("{\"prompt\": \"");
    let middle = chunk(&piece);
    let end = chunk("\", \"model\": \"m\", \"max_tokens\": 1}") + "0\r\n\r\n";
    let parts: [&[u8]; 5] = [
        head.as_bytes(),
        start.as_bytes(),
        middle.as_bytes(),
        middle.as_bytes(),
        end.as_bytes(),
    ];
    let response = raw(proxy.port, &parts, Duration::from_millis(20), |text| {
        text.contains("usage")
    });
    assert!(
        response.starts_with("HTTP/1.1 200"),
        "{}",
        &response[..response.len().min(200)]
    );
    let size = 2 * piece.len() + "{\"prompt\": \"\", \"model\": \"m\", \"max_tokens\": 1}".len();
    assert!(response.contains(&format!("x-body-bytes: {size}")));
}

#[test]
fn requests_without_a_readable_body_are_routed_by_the_profiles() {
    let sim = Sim::start(2, &Settings::default()).unwrap();
    sim.pod(0).pin(Pinned {
        waiting: Some(50),
        ..Pinned::default()
    });
    let proxy = start(&sim, &both());
    settles_on(proxy.port, "pod-2");
    let json = ("content-type", "application/json");
    for (method, path, headers, body) in [
        ("GET", "/v1/models", vec![], ""),
        ("HEAD", "/v1/models", vec![], ""),
        ("POST", "/v1/completions", vec![json], ""),
        ("POST", "/v1/completions", vec![json], "no json at all"),
        (
            "POST",
            "/v1/completions",
            vec![json],
            "{\"prompt\": \"without a model\"}",
        ),
        (
            "POST",
            "/v1/chat/completions",
            vec![json],
            "{\"model\": \"m\", \"messages\": 7}",
        ),
        (
            "POST",
            "/v1/completions",
            vec![json, ("content-encoding", "gzip")],
            "\u{1f}\u{8b}compressed",
        ),
        (
            "POST",
            "/v1/audio/transcriptions",
            vec![("content-type", "multipart/form-data; boundary=b")],
            "--b--",
        ),
        ("POST", "/unknown/path", vec![json], "{}"),
        ("DELETE", "/v1/files/7", vec![], ""),
    ] {
        let response = send(proxy.port, method, path, &headers, body.as_bytes()).unwrap();
        assert_eq!(
            response.pod(),
            "pod-2",
            "{method} {path} {body}: {}",
            response.status
        );
        if method == "POST" {
            assert_eq!(
                response.header("x-body-bytes"),
                body.len().to_string(),
                "{path} {body}"
            );
        }
    }
}

#[test]
fn a_websocket_is_routed_at_its_headers() {
    let sim = Sim::start(2, &Settings::default()).unwrap();
    sim.pod(0).pin(Pinned {
        waiting: Some(50),
        ..Pinned::default()
    });
    let proxy = start(&sim, &both());
    settles_on(proxy.port, "pod-2");
    let head = "GET /v1/realtime HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let response = raw(
        proxy.port,
        &[head.as_bytes(), b"echo me"],
        Duration::from_millis(300),
        |text| text.contains("echo me"),
    );
    assert!(response.starts_with("HTTP/1.1 101"), "{response}");
    assert!(
        response.contains("x-served-by: pod-2") && response.ends_with("echo me"),
        "{response}"
    );
}

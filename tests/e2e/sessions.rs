//! Sessions: they stay at their endpoint, whichever worker serves them.

use fake_model_server::{Settings, Sim};
use serde_json::json;

use crate::client::{post, Response};
use crate::document;
use crate::proxy::{Proxy, Setup};
use crate::ticks::{wait_until_shared, wait_until_vms_share};

/// An Envoy of two workers over four pods, which picks at random but for sessions.
fn start(sim: &Sim, parameters: &str) -> Proxy {
    let plugins = format!(
        "{{type: session-affinity-filter, parameters: {{{parameters}}}}}, {{type: random-picker}}"
    );
    let references = "{pluginRef: session-affinity-filter}, {pluginRef: random-picker}";
    let mut setup = Setup::new(&sim.addresses(), &document(&plugins, references));
    setup.workers = 2;
    setup.status_page = true;
    let proxy = setup.start();
    wait_until_vms_share(&proxy, 3);
    proxy
}

/// Sends a request on a connection of its own, so that any worker may get it.
fn ask(proxy: &Proxy, header: &str, value: &str) -> Response {
    let body = json!({"model": "m", "prompt": "hello", "max_tokens": 1});
    let response = post(proxy.port, "/v1/completions", &body, &[(header, value)]);
    assert_eq!(response.status, 200);
    response
}

#[test]
fn a_session_that_a_worker_has_placed_is_known_to_the_others() {
    let sim = Sim::start(4, &Settings::default()).unwrap();
    let proxy = start(&sim, "strategy: session_id");
    let sessions: Vec<String> = (0..20).map(|number| format!("session {number}")).collect();
    let ask = |session: &String| ask(&proxy, "x-session-id", session).pod().to_owned();
    let placed: Vec<String> = sessions.iter().map(ask).collect();
    assert!(placed.iter().any(|pod| *pod != placed[0]), "{placed:?}");
    wait_until_shared(&proxy);
    for _ in 0..5 {
        let again: Vec<String> = sessions.iter().map(ask).collect();
        assert_eq!(again, placed);
    }
}

#[test]
fn a_response_says_how_the_next_request_gets_to_the_same_endpoint() {
    let sim = Sim::start(4, &Settings::default()).unwrap();
    let proxy = start(&sim, "");
    let first = ask(&proxy, "x-session-token", "nobody");
    let token = first.header("x-session-token");
    assert!(!token.is_empty());
    for _ in 0..20 {
        let next = ask(&proxy, "x-session-token", token);
        assert_eq!(next.pod(), first.pod());
        assert_eq!(next.header("x-session-token"), token);
    }
}

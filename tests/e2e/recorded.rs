//! The decisions recorded from a real Endpoint Picker (tests/parity/recorded), through a real Envoy:
//! pages are scraped, bodies streamed, and each response names the pod that was picked.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use parity::compare::compare_ranking;
use parity::scenario::{Expected, Exported, Sent, Served, Step};
use parity::{Replay, Scenario};
use serde_json::{json, Value};
use tokio::net::TcpListener;

use crate::client::{self, send};
use crate::proxy::{Proxy, Setup};
use crate::stream::{wait, RUNTIME};
use envoy_harness::wait_until;

/// Explanations have four places after the point.
pub const TOLERANCE: f64 = 0.000_051;

/// Scenarios that share an Envoy: each is a pool of its own, with a filter of its own.
const BATCH: usize = 10;

/// The request header with which a pod does not respond.
pub const HOLD: &str = "x-hold";

/// The request headers that a pod returns in its response, each with [`TOLD`] before its name.
const ECHOED: [&str; 3] = [
    "x-prefiller-host-port",
    "x-encoder-hosts-ports",
    "x-data-parallel-host-port",
];

/// The beginning of the names of response headers that say what a pod was told.
pub const TOLD: &str = "told-";

/// A server with a given metrics page, which responds to all other requests with its name, unless they have the
/// header [`HOLD`].
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    page: String,
    scrapes: usize,
    held: usize,
}

impl Pod {
    /// Starts it.
    pub fn start(name: &str) -> Self {
        let listener = wait(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let (served_by, served) = (name.to_owned(), state.clone());
        RUNTIME.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (served_by, state) = (served_by.clone(), served.clone());
                let service =
                    service_fn(move |request| respond(request, served_by.clone(), state.clone()));
                RUNTIME
                    .spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self {
            name: name.to_owned(),
            address,
            state,
        }
    }

    /// Sets its metrics page.
    pub fn show(&self, exported: &Exported) {
        self.state.lock().unwrap().page = exported.page();
    }

    /// Returns how often its metrics page was read.
    pub fn scrapes(&self) -> usize {
        self.state.lock().unwrap().scrapes
    }

    /// Returns how many requests it was asked to hold.
    pub fn held(&self) -> usize {
        self.state.lock().unwrap().held
    }
}

async fn respond(
    request: Request<Incoming>,
    name: String,
    state: Arc<Mutex<State>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut body = String::new();
    if request.uri().path() == "/metrics" {
        let mut state = state.lock().unwrap();
        state.scrapes += 1;
        body.clone_from(&state.page);
    } else if request.headers().contains_key(HOLD) {
        state.lock().unwrap().held += 1;
        std::future::pending::<()>().await;
    }
    let mut response = Response::builder().header("x-served-by", name);
    for name in ECHOED {
        if let Some(value) = request.headers().get(name) {
            response = response.header(format!("{TOLD}{name}"), value);
        }
    }
    Ok(response.body(Full::from(body)).unwrap())
}

/// Returns the ranking in a response's explanation, by the names of the pods.
pub fn ranking(response: &client::Response, pods: &[Pod]) -> Vec<(String, f64)> {
    let candidates = response.header("x-epp-explain").split("; ");
    let candidates = candidates.filter_map(|candidate| {
        let (address, rest) = candidate.split_once('=')?;
        let mut pods = pods.iter();
        let pod = pods.find(|pod| pod.address.to_string() == address)?;
        Some((pod.name.clone(), rest.split_once('(')?.0.parse().unwrap()))
    });
    candidates.collect()
}

/// A scenario as a pool behind Envoy.
struct Staged<'s> {
    scenario: &'s Scenario,
    pods: Vec<Pod>,
}

impl<'s> Staged<'s> {
    fn new(scenario: &'s Scenario) -> Self {
        let names = scenario.endpoints.iter().map(|place| &place.name);
        let pods = names.map(|name| Pod::start(name)).collect();
        let staged = Self { scenario, pods };
        // A page without values would be a failed scrape, which delays the next one.
        if let Some(Step::Metrics { metrics }) = scenario.steps.first() {
            staged.show(metrics);
        }
        staged
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.pods.iter().map(|pod| pod.address).collect()
    }

    /// Returns the scenario's configuration, completed with the endpoints' addresses and the proxy's settings.
    fn config(&self) -> String {
        let mut config = self.scenario.config.clone();
        let endpoint = |pod: &Pod| json!({"name": pod.name, "address": "127.0.0.1", "port": pod.address.port()});
        let endpoints: Vec<Value> = self.pods.iter().map(endpoint).collect();
        let proxy = json!({"cluster": self.scenario.name, "explain": true});
        config["plugins"].as_array_mut().unwrap().extend([
            json!({"name": "pods", "type": "static-discovery", "parameters": {"endpoints": endpoints}}),
            json!({"type": "envoy-proxy", "parameters": proxy}),
            // On a busy machine scrapes are late; metrics must not become stale meanwhile.
            json!({"type": "metrics-data-source", "parameters": {"stalenessThreshold": "600s", "maxInterval": "200ms"}}),
        ]);
        config["dataLayer"] = json!({"discovery": {"pluginRef": "pods"}});
        config.to_string()
    }

    /// Sets the metrics pages of these pods.
    fn show(&self, metrics: &BTreeMap<String, Exported>) {
        for pod in &self.pods {
            if let Some(exported) = metrics.get(&pod.name) {
                pod.show(exported);
            }
        }
    }

    /// Plays all steps in their order.
    fn play(&self, proxy: &Proxy) {
        let mut native = Replay::new(self.scenario).unwrap();
        let mut steps = self.scenario.steps.iter().enumerate().peekable();
        while let Some((number, step)) = steps.next() {
            match step {
                Step::Metrics { metrics } => {
                    native.set_metrics(metrics).unwrap();
                    self.show(metrics);
                    let next = steps.peek();
                    if let Some((_, Step::Request { request, .. })) = next {
                        self.settle(proxy, &mut native, request);
                    }
                }
                Step::Request { request, expect } => {
                    let Expected::Served(expect) = expect else {
                        panic!("{expect:?}");
                    };
                    let response = self.send(proxy, request);
                    let place = format!("{} step {number}", self.scenario.name);
                    let ranked = ranking(&response, &self.pods);
                    let drawn = BTreeMap::new();
                    if let Err(difference) = compare_ranking(&ranked, &drawn, expect, TOLERANCE) {
                        panic!("{place}: {difference}\n{response:?}");
                    }
                    assert_eq!(
                        response.pod(),
                        ranked[0].0,
                        "{place}: the picked pod serves"
                    );
                    // Ties are broken at random. The prefix index must learn the same endpoint as the
                    // Endpoint Picker's: no recorded scenario with an index has ties.
                    let same = response.pod() == expect.served_by;
                    assert!(
                        same || !self.learns() && tied(expect, response.pod()),
                        "{place}"
                    );
                }
            }
        }
    }

    fn learns(&self) -> bool {
        self.scenario
            .plugins()
            .iter()
            .any(|plugin| plugin == "prefix-cache-scorer")
    }

    /// Waits until the filter uses the pods' current metrics: a request without a body, which is decided on
    /// metrics alone, must get the scores that the native core gives it.
    fn settle(&self, proxy: &Proxy, native: &mut Replay, next: &Sent) {
        let body: Value = serde_json::from_str(&next.body).unwrap();
        let model = body["model"].as_str().unwrap_or_default();
        let expected: BTreeMap<String, f64> = native
            .decide_without_body(model)
            .unwrap()
            .into_iter()
            .collect();
        let path = format!("/{}/metrics-alone", self.scenario.name);
        let headers = [("x-epp-explain", "1"), ("x-gateway-model-name", model)];
        wait_until(&format!("{}: metrics settle", self.scenario.name), || {
            let response = send(proxy.port, "GET", &path, &headers, b"").unwrap();
            let ranked = ranking(&response, &self.pods);
            ranked.len() == expected.len()
                && ranked
                    .iter()
                    .all(|(name, score)| (score - expected[name]).abs() < TOLERANCE)
        });
    }

    fn send(&self, proxy: &Proxy, request: &Sent) -> client::Response {
        let path = format!("/{}{}", self.scenario.name, request.path);
        let headers = [("content-type", "application/json"), ("x-epp-explain", "1")];
        send(proxy.port, "POST", &path, &headers, request.body.as_bytes()).unwrap()
    }
}

/// Returns whether an endpoint's recorded score is the best one.
fn tied(expect: &Served, name: &str) -> bool {
    (expect.scores[name] - expect.scores[&expect.served_by]).abs() < parity::TOLERANCE
}

/// Plays these scenarios at the same time.
fn play(scenarios: &[Scenario]) {
    let staged: Vec<Staged<'_>> = scenarios.iter().map(Staged::new).collect();
    let mut setup = Setup::new(&staged[0].addresses(), "");
    setup.configs = staged.iter().map(Staged::config).collect();
    let clusters = staged.iter();
    let clusters = clusters.map(|staged| (staged.scenario.name.clone(), staged.addresses()));
    setup.others = clusters.collect();
    let proxy = &setup.start();
    std::thread::scope(|scope| {
        for staged in &staged {
            scope.spawn(move || staged.play(proxy));
        }
    });
}

#[test]
fn the_module_in_envoy_makes_the_recorded_decisions_of_a_real_picker() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity/recorded");
    let scenarios = Scenario::read_folder(&folder).unwrap();
    assert_eq!(
        scenarios.iter().map(Scenario::decisions).sum::<usize>(),
        578
    );
    scenarios.chunks(BATCH).for_each(play);
}

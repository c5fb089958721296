//! A sample of each family of the decisions recorded over the whole catalogue (tests/parity/catalogue), through a
//! real Envoy.
//!
//! Envoy draws where the recorded Endpoint Picker drew, with other results. So every decision is compared with the
//! native core, which follows Envoy's course, and with the recording as long as Envoy has taken its course by chance;
//! tests/parity.rs compares the native core with all recordings.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use envoy_harness::wait_until;
use parity::chance::{NO_HIT_LRU, TOKEN_LOAD};
use parity::compare::{compare, compare_ranking, compare_refused, compare_session};
use parity::replay::{Made, SESSION_HEADER};
use parity::scenario::{Expected, Exported, Refused, Sent, Served, Step};
use parity::{Replay, Scenario};
use serde_json::{json, Value};

use crate::client::{self, send};
use crate::proxy::{Proxy, Setup};
use crate::recorded::{ranking, Pod, HOLD, TOLD, TOLERANCE};

/// Scenarios of each family.
const SAMPLE: usize = 2;

/// Longer than the time between two ticks, 50 ms: when it has passed, the worker's next tick is due.
const TICK: Duration = Duration::from_millis(100);

/// How long requests of the recordings may wait in a queue.
const TTL: Duration = Duration::from_millis(1_500);

/// The time of a step whose request is queued.
const HOLD_STEP: Duration = Duration::from_millis(250);

/// Headers for the pod that serves the request, which name other endpoints.
const ROLES: [&str; 3] = [
    "x-prefiller-host-port",
    "x-encoder-hosts-ports",
    "x-data-parallel-host-port",
];

/// What was played of a scenario.
struct Played {
    /// Decisions that were compared with the recorded ones.
    compared: usize,
    /// Requests that waited in a queue.
    waited: usize,
}

/// A scenario as a pool behind Envoy.
struct Staged {
    scenario: Scenario,
    pods: Vec<Pod>,
}

impl Staged {
    /// Starts the pods of a scenario, and puts their ports in the place of the recorded ones.
    fn new(mut scenario: Scenario) -> Self {
        let names = scenario.endpoints.iter().map(|endpoint| &endpoint.name);
        let pods: Vec<Pod> = names.map(|name| Pod::start(name)).collect();
        let recorded: Vec<String> = scenario
            .endpoints
            .iter()
            .map(|place| place.port.clone())
            .collect();
        for (endpoint, pod) in scenario.endpoints.iter_mut().zip(&pods) {
            endpoint.port = pod.address.port().to_string();
        }
        for plugin in scenario.config["plugins"].as_array_mut().unwrap() {
            let Some(port) = plugin.pointer_mut("/parameters/primaryPort") else {
                continue;
            };
            // The port of no endpoint is as good as that of any.
            let number = port.to_string();
            let place = recorded.iter().position(|recorded| *recorded == number);
            *port = pods[place.unwrap_or(0)].address.port().into();
        }
        let scenario = scenario.with_recorded_gate();
        let staged = Self { scenario, pods };
        if let Some(Step::Metrics { metrics }) = staged.scenario.steps.first() {
            staged.show(metrics);
        }
        staged
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.pods.iter().map(|pod| pod.address).collect()
    }

    /// Returns the scenario's configuration, completed with its endpoints and the proxy's settings.
    fn config(&self) -> String {
        let mut config = self.scenario.config.clone();
        let endpoints = self.scenario.endpoints.iter().map(|endpoint| {
            let labels = &endpoint.labels;
            json!({"name": endpoint.name, "address": endpoint.address, "port": endpoint.port, "labels": labels})
        });
        let endpoints: Vec<Value> = endpoints.collect();
        // Held requests count once, as they did for the Endpoint Picker.
        let proxy = json!({"cluster": self.scenario.name, "explain": true, "correctQueue": false});
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

    /// Waits until the worker knows the pods' pages, however busy the machine is: the second scrape from now begins after
    /// the first has ended, the fourth after a tick that has shared what the second brought, and a request that is sent
    /// when the worker's tick is due is answered after it.
    fn settle(&self, proxy: &Proxy) {
        let before: Vec<usize> = self.pods.iter().map(Pod::scrapes).collect();
        wait_until(&format!("{}: metrics settle", self.scenario.name), || {
            let mut pods = self.pods.iter().zip(&before);
            pods.all(|(pod, before)| pod.scrapes() > before + 3)
        });
        sleep(TICK);
        // Without a host: Envoy replies itself.
        let mut stream = TcpStream::connect(("127.0.0.1", proxy.port)).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let mut reply = [0; 12];
        stream.read_exact(&mut reply).unwrap();
        assert_eq!(&reply, b"HTTP/1.1 400");
    }

    /// Plays all steps in their order.
    fn play(&self, proxy: &Proxy) -> Played {
        let mut native = Replay::new(&self.scenario).unwrap();
        let (mut held, mut queue) = (Vec::new(), Vec::new());
        let (mut compared, mut waited) = (0, 0);
        // Which of two ways of counting was recorded is found by trying both: the native core has done that.
        let mut on_course = !self.scenario.has(TOKEN_LOAD) && !self.scenario.has(NO_HIT_LRU);
        for (number, step) in self.scenario.steps.iter().enumerate() {
            let (request, recorded) = match step {
                Step::Metrics { metrics } => {
                    native.set_metrics(metrics).unwrap();
                    self.show(metrics);
                    if native.polls_metrics() {
                        self.settle(proxy);
                    }
                    continue;
                }
                Step::Request { request, expect } => (request, expect),
            };
            let place = format!("{} step {number}", self.scenario.name);
            if recorded.waited() {
                let decided = native.decide(request, recorded).unwrap();
                assert!(matches!(decided.made, Made::Waits), "{place}: {decided:?}");
                match recorded {
                    Expected::Refused(recorded) => self.expire(&place, proxy, request, recorded),
                    _ => queue.push(self.queue(proxy, request)),
                }
                waited += 1;
                continue;
            }
            let found = match recorded {
                Expected::Held { .. } => self.hold(proxy, request, &mut held),
                _ => self.ask(proxy, request),
            };
            let decided = native.decide(request, &found).unwrap();
            if let Err(difference) = compare(&decided.made, &found, TOLERANCE) {
                panic!("{place}: the native core: {difference}\n{found:?}");
            }
            if on_course {
                if let Err(difference) = compare_recorded(&found, recorded) {
                    panic!("{place}: {difference}\n{found:?}\nrecorded {recorded:?}");
                }
                compared += 1;
                on_course = picked(&found) == picked(recorded);
            }
            let session = native.proceed(decided, &found);
            if let Err(difference) = compare_session(session.as_deref(), &found) {
                panic!("{place}: the native core: {difference}\n{found:?}");
            }
        }
        let at_pods: usize = self.pods.iter().map(Pod::held).sum();
        assert_eq!(at_pods, held.len(), "nothing that waited was sent");
        for stream in queue {
            let reply = so_far(stream);
            let name = &self.scenario.name;
            assert!(
                reply.is_empty() || reply.starts_with("HTTP/1.1 429 "),
                "{name}: {reply}"
            );
        }
        Played { compared, waited }
    }

    /// Sends a request that waits until it has expired, and compares the reply with the recorded one.
    fn expire(&self, place: &str, proxy: &Proxy, request: &Sent, recorded: &Refused) {
        let begun = Instant::now();
        let found = self.ask(proxy, request);
        let waited = begun.elapsed();
        if let Err(difference) = compare_recorded(&found, &Expected::Refused(recorded.clone())) {
            panic!("{place}: {difference}\n{found:?}");
        }
        // The Endpoint Picker replied up to a second late. How late this Envoy is depends on the machine.
        assert!(waited >= TTL, "{place}: {waited:?}");
    }

    /// Sends a request that waits, and goes on as it does.
    fn queue(&self, proxy: &Proxy, request: &Sent) -> TcpStream {
        let stream = self.send(proxy, request);
        sleep(HOLD_STEP);
        stream
    }

    /// Sends a request. Returns what the client and the pod saw of the decision.
    fn ask(&self, proxy: &Proxy, request: &Sent) -> Expected {
        let path = format!("/{}{}", self.scenario.name, request.path);
        let mut headers = vec![("content-type", "application/json"), ("x-epp-explain", "1")];
        let own = request.headers.iter();
        headers.extend(own.map(|(name, value)| (name.as_str(), value.as_str())));
        let response = send(proxy.port, "POST", &path, &headers, request.body.as_bytes()).unwrap();
        let header =
            |name: &str| Some(response.header(name).to_owned()).filter(|text| !text.is_empty());
        if response.status != 200 {
            return Expected::Refused(Refused {
                status: response.status.into(),
                reason: header("x-llm-d-request-dropped-reason"),
                body: response.body,
                ..Refused::default()
            });
        }
        self.served(&response)
    }

    fn served(&self, response: &client::Response) -> Expected {
        let told = ROLES.iter().filter_map(|name| {
            let value = response.header(&format!("{TOLD}{name}"));
            if value.is_empty() {
                return None;
            }
            let names: Vec<&str> = value.split(',').map(|place| self.name(place)).collect();
            Some(((*name).to_owned(), names.join(",")))
        });
        let headers: BTreeMap<String, String> = told.collect();
        let served_by = response.pod().to_owned();
        let mut ranking = ranking(response, &self.pods);
        let mut order: Vec<String> = ranking.iter().map(|(name, _)| name.clone()).collect();
        if headers.contains_key("x-data-parallel-host-port") {
            // The port was replaced.
            order = vec![served_by.clone()];
            ranking.clear();
        } else {
            assert_eq!(order.first(), Some(&served_by), "the picked pod serves");
        }
        let session = response.header(SESSION_HEADER);
        Expected::Served(Served {
            scores: ranking.into_iter().collect(),
            ranking: order,
            served_by,
            headers,
            session: Some(session.to_owned()).filter(|session| !session.is_empty()),
        })
    }

    /// Sends a request to which no pod responds. Returns which pod has it.
    fn hold(&self, proxy: &Proxy, request: &Sent, held: &mut Vec<TcpStream>) -> Expected {
        let before: Vec<usize> = self.pods.iter().map(Pod::held).collect();
        held.push(self.send(proxy, request));
        let mut by = None;
        wait_until(
            &format!("{}: a pod has the request", self.scenario.name),
            || {
                let mut pods = self.pods.iter().zip(&before);
                by = pods.find(|(pod, before)| pod.held() > **before);
                by.is_some()
            },
        );
        let held_by = by.map(|(pod, _)| pod.name.clone());
        Expected::Held {
            held_by: held_by.into_iter().collect(),
        }
    }

    /// Sends a request to which no pod responds.
    fn send(&self, proxy: &Proxy, request: &Sent) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", proxy.port)).unwrap();
        let (scenario, path, length) = (&self.scenario.name, &request.path, request.body.len());
        let mut text = format!(
            "POST /{scenario}{path} HTTP/1.1\r\nhost: pool\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n{HOLD}: 1\r\n"
        );
        for (name, value) in &request.headers {
            text += &format!("{name}: {value}\r\n");
        }
        text += "\r\n";
        text += &request.body;
        stream.write_all(text.as_bytes()).unwrap();
        stream
    }

    /// Returns the name of the pod with an address.
    fn name(&self, address: &str) -> &str {
        let mut pods = self.pods.iter();
        let pod = pods.find(|pod| pod.address.to_string() == address);
        &pod.unwrap_or_else(|| panic!("no pod {address}")).name
    }
}

/// Returns whether a decision could be the recorded one, if ties had fallen otherwise.
fn compare_recorded(found: &Expected, recorded: &Expected) -> Result<(), String> {
    match (found, recorded) {
        (Expected::Served(found), Expected::Served(recorded)) if !recorded.scores.is_empty() => {
            let ranking = found.ranking.iter();
            let ranking = ranking.map(|name| (name.clone(), found.scores[name]));
            let ranking: Vec<(String, f64)> = ranking.collect();
            compare_ranking(&ranking, &BTreeMap::new(), recorded, TOLERANCE)
        }
        (Expected::Refused(found), Expected::Refused(recorded)) => compare_refused(found, recorded),
        (Expected::Served(_), Expected::Served(_))
        | (Expected::Held { .. }, Expected::Held { .. }) => Ok(()),
        _ => Err("another kind of decision".to_owned()),
    }
}

/// Returns the endpoints that a decision chose: what follows depends on them.
fn picked(decision: &Expected) -> Vec<&str> {
    match decision {
        Expected::Refused(_) => Vec::new(),
        Expected::Held { held_by } => held_by.iter().map(String::as_str).collect(),
        Expected::Served(served) => {
            let replaced = served.headers.contains_key("x-data-parallel-host-port");
            let primary = (!replaced).then_some(served.served_by.as_str());
            let others = ROLES.iter().filter_map(|role| served.headers.get(*role));
            primary
                .into_iter()
                .chain(others.map(String::as_str))
                .collect()
        }
    }
}

/// Returns what was received on a connection so far.
fn so_far(mut stream: TcpStream) -> String {
    let mut received = [0; 1_024];
    stream.set_nonblocking(true).unwrap();
    let length = stream.read(&mut received).unwrap_or(0);
    String::from_utf8_lossy(&received[..length]).into_owned()
}

/// Returns the first scenarios of each family, and those with requests that waited in a queue.
fn sample() -> Vec<Scenario> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity/catalogue");
    let mut taken: BTreeMap<String, usize> = BTreeMap::new();
    let mut scenarios = Scenario::read_folder(&folder).unwrap();
    scenarios.retain(|scenario| {
        let taken = taken.entry(scenario.family.clone()).or_default();
        *taken += 1;
        *taken <= SAMPLE || scenario.waiting() > 0
    });
    scenarios
}

#[test]
fn the_module_in_envoy_decides_as_the_native_core_over_the_whole_catalogue() {
    let staged: Vec<Staged> = sample().into_iter().map(Staged::new).collect();
    // 13 families, of which one has a single scenario; one of the four with queues is in the sample of its family.
    assert_eq!(staged.len(), 13 * SAMPLE - 1 + 3);
    let mut setup = Setup::new(&staged[0].addresses(), "");
    setup.configs = staged.iter().map(Staged::config).collect();
    let clusters = staged.iter();
    let clusters = clusters.map(|staged| (staged.scenario.name.clone(), staged.addresses()));
    setup.others = clusters.collect();
    let proxy = &setup.start();
    let (compared, waited) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for staged in &staged {
            scope.spawn(|| {
                let played = staged.play(proxy);
                compared.fetch_add(played.compared, Ordering::Relaxed);
                waited.fetch_add(played.waited, Ordering::Relaxed);
            });
        }
    });
    // Ties fall otherwise sooner or later, but not at once.
    let compared = compared.into_inner();
    assert!(
        compared > 80,
        "{compared} decisions were compared with the recorded ones"
    );
    assert_eq!(waited.into_inner(), 16, "all that waited in the recordings");
}

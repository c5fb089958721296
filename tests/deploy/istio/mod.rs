//! The manifests in envoy/istio/: they are what Istio's CRDs allow, and the gateway that comes of
//! them loads and routes in a real Envoy.
//!
//! The gateway before them is in gateway.yaml, as Istio's control plane makes it; `pilot` does to it
//! what that control plane does with the manifests.

mod chart;
mod crds;
mod pilot;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use envoytest::client::{self, Answer};
use envoytest::proxy::wait_until;
use modelsim::Pinned;

use crate::envoy::{top, Envoy};
use crate::stage::{read, Stage};
use pilot::Gateway;
use serde_yaml::Value;

const SERVICE: &str = "service.example.com";
const POOL: &str = "pool.example.com";
const SUBSET: &str = "subset.example.com";
const OTHER_POOL: &str = "other-pool.example.com";
const SERVICE_CLUSTER: &str = "pool=\"outbound|8000||vllm.llm.svc.cluster.local\"";

fn folder() -> PathBuf {
    top().join("envoy/istio")
}

/// A gateway to which these manifests were applied.
struct Running {
    stage: Stage,
    _envoy: Envoy,
    port: u16,
    admin: u16,
}

impl Running {
    fn with(manifests: &[&str]) -> Self {
        Self::of(Self::gateway(manifests))
    }

    fn gateway(manifests: &[&str]) -> Gateway {
        let mut gateway = Gateway::new(read(&top().join("tests/deploy/istio/gateway.yaml")));
        for name in manifests {
            gateway.apply(&folder().join(name));
        }
        gateway
    }

    fn of(gateway: Gateway) -> Self {
        let (config, extensions) = gateway.built();
        let stage = Stage::of(config);
        for (name, mut extension) in extensions {
            stage.place_paths(&mut extension);
            stage.write(&format!("ecds/{name}.yaml"), &extension);
        }
        let envoy = Envoy::start(&stage.folder, "envoy", &stage.text());
        let running = Self {
            port: stage.port(80),
            admin: stage.port(15000),
            stage,
            _envoy: envoy,
        };
        wait_until("the gateway serves", || {
            let ready = client::get(running.admin, "/ready");
            ready.is_ok_and(|answer| answer.status == 200)
        });
        running
    }

    /// Until the filter knows this many endpoints that may be picked, and their metrics.
    fn knows(&self, endpoints: usize) -> &Self {
        wait_until("metrics are fresh", || {
            let page = self.page();
            let lines = page.lines();
            let fresh =
                lines.filter(|line| line.contains("endpoint_freshness") && line.ends_with(" 2"));
            fresh.count() == endpoints
        });
        self
    }

    fn ask(&self, host: &str, prompt: &str) -> Answer {
        // What a client must not be able to say.
        self.ask_for(host, prompt, "127.0.0.1:1")
    }

    /// The same with another endpoint named.
    fn ask_for(&self, host: &str, prompt: &str, endpoint: &str) -> Answer {
        let body = format!(r#"{{"model": "demo", "prompt": "{prompt}", "max_tokens": 2}}"#);
        let headers = [
            ("content-type", "application/json"),
            ("host", host),
            ("x-gateway-destination-endpoint", endpoint),
        ];
        let path = "/v1/completions";
        client::send(self.port, "POST", path, &headers, body.as_bytes()).unwrap()
    }

    /// Requests with a prompt in common: the pods that answered.
    fn conversation(&self, host: &str) -> Vec<String> {
        let prompt = "A long prompt of many blocks that all turns begin with. ".repeat(60);
        let turn = |number: usize| {
            let answer = self.ask(host, &format!("{prompt}{number}"));
            assert_eq!(answer.status, 200, "{answer:?}");
            answer.pod().to_owned()
        };
        (0..8).map(turn).collect()
    }

    /// The pod that a conversation keeps to once the worker has heard of the pool; before, Envoy's
    /// own policy sends its turns around.
    fn keeps_to(&self, host: &str) -> String {
        let mut pods = Vec::new();
        wait_until("a conversation keeps to one pod", || {
            pods = self.conversation(host);
            all_same(&pods)
        });
        pods.remove(0)
    }

    fn page(&self) -> String {
        client::get(self.admin, "/stats/prometheus").unwrap().body
    }

    /// Asserts that the endpoint which clients name gets no more of a host's requests than others.
    fn obeys_nobody(&self, host: &str) {
        for address in self.stage.sim.addresses() {
            let pods = (0..40).map(|_| {
                let answer = self.ask_for(host, "x", &address.to_string());
                assert_eq!(answer.status, 200, "{answer:?}");
                answer.pod().to_owned()
            });
            let mut served = BTreeMap::<String, usize>::new();
            pods.for_each(|pod| *served.entry(pod).or_default() += 1);
            // Of two pods that are chosen by chance; obeyed it would be all.
            let spread = served.values().all(|count| *count < 36);
            assert!(spread, "{host}, {address}: {served:?}");
        }
    }

    /// What pods were sent under the name that only the gateway may use.
    fn leaked(&self) -> usize {
        let pods = self.stage.sim.pods();
        pods.flat_map(|pod| pod.seen())
            .filter(|seen| seen.path == "/v1/completions")
            .filter(|seen| seen.header("x-gateway-destination-endpoint").is_some())
            .count()
    }

    /// Takes the pod of this name off the network. A request that is under way on a connection in
    /// the moment that it ends is one that Istio's policy does not send again: Envoy has heard of
    /// the end of all of them when this returns.
    fn stop(&mut self, pod: &str) {
        let number: usize = pod.strip_prefix("pod-").unwrap().parse().unwrap();
        self.stage.sim.stop(number - 1);
        sleep(Duration::from_millis(500));
    }
}

fn all_same(pods: &[String]) -> bool {
    pods.iter().all(|pod| *pod == pods[0])
}

#[test]
fn a_gateway_routes_by_whole_requests() {
    let mut gateway = Running::with(&["cluster.yaml", "filter.yaml", "metric-labels.yaml"]);
    let pod = gateway.knows(2).keeps_to(SERVICE);
    assert_eq!(gateway.leaked(), 0);
    // Past Istio's matcher of statistics, and with labels.
    wait_until("picks are counted", || {
        let page = gateway.page();
        let mut picks = page
            .lines()
            .filter(|line| line.starts_with("llm_d_epp_scheduler_attempts_total{"));
        picks.any(|line| line.contains(SERVICE_CLUSTER) && line.contains("endpoint_name="))
    });
    // A retry with Istio's policy, which passes by hosts that were tried.
    gateway.stop(&pod);
    let rest = gateway.conversation(SERVICE);
    assert!(rest.iter().all(|other| *other != pod), "{rest:?}");
}

#[test]
fn an_inference_pool_needs_no_picker() {
    let mut gateway = Running::with(&["inference-pool.yaml", "metric-labels.yaml"]);
    let pod = gateway.knows(3).keeps_to(POOL);
    assert_eq!(gateway.leaked(), 0);
    gateway.stop(&pod);
    let rest = gateway.conversation(POOL);
    assert!(rest.iter().all(|other| *other != pod), "{rest:?}");
}

#[test]
fn a_wasm_plugin_routes_by_metrics() {
    let gateway = Running::with(&["cluster.yaml", "wasmplugin.yaml", "metric-labels.yaml"]);
    gateway.stage.sim.pod(0).pin(Pinned {
        waiting: Some(50),
        ..Pinned::default()
    });
    gateway.knows(2);
    wait_until("the idle pod gets all", || {
        let pods = gateway.conversation(SERVICE);
        all_same(&pods) && pods[0] == "pod-2"
    });
    assert_eq!(gateway.leaked(), 0);
    let mode = format!("epp_wasm_reads_bodies{{{SERVICE_CLUSTER}}} 0");
    assert!(gateway.page().contains(&mode), "{}", gateway.page());
}

#[test]
fn other_hosts_of_the_gateway_are_left_alone() {
    let gateway = Running::with(&["cluster.yaml", "filter.yaml"]);
    wait_until("the pool's own filter is asked", || {
        gateway.ask(SERVICE, "x").status == 200
    });
    let pods = gateway.conversation(POOL);
    assert!(!all_same(&pods), "nobody picks here: {pods:?}");
}

#[test]
fn no_other_cluster_of_the_gateway_obeys_a_client() {
    // A subset is another cluster, and a pool of Istio's own has the policy.
    let service: (&[&str], &str) = (&["cluster.yaml", "filter.yaml"], SUBSET);
    for (manifests, host) in [service, (&["inference-pool.yaml"], OTHER_POOL)] {
        for runs in [true, false] {
            let mut gateway = Running::gateway(manifests);
            if !runs {
                // As with FAIL_OPEN after a trap.
                gateway.remove_filters("epp");
            }
            Running::of(gateway).obeys_nobody(host);
        }
    }
}

#[test]
fn only_the_cluster_that_the_filter_serves_obeys_it() {
    let mut gateway = Gateway::new(read(&top().join("tests/deploy/istio/gateway.yaml")));
    gateway.apply(&folder().join("cluster.yaml"));
    let (config, _) = gateway.built();
    let clusters = config["static_resources"]["clusters"]
        .as_sequence()
        .unwrap();
    let text = |value: &Value| serde_yaml::to_string(value).unwrap();
    let obey = clusters
        .iter()
        .filter(|one| text(one).contains("header: x-gateway"));
    let obey: Vec<&Value> = obey.map(|one| &one["name"]).collect();
    assert_eq!(obey, ["outbound|8000||vllm.llm.svc.cluster.local"]);
}

//! An Envoy of a gateway to which manifests were applied, and what clients see of it.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::Duration;

use envoy_harness::client::{self, Response};
use envoy_harness::{wait_until, Process};
use serde_yaml::Value;

use super::pilot::Built;
use super::{built, gateway_yaml, manifests, PARAMETERS};
use crate::envoy;
use crate::stage::Stage;

/// A gateway to which these manifests were applied.
pub struct Running {
    /// Stopped before its files are removed.
    _envoy: Process,
    pub stage: Stage,
    port: u16,
    admin: u16,
}

impl Running {
    /// Starts a gateway with these files of envoy/istio/.
    pub fn with(names: &[&str]) -> Self {
        Self::of(built(gateway_yaml(), &manifests(names)))
    }

    pub fn of(built: Built) -> Self {
        let arguments = built.config_yaml(PARAMETERS);
        let arguments = arguments.iter().flat_map(|text| ["--config-yaml", text]);
        let arguments: Vec<&str> = arguments.collect();
        let stage = Stage::of(built.config);
        for (name, mut extension) in built.extensions {
            stage.place_paths(&mut extension);
            stage.write(&format!("ecds/{name}.yaml"), &extension);
        }
        let envoy = envoy::start_with(&stage.folder, "envoy", &stage.text(), &arguments);
        let running = Self {
            port: stage.port(80),
            admin: stage.port(15000),
            stage,
            _envoy: envoy,
        };
        wait_until("the gateway serves", || {
            let ready = client::get(running.admin, "/ready");
            ready.is_ok_and(|response| response.status == 200)
        });
        running
    }

    /// Waits until the filter has this many endpoints that may be picked, and their metrics.
    pub fn knows(&self, endpoints: usize) -> &Self {
        wait_until("metrics are fresh", || {
            let page = self.page();
            let lines = page.lines();
            let fresh =
                lines.filter(|line| line.contains("endpoint_freshness") && line.ends_with(" 2"));
            fresh.count() == endpoints
        });
        self
    }

    pub fn ask(&self, host: &str, prompt: &str) -> Response {
        // What a client must not be able to say.
        self.ask_for(host, prompt, "127.0.0.1:1")
    }

    /// Sends a request that names another endpoint.
    pub fn ask_for(&self, host: &str, prompt: &str, endpoint: &str) -> Response {
        let body = format!(r#"{{"model": "demo", "prompt": "{prompt}", "max_tokens": 2}}"#);
        let headers = [
            ("content-type", "application/json"),
            ("host", host),
            ("x-gateway-destination-endpoint", endpoint),
        ];
        let path = "/v1/completions";
        client::send(self.port, "POST", path, &headers, body.as_bytes()).unwrap()
    }

    /// Sends requests with a common prompt, and returns the pods that served them.
    pub fn conversation(&self, host: &str) -> Vec<String> {
        let prompt = "A long prompt of many blocks that all turns begin with. ".repeat(60);
        let turn = |number: usize| {
            let response = self.ask(host, &format!("{prompt}{number}"));
            assert_eq!(response.status, 200, "{response:?}");
            response.pod().to_owned()
        };
        (0..8).map(turn).collect()
    }

    /// Waits until the worker knows the pool, and asserts that a conversation keeps to one pod from then on. Returns that pod.
    ///
    /// Before, Envoy's own policy sends turns around. Of two pods, that sends the 24 turns of three conversations to one in
    /// one of 8 million cases.
    pub fn keeps_to(&self, host: &str) -> String {
        let mut pods = Vec::new();
        wait_until("the worker picks", || {
            pods = (0..3).flat_map(|_| self.conversation(host)).collect();
            all_same(&pods)
        });
        let pod = pods.remove(0);
        assert_eq!(self.conversation(host), vec![pod.clone(); 8]);
        pod
    }

    pub fn page(&self) -> String {
        self.shown("/stats/prometheus")
    }

    /// Returns a page of the admin interface.
    pub fn shown(&self, path: &str) -> String {
        client::get(self.admin, path).unwrap().body
    }

    /// The members of a cluster: the names of their pods.
    pub fn members(&self, cluster: &str) -> Vec<String> {
        let clusters = self.stage.config["static_resources"]["clusters"].as_sequence();
        let mut clusters = clusters.unwrap().iter();
        let found = clusters.find(|one| one["name"] == cluster).unwrap();
        let members = &found["load_assignment"]["endpoints"][0]["lb_endpoints"];
        let addresses = self.stage.sim.addresses();
        let name = |member: &Value| {
            let port = &member["endpoint"]["address"]["socket_address"]["port_value"];
            let number = addresses.iter().position(|at| *port == at.port());
            format!("pod-{}", number.unwrap() + 1)
        };
        members.as_sequence().unwrap().iter().map(name).collect()
    }

    /// Returns the number of 40 requests that each pod gets when clients name this endpoint.
    fn served(&self, host: &str, endpoint: &str) -> BTreeMap<String, usize> {
        let mut served = BTreeMap::new();
        for _ in 0..40 {
            let response = self.ask_for(host, "x", endpoint);
            assert_eq!(response.status, 200, "{response:?}");
            *served.entry(response.pod().to_owned()).or_default() += 1;
        }
        served
    }

    /// Asserts that the endpoint which clients name gets no more of a host's requests than others.
    pub fn obeys_no_client(&self, host: &str) {
        for address in self.stage.sim.addresses() {
            let served = self.served(host, &address.to_string());
            // Of two pods that are chosen by chance; obeyed it would be all.
            let spread = served.values().all(|count| *count < 36);
            assert!(spread, "{host}, {address}: {served:?}");
        }
    }

    /// Asserts that a pool's own choice applies, whichever of its members clients name. That may be one
    /// member for all of these requests, but is then not the one that they name.
    pub fn keeps_its_choice(&self, host: &str, members: &[String]) {
        let addresses = self.stage.sim.addresses();
        let obeyed = members.iter().filter(|name| {
            let number: usize = name.strip_prefix("pod-").unwrap().parse().unwrap();
            let served = self.served(host, &addresses[number - 1].to_string());
            assert!(served.keys().all(|pod| members.contains(pod)), "{served:?}");
            served.get(*name) == Some(&40)
        });
        assert!(obeyed.count() <= 1, "{host}: {members:?}");
    }

    /// Returns the number of requests that reached pods with a header that only the gateway may set.
    pub fn leaked(&self) -> usize {
        let pods = self.stage.sim.pods();
        pods.flat_map(|pod| pod.seen())
            .filter(|seen| seen.path == "/v1/completions")
            .filter(|seen| seen.header("x-gateway-destination-endpoint").is_some())
            .count()
    }

    /// Takes the pod of this name off the network. A request that is under way on a connection in
    /// the moment that it ends is one that Istio's policy does not send again: Envoy has learnt of
    /// the end of all of them when this returns.
    pub fn stop(&mut self, pod: &str) {
        let number: usize = pod.strip_prefix("pod-").unwrap().parse().unwrap();
        self.stage.sim.stop(number - 1);
        sleep(Duration::from_millis(500));
    }
}

pub fn all_same(pods: &[String]) -> bool {
    pods.iter().all(|pod| *pod == pods[0])
}

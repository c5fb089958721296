//! An Envoy with what Envoy Gateway generates, and what clients see of it.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::Duration;

use envoy_harness::client;
use envoy_harness::traffic::{self, Http};
use envoy_harness::{wait_until, Process};
use hyper::header::HeaderValue;
use serde_yaml::Value;
use tokio::runtime::Runtime;

use crate::envoy;
use crate::stage::Stage;

const DESTINATION: &str = "x-gateway-destination-endpoint";

pub struct Running {
    /// Stopped before its files are removed.
    envoy: Process,
    pub stage: Stage,
    runtime: OnceCell<Runtime>,
}

impl Running {
    pub fn of(config: Value) -> Self {
        Self::on(Stage::of(config))
    }

    /// Starts Envoy with what is in place.
    pub fn on(stage: Stage) -> Self {
        let envoy = envoy::start(&stage.folder, "envoy", &stage.text());
        let running = Self {
            stage,
            runtime: OnceCell::new(),
            envoy,
        };
        let port = running.stage.port(19_003);
        wait_until("the gateway is ready", || {
            client::get(port, "/ready").is_ok_and(|response| response.status == 200)
        });
        running
    }

    /// Returns the page that Prometheus scrapes.
    pub fn page(&self) -> String {
        let port = self.stage.port(19_001);
        client::get(port, "/stats/prometheus").unwrap().body
    }

    /// Returns the metrics as the admin interface has them, which is there also without Prometheus.
    pub fn metrics(&self) -> String {
        let port = self.stage.port(19_000);
        client::get(port, "/stats/prometheus").unwrap().body
    }

    /// Returns Envoy's log.
    pub fn logged(&self) -> String {
        self.envoy.logged()
    }

    /// Waits until the filter has this many endpoints that may be picked, and their metrics.
    pub fn knows(&self, endpoints: usize) -> &Self {
        wait_until("metrics are fresh", || {
            let page = self.page();
            let fresh = page
                .lines()
                .filter(|line| line.contains("endpoint_freshness") && line.ends_with(" 2"));
            fresh.count() == endpoints
        });
        self
    }

    /// Sends a prompt of this many bytes, and returns the response's status and the pod that served it.
    pub fn send(&self, http: Http, bytes: usize) -> Result<(u16, String), String> {
        let prompt = "A long prompt of many blocks. ".repeat(bytes / 30);
        // What a client must not be able to say.
        self.send_naming(http, &prompt, "127.0.0.1:1")
    }

    /// Sends a request that names another endpoint.
    fn send_naming(
        &self,
        http: Http,
        prompt: &str,
        endpoint: &str,
    ) -> Result<(u16, String), String> {
        let body = format!(r#"{{"model": "demo", "prompt": "{prompt}", "max_tokens": 2}}"#);
        let port = self.stage.port(10_080);
        let mut request = traffic::post(port, "/v1/completions", traffic::whole(body));
        let endpoint = HeaderValue::from_str(endpoint).unwrap();
        request.headers_mut().insert(DESTINATION, endpoint);
        let runtime = self.runtime.get_or_init(|| Runtime::new().unwrap());
        runtime.block_on(async {
            let client = traffic::client(http);
            let response = client.request(request).await;
            let response = response.map_err(|error| error.to_string())?;
            let pod = response.headers().get("x-served-by");
            let pod = pod.map_or("", |pod| pod.to_str().unwrap()).to_owned();
            Ok((response.status().as_u16(), pod))
        })
    }

    /// Sends a prompt of this many bytes six times; returns the pods that served it, and the statuses.
    pub fn conversation(&self, http: Http, bytes: usize) -> (BTreeSet<String>, BTreeSet<u16>) {
        let (mut pods, mut statuses) = (BTreeSet::new(), BTreeSet::new());
        for _ in 0..6 {
            let (status, pod) = self.send(http, bytes).unwrap();
            pods.insert(pod);
            statuses.insert(status);
        }
        (pods, statuses)
    }

    /// Waits until the worker knows the pool, and asserts that a conversation keeps to one pod from then on. Returns that pod.
    ///
    /// Before, Envoy's own policy sends turns around. Of two pods, that sends the 24 turns of four conversations to one in
    /// one of 8 million cases.
    pub fn keeps_to(&self, http: Http) -> String {
        let conversation = || self.conversation(http, 3000).0;
        let mut pods = BTreeSet::new();
        wait_until("the worker picks", || {
            pods = (0..4).flat_map(|_| conversation()).collect();
            pods.len() == 1
        });
        assert_eq!(conversation(), pods);
        pods.pop_first().unwrap()
    }

    /// Asserts that the endpoint which clients name gets no more requests than others.
    pub fn obeys_no_client(&self) {
        let addresses = self.stage.sim.addresses();
        let mut obeyed = 0;
        for (number, address) in addresses.iter().enumerate() {
            let named = format!("pod-{}", number + 1);
            let served = (0..10).map(|_| {
                let sent = self.send_naming(Http::One, "x", &address.to_string());
                sent.unwrap().1
            });
            obeyed += usize::from(served.into_iter().all(|pod| pod == named));
        }
        // All requests may go to one pod that happens to be named in a third of them.
        assert!(obeyed <= 1, "{obeyed} of {}", addresses.len());
    }

    /// Returns the number of requests that reached pods with the header that only the gateway may set.
    pub fn leaked(&self) -> usize {
        let pods = self.stage.sim.pods();
        pods.flat_map(|pod| pod.seen())
            .filter(|seen| seen.path == "/v1/completions")
            .filter(|seen| seen.header(DESTINATION).is_some())
            .count()
    }

    /// Takes the pod of this name off the network, and waits until Envoy has learnt of the end of its connections.
    pub fn stop(&mut self, pod: &str) {
        let number: usize = pod.strip_prefix("pod-").unwrap().parse().unwrap();
        self.stage.sim.stop(number - 1);
        sleep(Duration::from_millis(500));
    }
}

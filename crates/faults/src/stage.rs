//! Where a row plays: pods, a real Envoy over them, and load that runs throughout.

use std::thread::sleep;
use std::time::Duration;

use envoytest::proxy::{Proxy, Setup};
use modelsim::{Faults, Settings, Sim};
use serde_json::json;

use crate::load::{Load, Mix};
use crate::verdict::{Bar, Measured, Times};

/// What runs before a fault comes: enough to know what is usual.
const BEFORE: Duration = Duration::from_millis(2_000);

/// Until connections of a replaced listener are cut, in seconds. Envoy's default is ten minutes.
pub const DRAIN: u32 = 5;

/// What an operator would set up.
#[must_use]
pub struct Plan {
    /// The Envoy.
    pub setup: Setup,
    /// The pods.
    pub sim: Sim,
    /// The load.
    pub mix: Mix,
}

/// A pod that takes 10 ms to the first token and 4 ms for each further one.
pub fn pod() -> Settings {
    Settings {
        base_latency: Duration::from_millis(10),
        token_time: Duration::from_millis(4),
        ..Settings::default()
    }
}

/// The configuration that most rows run: prefix, queue and KV cache.
pub fn document(envoy_proxy: &str) -> String {
    format!(
        "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: prefix-cache-scorer
- type: queue-scorer
- type: kv-cache-utilization-scorer
- {{type: envoy-proxy, parameters: {{{envoy_proxy}}}}}
schedulingProfiles:
- name: default
  plugins:
  - {{pluginRef: prefix-cache-scorer, weight: 3}}
  - {{pluginRef: queue-scorer, weight: 2}}
  - {{pluginRef: kv-cache-utilization-scorer, weight: 2}}
"
    )
}

/// The retry policy of envoy/envoy.yaml, with a second's patience for the first byte.
pub fn retries() -> serde_json::Value {
    json!({
        "retry_policy": {
            "retry_on": "connect-failure,refused-stream,reset,retriable-status-codes",
            "retriable_status_codes": [503],
            "num_retries": 2,
            "per_try_timeout": "1s",
        },
        "hedge_policy": {"hedge_on_per_try_timeout": true},
    })
}

/// Envoy's defaults are 1,024 requests and 3 retries at a time: the fourth retry of a pod's death
/// would be refused.
fn breakers() -> serde_json::Value {
    json!({"circuit_breakers": {"thresholds": [{"max_connections": 65_536,
        "max_pending_requests": 65_536, "max_requests": 65_536, "max_retries": 1_024}]}})
}

impl Plan {
    /// That many pods behind an Envoy with two workers.
    pub fn new(pods: usize) -> Self {
        let sim = Sim::start(pods, &pod()).unwrap();
        let mut setup = Setup::new(&sim.addresses(), &document(""));
        setup.workers = 2;
        setup.drain_seconds = DRAIN;
        setup.route = retries();
        setup.cluster = breakers();
        Self {
            setup,
            sim,
            mix: Mix::default(),
        }
    }

    /// Starts all, and lets load run for a while.
    pub fn start(self) -> Stage {
        self.start_then(|_| ())
    }

    /// The same, with something to do as soon as Envoy's ports are known.
    pub fn start_then(self, launched: impl FnOnce(&Proxy)) -> Stage {
        let proxy = self.setup.launch();
        launched(&proxy);
        proxy.wait_until_it_serves();
        let load = Load::start(proxy.port, self.mix).unwrap();
        let mut stage = Stage {
            sim: self.sim,
            proxy,
            load,
            fault: Duration::ZERO,
            over: None,
            held: 0,
        };
        stage.run(BEFORE);
        stage.fault = stage.load.elapsed();
        stage
    }
}

/// All that runs.
pub struct Stage {
    /// The pods.
    pub sim: Sim,
    /// The Envoy.
    pub proxy: Proxy,
    load: Load,
    fault: Duration,
    over: Option<Duration>,
    held: usize,
}

impl Stage {
    /// Lets it run.
    pub fn run(&self, time: Duration) {
        sleep(time);
    }

    /// Recovery counts from now on and not from when the fault came: nobody could recover before.
    pub fn recovery_counts(&mut self) {
        self.over = Some(self.load.elapsed());
    }

    /// What this pod holds now may be lost.
    pub fn holds(&mut self, pod: usize) {
        self.held += self.sim.pod(pod).shown().running;
    }

    /// What may be lost so far.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Something goes wrong with a pod.
    pub fn fault(&self, pod: usize, faults: Faults) {
        self.sim.pod(pod).set_faults(faults);
    }

    /// Ends the load and says how it went.
    pub fn end(self, bar: Bar) -> Measured {
        let sent = self.load.stop();
        let times = Times {
            fault: self.fault,
            over: self.over.unwrap_or(self.fault),
            fast: bar.fast,
        };
        Measured::new(&sent, &times, self.held, bar)
    }
}

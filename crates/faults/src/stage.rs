//! The setting of a row: pods, a real Envoy in front of them, and a load that runs throughout.

use std::sync::LazyLock;
use std::thread::sleep;
use std::time::Duration;

use envoy_harness::proxy::{Proxy, Setup};
use fake_model_server::{Faults, Settings, Sim};
use serde_json::{json, Value};

use crate::load::{Load, Mix, Sent};
use crate::verdict::{Bar, Measured, Times};

/// The time for which the load runs before a fault: long enough to measure usual response times.
const LOAD_BEFORE_FAULT: Duration = Duration::from_millis(2_000);

/// Seconds until connections of a replaced listener are cut. Envoy's default is ten minutes.
pub const DRAIN_SECONDS: u32 = 5;

/// A setting that has not started yet, as an operator would configure it.
#[must_use]
pub struct Plan {
    /// The Envoy.
    pub setup: Setup,
    /// The pods.
    pub sim: Sim,
    /// The load.
    pub mix: Mix,
}

/// Returns the settings of a pod that takes 10 ms to the first token and 4 ms for each further one.
pub fn pod() -> Settings {
    Settings {
        base_latency: Duration::from_millis(10),
        token_time: Duration::from_millis(4),
        ..Settings::default()
    }
}

/// Returns the configuration that most rows run: prefix, queue and KV cache.
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

/// Returns the resources of envoy/envoy.yaml, so that the rows test what is published.
fn published() -> &'static Value {
    static FILE: LazyLock<Value> =
        LazyLock::new(|| serde_yaml::from_str(include_str!("../../../envoy/envoy.yaml")).unwrap());
    &FILE["static_resources"]
}

/// Returns the published retries.
pub fn published_retries() -> Value {
    let manager = &published()["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"];
    let route = &manager["route_config"]["virtual_hosts"][0]["routes"][0]["route"];
    json!({"retry_policy": route["retry_policy"], "hedge_policy": route["hedge_policy"]})
}

/// Returns the published retries, with a timeout of a second per attempt, so that a row does not take minutes.
pub fn retries() -> Value {
    let mut retries = published_retries();
    retries["retry_policy"]["per_try_timeout"] = "1s".into();
    retries
}

/// Returns the published circuit breakers.
fn breakers() -> Value {
    json!({"circuit_breakers": published()["clusters"][0]["circuit_breakers"]})
}

impl Plan {
    /// Creates the setting with this many pods behind an Envoy with two workers.
    pub fn new(pods: usize) -> Self {
        let sim = Sim::start(pods, &pod()).unwrap();
        let mut setup = Setup::new(&sim.addresses(), &document(""));
        setup.workers = 2;
        setup.drain_seconds = DRAIN_SECONDS;
        setup.route = retries();
        setup.cluster = breakers();
        Self {
            setup,
            sim,
            mix: Mix::default(),
        }
    }

    /// Starts everything, and lets the load run for a while.
    pub fn start(self) -> Stage {
        self.start_then(|_| ())
    }

    /// Starts the stage, and calls `launched` as soon as Envoy's ports are known.
    pub fn start_then(self, launched: impl FnOnce(&Proxy)) -> Stage {
        let proxy = self.setup.launch();
        launched(&proxy);
        proxy.wait_until_it_serves();
        let load = Load::start(proxy.port, self.mix).unwrap();
        let mut stage = Stage {
            sim: self.sim,
            proxy,
            load,
            mix: self.mix,
            fault: Duration::ZERO,
            over: None,
            may_be_lost: 0,
        };
        stage.run(LOAD_BEFORE_FAULT);
        stage.fault = stage.load.elapsed();
        stage
    }
}

/// A running setting.
pub struct Stage {
    /// The pods.
    pub sim: Sim,
    /// The Envoy.
    pub proxy: Proxy,
    load: Load,
    mix: Mix,
    fault: Duration,
    over: Option<Duration>,
    may_be_lost: usize,
}

impl Stage {
    /// Lets it run for some time.
    pub fn run(&self, time: Duration) {
        sleep(time);
    }

    /// Measures recovery from now instead of from the beginning of the fault: it was not possible before.
    pub fn recovery_counts(&mut self) {
        self.over = Some(self.load.elapsed());
    }

    /// Allows the responses that a pod is sending now to be lost.
    pub fn allow_loss_on(&mut self, pod: usize) {
        self.may_be_lost += self.sim.pod(pod).shown().running;
    }

    /// Returns the requests of the load.
    pub fn mix(&self) -> Mix {
        self.mix
    }

    /// Returns how many responses may be lost.
    pub fn may_be_lost(&self) -> usize {
        self.may_be_lost
    }

    /// Sets the faults of a pod.
    pub fn set_faults(&self, pod: usize, faults: Faults) {
        self.sim.pod(pod).set_faults(faults);
    }

    /// Stops the load. Returns the result of the row.
    pub fn end(self, bar: Bar) -> Measured {
        self.stop().judge(bar)
    }

    /// Stops the load. Returns the result of the row, which also requires that the 99th percentile of response times is back
    /// as soon as the pool must have recovered: at most twice what it was, and on a busy machine still fast.
    pub fn end_with_p99(self, bar: Bar) -> Measured {
        let (recovery, fast) = (bar.recovery, bar.fast);
        let ended = self.stop();
        let mut measured = ended.judge(bar);
        let p99 = |counts: &dyn Fn(&&Sent) -> bool| {
            let counted = ended.sent.iter().filter(|sent| counts(sent));
            let mut took: Vec<Duration> = counted.map(|sent| sent.took).collect();
            took.sort();
            took.get(took.len() * 99 / 100).copied().unwrap_or_default()
        };
        // Those that were under way when it broke are not what is usual.
        let before = p99(&|sent| sent.at + sent.took < ended.fault);
        let after = p99(&|sent| sent.at >= ended.over + recovery);
        let text =
            format!("p99 {before:.0?} before the fault, {after:.0?} from {recovery:?} after it");
        measured.require(after <= fast.max(before * 4), || text.clone());
        if after > before * 2 {
            measured.late.get_or_insert_with(|| text.clone());
        }
        measured.note(text);
        measured
    }

    /// Stops the load, and waits for the requests under way.
    pub fn stop(self) -> Ended {
        Ended {
            sent: self.load.stop(),
            sim: self.sim,
            proxy: self.proxy,
            fault: self.fault,
            over: self.over.unwrap_or(self.fault),
            may_be_lost: self.may_be_lost,
        }
    }
}

/// A setting whose load has ended.
pub struct Ended {
    /// The pods.
    pub sim: Sim,
    /// The Envoy.
    pub proxy: Proxy,
    /// The requests, by the time they were due.
    pub sent: Vec<Sent>,
    fault: Duration,
    over: Duration,
    may_be_lost: usize,
}

impl Ended {
    /// Returns the result of the row.
    pub fn judge(&self, bar: Bar) -> Measured {
        self.judge_those(&self.sent, bar)
    }

    /// Returns the result for some of the requests.
    pub fn judge_those(&self, sent: &[Sent], bar: Bar) -> Measured {
        let times = Times {
            fault: self.fault,
            over: self.over,
            fast: bar.fast,
        };
        Measured::new(sent, &times, self.may_be_lost, bar)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// All values of this key, wherever they are.
    fn find<'v>(value: &'v Value, key: &str, found: &mut Vec<&'v Value>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get(key));
                map.values().for_each(|value| find(value, key, found));
            }
            Value::Array(list) => list.iter().for_each(|value| find(value, key, found)),
            _ => {}
        }
    }

    #[test]
    fn every_published_bootstrap_retries_as_the_rows_do() {
        let mut read = 0;
        let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../envoy");
        for folder in [top.clone(), top.join("production")] {
            let files = std::fs::read_dir(folder).unwrap();
            let files = files.map(|file| file.unwrap().path());
            for file in files.filter(|file| file.extension().is_some_and(|end| end == "yaml")) {
                let text = std::fs::read_to_string(&file).unwrap();
                let config: Value = serde_yaml::from_str(&text).unwrap();
                let same = |key: &str, expected: &Value| {
                    let mut found = Vec::new();
                    find(&config, key, &mut found);
                    assert!(!found.is_empty(), "{}: no {key}", file.display());
                    for value in found {
                        let mut value = value.clone();
                        if key == "retry_policy" {
                            value["per_try_timeout"] = "1s".into();
                        }
                        assert_eq!(&value, expected, "{}: {key}", file.display());
                    }
                };
                let (retries, breakers) = (retries(), breakers());
                same("retry_policy", &retries["retry_policy"]);
                same("hedge_policy", &retries["hedge_policy"]);
                let most = &breakers["circuit_breakers"]["thresholds"][0]["max_retries"];
                assert_eq!(most, 1_024);
                same("max_retries", most);
                read += 1;
            }
        }
        assert!(read >= 7, "{read}");
    }
}

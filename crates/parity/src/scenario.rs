//! The format of recorded scenarios.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{json, Value};

/// The reason of a reply to a request that has waited as long as it may.
pub const EXPIRED: &str = "rejected-ttl-expired";

/// A scenario.
#[derive(Debug, Clone, Deserialize)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// Its subject, such as prefix, pd or session.
    pub family: String,
    /// The EndpointPickerConfig, without discovery.
    pub config: Value,
    /// The endpoints, in the order of the list.
    pub endpoints: Vec<Endpoint>,
    /// The steps, in order.
    pub steps: Vec<Step>,
}

/// An endpoint of a scenario.
#[derive(Debug, Clone, Deserialize)]
pub struct Endpoint {
    /// The name that the steps use.
    pub name: String,
    /// The address at the time of the recording.
    pub address: String,
    /// The port at the time of the recording.
    pub port: String,
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

impl Endpoint {
    /// Returns its address and port at the time of the recording.
    pub fn place(&self) -> String {
        format!("{}:{}", self.address, self.port)
    }
}

/// A step.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Step {
    /// Some endpoints export other values from now on.
    Metrics {
        /// The values by endpoint.
        metrics: BTreeMap<String, Exported>,
    },
    /// A request, sent after the response to the previous one, or once that was sent to an endpoint.
    Request {
        /// The request.
        request: Sent,
        /// The decision of the Endpoint Picker.
        expect: Expected,
    },
}

/// Values of a metrics page.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exported {
    /// Requests waiting.
    pub waiting: Option<f64>,
    /// Requests running.
    pub running: Option<f64>,
    /// KV-cache utilization, 0 to 1.
    pub kv: Option<f64>,
    /// The most active adapters; `None` if the page has no LoRA family.
    pub maxlora: Option<u32>,
    /// Active adapters, separated by commas.
    #[serde(default)]
    pub lora: String,
    /// Waiting adapters, separated by commas.
    #[serde(default)]
    pub lorawaiting: String,
}

/// A request.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Sent {
    /// `:path`.
    pub path: String,
    /// The exact body.
    pub body: String,
    /// Further headers, in lower case.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

/// The decision of the Endpoint Picker.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Expected {
    /// The request was sent to an endpoint, which responded.
    Served(Served),
    /// The request was sent to an endpoint, whose response does not come before the scenario ends.
    Held {
        /// That endpoint; none if the request was still in a queue.
        held_by: Vec<String>,
    },
    /// The client got a local reply.
    Refused(Refused),
}

/// A decision for an endpoint.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Served {
    /// The weighted sum of each candidate's scores, in the profile whose picks the request is sent to. Empty if
    /// the Endpoint Picker named no endpoint as it is, because every port was replaced.
    pub scores: BTreeMap<String, f64>,
    /// The endpoints, best first. Those with equal sums are in random order. Where ports were replaced, the
    /// destinations instead: the endpoint at that port, or the address if there is none.
    pub ranking: Vec<String>,
    /// The endpoint that responded: the first of the ranking, which the prefix index records.
    pub served_by: String,
    /// Headers that name other endpoints to the one that serves the request.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The session header of the response.
    pub session: Option<String>,
}

/// A local reply.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Refused {
    /// The status.
    pub status: u32,
    /// The body.
    pub body: String,
    /// The header that names the reason.
    pub reason: Option<String>,
    /// The time until it came, in milliseconds, in steps of 100.
    #[serde(default)]
    pub waited_ms: f64,
}

impl Expected {
    /// Returns whether the request waited in a queue, to the end of the scenario or until it expired, so that no endpoint
    /// was picked.
    pub fn waited(&self) -> bool {
        match self {
            Self::Served(_) => false,
            Self::Held { held_by } => held_by.is_empty(),
            Self::Refused(refused) => refused.reason.as_deref() == Some(EXPIRED),
        }
    }
}

impl Exported {
    /// Returns vLLM's metrics page with these values.
    pub fn page(&self) -> String {
        let mut page = String::new();
        let mut family = |name: &str, labels: &str, value: f64| {
            page += &format!("# TYPE vllm:{name} gauge\nvllm:{name}{{{labels}}} {value}\n");
        };
        for (name, value) in [
            ("num_requests_waiting", self.waiting),
            ("num_requests_running", self.running),
            ("kv_cache_usage_perc", self.kv),
        ] {
            if let Some(value) = value {
                family(name, "model_name=\"m\"", value);
            }
        }
        if let Some(max) = self.maxlora {
            let (running, waiting) = (&self.lora, &self.lorawaiting);
            let labels = format!(
                "max_lora=\"{max}\",running_lora_adapters=\"{running}\",waiting_lora_adapters=\"{waiting}\""
            );
            family("lora_requests_info", &labels, 1.0);
        }
        page
    }
}

/// Returns the names in a list separated by commas.
pub fn names(list: &str) -> Vec<String> {
    let names = list.split(',').map(str::trim);
    let names = names.filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

impl Scenario {
    /// Reads a scenario's file.
    pub fn read(path: &Path) -> Result<Self, String> {
        let in_file = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| in_file(&error))?;
        serde_json::from_str(&text).map_err(|error| in_file(&error))
    }

    /// Reads all scenarios of a folder, in the order of their numbers.
    pub fn read_folder(folder: &Path) -> Result<Vec<Self>, String> {
        let entries = std::fs::read_dir(folder);
        let entries = entries.map_err(|error| format!("{}: {error}", folder.display()))?;
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let files = paths.filter(|path| path.extension().is_some_and(|end| end == "json"));
        let scenarios: Result<Vec<Self>, String> = files.map(|path| Self::read(&path)).collect();
        let mut scenarios = scenarios?;
        // s2 before s10.
        scenarios.sort_by_key(|scenario| (scenario.name.len(), scenario.name.clone()));
        Ok(scenarios)
    }

    /// Returns the types of the plugins.
    pub fn plugins(&self) -> Vec<String> {
        let listed = self.config.get("plugins").and_then(Value::as_array);
        let types = listed.into_iter().flatten();
        let types = types.filter_map(|plugin| Some(plugin.get("type")?.as_str()?.to_owned()));
        types.collect()
    }

    /// Returns whether it has a plugin of this type.
    pub fn has(&self, kind: &str) -> bool {
        self.plugins().iter().any(|plugin| plugin == kind)
    }

    /// Returns the scenario with a saturation detector that is not a filter. Newer releases and epp-wasm add a detector that
    /// is also a filter to the profiles; the recorded release did not.
    #[must_use]
    pub fn with_recorded_gate(&self) -> Self {
        let mut scenario = self.clone();
        let gate = scenario
            .config
            .pointer_mut("/flowControl/saturationDetector/pluginRef");
        let Some(gate) = gate else {
            return scenario;
        };
        let detector = std::mem::replace(gate, "gate".into());
        let plugin = json!({
            "name": "gate", "type": "max-saturation-detector", "parameters": {"detectors": [detector]},
        });
        let plugins = scenario.config.get_mut("plugins");
        if let Some(plugins) = plugins.and_then(Value::as_array_mut) {
            plugins.push(plugin);
        }
        scenario
    }

    /// Returns the number of decisions. Requests that waited in a queue have none.
    pub fn decisions(&self) -> usize {
        self.requests().filter(|expect| !expect.waited()).count()
    }

    /// Returns the number of requests that waited in a queue.
    pub fn waiting(&self) -> usize {
        self.requests().filter(|expect| expect.waited()).count()
    }

    fn requests(&self) -> impl Iterator<Item = &Expected> {
        self.steps.iter().filter_map(|step| match step {
            Step::Request { expect, .. } => Some(expect),
            Step::Metrics { .. } => None,
        })
    }
}

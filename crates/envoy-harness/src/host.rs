//! The two hosts of the picker, as filters of an Envoy's configuration.

use std::env;
use std::path::{Path, PathBuf};

use serde_json::{json, Value};

use crate::config::typed;
use crate::envoy::path_of;

/// The type of a dynamic module's filter.
const DYNAMIC: &str = "filters.http.dynamic_modules.v3.DynamicModuleFilter";

/// A host of the picker in Envoy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// The WebAssembly module.
    Wasm,
    /// The dynamic module.
    Module,
}

impl Host {
    /// Returns the host that the environment variable `HOST` names: `wasm`, which is the default, or `module`.
    pub fn from_environment() -> Result<Self, String> {
        match env::var("HOST").as_deref() {
            Err(_) | Ok("wasm") => Ok(Self::Wasm),
            Ok("module") => Ok(Self::Module),
            Ok(other) => Err(format!("HOST is {other}, expected wasm or module")),
        }
    }

    /// Returns the host that the environment names, for tests: panics if it names another.
    pub fn of_environment() -> Self {
        Self::from_environment().unwrap_or_else(|error| panic!("{error}"))
    }

    /// Returns the environment variable with the file that Envoy loads, which the Makefile sets.
    pub fn variable(self) -> &'static str {
        match self {
            Self::Wasm => "EPP_WASM",
            Self::Module => "EPP_MODULE",
        }
    }

    /// Returns the file that Envoy loads, for tests: panics if there is none.
    pub fn file(self) -> PathBuf {
        path_of(self.variable())
    }

    /// Returns the file with fault injection, for tests: panics if there is none.
    pub fn faulty_file(self) -> PathBuf {
        match self {
            Self::Wasm => path_of("EPP_WASM_FAULTS"),
            Self::Module => path_of("EPP_MODULE_FAULTS"),
        }
    }

    /// Returns the filter that serves the status page: of the wasm module, with a VM of its own.
    pub(crate) fn status_filter(self, module: &Path) -> Value {
        let configuration =
            json!({"@type": "type.googleapis.com/google.protobuf.StringValue", "value": "status"});
        match self {
            Self::Wasm => {
                let wasm = json!({"config": {
                    "name": "epp-status",
                    "root_id": "status",
                    "vm_config": {"vm_id": "epp", "configuration": configuration, "runtime": "envoy.wasm.runtime.v8",
                        "code": {"local": {"filename": module}}},
                }});
                typed("wasm", "filters.http.wasm.v3.Wasm", wasm)
            }
            Self::Module => {
                let filter = json!({
                    "dynamic_module_config": {"module": {"local": {"filename": module}}},
                    "filter_name": "status",
                });
                typed("module", DYNAMIC, filter)
            }
        }
    }

    /// Returns a bootstrap for the wasm module, in YAML, as one for this host that loads `module`.
    pub fn bootstrap(self, yaml: &str, module: &Path) -> Result<Value, serde_yaml::Error> {
        let mut bootstrap: Value = serde_yaml::from_str(yaml)?;
        if self == Self::Module {
            to_dynamic(&mut bootstrap, module);
            bootstrap["layered_runtime"] = self.runtime();
            // Its metrics have their labels without these.
            bootstrap
                .as_object_mut()
                .map(|all| all.remove("stats_config"));
        }
        Ok(bootstrap)
    }

    /// Returns the runtime settings that Envoy needs: with this one, names of a module's metrics have no prefix.
    pub(crate) fn runtime(self) -> Value {
        let layer = match self {
            Self::Wasm => json!({}),
            Self::Module => {
                json!({"envoy.reloadable_features.dynamic_modules_strip_custom_stat_prefix": true})
            }
        };
        json!({"layers": [{"name": "static", "static_layer": layer}]})
    }
}

/// Replaces each filter of the wasm module by one of the dynamic module, wherever it stands.
fn to_dynamic(node: &mut Value, module: &Path) {
    let kind = node["typed_config"]["@type"].as_str().unwrap_or_default();
    if kind.ends_with("filters.http.wasm.v3.Wasm") {
        let plugin = node["typed_config"]["config"].take();
        let filter = match plugin["root_id"].as_str() {
            Some("status") => Host::Module.status_filter(module),
            _ => dynamic(&plugin["name"], module, &plugin["configuration"]),
        };
        node["typed_config"] = filter["typed_config"].clone();
        // Whether it is disabled, and a name that routes refer to, stay.
        if node["name"] == "envoy.filters.http.wasm" {
            node["name"] = "envoy.filters.http.dynamic_modules".into();
        }
    }
    match node {
        Value::Array(list) => list.iter_mut().for_each(|one| to_dynamic(one, module)),
        Value::Object(map) => map.values_mut().for_each(|one| to_dynamic(one, module)),
        _ => {}
    }
}

/// Returns a filter of the dynamic module.
fn dynamic(name: &Value, module: &Path, configuration: &Value) -> Value {
    let filter = json!({
        "dynamic_module_config": {"module": {"local": {"filename": module}}},
        "filter_name": name,
        "filter_config": configuration,
    });
    typed("envoy.filters.http.dynamic_modules", DYNAMIC, filter)
}

/// The settings of a filter that depend on its host.
pub(crate) struct Filter<'a> {
    /// The file that Envoy loads.
    pub module: &'a Path,
    /// Its place among the filters.
    pub number: usize,
    /// Its name in shared data and metrics.
    pub name: &'a str,
    /// The VM that it shares data with.
    pub vm: &'a str,
    /// `allow_on_headers_stop_iteration`.
    pub bodies_first: bool,
}

impl Filter<'_> {
    /// Returns a filter with this document.
    pub fn of(&self, host: Host, document: &str) -> Value {
        let configuration =
            json!({"@type": "type.googleapis.com/google.protobuf.StringValue", "value": document});
        match host {
            Host::Wasm => self.wasm(&configuration),
            Host::Module => {
                let mut filter = dynamic(&self.name.into(), self.module, &configuration);
                filter["name"] = format!("module{}", self.number).into();
                filter
            }
        }
    }

    fn wasm(&self, configuration: &Value) -> Value {
        let mut wasm = json!({"config": {
            "name": self.name,
            "failure_policy": "FAIL_RELOAD",
            // As in envoy/envoy.yaml.
            "reload_config": {"backoff": {"base_interval": "0.1s"}},
            "vm_config": {"vm_id": self.vm, "runtime": "envoy.wasm.runtime.v8",
                "code": {"local": {"filename": self.module}}},
            "configuration": configuration,
        }});
        if self.bodies_first {
            wasm["config"]["allow_on_headers_stop_iteration"] = true.into();
        }
        let name = format!("wasm{}", self.number);
        typed(&name, "filters.http.wasm.v3.Wasm", wasm)
    }
}

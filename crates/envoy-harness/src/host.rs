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
    pub fn of_environment() -> Self {
        match env::var("HOST").as_deref() {
            Err(_) | Ok("wasm") => Self::Wasm,
            Ok("module") => Self::Module,
            Ok(other) => panic!("HOST is {other}, expected wasm or module"),
        }
    }

    /// Returns the file that Envoy loads, which the Makefile names in the environment.
    pub fn file(self) -> PathBuf {
        match self {
            Self::Wasm => path_of("EPP_WASM"),
            Self::Module => path_of("EPP_MODULE"),
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
            Host::Module => self.dynamic(&configuration),
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

    fn dynamic(&self, configuration: &Value) -> Value {
        let filter = json!({
            "dynamic_module_config": {"module": {"local": {"filename": self.module}}},
            "filter_name": self.name,
            "filter_config": configuration,
        });
        typed(&format!("module{}", self.number), DYNAMIC, filter)
    }
}

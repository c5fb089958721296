//! What Istio's control plane and agent do with the manifests, as far as they use it:
//! pilot/pkg/networking/core/envoyfilter (patches), pilot/pkg/model/extensions.go (WasmPlugin) and
//! pkg/wasm/convert.go (the agent's fetch of a module) at the version that gateway.yaml names.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_yaml::{Mapping, Value};

/// A gateway's configuration.
pub struct Gateway {
    config: Value,
    extensions: BTreeMap<String, Value>,
}

/// The documents of a manifest.
pub fn documents(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap();
    let documents = serde_yaml::Deserializer::from_str(&text);
    documents
        .map(|document| Value::deserialize(document).unwrap())
        .collect()
}

impl Gateway {
    /// One without anything of ours.
    pub fn new(config: Value) -> Self {
        Self {
            config,
            extensions: BTreeMap::new(),
        }
    }

    /// The configuration, and the resources that come to it by ECDS.
    pub fn built(self) -> (Value, BTreeMap<String, Value>) {
        (self.config, self.extensions)
    }

    /// Applies a manifest.
    pub fn apply(&mut self, file: &Path) {
        for document in documents(file) {
            match document["kind"].as_str().unwrap() {
                "EnvoyFilter" => {
                    let patches = document["spec"]["configPatches"].as_sequence().unwrap();
                    patches.iter().for_each(|patch| self.patch(patch));
                }
                "WasmPlugin" => self.plug(&document),
                // What comes of it is in gateway.yaml.
                "InferencePool" => {}
                other => panic!("{}: {other} is new here", file.display()),
            }
        }
    }

    fn patch(&mut self, patch: &Value) {
        let to = patch["applyTo"].as_str().unwrap();
        let operation = patch["patch"]["operation"].as_str().unwrap();
        let value = &patch["patch"]["value"];
        assert_eq!(patch["match"]["context"], "GATEWAY");
        match (to, operation) {
            ("BOOTSTRAP", "MERGE") => merge(&mut self.config, value),
            ("EXTENSION_CONFIG", "ADD") => self.extend(value.clone()),
            ("CLUSTER", "ADD") => self.clusters().push(value.clone()),
            ("CLUSTER", "MERGE") => {
                let wanted = &patch["match"]["cluster"];
                let clusters = self.clusters().iter_mut();
                let found = clusters.filter(|one| matches(wanted, one["name"].as_str().unwrap()));
                let merged = found.map(|one| merge(one, value)).count();
                assert!(merged > 0, "no cluster is {wanted:?}");
            }
            ("NETWORK_FILTER", "MERGE") => {
                let filter = &patch["match"]["listener"]["filterChain"]["filter"];
                let own = self.network_filter();
                assert_eq!(own["name"], filter["name"]);
                merge(own, value);
            }
            ("HTTP_FILTER", operation) => {
                let filter = &patch["match"]["listener"]["filterChain"]["filter"];
                let wanted = &filter["subFilter"]["name"];
                let filters = self.filters();
                let found = filters.iter().position(|one| one["name"] == *wanted);
                let found = found.unwrap_or_else(|| panic!("no filter {wanted:?}"));
                match operation {
                    "MERGE" => merge(&mut filters[found], value),
                    "REMOVE" => drop(filters.remove(found)),
                    "INSERT_BEFORE" => filters.insert(found, by_file(value.clone())),
                    other => panic!("{other} is new here"),
                }
            }
            other => panic!("{other:?} is new here"),
        }
    }

    fn plug(&mut self, plugin: &Value) {
        let (meta, spec) = (&plugin["metadata"], &plugin["spec"]);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let name = format!("{}.{}", text(&meta["namespace"]), text(&meta["name"]));
        assert_eq!(spec["failStrategy"], "FAIL_RELOAD");
        let json = serde_json::to_string(&spec["pluginConfig"]).unwrap();
        let config = serde_json::json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            "config": {
                "name": name,
                "configuration": {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": json},
                "failure_policy": "FAIL_RELOAD",
                "vm_config": {"runtime": "envoy.wasm.runtime.v8", "code": {"remote": {}}},
            },
        });
        let extension = serde_json::json!({"name": name, "typed_config": config});
        self.extend(serde_yaml::to_value(extension).unwrap());
        let filter = serde_json::json!({"name": name, "config_discovery": {
            "config_source": {"ads": {}},
            "type_urls": ["type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm"]}});
        // Behind what authenticates: at the place of Istio's own, before grpc_stats.
        let filters = self.filters();
        let own = filters
            .iter()
            .position(|one| one["name"] == "envoy.filters.http.grpc_stats");
        filters.insert(own.unwrap(), by_file(serde_yaml::to_value(filter).unwrap()));
    }

    /// An extension's resource, its module fetched.
    fn extend(&mut self, mut extension: Value) {
        let code = &mut extension["typed_config"]["config"]["vm_config"]["code"];
        assert!(code.get("remote").is_some());
        *code = object(
            "local",
            object("filename", "/etc/envoy/epp_wasm.wasm".into()),
        );
        let name = extension["name"].as_str().unwrap().to_owned();
        extension["@type"] = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig".into();
        let resources = object("resources", Value::Sequence(vec![extension]));
        let before = self.extensions.insert(name, resources);
        assert!(before.is_none(), "two extensions of one name");
    }

    fn clusters(&mut self) -> &mut Vec<Value> {
        let clusters = self.config["static_resources"]["clusters"].as_sequence_mut();
        clusters.unwrap()
    }

    /// Removes the filters whose name begins so.
    pub fn remove_filters(&mut self, name: &str) {
        let filters = self.filters();
        let before = filters.len();
        filters.retain(|filter| !filter["name"].as_str().unwrap().starts_with(name));
        assert!(filters.len() < before, "no filter {name}");
    }

    /// The connection manager of the one listener.
    fn network_filter(&mut self) -> &mut Value {
        let listener = &mut self.config["static_resources"]["listeners"][0];
        &mut listener["filter_chains"][0]["filters"][0]
    }

    fn filters(&mut self) -> &mut Vec<Value> {
        let manager = &mut self.network_filter()["typed_config"];
        manager["http_filters"].as_sequence_mut().unwrap()
    }
}

/// Whether a cluster of this name is one that a patch is for: by its name, or by the parts that the
/// patch gives, of which the subset is one.
fn matches(wanted: &Value, name: &str) -> bool {
    if let Some(whole) = wanted["name"].as_str() {
        return whole == name;
    }
    let parts: Vec<&str> = name.split('|').collect();
    let [_, port, subset, host] = parts[..] else {
        return false;
    };
    let is = |key: &str, part: &str| wanted[key].as_str().is_none_or(|wanted| wanted == part);
    let port = wanted["portNumber"]
        .as_u64()
        .is_none_or(|wanted| wanted.to_string() == port);
    port && is("subset", subset) && is("service", host)
}

/// A filter whose configuration comes from a file where Istio's comes by ADS.
fn by_file(mut filter: Value) -> Value {
    let name = filter["name"].as_str().unwrap().to_owned();
    if let Some(discovery) = filter.get_mut("config_discovery") {
        assert!(discovery["config_source"].get("ads").is_some());
        let file = object("path", format!("/etc/envoy/ecds/{name}.yaml").into());
        let mut source = object("path_config_source", file);
        source["resource_api_version"] = "V3".into();
        discovery["config_source"] = source;
    }
    filter
}

fn object(key: &str, value: Value) -> Value {
    let mut map = Mapping::new();
    map.insert(key.into(), value);
    Value::Mapping(map)
}

/// As protocol buffers are merged: lists grow.
fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Mapping(into), Value::Mapping(from)) => {
            for (key, value) in from {
                match into.get_mut(key) {
                    Some(place) => merge(place, value),
                    None => drop(into.insert(key.clone(), value.clone())),
                }
            }
        }
        (Value::Sequence(into), Value::Sequence(from)) => into.extend(from.iter().cloned()),
        (into, from) => *into = from.clone(),
    }
}

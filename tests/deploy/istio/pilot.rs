//! A model of Istio's control plane and agent, as far as the manifests use them:
//! pilot/pkg/networking/core/envoyfilter (patches), pilot/pkg/model/push_context.go (their order),
//! pilot/pkg/model/extensions.go (WasmPlugin) and pkg/wasm/convert.go (the agent's fetch of a module)
//! at the version that gateway.yaml names.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_yaml::{Mapping, Value};

use super::deployment;

/// A gateway's configuration, and what was applied to it.
pub struct Gateway {
    config: Value,
    extensions: BTreeMap<String, Value>,
    filters: Vec<Value>,
    config_maps: Vec<Value>,
}

/// The configuration that results from a gateway.
pub struct Built {
    /// Envoy's configuration.
    pub config: Value,
    /// The resources that it gets by ECDS.
    pub extensions: BTreeMap<String, Value>,
    config_maps: Vec<Value>,
}

/// The documents of a file.
pub fn documents(file: &Path) -> Vec<Value> {
    parse(&fs::read_to_string(file).unwrap())
}

/// The documents of a manifest's text.
pub fn parse(text: &str) -> Vec<Value> {
    let documents = serde_yaml::Deserializer::from_str(text);
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
            filters: Vec::new(),
            config_maps: Vec::new(),
        }
    }

    /// Applies a manifest.
    pub fn apply(&mut self, manifest: &str) {
        for document in parse(manifest) {
            match document["kind"].as_str().unwrap() {
                "EnvoyFilter" => self.filters.push(document),
                "ConfigMap" => self.config_maps.push(document),
                "WasmPlugin" => self.plug(&document),
                // Its result is in gateway.yaml, or what a test adds to that.
                "InferencePool" | "DestinationRule" => {}
                other => panic!("{other} is new here"),
            }
        }
    }

    /// The configuration with everything that was applied. EnvoyFilters come by their priority, then
    /// by their age; the patches of each kind in that order, and the kinds in the order below.
    pub fn built(mut self) -> Built {
        let mut filters = std::mem::take(&mut self.filters);
        filters.sort_by_key(|filter| filter["spec"]["priority"].as_i64().unwrap_or(0));
        let patches = filters
            .iter()
            .flat_map(|filter| filter["spec"]["configPatches"].as_sequence().unwrap());
        let patches: Vec<&Value> = patches
            .filter(|patch| ["GATEWAY", "ANY"].contains(&context(patch)))
            .collect();
        let of = |kind: &str| {
            let own = patches.iter().copied();
            let own: Vec<&Value> = own.filter(|patch| patch["applyTo"] == kind).collect();
            own
        };
        // Nothing reads BOOTSTRAP.
        let known = [
            "BOOTSTRAP",
            "CLUSTER",
            "NETWORK_FILTER",
            "HTTP_FILTER",
            "HTTP_ROUTE",
            "EXTENSION_CONFIG",
        ];
        for patch in &patches {
            assert!(known.contains(&patch["applyTo"].as_str().unwrap()));
        }
        self.patch_clusters(&of("CLUSTER"));
        self.patch_network_filter(&of("NETWORK_FILTER"));
        self.patch_http_filters(&of("HTTP_FILTER"));
        self.patch_routes(&of("HTTP_ROUTE"));
        for patch in of("EXTENSION_CONFIG") {
            assert_eq!(operation(patch), "ADD");
            self.extend(value(patch).clone());
        }
        Built {
            config: self.config,
            extensions: self.extensions,
            config_maps: self.config_maps,
        }
    }

    /// Existing clusters are merged; additions come after that, and only where no cluster has
    /// its name.
    fn patch_clusters(&mut self, patches: &[&Value]) {
        let clusters = self.config["static_resources"]["clusters"].as_sequence_mut();
        let clusters = clusters.unwrap();
        for patch in patches {
            if operation(patch) == "MERGE" {
                let wanted = &patch["match"]["cluster"];
                let found = clusters.iter_mut();
                let found = found.filter(|one| matches(wanted, one["name"].as_str().unwrap()));
                let merged = found.map(|one| merge(one, value(patch))).count();
                assert!(merged > 0, "no cluster is {wanted:?}");
            }
        }
        for patch in patches {
            match operation(patch) {
                "MERGE" => {}
                "ADD" => {
                    let added = value(patch);
                    if clusters.iter().all(|one| one["name"] != added["name"]) {
                        clusters.push(added.clone());
                    }
                }
                other => panic!("{other} is new here"),
            }
        }
    }

    fn patch_network_filter(&mut self, patches: &[&Value]) {
        for patch in patches {
            assert_eq!(operation(patch), "MERGE");
            let own = self.network_filter();
            assert_eq!(own["name"], filter_of(patch)["name"]);
            merge_filter(own, value(patch));
        }
    }

    /// First all that changes which filters there are, then all that changes one of them.
    fn patch_http_filters(&mut self, patches: &[&Value]) {
        let filters = http_filters(&mut self.config);
        for patch in patches {
            let wanted = &filter_of(patch)["subFilter"]["name"];
            let found = filters.iter().position(|one| one["name"] == *wanted);
            match operation(patch) {
                "MERGE" => {}
                "REMOVE" => filters.retain(|one| one["name"] != *wanted),
                "INSERT_BEFORE" => {
                    let found = found.unwrap_or_else(|| panic!("no filter {wanted:?}"));
                    filters.insert(found, by_file(value(patch).clone()));
                }
                other => panic!("{other} is new here"),
            }
        }
        for patch in patches.iter().filter(|patch| operation(patch) == "MERGE") {
            let wanted = &filter_of(patch)["subFilter"]["name"];
            let found = filters.iter_mut().filter(|one| one["name"] == *wanted);
            let merged = found.map(|one| merge_filter(one, value(patch))).count();
            assert!(merged > 0, "no filter {wanted:?}");
        }
    }

    fn patch_routes(&mut self, patches: &[&Value]) {
        let manager = &mut self.network_filter()["typed_config"];
        let hosts = manager["route_config"]["virtual_hosts"].as_sequence_mut();
        let hosts = hosts.unwrap();
        for patch in patches {
            assert_eq!(operation(patch), "MERGE");
            let wanted = &patch["match"]["routeConfiguration"]["vhost"]["route"]["name"];
            let routes = hosts
                .iter_mut()
                .flat_map(|host| host["routes"].as_sequence_mut().unwrap());
            let found = routes.filter(|route| route["name"] == *wanted);
            let merged = found.map(|route| merge(route, value(patch))).count();
            assert!(merged > 0, "no route {wanted:?}");
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
        // Right behind authentication and authorization, of which gateway.yaml has none; where there
        // are pools, ext_proc is next.
        let filter = by_file(serde_yaml::to_value(filter).unwrap());
        http_filters(&mut self.config).insert(0, filter);
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

    /// The connection manager of the one listener.
    fn network_filter(&mut self) -> &mut Value {
        connection_manager(&mut self.config)
    }
}

impl Built {
    /// Removes the filters whose name begins so.
    pub fn remove_filters(&mut self, name: &str) {
        let filters = http_filters(&mut self.config);
        let before = filters.len();
        filters.retain(|filter| !filter["name"].as_str().unwrap().starts_with(name));
        assert!(filters.len() < before, "no filter {name}");
    }

    /// The names of the HTTP filters, in their order.
    pub fn chain(&mut self) -> Vec<String> {
        let filters = http_filters(&mut self.config).iter();
        filters
            .map(|filter| filter["name"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Returns Envoy's `--config-yaml` if the Gateway names this ConfigMap.
    pub fn config_yaml(&self, parameters: &str) -> Option<String> {
        deployment::config_yaml(&self.config_maps, parameters)
    }
}

fn context(patch: &Value) -> &str {
    patch["match"]["context"].as_str().unwrap_or("ANY")
}

fn operation(patch: &Value) -> &str {
    patch["patch"]["operation"].as_str().unwrap()
}

fn value(patch: &Value) -> &Value {
    &patch["patch"]["value"]
}

/// The network filter that a patch is for.
fn filter_of(patch: &Value) -> &Value {
    &patch["match"]["listener"]["filterChain"]["filter"]
}

fn connection_manager(config: &mut Value) -> &mut Value {
    let listener = &mut config["static_resources"]["listeners"][0];
    &mut listener["filter_chains"][0]["filters"][0]
}

fn http_filters(config: &mut Value) -> &mut Vec<Value> {
    let manager = &mut connection_manager(config)["typed_config"];
    manager["http_filters"].as_sequence_mut().unwrap()
}

/// Returns whether a patch applies to a cluster of this name: by its whole name, or by the parts that the
/// patch gives, among them the subset.
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

/// Merges a patch of a filter: of its `typed_config`, message by message, where it is of the same type.
fn merge_filter(filter: &mut Value, patch: &Value) {
    let (own, new) = (&mut filter["typed_config"], &patch["typed_config"]);
    assert_eq!(own["@type"], new["@type"]);
    let mut new = new.clone();
    new.as_mapping_mut().unwrap().remove("@type");
    merge(own, &new);
}

/// Merges as protocol buffers are merged (pkg/proto/merge): lists are concatenated; an `Any` is bytes and an
/// entry of a map is one value, so both are replaced.
fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Mapping(into), Value::Mapping(from)) if from.get("@type").is_none() => {
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

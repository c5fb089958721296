//! What Envoy Gateway generated for the manifests, as it was recorded.

use std::process::Command;

use serde_yaml::{Mapping, Value};

use crate::envoy::top;
use crate::stage::read;

/// What was recorded of one way to run the filter.
pub struct Generated(Value);

impl Generated {
    pub fn read(way: &str) -> Self {
        let name = format!("tests/deploy/gateway/{way}.xds.yaml");
        Self(read(&top().join(name)))
    }

    /// Asserts that the files from which it was made have not changed since, except for comments.
    pub fn assert_current(&self) {
        let files = self.0["files"].as_sequence().unwrap().iter();
        let files: Vec<&str> = files.map(|file| file.as_str().unwrap()).collect();
        let command = format!("cat {} | grep -v '^ *#' | sha256sum", files.join(" "));
        let sum = Command::new("bash")
            .args(["-euo", "pipefail", "-c", &command])
            .current_dir(top())
            .output();
        let sum = String::from_utf8(sum.unwrap().stdout).unwrap();
        let recorded = self.0["sha256"].as_str().unwrap();
        assert!(
            sum.starts_with(recorded),
            "record again what Envoy Gateway generates (docs/envoy-gateway.md): {files:?} have changed"
        );
    }

    /// What Envoy Gateway says of the policies.
    pub fn conditions(&self) -> impl Iterator<Item = (&str, Vec<(&str, &str)>)> {
        self.0["conditions"]
            .as_mapping()
            .unwrap()
            .iter()
            .map(|(policy, conditions)| {
                let conditions = conditions.as_mapping().unwrap().iter();
                let conditions = conditions
                    .map(|(name, status)| (name.as_str().unwrap(), status.as_str().unwrap()));
                (policy.as_str().unwrap(), conditions.collect())
            })
    }

    /// The names of the HTTP filters, in their order.
    pub fn chain(&self) -> Vec<String> {
        let mut config = self.bootstrap();
        let filters = &manager(listener(&mut config))["http_filters"];
        let filters = filters.as_sequence().unwrap().iter();
        filters
            .map(|filter| filter["name"].as_str().unwrap().to_owned())
            .collect()
    }

    /// A bootstrap that has what Envoy Gateway sends by xDS: listeners with their routes, clusters with their endpoints.
    /// Without what leads to Envoy Gateway itself, and with the module from a file.
    pub fn bootstrap(&self) -> Value {
        let mut config = self.0["bootstrap"].clone();
        let map = config.as_mapping_mut().unwrap();
        for key in ["dynamic_resources", "cluster_manager"] {
            assert!(map.remove(key).is_some(), "{key}");
        }
        let own = &mut config["static_resources"];
        let clusters = own["clusters"].as_sequence_mut().unwrap();
        // The connection to Envoy Gateway, and what tells of this proxy's peers.
        clusters.retain(|cluster| cluster["name"] == "prometheus_stats");
        for cluster in self.list("clusters") {
            if cluster["name"] != "wasm_cluster" {
                clusters.push(self.with_endpoints(cluster.clone()));
            }
        }
        let listeners = own["listeners"].as_sequence_mut().unwrap();
        for listener in self.list("listeners") {
            let mut listener = listener.clone();
            each_map(&mut listener, &|map| self.with_routes(map));
            each_map(&mut listener, &from_file);
            listeners.push(listener);
        }
        config
    }

    fn list(&self, key: &str) -> &[Value] {
        self.0[key].as_sequence().unwrap()
    }

    fn with_endpoints(&self, mut cluster: Value) -> Value {
        let map = cluster.as_mapping_mut().unwrap();
        let discovery = map.remove("eds_cluster_config").unwrap();
        let mut endpoints = self.list("endpoints").iter();
        let endpoints = endpoints.find(|one| one["cluster_name"] == discovery["service_name"]);
        map.insert("type".into(), "STATIC".into());
        map.insert("load_assignment".into(), endpoints.unwrap().clone());
        cluster
    }

    fn with_routes(&self, manager: &mut Mapping) {
        if let Some(discovery) = manager.remove("rds") {
            let name = &discovery["route_config_name"];
            let routes = self.list("routes").iter().find(|one| one["name"] == *name);
            manager.insert("route_config".into(), routes.unwrap().clone());
        }
    }
}

/// The listener for the Gateway's clients.
pub fn listener(config: &mut Value) -> &mut Value {
    let listeners = config["static_resources"]["listeners"].as_sequence_mut();
    let mut listeners = listeners.unwrap().iter_mut();
    listeners.find(|one| one["name"] == "llm/llm/http").unwrap()
}

/// The connection manager of that listener.
pub fn manager(listener: &mut Value) -> &mut Value {
    &mut listener["default_filter_chain"]["filters"][0]["typed_config"]
}

/// The HTTP filters of that listener.
pub fn filters(config: &mut Value) -> &mut Vec<Value> {
    manager(listener(config))["http_filters"]
        .as_sequence_mut()
        .unwrap()
}

/// The port of the first cluster's only endpoint: that of the admin interface.
pub fn admin_port(config: &mut Value) -> &mut Value {
    let cluster = &mut config["static_resources"]["clusters"][0];
    let endpoint = &mut cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"];
    &mut endpoint["address"]["socket_address"]["port_value"]
}

fn from_file(map: &mut Mapping) {
    if map.contains_key("vm_id") {
        let code = "{local: {filename: /etc/envoy/epp_wasm.wasm}}";
        map.insert("code".into(), serde_yaml::from_str(code).unwrap());
    }
}

fn each_map(node: &mut Value, change: &dyn Fn(&mut Mapping)) {
    match node {
        Value::Mapping(map) => {
            change(map);
            map.values_mut().for_each(|value| each_map(value, change));
        }
        Value::Sequence(list) => list.iter_mut().for_each(|value| each_map(value, change)),
        _ => {}
    }
}

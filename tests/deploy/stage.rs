//! Puts a template in place as its user would:
//!
//! | in the template | becomes |
//! |---|---|
//! | an address and port that Envoy itself listens on (admin, listeners) | 127.0.0.1 and a free port, wherever it stands |
//! | any other address and port | that of a simulated model server, the same for the same |
//! | a host's name | `localhost`, so that it is looked up |
//! | `/run/envoy/`, `/etc/envoy/` | a folder of the test's |
//! | `/etc/envoy/epp_wasm.wasm`, also with a version, `target/epp_wasm.wasm` | the module |
//! | any path to `libepp.so` | the dynamic module |
//!
//! A model server that is reached over TLS gets an Envoy of its own in front of it, see `tls`.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use envoy_harness::{free_port, path_of, Folder, Process};
use fake_model_server::{Settings, Sim};
use serde_yaml::Value;

use crate::envoy;
use crate::tls;

/// A template in place: its model servers run, its Envoy does not yet.
pub struct Stage {
    /// The configuration.
    pub config: Value,
    /// The model servers.
    pub sim: Sim,
    /// Stopped before its files are removed.
    _terminator: Option<Process>,
    /// The folder of all files.
    pub folder: Folder,
    /// Numbers of model servers by the address that the template gives them.
    pods: BTreeMap<(String, u64), usize>,
    /// The ports of the TLS proxies in front of the model servers, by the servers' own ports.
    fronts: BTreeMap<u64, u16>,
    ports: BTreeMap<u64, u16>,
}

impl Stage {
    /// Reads a template, and what it names beside it.
    pub fn set(template: &Path) -> Self {
        let mut stage = Self::empty(&read(template));
        let eds = template.with_extension("").join("endpoints.yaml");
        if eds.exists() {
            let mut endpoints = read(&eds);
            stage.place(&mut endpoints);
            stage.write("eds/endpoints.yaml", &endpoints);
        }
        let filter = template.with_extension("").join("epp.yaml");
        if filter.exists() {
            let mut filter = read(&filter);
            stage.place_paths(&mut filter);
            stage.write("ecds/epp.yaml", &filter);
        }
        let text = fs::read_to_string(template).unwrap();
        stage.fill(read(template), text.contains("/etc/envoy/tls/"));
        stage
    }

    /// Puts a configuration in place.
    pub fn of(config: Value) -> Self {
        let mut stage = Self::empty(&config);
        stage.fill(config, false);
        stage
    }

    fn empty(config: &Value) -> Self {
        Self {
            ports: own_ports(config),
            config: Value::Null,
            sim: Sim::new().unwrap(),
            folder: envoy::folder(),
            pods: BTreeMap::new(),
            fronts: BTreeMap::new(),
            _terminator: None,
        }
    }

    fn fill(&mut self, mut config: Value, tls: bool) {
        self.place(&mut config);
        if tls {
            self.put_tls_in_front(&mut config);
        }
        self.config = config;
    }

    /// The configuration's text.
    pub fn text(&self) -> String {
        serde_yaml::to_string(&self.config).unwrap()
    }

    /// The port by which Envoy reaches the model server on this one.
    pub fn front(&self, port: u16) -> u16 {
        let front = self.fronts.get(&u64::from(port));
        front.copied().unwrap_or(port)
    }

    /// A file that the configuration names; empty where it names none of this name.
    pub fn beside(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }

    /// Writes a file that the configuration names.
    pub fn write(&self, name: &str, content: &Value) {
        let file = self.folder.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        let new = file.with_extension("new");
        fs::write(&new, serde_yaml::to_string(content).unwrap()).unwrap();
        fs::rename(new, file).unwrap();
    }

    /// Returns the port that replaces this one of the template.
    pub fn port(&self, port: u64) -> u16 {
        self.ports[&port]
    }

    /// Puts a file in place that names paths only.
    pub fn place_paths(&self, node: &mut Value) {
        match node {
            Value::Mapping(map) => map.values_mut().for_each(|value| self.place_paths(value)),
            Value::Sequence(list) => list.iter_mut().for_each(|value| self.place_paths(value)),
            Value::String(text) => self.place_path(text),
            _ => {}
        }
    }

    fn place(&mut self, node: &mut Value) {
        match node {
            Value::Mapping(map) => {
                if let Some(address) = map.get_mut("socket_address") {
                    self.place_address(address);
                }
                map.values_mut().for_each(|value| self.place(value));
            }
            Value::Sequence(list) => list.iter_mut().for_each(|value| self.place(value)),
            Value::String(text) => self.place_path(text),
            _ => {}
        }
    }

    fn place_address(&mut self, address: &mut Value) {
        let host = address["address"].as_str().unwrap().to_owned();
        let port = address["port_value"].as_u64().unwrap();
        let new = match self.ports.get(&port) {
            Some(own) => *own,
            None => self.pod(&host, port),
        };
        let name = host.parse::<IpAddr>().is_err();
        address["address"] = if name { "localhost" } else { "127.0.0.1" }.into();
        address["port_value"] = new.into();
    }

    /// Returns the port of the model server that replaces this address.
    fn pod(&mut self, host: &str, port: u64) -> u16 {
        let key = (host.to_owned(), port);
        let sim = &mut self.sim;
        let new = || sim.add(0, Settings::default()).unwrap();
        let number = *self.pods.entry(key).or_insert_with(new);
        self.sim.addresses()[number].port()
    }

    fn place_path(&self, text: &mut String) {
        let module = path_of("EPP_WASM").to_string_lossy().into_owned();
        let version = text.strip_prefix("/etc/envoy/epp_wasm-");
        let versioned = version.is_some_and(|rest| rest.ends_with(".wasm"));
        if versioned || text == "/etc/envoy/epp_wasm.wasm" || text == "target/epp_wasm.wasm" {
            *text = module;
        } else if text.ends_with("/libepp.so") {
            *text = path_of("EPP_MODULE").to_string_lossy().into_owned();
        } else if let Some(rest) = text.strip_prefix("/etc/envoy/") {
            *text = self.folder.path().join(rest).to_string_lossy().into_owned();
        } else if let Some(rest) = text.strip_prefix("/run/envoy/") {
            // The name of a socket may have 107 bytes.
            *text = short(&self.folder.path().join(rest));
        }
    }

    /// Makes each model server respond behind TLS, with the certificates that the template names.
    fn put_tls_in_front(&mut self, config: &mut Value) {
        let plain: Vec<u16> = self.sim.addresses().iter().map(|at| at.port()).collect();
        let fronts: BTreeMap<u64, u16> = plain
            .iter()
            .map(|port| (u64::from(*port), free_port()))
            .collect();
        tls::write_certificates(
            &self.folder.path().join("tls"),
            "vllm.llm.svc.cluster.local",
        );
        let terminator = tls::terminator(&self.folder.path().join("tls"), &fronts);
        self._terminator = Some(envoy::start(&self.folder, "fronts", &terminator));
        move_ports(config, &fronts);
        self.fronts = fronts;
    }
}

/// A path that is short enough for a socket: relative to where the tests run, the top folder.
fn short(path: &Path) -> String {
    let top = envoy::top().canonicalize().unwrap();
    let path = path.strip_prefix(top).unwrap_or(path);
    path.to_string_lossy().into_owned()
}

/// A YAML file.
pub fn read(file: &Path) -> Value {
    let text = fs::read_to_string(file).unwrap();
    let value = serde_yaml::from_str(&text);
    value.unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The ports that Envoy itself listens on, each with a free one in its stead.
fn own_ports(config: &Value) -> BTreeMap<u64, u16> {
    let listeners = config["static_resources"]["listeners"].as_sequence();
    let own = listeners.unwrap().iter().chain([&config["admin"]]);
    own.filter_map(|own| own["address"]["socket_address"]["port_value"].as_u64())
        .map(|port| (port, free_port()))
        .collect()
}

fn move_ports(node: &mut Value, moved: &BTreeMap<u64, u16>) {
    match node {
        Value::Mapping(map) => {
            if let Some(port) = map.get_mut("port_value") {
                let new = port.as_u64().and_then(|port| moved.get(&port));
                if let Some(new) = new {
                    *port = (*new).into();
                }
            }
            map.values_mut().for_each(|value| move_ports(value, moved));
        }
        Value::Sequence(list) => list.iter_mut().for_each(|value| move_ports(value, moved)),
        _ => {}
    }
}

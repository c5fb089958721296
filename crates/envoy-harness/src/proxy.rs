//! A real Envoy over a cluster of model servers: members by EDS and listeners by LDS from files, so
//! that tests can change both while it runs.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::thread::sleep;
use std::time::Duration;

use serde_json::{json, Value};

use crate::client;
use crate::config::{address, fixed, load_assignment, override_host, stats_tag, typed};
use crate::envoy::{self, path_of, BaseId};
use crate::folder::Folder;
use crate::host::{Filter, Host};
use crate::ports::free_port;
use crate::process::Process;
use crate::statistics::samples;
use crate::wait::wait_until;

/// The settings of an Envoy.
#[derive(Clone)]
pub struct Setup {
    /// Members of `inference-pool`.
    pub pods: Vec<SocketAddr>,
    /// The configurations of the filters, one for each.
    pub configs: Vec<String>,
    /// Worker threads.
    pub workers: usize,
    /// `allow_on_headers_stop_iteration`.
    pub bodies_first: bool,
    /// Headers that are removed before a route is looked up, as the templates do.
    pub removed_early: Vec<String>,
    /// Whether each filter has a `vm_id` of its own instead of a shared one.
    pub vms_apart: bool,
    /// Whether the listener is in the bootstrap, so that Envoy does not start if it is invalid.
    pub listener_fixed: bool,
    /// Further settings of the pool's cluster.
    pub cluster: Value,
    /// Further clusters by name, each with a route of its path prefix `/name/`.
    pub others: Vec<(String, Vec<SocketAddr>)>,
    /// Further clusters, as Envoy's configuration has them.
    pub more_clusters: Vec<Value>,
    /// Further route settings of the pool.
    pub route: Value,
    /// The address of the cluster of the admin interface, if it is another than the interface's.
    pub admin_through: Option<SocketAddr>,
    /// Where the picker runs: `HOST` says it.
    pub host: Host,
    /// The module.
    pub module: PathBuf,
    /// The base id of this Envoy and those that replace it (hot restart); `None` if it cannot be replaced.
    pub base_id: Option<u32>,
    /// Seconds after a change of the listener until connections of the old one are cut.
    pub drain_seconds: u32,
    /// Environment variables.
    pub environment: Vec<(String, String)>,
    /// Whether it has a listener with the status page.
    pub status_page: bool,
    /// Whether the filters come by ECDS, from files of their own, instead of with the listener.
    pub filters_discovered: bool,
}

impl Setup {
    /// Creates settings with one worker and one filter.
    pub fn new(pods: &[SocketAddr], config: &str) -> Self {
        let host = Host::of_environment();
        Self {
            pods: pods.to_vec(),
            configs: vec![config.to_owned()],
            workers: 1,
            bodies_first: true,
            removed_early: Vec::new(),
            vms_apart: false,
            listener_fixed: false,
            cluster: json!({}),
            others: Vec::new(),
            more_clusters: Vec::new(),
            route: json!({}),
            admin_through: None,
            host,
            module: host.file(),
            base_id: None,
            drain_seconds: 2,
            environment: Vec::new(),
            status_page: false,
            filters_discovered: false,
        }
    }

    /// Starts the Envoy and waits until it serves and the filter knows the members.
    pub fn start(self) -> Proxy {
        let proxy = self.launch();
        proxy.wait_until_it_serves();
        proxy
    }

    /// Starts the Envoy without waiting.
    pub fn launch(self) -> Proxy {
        self.launch_with(&[])
    }

    /// Returns the exit code of `envoy --mode validate` and its log.
    pub fn validate(mut self) -> (Option<i32>, String) {
        self.listener_fixed = true;
        let mut proxy = self.launch_with(&["--mode", "validate"]);
        (proxy.ended(), proxy.logged())
    }

    fn launch_with(self, arguments: &[&str]) -> Proxy {
        let mut proxy = Proxy {
            setup: self,
            processes: Vec::new(),
            folder: Folder::new("e2e"),
            port: free_port(),
            admin: free_port(),
            status: free_port(),
        };
        proxy.write_members();
        proxy.write_listener();
        fs::write(proxy.file("envoy.json"), proxy.bootstrap().to_string()).unwrap();
        proxy.spawn(arguments);
        proxy
    }
}

/// A running Envoy.
pub struct Proxy {
    /// The current settings.
    pub setup: Setup,
    /// The port of the listener.
    pub port: u16,
    /// The port of the admin interface.
    pub admin: u16,
    /// Its status page, if the setup has one.
    pub status: u16,
    /// The first process and those that replaced it. Declared before the folder, so that they stop before their
    /// files are removed.
    processes: Vec<Process>,
    folder: Folder,
}

impl Proxy {
    /// Starts a process, which takes over from a running one.
    fn spawn(&mut self, arguments: &[&str]) {
        let epoch = self.processes.len();
        let shared = |id| BaseId::Shared { id, epoch };
        let base = self.setup.base_id.map_or(BaseId::Unique, shared);
        let mut command = envoy::command(&path_of("ENVOY"), &self.file("envoy.json"), base);
        let (drain, end) = (self.setup.drain_seconds, self.setup.drain_seconds + 1);
        command
            .args(["--concurrency", &self.setup.workers.to_string()])
            .args(["--drain-time-s", &drain.to_string()])
            .args(["--parent-shutdown-time-s", &end.to_string()])
            .args(arguments)
            .envs(self.setup.environment.iter().cloned());
        let log = self.file(&format!("envoy-{epoch}.log"));
        let process = Process::start("Envoy", command, &log).unwrap();
        self.processes.push(process);
    }

    /// Starts another process that takes over without losing a connection: Envoy's hot restart.
    pub fn replace_process(&mut self) {
        assert!(self.setup.base_id.is_some(), "the Envoy has no base id");
        self.spawn(&[]);
    }

    /// Returns whether a process has ended, by its id.
    pub fn ended_process(&mut self, id: u32) -> bool {
        let mut processes = self.processes.iter_mut();
        let process = processes.find(|process| process.id() == id);
        process.is_some_and(|process| process.exit_status().is_some())
    }

    /// Returns the id of the latest process.
    pub fn process(&self) -> u32 {
        self.processes.last().unwrap().id()
    }

    /// Waits until Envoy serves and the filter knows the members.
    pub fn wait_until_it_serves(&self) {
        self.wait_until("Envoy listens", || {
            client::get(self.port, "/ready-or-not").is_ok()
        });
        self.wait_until("the pool responds", || {
            client::get(self.port, "/v1/models").is_ok_and(|response| response.status == 200)
        });
        // Until then, Envoy's fallback policy routes requests.
        self.wait_until("the filter knows the members", || {
            let ready = || self.counted("llm_d_epp_ready_endpoints") > 0;
            self.setup.configs.is_empty() || ready()
        });
        // That is the state of the poller; the workers read it at their next tick, within 50 ms.
        sleep(Duration::from_millis(200));
    }

    /// Waits for a condition.
    pub fn wait_until(&self, what: &str, condition: impl FnMut() -> bool) {
        wait_until(what, condition);
    }

    /// Returns what Envoy and the filter have logged so far.
    pub fn logged(&self) -> String {
        self.processes.iter().map(Process::logged).collect()
    }

    /// Waits for the process to end. Returns its exit code.
    pub fn ended(&mut self) -> Option<i32> {
        self.processes.last_mut()?.wait_for_exit()?.code()
    }

    /// Changes the members.
    pub fn set_pods(&mut self, pods: &[SocketAddr]) {
        self.setup.pods = pods.to_vec();
        self.write_members();
    }

    /// Changes the configuration of the filter.
    pub fn set_config(&mut self, config: &str) {
        self.setup.configs = vec![config.to_owned()];
        self.write_listener();
    }

    /// Removes the filters.
    pub fn remove_filters(&mut self) {
        self.setup.configs.clear();
        self.write_listener();
    }

    /// Changes the module.
    pub fn set_module(&mut self, module: &Path) {
        self.setup.module = module.to_owned();
        self.write_listener();
    }

    /// Returns a value of `/stats`.
    pub fn stat(&self, name: &str) -> u64 {
        let value = self.find_stat(name);
        value.unwrap_or_else(|| panic!("Envoy has no statistic {name}"))
    }

    /// Returns a statistic that Envoy creates when it first counts something; 0 before.
    pub fn stat_so_far(&self, name: &str) -> u64 {
        self.find_stat(name).unwrap_or(0)
    }

    fn find_stat(&self, name: &str) -> Option<u64> {
        let text = client::get(self.admin, &format!("/stats?filter=^{name}$"))
            .unwrap()
            .body;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.map(|value| value.trim().parse().unwrap())
    }

    /// Returns the sum of a metric of the filter over all its labels; 0 if it has not been counted yet.
    pub fn counted(&self, name: &str) -> u64 {
        self.counted_with(name, "")
    }

    /// Returns the sum of a metric over the series whose labels contain a text.
    pub fn counted_with(&self, name: &str, label: &str) -> u64 {
        // A metric appears when it is first used. A misspelt name would always be 0.
        static MODULE: LazyLock<Vec<u8>> =
            LazyLock::new(|| fs::read(Host::of_environment().file()).unwrap());
        let named = memchr::memmem::find(&MODULE, name.as_bytes());
        assert!(named.is_some(), "the module has no metric {name}");
        let page = self.prometheus();
        let chosen = samples(&page, name).filter(|(labels, _)| labels.contains(label));
        chosen.map(|(_, value)| value as u64).sum()
    }

    /// Returns the peak of Envoy's resident memory, in bytes.
    pub fn peak_memory(&self) -> u64 {
        self.memory_line("VmHWM:")
    }

    /// Returns Envoy's resident memory, in bytes.
    pub fn memory(&self) -> u64 {
        self.memory_line("VmRSS:")
    }

    fn memory_line(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kilobytes = line.unwrap().trim().strip_suffix(" kB").unwrap();
        kilobytes.parse::<u64>().unwrap() << 10
    }

    /// Returns the page `/stats/prometheus`.
    pub fn prometheus(&self) -> String {
        client::get(self.admin, "/stats/prometheus").unwrap().body
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Replaces a file by renaming a new one, as Envoy watches for renames.
    fn replace(&self, name: &str, content: &Value) {
        let new = self.file(&format!("{name}.new"));
        fs::write(&new, content.to_string()).unwrap();
        fs::rename(new, self.file(name)).unwrap();
    }

    fn write_members(&self) {
        let mut assignment = load_assignment("inference-pool", &self.setup.pods);
        assignment["@type"] =
            "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment".into();
        self.replace("eds.json", &json!({"resources": [assignment]}));
    }

    fn write_listener(&self) {
        let mut listeners = vec![self.listener()];
        listeners.extend(self.setup.status_page.then(|| self.status_listener()));
        for listener in &mut listeners {
            listener["@type"] = "type.googleapis.com/envoy.config.listener.v3.Listener".into();
        }
        self.replace("lds.json", &json!({"resources": listeners}));
    }

    fn listener(&self) -> Value {
        let mut filters: Vec<Value> = Vec::new();
        for (number, config) in self.setup.configs.iter().enumerate() {
            let name = format!("epp{number}");
            let vm = if self.setup.vms_apart { &name } else { "epp" };
            let filter = Filter {
                module: &self.setup.module,
                number,
                name: &name,
                vm,
                bodies_first: self.setup.bodies_first,
            };
            let filter = filter.of(self.setup.host, config);
            filters.push(match self.setup.filters_discovered {
                false => filter,
                true => self.discovered(filter),
            });
        }
        let mutation = json!({"mutations": {"request_mutations": [{"remove": "x-gateway-destination-endpoint"}]}});
        filters.push(typed(
            "envoy.filters.http.router",
            "filters.http.router.v3.Router",
            json!({
                "upstream_http_filters": [
                    typed("mutation", "filters.http.header_mutation.v3.HeaderMutation", mutation),
                    typed("codec", "filters.http.upstream_codec.v3.UpstreamCodec", json!({})),
                ],
            }),
        ));
        let remove = |name: &String| json!({"remove": name});
        let early: Vec<Value> = self.setup.removed_early.iter().map(remove).collect();
        let early = (!early.is_empty()).then(|| {
            let kind = "http.early_header_mutation.header_mutation";
            typed(
                &format!("envoy.{kind}"),
                &format!("{kind}.v3.HeaderMutation"),
                json!({ "mutations": early }),
            )
        });
        let manager = connection_manager(json!({
            "early_header_mutation_extensions": early.as_slice(),
            "stat_prefix": "e2e",
            "codec_type": "AUTO",
            "http_protocol_options": {"enable_trailers": true},
            "http2_protocol_options": {},
            "upgrade_configs": [{"upgrade_type": "websocket"}],
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": self.routes()}]},
            "http_filters": filters,
        }));
        json!({"name": "llm", "address": address("127.0.0.1", self.port), "filter_chains": [{"filters": [manager]}]})
    }

    /// Writes a filter into a file of its own. Returns what takes its place in the listener.
    fn discovered(&self, mut filter: Value) -> Value {
        let name = filter["name"].as_str().unwrap().to_owned();
        let kind = filter["typed_config"]["@type"].clone();
        filter["@type"] = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig".into();
        let file = format!("{name}.json");
        self.replace(&file, &json!({"resources": [filter]}));
        json!({"name": name, "config_discovery": {"config_source": self.watched(&file), "type_urls": [kind]}})
    }

    fn watched(&self, name: &str) -> Value {
        json!({"path_config_source": {"path": self.file(name)}, "resource_api_version": "V3"})
    }

    /// The listener of the status page.
    fn status_listener(&self) -> Value {
        let filter = self.setup.host.status_filter(&self.setup.module);
        let router = typed(
            "envoy.filters.http.router",
            "filters.http.router.v3.Router",
            json!({}),
        );
        let manager = connection_manager(json!({
            "stat_prefix": "status",
            "route_config": {},
            "http_filters": [filter, router],
        }));
        json!({"name": "status", "address": address("127.0.0.1", self.status), "filter_chains": [{"filters": [manager]}]})
    }

    fn routes(&self) -> Vec<Value> {
        let mut routes: Vec<Value> = self.setup.others.iter().map(|(name, _)| {
            json!({"match": {"prefix": format!("/{name}/")}, "route": {"cluster": name}})
        }).collect();
        let mut route = json!({"cluster": "inference-pool", "timeout": "0s", "retry_policy": {
            "retry_on": "connect-failure,refused-stream,reset,retriable-status-codes",
            "retriable_status_codes": [503], "num_retries": 2}});
        merge(&mut route, &self.setup.route);
        routes.push(json!({"match": {"prefix": "/"}, "route": route}));
        routes
    }

    fn bootstrap(&self) -> Value {
        let mut pool = json!({"name": "inference-pool", "type": "EDS", "connect_timeout": "1s",
            "eds_cluster_config": {"eds_config": self.watched("eds.json")},
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http_protocol_options": {"enable_trailers": true}}}},
            "load_balancing_policy": override_host()});
        merge(&mut pool, &self.setup.cluster);
        let admin = SocketAddr::from(([127, 0, 0, 1], self.admin));
        let admin = self.setup.admin_through.unwrap_or(admin);
        let mut clusters = vec![pool, fixed("prometheus_stats", &[admin])];
        clusters.extend(self.setup.others.iter().map(|(name, members)| {
            let mut cluster = fixed(name, members);
            cluster["load_balancing_policy"] = override_host();
            cluster
        }));
        clusters.extend(self.setup.more_clusters.iter().cloned());
        let dynamic = match self.setup.listener_fixed {
            false => json!({"lds_config": self.watched("lds.json")}),
            true => json!({}),
        };
        let listeners = self.setup.listener_fixed.then(|| self.listener());
        let tags = [
            "pool",
            "endpoint_name",
            "status",
            "decision_type",
            "error_code",
            "reason",
            "callback",
            "vm",
            "model_name",
            "finding",
            "route_cluster",
            "priority",
            "outcome",
            "fairness_id",
            "stage",
            "version",
            "commit",
            "digest",
            "envoy",
            "tested",
            "le",
        ]
        .map(stats_tag);
        json!({
            "node": {"id": "e2e", "cluster": "e2e"},
            "admin": {"address": address("127.0.0.1", self.admin)},
            "dynamic_resources": dynamic,
            "static_resources": {"clusters": clusters, "listeners": listeners.as_slice()},
            "stats_config": {"stats_tags": tags},
            "layered_runtime": self.setup.host.runtime(),
        })
    }
}

fn connection_manager(config: Value) -> Value {
    let kind = "filters.network.http_connection_manager.v3.HttpConnectionManager";
    typed(
        "envoy.filters.network.http_connection_manager",
        kind,
        config,
    )
}

/// Replaces the settings that `others` has.
fn merge(settings: &mut Value, others: &Value) {
    for (key, value) in others.as_object().unwrap() {
        settings[key] = value.clone();
    }
}

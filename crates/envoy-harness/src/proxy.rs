//! A real Envoy over a cluster of model servers: members by EDS and listeners by LDS from files, so
//! that tests can change both while it runs.

use std::env;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::LazyLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{json, Value};

use crate::client;
use crate::pieces::{address, fixed, load_assignment, override_host, typed};

/// Nothing in these tests takes this long unless it hangs; a loaded machine is slow to start Envoy.
const PATIENCE: Duration = Duration::from_secs(60);

/// What an Envoy is started with.
#[derive(Clone)]
pub struct Setup {
    /// Members of `inference-pool`.
    pub pods: Vec<SocketAddr>,
    /// The filter's configuration; none: no filter.
    pub configs: Vec<String>,
    /// Worker threads.
    pub workers: usize,
    /// `allow_on_headers_stop_iteration`.
    pub bodies_first: bool,
    /// Headers that are removed before a route is looked up, as the templates do.
    pub removed_early: Vec<String>,
    /// Each filter has a `vm_id` of its own; else all share one.
    pub vms_apart: bool,
    /// The listener is in Envoy's own configuration, which stands or falls with it.
    pub listener_fixed: bool,
    /// Further settings of the pool's cluster.
    pub cluster: Value,
    /// Further clusters by name, each with a route of its path prefix `/name/`.
    pub others: Vec<(String, Vec<SocketAddr>)>,
    /// Further clusters as they stand.
    pub more_clusters: Vec<Value>,
    /// Further route settings of the pool.
    pub route: Value,
    /// Where the cluster of the admin interface leads instead of there.
    pub admin_through: Option<SocketAddr>,
    /// The module.
    pub module: PathBuf,
    /// Tells this Envoy and those that replace it (hot restart) from others on the machine; none: it
    /// cannot be replaced.
    pub base_id: Option<u32>,
    /// Seconds after a change of the listener until connections of the old one are cut.
    pub drain_seconds: u32,
    /// Variables of its environment.
    pub environment: Vec<(String, String)>,
}

impl Setup {
    /// One worker, one filter.
    pub fn new(pods: &[SocketAddr], config: &str) -> Self {
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
            module: path_of("EPP_WASM"),
            base_id: None,
            drain_seconds: 2,
            environment: Vec::new(),
        }
    }

    /// Starts it and waits until it serves and knows its members.
    pub fn start(self) -> Proxy {
        let proxy = self.launch();
        proxy.wait_until_it_serves();
        proxy
    }

    /// Starts it and does not wait.
    pub fn launch(self) -> Proxy {
        self.launch_with(&[])
    }

    /// What `envoy --mode validate` exits with, and what it says.
    pub fn validate(mut self) -> (Option<i32>, String) {
        self.listener_fixed = true;
        let mut proxy = self.launch_with(&["--mode", "validate"]);
        (proxy.ended(), proxy.logged())
    }

    fn launch_with(self, arguments: &[&str]) -> Proxy {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = Path::new(FOLDER).join(format!("{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (port, admin) = (free_port(), free_port());
        let mut proxy = Proxy {
            setup: self,
            folder,
            port,
            admin,
            children: Vec::new(),
        };
        proxy.write_members();
        proxy.write_listener();
        let file = proxy.folder.join("envoy.json");
        fs::write(&file, proxy.bootstrap().to_string()).unwrap();
        proxy.spawn(arguments);
        proxy
    }
}

/// A running Envoy.
pub struct Proxy {
    /// What it was started with, and changed to since.
    pub setup: Setup,
    /// Where it listens.
    pub port: u16,
    /// Its admin interface.
    pub admin: u16,
    folder: PathBuf,
    /// The first one, and those that replaced it.
    children: Vec<Child>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = fs::read_to_string(self.log()).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let from = lines.len().saturating_sub(30);
            eprintln!(
                "the end of {}:\n{}",
                self.log().display(),
                lines[from..].join("\n")
            );
        } else {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

impl Proxy {
    /// Starts a process, which takes over from the one that runs.
    fn spawn(&mut self, arguments: &[&str]) {
        let mut log = fs::OpenOptions::new();
        let log = log.create(true).append(true).open(self.log()).unwrap();
        let mut command = Command::new(path_of("ENVOY"));
        command.arg("-c").arg(self.folder.join("envoy.json"));
        command.args(["--concurrency", &self.setup.workers.to_string()]);
        match self.setup.base_id {
            None => command.arg("--use-dynamic-base-id"),
            Some(base) => command
                .args(["--base-id", &base.to_string()])
                .args(["--restart-epoch", &self.children.len().to_string()]),
        };
        let (drain, end) = (self.setup.drain_seconds, self.setup.drain_seconds + 1);
        command
            .args(["--drain-time-s", &drain.to_string()])
            .args(["--parent-shutdown-time-s", &end.to_string()])
            .args(["--log-level", "warning"])
            .args(["--component-log-level", "wasm:info"])
            .args(arguments)
            .envs(self.setup.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        self.children.push(command.spawn().unwrap());
    }

    /// Starts another process that takes over without a connection lost: Envoy's hot restart.
    pub fn replace_process(&mut self) {
        assert!(self.setup.base_id.is_some(), "it was started without");
        self.spawn(&[]);
    }

    /// Whether this process has ended.
    pub fn ended_process(&mut self, process: u32) -> bool {
        let mut children = self.children.iter_mut();
        let child = children.find(|child| child.id() == process);
        child.is_some_and(|child| child.try_wait().unwrap().is_some())
    }

    /// The process, the last one where there were several.
    pub fn process(&self) -> u32 {
        self.children.last().unwrap().id()
    }

    /// Waits until it serves and knows its members.
    pub fn wait_until_it_serves(&self) {
        self.wait_until("Envoy listens", || {
            client::get(self.port, "/ready-or-not").is_ok()
        });
        self.wait_until("the pool answers", || {
            client::get(self.port, "/v1/models").is_ok_and(|answer| answer.status == 200)
        });
        // Before that it is Envoy's fallback policy that answers.
        self.wait_until("the filter knows the members", || {
            let ready = || self.counted("llm_d_epp_ready_endpoints") > 0;
            self.setup.configs.is_empty() || ready()
        });
        // That is what the poller knows; the workers hear of it with their next tick of 50 ms.
        sleep(Duration::from_millis(200));
    }

    /// Waits for a condition.
    pub fn wait_until(&self, what: &str, condition: impl FnMut() -> bool) {
        wait_until(what, condition);
    }

    /// What Envoy and the filter have logged so far.
    pub fn logged(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// The process's exit code, if it ends soon.
    pub fn ended(&mut self) -> Option<i32> {
        let child = self.children.last_mut()?;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = child.try_wait().unwrap() {
                return status.code();
            }
            sleep(Duration::from_millis(20));
        }
        None
    }

    /// Other members from now on.
    pub fn set_pods(&mut self, pods: &[SocketAddr]) {
        self.setup.pods = pods.to_vec();
        self.write_members();
    }

    /// Another configuration from now on.
    pub fn set_config(&mut self, config: &str) {
        self.setup.configs = vec![config.to_owned()];
        self.write_listener();
    }

    /// Another module from now on.
    pub fn set_module(&mut self, module: &Path) {
        self.setup.module = module.to_owned();
        self.write_listener();
    }

    /// A value of `/stats`.
    pub fn stat(&self, name: &str) -> u64 {
        let value = self.find_stat(name);
        value.unwrap_or_else(|| panic!("Envoy has no statistic {name}"))
    }

    /// The same of a statistic that Envoy makes when it first counts something.
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

    /// The sum of a metric of the filter over all its labels; 0 where nothing was counted yet.
    pub fn counted(&self, name: &str) -> u64 {
        self.counted_with(name, "")
    }

    /// The same of those lines that have this label.
    pub fn counted_with(&self, name: &str, label: &str) -> u64 {
        // A metric appears when it is first used: one that never could is the test's mistake.
        static MODULE: LazyLock<Vec<u8>> = LazyLock::new(|| fs::read(path_of("EPP_WASM")).unwrap());
        let named = memchr::memmem::find(&MODULE, name.as_bytes());
        assert!(named.is_some(), "the module has no metric {name}");
        let text = self.prometheus();
        let own = text
            .lines()
            .filter(|line| line.starts_with(&format!("{name}{{")) && line.contains(label));
        own.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
            .sum()
    }

    /// The most memory that Envoy has had so far, in bytes.
    pub fn peak_memory(&self) -> u64 {
        self.memory_line("VmHWM:")
    }

    /// The memory that Envoy has now, in bytes.
    pub fn memory(&self) -> u64 {
        self.memory_line("VmRSS:")
    }

    fn memory_line(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kilobytes = line.unwrap().trim().strip_suffix(" kB").unwrap();
        kilobytes.parse::<u64>().unwrap() << 10
    }

    /// `/stats/prometheus`.
    pub fn prometheus(&self) -> String {
        client::get(self.admin, "/stats/prometheus").unwrap().body
    }

    fn log(&self) -> PathBuf {
        self.folder.join("envoy.log")
    }

    /// Files are replaced, never written in place: Envoy watches for renames.
    fn replace(&self, name: &str, content: &Value) {
        let new = self.folder.join(format!("{name}.new"));
        fs::write(&new, content.to_string()).unwrap();
        fs::rename(new, self.folder.join(name)).unwrap();
    }

    fn write_members(&self) {
        let mut assignment = load_assignment("inference-pool", &self.setup.pods);
        assignment["@type"] =
            "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment".into();
        self.replace("eds.json", &json!({"resources": [assignment]}));
    }

    fn write_listener(&self) {
        let mut listener = self.listener();
        listener["@type"] = "type.googleapis.com/envoy.config.listener.v3.Listener".into();
        self.replace("lds.json", &json!({"resources": [listener]}));
    }

    fn listener(&self) -> Value {
        let mut filters: Vec<Value> = Vec::new();
        for (number, config) in self.setup.configs.iter().enumerate() {
            let name = format!("epp{number}");
            let vm = if self.setup.vms_apart { &name } else { "epp" };
            let mut wasm = json!({"config": {
                "name": name,
                "failure_policy": "FAIL_RELOAD",
                // As envoy/envoy.yaml has it.
                "reload_config": {"backoff": {"base_interval": "0.1s"}},
                "vm_config": {"vm_id": vm, "runtime": "envoy.wasm.runtime.v8",
                    "code": {"local": {"filename": self.setup.module}}},
                "configuration": {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": config},
            }});
            if self.setup.bodies_first {
                wasm["config"]["allow_on_headers_stop_iteration"] = true.into();
            }
            filters.push(typed(
                &format!("wasm{number}"),
                "filters.http.wasm.v3.Wasm",
                wasm,
            ));
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
        let manager = json!({
            "early_header_mutation_extensions": early.as_slice(),
            "stat_prefix": "e2e",
            "codec_type": "AUTO",
            "http_protocol_options": {"enable_trailers": true},
            "http2_protocol_options": {},
            "upgrade_configs": [{"upgrade_type": "websocket"}],
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": self.routes()}]},
            "http_filters": filters,
        });
        let kind = "filters.network.http_connection_manager.v3.HttpConnectionManager";
        json!({"name": "llm", "address": address("127.0.0.1", self.port),
            "filter_chains": [{"filters": [typed("envoy.filters.network.http_connection_manager", kind, manager)]}]})
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
        let watched = |name: &str| json!({"path_config_source": {"path": self.folder.join(name)}, "resource_api_version": "V3"});
        let mut pool = json!({"name": "inference-pool", "type": "EDS", "connect_timeout": "1s",
            "eds_cluster_config": {"eds_config": watched("eds.json")},
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
            false => json!({"lds_config": watched("lds.json")}),
            true => json!({}),
        };
        let listeners = self.setup.listener_fixed.then(|| self.listener());
        let tag = |name: &str| json!({"tag_name": name, "regex": format!("(;{name}=([^;]*))")});
        json!({
            "node": {"id": "e2e", "cluster": "e2e"},
            "admin": {"address": address("127.0.0.1", self.admin)},
            "dynamic_resources": dynamic,
            "static_resources": {"clusters": clusters, "listeners": listeners.as_slice()},
            "stats_config": {"stats_tags": [tag("pool"), tag("endpoint_name"), tag("status"), tag("error_code"), tag("reason"), tag("callback"), tag("vm"), tag("model_name"), tag("le")]},
        })
    }
}

/// Puts these settings over those.
fn merge(settings: &mut Value, others: &Value) {
    for (key, value) in others.as_object().unwrap() {
        settings[key] = value.clone();
    }
}

/// Waits for a condition, and fails where it does not come about.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        sleep(Duration::from_millis(25));
    }
}

/// Where all of a test's files go, one folder an Envoy.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/e2e");

/// A program or file that `make test` says the place of.
pub fn path_of(name: &str) -> PathBuf {
    let path = env::var_os(name).map(PathBuf::from);
    let path = path.unwrap_or_else(|| panic!("{name} is not set; call `make test`"));
    assert!(
        path.exists(),
        "{name} is {}, which is not there; call `make test`",
        path.display()
    );
    path
}

/// A port for Envoy to listen on. The kernel never gives one of these out by itself, neither to a
/// pod nor to a connection, and none is given out twice: Envoy shares a port that another Envoy
/// listens on, and the tests of both would talk to either.
pub fn free_port() -> u16 {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 20_000;
    static NEXT: LazyLock<AtomicU32> =
        // Test programs that run side by side begin at different places.
        LazyLock::new(|| AtomicU32::new(std::process::id().wrapping_mul(499)));
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = u16::try_from(FIRST + number).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

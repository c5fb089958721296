//! The Envoys under test: one worker each, pinned to core 0.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{json, Value};

use crate::Trouble;

/// A running Envoy.
pub struct Proxy {
    /// The case: `plain`, `noop` or `epp`.
    pub name: String,
    /// Where it listens.
    pub port: u16,
    child: Child,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Proxy {
    /// Starts the Envoy of a case over the model servers at `ports`.
    pub async fn start(name: &str, ports: &[u16], config: &Path) -> Result<Self, Trouble> {
        let envoy = std::env::var("ENVOY").map_err(|_| "ENVOY is not set; use `make bench`")?;
        let (port, admin) = (free_port()?, free_port()?);
        let module = match name {
            "plain" => None,
            "noop" => Some((std::env::var("NOOP_WASM")?, String::new())),
            "epp" => Some((std::env::var("EPP_WASM")?, fs::read_to_string(config)?)),
            other => return Err(format!("case {other}: known are plain, noop, epp").into()),
        };
        let folder = Path::new("target/bench");
        fs::create_dir_all(folder)?;
        let file = folder.join(format!("{name}.json"));
        let text = serde_json::to_string_pretty(&bootstrap(port, admin, ports, module))?;
        fs::write(&file, text)?;
        let log = fs::File::create(folder.join(format!("{name}.log")))?;
        let child = Command::new("taskset")
            .args([
                "-c",
                "0",
                &envoy,
                "--concurrency",
                "1",
                "--use-dynamic-base-id",
            ])
            .args(["--log-level", "warning", "-c"])
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        let proxy = Self {
            name: name.to_owned(),
            port,
            child,
        };
        let deadline = Instant::now() + Duration::from_secs(30);
        while tokio::net::TcpStream::connect(("127.0.0.1", port))
            .await
            .is_err()
        {
            if Instant::now() > deadline {
                return Err(
                    format!("{name}: Envoy does not listen; see target/bench/{name}.log").into(),
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(proxy)
    }

    /// CPU time of all its threads so far.
    pub fn cpu(&self) -> Result<Duration, Trouble> {
        let mut total = Duration::ZERO;
        // schedstat counts in nanoseconds, where stat counts in hundredths of a second.
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            let spent = text.split(' ').next().unwrap_or_default();
            total += Duration::from_nanos(spent.trim().parse()?);
        }
        Ok(total)
    }

    /// Resident memory.
    pub fn resident_kb(&self) -> Result<u64, Trouble> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.unwrap_or_default().split_whitespace().next();
        Ok(number.unwrap_or("0").parse()?)
    }
}

fn free_port() -> Result<u16, Trouble> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn address(port: u16) -> Value {
    json!({"socket_address": {"address": "127.0.0.1", "port_value": port}})
}

fn cluster(name: &str, ports: &[u16]) -> Value {
    let member = |port: &u16| json!({"endpoint": {"address": address(*port)}});
    let members: Vec<Value> = ports.iter().map(member).collect();
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "circuit_breakers": {"thresholds": [{"max_connections": 100_000,
            "max_pending_requests": 100_000, "max_requests": 100_000}]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": members}]},
    })
}

fn typed(name: &str, kind: &str, mut config: Value) -> Value {
    if let Value::Object(fields) = &mut config {
        let kind = format!("type.googleapis.com/envoy.extensions.{kind}");
        fields.insert("@type".to_owned(), kind.into());
    }
    json!({"name": name, "typed_config": config})
}

fn bootstrap(port: u16, admin: u16, ports: &[u16], module: Option<(String, String)>) -> Value {
    let mut filters = Vec::new();
    if let Some((path, config)) = module {
        let kind = "filters.http.wasm.v3.Wasm";
        let config = json!({"config": {
            "name": "bench",
            "allow_on_headers_stop_iteration": true,
            "vm_config": {"vm_id": "bench", "runtime": "envoy.wasm.runtime.v8",
                "code": {"local": {"filename": path}}},
            "configuration": {"@type": "type.googleapis.com/google.protobuf.StringValue",
                "value": config},
        }});
        filters.push(typed("envoy.filters.http.wasm", kind, config));
    }
    let router = typed(
        "envoy.filters.http.router",
        "filters.http.router.v3.Router",
        json!({}),
    );
    filters.push(router);
    let manager = json!({
        "stat_prefix": "bench",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
            {"match": {"prefix": "/"}, "route": {"cluster": "inference-pool", "timeout": "0s"}}]}]},
        "http_filters": filters,
    });
    let manager = typed(
        "envoy.filters.network.http_connection_manager",
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        manager,
    );
    let round_robin = typed(
        "envoy.load_balancing_policies.round_robin",
        "load_balancing_policies.round_robin.v3.RoundRobin",
        json!({}),
    );
    let override_host = typed(
        "envoy.load_balancing_policies.override_host",
        "load_balancing_policies.override_host.v3.OverrideHost",
        json!({
            "override_host_sources": [{"header": "x-gateway-destination-endpoint"}],
            "fallback_policy": {"policies": [{"typed_extension_config": round_robin}]},
        }),
    );
    let mut pool = cluster("inference-pool", ports);
    if let Value::Object(fields) = &mut pool {
        let policy = json!({"policies": [{"typed_extension_config": override_host}]});
        fields.insert("load_balancing_policy".to_owned(), policy);
    }
    json!({
        "admin": {"address": address(admin)},
        "static_resources": {
            "listeners": [{"name": "bench", "address": address(port),
                "filter_chains": [{"filters": [manager]}]}],
            "clusters": [pool, cluster("prometheus_stats", &[admin])],
        },
    })
}

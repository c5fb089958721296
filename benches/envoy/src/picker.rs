//! A user's own Endpoint Picker beside ours, run without Kubernetes by file discovery.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::envoy::free_port;
use crate::process;
use crate::Trouble;

/// A running Endpoint Picker.
#[derive(Debug)]
pub struct Picker {
    /// Where it listens for ext_proc.
    pub port: u16,
    child: Child,
}

impl Drop for Picker {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Picker {
    /// Starts the binary over the model servers, with an EndpointPickerConfig by llm-d-router's
    /// rules that begins its `plugins` in block style. `interval_ms` is its scrape interval.
    pub async fn start(
        binary: &str,
        servers: &[u16],
        plan: &str,
        interval_ms: u64,
    ) -> Result<Self, Trouble> {
        let folder = Path::new("target/bench");
        fs::create_dir_all(folder)?;
        let folder = folder.canonicalize()?;
        let (config, endpoints) = (folder.join("epp.yaml"), folder.join("epp-endpoints.yaml"));
        let mut list = "endpoints:\n".to_owned();
        for (number, port) in servers.iter().enumerate() {
            writeln!(
                list,
                "- {{name: pod-{number}, address: 127.0.0.1, port: \"{port}\"}}"
            )?;
        }
        fs::write(&endpoints, list)?;
        fs::write(&config, document(plan, &endpoints.to_string_lossy()))?;
        let (port, health, metrics) = (free_port()?, free_port()?, free_port()?);
        let log = fs::File::create(folder.join("epp.log"))?;
        // On the cores of this program: beside the load, where that is pinned off Envoy's.
        let child = Command::new(binary)
            .args(["--pool-name", "local", "--pool-namespace", "default"])
            .arg("--config-file")
            .arg(&config)
            .args(["--secure-serving=false", "--metrics-endpoint-auth=false"])
            .args(["--tracing=false", "--health-checking=true", "-v", "1"])
            .arg(format!("--grpc-port={port}"))
            .arg(format!("--grpc-health-port={health}"))
            .arg(format!("--metrics-port={metrics}"))
            .arg(format!("--refresh-metrics-interval={interval_ms}ms"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        let picker = Self { port, child };
        process::listens(port, "target/bench/epp.log").await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        Ok(picker)
    }

    /// CPU time so far.
    pub fn cpu(&self) -> Result<Duration, Trouble> {
        process::cpu(self.child.id())
    }
}

/// The configuration with its endpoints from a file.
fn document(plan: &str, endpoints: &str) -> String {
    let discovery = format!(
        "plugins:\n- {{name: discovery, type: file-discovery, parameters: {{path: {endpoints}}}}}\n"
    );
    let plan = plan.replacen("plugins:\n", &discovery, 1);
    format!("{plan}dataLayer:\n  discovery: {{pluginRef: discovery}}\n")
}

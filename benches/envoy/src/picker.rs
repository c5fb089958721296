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
    /// Starts the binary over the model servers, with the same plan as ours in its own dialect.
    /// `interval_ms` is its scrape interval.
    pub async fn start(binary: &str, servers: &[u16], interval_ms: u64) -> Result<Self, Trouble> {
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
        fs::write(&config, document(&endpoints.to_string_lossy()))?;
        let (port, health, metrics) = (free_port()?, free_port()?, free_port()?);
        let log = fs::File::create(folder.join("epp.log"))?;
        // Beside the load, on the core that Envoy is not on.
        let child = Command::new("taskset")
            .args(["-c", "1", binary])
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

/// llm-d-router's configuration with the same four scorers.
fn document(endpoints: &str) -> String {
    format!(
        "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {{name: discovery, type: file-discovery, parameters: {{path: {endpoints}}}}}
- type: queue-scorer
- type: kv-cache-utilization-scorer
- type: prefix-cache-scorer
- type: lora-affinity-scorer
- type: max-score-picker
schedulingProfiles:
- name: default
  plugins:
  - {{pluginRef: queue-scorer, weight: 2}}
  - {{pluginRef: kv-cache-utilization-scorer, weight: 2}}
  - {{pluginRef: prefix-cache-scorer, weight: 3}}
  - {{pluginRef: lora-affinity-scorer, weight: 1}}
  - pluginRef: max-score-picker
dataLayer:
  discovery: {{pluginRef: discovery}}
"
    )
}

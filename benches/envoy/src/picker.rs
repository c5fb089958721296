//! An Endpoint Picker, run without Kubernetes by file discovery.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use envoy_harness::{free_port, Process};

use crate::cpu::Threads;
use crate::process;
use crate::BoxError;

/// A running Endpoint Picker.
#[derive(Debug)]
pub struct Picker {
    /// The port of ext_proc.
    pub port: u16,
    process: Process,
}

impl Picker {
    /// Starts the binary with the model servers and an EndpointPickerConfig in the llm-d dialect whose
    /// `plugins` are in block style. `interval_ms` is its scrape interval.
    pub async fn start(
        binary: &str,
        servers: &[u16],
        plan: &str,
        interval_ms: u64,
    ) -> Result<Self, BoxError> {
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
        let (port, health, metrics) = (free_port(), free_port(), free_port());
        // On the cores of this program, which is pinned away from Envoy's.
        let mut command = Command::new(binary);
        command
            .args(["--pool-name", "local", "--pool-namespace", "default"])
            .arg("--config-file")
            .arg(&config)
            .args(["--secure-serving=false", "--metrics-endpoint-auth=false"])
            .args(["--tracing=false", "--health-checking=true", "-v", "1"])
            .arg(format!("--grpc-port={port}"))
            .arg(format!("--grpc-health-port={health}"))
            .arg(format!("--metrics-port={metrics}"))
            .arg(format!("--refresh-metrics-interval={interval_ms}ms"));
        let process = Process::start("the Endpoint Picker", command, &folder.join("epp.log"))?;
        let process = process::listening(process, port).await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        Ok(Self { port, process })
    }

    /// Returns the CPU time of its threads so far.
    pub fn cpu(&self) -> Result<Threads, BoxError> {
        Threads::of(self.process.id())
    }
}

/// Returns the configuration with endpoints from a file.
fn document(plan: &str, endpoints: &str) -> String {
    let discovery = format!(
        "plugins:\n- {{name: discovery, type: file-discovery, parameters: {{path: {endpoints}}}}}\n"
    );
    let plan = plan.replacen("plugins:\n", &discovery, 1);
    format!("{plan}dataLayer:\n  discovery: {{pluginRef: discovery}}\n")
}

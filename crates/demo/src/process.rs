//! The processes of the demo.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use envoy_harness::envoy::{self, BaseId};
use envoy_harness::host::Host;
use envoy_harness::Process;

use crate::DemoError;

/// The folder of the processes' logs.
const LOGS: &str = "target/demo";

/// The bootstrap for the dynamic module.
const FOR_MODULE: &str = "target/demo/envoy.json";

/// What runs the picker.
pub struct Envoy {
    /// The program.
    pub program: PathBuf,
    /// Where the picker runs.
    pub host: Host,
    /// The module that Envoy loads.
    pub module: PathBuf,
}

impl Envoy {
    /// Returns what the environment names.
    pub fn from_environment() -> Result<Self, DemoError> {
        let host = Host::from_environment()?;
        Ok(Self {
            program: envoy::from_environment("ENVOY")?,
            host,
            module: envoy::from_environment(host.variable())?,
        })
    }

    /// Says which file Envoy reads when it is started with this bootstrap for the wasm module.
    pub fn bootstrap(&self, bootstrap: &str) -> String {
        match self.host {
            Host::Wasm => bootstrap.to_owned(),
            Host::Module => format!("{FOR_MODULE}, which is {bootstrap} with the dynamic module"),
        }
    }
}

/// Fails unless every port is free.
pub fn need_ports(ports: &[u16]) -> Result<(), DemoError> {
    for port in ports {
        TcpListener::bind(("127.0.0.1", *port)).map_err(|error| {
            format!(
                "port {port} cannot be had ({error}).\n\
                 Something else listens there; `ss -ltnp 'sport = :{port}'` says what. Stop it and \
                 call `make run` again."
            )
        })?;
    }
    Ok(())
}

/// Starts the model servers on consecutive ports, the last ones with a routing sidecar.
pub fn start_pods(
    count: usize,
    first_port: u16,
    sidecars: usize,
    more: &[&str],
) -> Result<Process, DemoError> {
    let program = std::env::current_exe().unwrap_or_default();
    let program = program.with_file_name("fake-model-server");
    let mut command = Command::new(&program);
    command
        .args(["--pods", &count.to_string()])
        .args(["--port-base", &first_port.to_string()])
        .args(["--sidecars", &sidecars.to_string()])
        .args(more)
        .arg("--exit-with-parent");
    start("fake-model-server", command)
}

/// Starts Envoy with a bootstrap for the wasm module, and waits until it serves.
pub fn start_envoy(envoy: &Envoy, bootstrap: &str, admin: u16) -> Result<Process, DemoError> {
    let bootstrap = match envoy.host {
        Host::Wasm => bootstrap,
        Host::Module => for_module(bootstrap, &envoy.module)?,
    };
    let command = envoy::command(&envoy.program, Path::new(bootstrap), BaseId::Unique);
    let mut envoy = start("Envoy", command)?;
    let ready = format!("http://127.0.0.1:{admin}/ready");
    envoy.wait_until("it is ready", || ureq::get(&ready).call().is_ok())?;
    Ok(envoy)
}

/// Writes a bootstrap as one for the dynamic module. Returns its file.
fn for_module(bootstrap: &str, module: &Path) -> Result<&'static str, DemoError> {
    let yaml = fs::read_to_string(bootstrap).map_err(|error| format!("{bootstrap}: {error}"))?;
    let adapted = Host::Module.bootstrap(&yaml, module);
    let adapted = adapted.map_err(|error| format!("{bootstrap}: {error}"))?;
    write(FOR_MODULE, &adapted.to_string())?;
    Ok(FOR_MODULE)
}

/// Writes a file in the folder of the logs.
pub fn write(file: &str, text: &str) -> Result<(), DemoError> {
    let written = fs::create_dir_all(LOGS).and_then(|()| fs::write(file, text));
    written.map_err(|error| format!("cannot write {file}: {error}"))
}

fn start(name: &str, command: Command) -> Result<Process, DemoError> {
    fs::create_dir_all(LOGS).map_err(|error| format!("cannot write to {LOGS}: {error}"))?;
    let log = Path::new(LOGS).join(format!("{}.log", name.to_lowercase()));
    Process::start(name, command, &log)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_that_envoy_reads_is_named_on_both_hosts() {
        let bootstrap = |host| {
            let [program, module] = [PathBuf::new(), PathBuf::new()];
            let envoy = Envoy {
                program,
                host,
                module,
            };
            envoy.bootstrap("envoy/envoy.yaml")
        };
        assert_eq!(bootstrap(Host::Wasm), "envoy/envoy.yaml");
        assert!(bootstrap(Host::Module).starts_with(&format!("{LOGS}/envoy.json, ")));
    }
}

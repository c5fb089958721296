//! The Envoys under test, each pinned to its cores.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use envoy_harness::envoy::{command, from_environment, BaseId};
use envoy_harness::{free_port, Process};
use rustix::process::{kill_process, Pid, Signal};

use crate::bootstrap::{bootstrap, Ports};
use crate::cpu::Threads;
use crate::process;
use crate::BoxError;

/// A measured configuration: an Envoy with or without a filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Case {
    /// Envoy without a filter, round robin.
    Plain,
    /// The same, but clients name the endpoint in the header in which the filter does it.
    OverrideHost,
    /// A filter that is called for everything and does nothing.
    Noop,
    /// The filter, as a wasm module.
    EppWasm,
    /// The filter as a dynamic module.
    Module,
    /// The filter with flow control, in a pool that is not full.
    Gate,
    /// Envoy's least request of two random endpoints, without a filter.
    LeastRequest,
    /// Envoy's ring hash over a client header, without a filter.
    RingHash,
    /// An Endpoint Picker over ext_proc.
    Epp,
    /// Another build of the filter, by its file: of the wasm module, or of the dynamic module.
    File(String),
    /// The filter with another configuration, by its file.
    Config(String),
}

impl Case {
    /// Parses a name.
    pub fn parse(name: &str) -> Result<Self, BoxError> {
        Ok(match name {
            "plain" => Self::Plain,
            "override-host" => Self::OverrideHost,
            "noop" => Self::Noop,
            "epp-wasm" => Self::EppWasm,
            "module" => Self::Module,
            "gate" => Self::Gate,
            "least-request" => Self::LeastRequest,
            "ring-hash" => Self::RingHash,
            file if file.ends_with(".wasm") || file.ends_with(".so") => Self::File(file.to_owned()),
            file if file.ends_with(".yaml") => Self::Config(file.to_owned()),
            other => {
                let known = "plain, override-host, noop, epp-wasm, module, gate, least-request, ring-hash, \
                    or a file that ends in .wasm, .so or .yaml";
                return Err(format!("case {other}: known are {known}").into());
            }
        })
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        match self {
            Self::Plain => "plain",
            Self::OverrideHost => "override-host",
            Self::Noop => "noop",
            Self::EppWasm => "epp-wasm",
            Self::Module => "module",
            Self::Gate => "gate",
            Self::LeastRequest => "least-request",
            Self::RingHash => "ring-hash",
            Self::Epp => "epp",
            Self::File(file) | Self::Config(file) => Path::new(file)
                .file_stem()
                .and_then(|stem| stem.to_str())
                .unwrap_or("module"),
        }
    }

    /// Returns the module to load and its configuration.
    pub fn module(&self, config: &str) -> Result<Option<(String, String)>, BoxError> {
        let from_env = |name| std::env::var(name).map_err(|_| format!("{name} is not set"));
        let gated = || config.replacen("\nplugins:", GATE, 1);
        Ok(match self {
            Self::Plain | Self::OverrideHost | Self::LeastRequest | Self::RingHash | Self::Epp => {
                None
            }
            Self::Noop => Some((from_env("NOOP_WASM")?, String::new())),
            Self::EppWasm => Some((from_env("EPP_WASM")?, config.to_owned())),
            Self::Module => Some((built(from_env("EPP_MODULE")?)?, config.to_owned())),
            Self::Gate => Some((from_env("EPP_WASM")?, gated())),
            Self::File(file) => Some((file.clone(), config.to_owned())),
            Self::Config(file) => Some((from_env("EPP_WASM")?, fs::read_to_string(file)?)),
        })
    }
}

/// Returns the file of the dynamic module, which `make compare` does not build.
fn built(file: String) -> Result<String, BoxError> {
    match Path::new(&file).is_file() {
        true => Ok(file),
        false => {
            Err(format!("{file}: no such file; `make module` builds the dynamic module").into())
        }
    }
}

/// Flow control, before the other plugins of a document.
const GATE: &str = include_str!("../../gate.yaml");

/// The settings of an Envoy.
#[derive(Debug, Clone)]
pub struct Setup<'a> {
    /// The case.
    pub case: Case,
    /// The model servers.
    pub servers: &'a [u16],
    /// The EndpointPickerConfig.
    pub config: &'a str,
    /// The number of workers.
    pub workers: usize,
    /// The port of an Endpoint Picker.
    pub picker: Option<u16>,
}

/// All cores, in taskset's notation.
pub const ALL_CORES: &str = "0-63";

/// A running Envoy.
#[derive(Debug)]
pub struct Proxy {
    /// The name of the case.
    pub name: String,
    /// The port of the listener.
    pub port: u16,
    /// The port of the admin interface.
    pub admin: u16,
    /// The time from the start until it listened.
    pub start: Duration,
    /// The start time on all cores, if it was measured.
    pub start_on_all: Option<Duration>,
    /// The ports of the model servers among which clients choose; none if Envoy or the filter chooses.
    pub destinations: Vec<u16>,
    process: Process,
}

impl Proxy {
    /// Starts an Envoy and waits until it listens. A single worker has a core of its own; several share all.
    pub async fn start(setup: &Setup<'_>) -> Result<Self, BoxError> {
        let cores = if setup.workers == 1 { "0" } else { ALL_CORES };
        Self::start_on(cores, setup).await
    }

    /// Starts an Envoy on these cores.
    pub async fn start_on(cores: &str, setup: &Setup<'_>) -> Result<Self, BoxError> {
        let envoy = from_environment("ENVOY")?;
        let (port, admin) = (free_port(), free_port());
        let name = setup.case.name();
        let folder = Path::new("target/bench");
        fs::create_dir_all(folder)?;
        let file = folder.join(format!("{name}.json"));
        let ports = Ports {
            listener: port,
            admin,
        };
        fs::write(
            &file,
            serde_json::to_string_pretty(&bootstrap(setup, &ports)?)?,
        )?;
        let mut command = command(&envoy, &file, BaseId::Unique);
        command.args(["--concurrency", &setup.workers.to_string()]);
        let log = folder.join(format!("{name}.log"));
        let started = Instant::now();
        let process = Process::start(name, pinned(&command, cores), &log)?;
        let process = process::listening(process, port).await?;
        Ok(Self {
            name: name.to_owned(),
            port,
            admin,
            start: started.elapsed(),
            start_on_all: None,
            destinations: match setup.case {
                Case::OverrideHost => setup.servers.to_vec(),
                _ => Vec::new(),
            },
            process,
        })
    }

    /// Returns the CPU time of its threads so far.
    pub fn cpu(&self) -> Result<Threads, BoxError> {
        Threads::of(self.process.id())
    }

    /// Returns the resident memory in KiB.
    pub fn resident_kib(&self) -> Result<u64, BoxError> {
        process::resident_kib(self.process.id())
    }

    /// Stops the process, so that it does not disturb the turns of others, or lets it continue.
    pub fn pause(&self, pause: bool) -> Result<(), BoxError> {
        let signal = if pause { Signal::STOP } else { Signal::CONT };
        let pid = Pid::from_raw(i32::try_from(self.process.id())?).ok_or("no process")?;
        Ok(kill_process(pid, signal)?)
    }
}

/// Returns a command pinned to these cores.
fn pinned(command: &Command, cores: &str) -> Command {
    let mut pinned = Command::new("taskset");
    pinned
        .args(["-c", cores])
        .arg(command.get_program())
        .args(command.get_args());
    pinned
}

//! The processes of the demo: started, watched, and stopped again whatever happens.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::Trouble;

/// Envoy compiles the module at start, which takes a second on a slow machine; a minute is a hang.
const START: Duration = Duration::from_secs(60);

/// Where the processes write their logs.
const LOGS: &str = "target/demo";

/// A process that ends with this value.
pub struct Running {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Whether it still runs.
    pub fn check(&mut self) -> Result<(), Trouble> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(format!(
                "{} stopped ({status}). The end of its log, {}:\n\n{}",
                self.name,
                self.log.display(),
                tail(&self.log),
            )),
            Err(error) => Err(format!("cannot watch {}: {error}", self.name)),
        }
    }

    /// Ends it.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // It may have ended by itself, by the same Ctrl-C.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// Fails unless every port can be had.
pub fn need_ports(ports: &[u16]) -> Result<(), Trouble> {
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

/// Starts the model servers on consecutive ports.
pub fn start_pods(count: usize, first_port: u16) -> Result<Running, Trouble> {
    let program = std::env::current_exe().unwrap_or_default();
    let program = program.with_file_name("fake-model-server");
    let mut command = Command::new(&program);
    command
        .args(["--pods", &count.to_string()])
        .args(["--port-base", &first_port.to_string()])
        .arg("--exit-with-parent");
    start("fake-model-server", command)
}

/// Starts Envoy with the demo's configuration and waits until it serves.
pub fn start_envoy(program: &Path, admin: u16) -> Result<Running, Trouble> {
    let mut command = Command::new(program);
    command
        .args(["-c", "envoy/envoy.yaml"])
        .args(["--log-level", "warning"])
        .args(["--component-log-level", "wasm:info"])
        .arg("--use-dynamic-base-id");
    let mut envoy = start("Envoy", command)?;
    let deadline = Instant::now() + START;
    let ready = format!("http://127.0.0.1:{admin}/ready");
    while ureq::get(&ready).call().is_err() {
        envoy.check()?;
        if Instant::now() > deadline {
            let log = envoy.log.display();
            return Err(format!(
                "Envoy is not ready after {START:?}; its log is {log}"
            ));
        }
        sleep(Duration::from_millis(50));
    }
    Ok(envoy)
}

fn start(name: &'static str, mut command: Command) -> Result<Running, Trouble> {
    let trouble = |error: std::io::Error| format!("cannot write to {LOGS}: {error}");
    fs::create_dir_all(LOGS).map_err(trouble)?;
    let log = Path::new(LOGS).join(format!("{}.log", name.to_lowercase()));
    let output = fs::File::create(&log).map_err(trouble)?;
    let errors = output.try_clone().map_err(trouble)?;
    // Held open: a child that watches its standard input sees us go.
    command.stdin(Stdio::piped()).stdout(output).stderr(errors);
    let program = command.get_program().to_owned();
    let child = command.spawn().map_err(|error| {
        format!(
            "cannot start {name} ({}): {error}",
            program.to_string_lossy()
        )
    })?;
    Ok(Running { name, child, log })
}

fn tail(log: &Path) -> String {
    /// Enough for Envoy's reason and the filter's own lines before it.
    const LINES: usize = 15;
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(LINES);
    lines.get(from..).unwrap_or_default().join("\n")
}

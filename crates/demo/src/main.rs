//! `make run`: starts four fake model servers and Envoy with the module, sends a few conversations, and
//! prints which endpoint got each request and why. Runs until Ctrl-C, and leaves no process behind. With
//! `disagg`, two of the servers compute prompts for the other two; with `flow`, two servers get twice the load that
//! they take, without flow control and with it. `HOST=module` shows it on the dynamic module.
//!
//! The program starts processes (`envoy-harness`) and uses the network of this machine; it sees the filter
//! from outside.

mod disaggregation;
mod overload;
mod process;
mod show;

use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use process::Envoy;

/// The ports in envoy/envoy.yaml and envoy/disaggregated.yaml.
const LISTENER: u16 = 10_000;
const ADMIN: u16 = 9_901;
const STATUS: u16 = 10_001;
const PODS: [u16; 4] = [8_001, 8_002, 8_003, 8_004];

/// An error with a hint, for the user of `make run`.
type DemoError = String;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nmake run: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), DemoError> {
    let argument = std::env::args().nth(1);
    let disaggregated = match argument.as_deref() {
        None | Some("flow") => false,
        Some("disagg") => true,
        Some(other) => return Err(format!("found {other}, expected nothing, disagg or flow")),
    };
    let (stop, stopped) = mpsc::channel();
    let handler = move || {
        // The receiver is gone during the shutdown.
        let _ = stop.send(());
    };
    ctrlc::set_handler(handler).map_err(|error| format!("cannot catch Ctrl-C: {error}"))?;

    let envoy = Envoy::from_environment()?;
    process::need_ports(&[LISTENER, ADMIN, STATUS])?;
    process::need_ports(&PODS)?;
    if argument.as_deref() == Some("flow") {
        return overload::run(&envoy, &stopped);
    }

    println!(
        "Starting {} simulated model servers and Envoy …",
        PODS.len()
    );
    let (config, sidecars) = match disaggregated {
        true => ("envoy/disaggregated.yaml", 2),
        false => ("envoy/envoy.yaml", 0),
    };
    let bootstrap = envoy.bootstrap(config);
    let pods = process::start_pods(PODS.len(), PODS[0], sidecars, &[])?;
    let envoy = process::start_envoy(&envoy, config, ADMIN)?;
    let mut running = [pods, envoy];
    match disaggregated {
        true => disaggregation::traffic(LISTENER, ADMIN, &PODS, &bootstrap)?,
        false => show::traffic(LISTENER, ADMIN, PODS.len(), &bootstrap)?,
    }
    show::links(STATUS, ADMIN);
    println!("\nRunning until Ctrl-C.");

    while stopped.recv_timeout(Duration::from_millis(500)).is_err() {
        for process in &mut running {
            process.check_running()?;
        }
    }
    println!("\nStopping.");
    drop(running);
    Ok(())
}

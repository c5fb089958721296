//! An Envoy started with a configuration of this test's, in a folder of its own.

use std::fs;
use std::path::Path;

use envoy_harness::envoy::{command, BaseId};
use envoy_harness::{path_of, Folder, Process};

/// An empty folder.
pub fn folder() -> Folder {
    Folder::new("deploy")
}

/// Starts an Envoy with this configuration.
pub fn start(folder: &Folder, name: &str, config: &str) -> Process {
    start_with(folder, name, config, &[])
}

/// Starts Envoy with more arguments.
pub fn start_with(folder: &Folder, name: &str, config: &str, arguments: &[&str]) -> Process {
    let file = folder.path().join(format!("{name}.yaml"));
    fs::write(&file, config).unwrap();
    let mut command = command(&path_of("ENVOY"), &file, BaseId::Unique);
    command.args(["--concurrency", "1"]).args(arguments);
    let log = folder.path().join(format!("{name}.log"));
    Process::start("Envoy", command, &log).unwrap()
}

/// Returns what `envoy --mode validate` says where it refuses a configuration.
pub fn validate(folder: &Folder, config: &str) -> Result<(), String> {
    let mut envoy = start_with(folder, "validate", config, &["--mode", "validate"]);
    match envoy.wait_for_exit() {
        Some(status) if status.success() => Ok(()),
        _ => Err(envoy.logged()),
    }
}

/// Returns the project's top folder.
pub fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

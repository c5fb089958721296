//! The command line of an Envoy.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Whether an Envoy shares memory with others on this machine.
#[derive(Debug, Clone, Copy)]
pub enum BaseId {
    /// It shares with none.
    Unique,
    /// It replaces the one with this number and the epoch before: Envoy's hot restart.
    Shared {
        /// The base ID, the same for all Envoys that replace each other.
        id: u32,
        /// How often the first was replaced.
        epoch: usize,
    },
}

/// Returns the command that starts an Envoy with the configuration in a file. It logs warnings, and the
/// filter's messages from level info.
pub fn command(program: &Path, config: &Path, base: BaseId) -> Command {
    let mut command = Command::new(program);
    command
        .arg("-c")
        .arg(config)
        .args(["--log-level", "warning"])
        .args(["--component-log-level", "wasm:info,dynamic_modules:info"]);
    match base {
        BaseId::Unique => command.arg("--use-dynamic-base-id"),
        BaseId::Shared { id, epoch } => command
            .args(["--base-id", &id.to_string()])
            .args(["--restart-epoch", &epoch.to_string()]),
    };
    command
}

/// Returns the path in an environment variable, which the Makefile sets.
pub fn from_environment(name: &str) -> Result<PathBuf, String> {
    let path = env::var_os(name).map(PathBuf::from);
    let path = path.ok_or_else(|| format!("{name} is not set; `make` sets it"))?;
    match path.exists() {
        true => Ok(path),
        false => Err(format!(
            "{name} names {}, which does not exist",
            path.display()
        )),
    }
}

/// Returns the path in an environment variable, for tests: panics if it does not exist.
pub fn path_of(name: &str) -> PathBuf {
    from_environment(name).unwrap_or_else(|error| panic!("{error}; run `make test`"))
}

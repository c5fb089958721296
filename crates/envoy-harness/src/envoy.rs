//! The command line of an Envoy.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which Envoys of this machine belong together.
#[derive(Debug, Clone, Copy)]
pub enum BaseId {
    /// None other belongs to this one.
    Unique,
    /// The one with this number and the epoch before is replaced: Envoy's hot restart.
    Shared {
        /// The same for all that replace one another.
        id: u32,
        /// How often the first was replaced.
        epoch: usize,
    },
}

/// Returns the command that starts an Envoy with the configuration in a file, and logs warnings and what
/// the filter says.
pub fn command(program: &Path, config: &Path, base: BaseId) -> Command {
    let mut command = Command::new(program);
    command
        .arg("-c")
        .arg(config)
        .args(["--log-level", "warning"])
        .args(["--component-log-level", "wasm:info"]);
    match base {
        BaseId::Unique => command.arg("--use-dynamic-base-id"),
        BaseId::Shared { id, epoch } => command
            .args(["--base-id", &id.to_string()])
            .args(["--restart-epoch", &epoch.to_string()]),
    };
    command
}

/// Returns the program or file that an environment variable names, which the Makefile sets.
pub fn from_environment(name: &str) -> Result<PathBuf, String> {
    let path = env::var_os(name).map(PathBuf::from);
    let path = path.ok_or_else(|| format!("{name} is not set; `make` sets it"))?;
    match path.exists() {
        true => Ok(path),
        false => Err(format!(
            "{name} names {}, which is not there",
            path.display()
        )),
    }
}

/// The same, for tests: panics if it is not there.
pub fn path_of(name: &str) -> PathBuf {
    from_environment(name).unwrap_or_else(|error| panic!("{error}; call `make test`"))
}

//! The configuration of a root context.

use super::abi::{self, Buffer};
use epp_core::config::{self, Plan};
use tested_envoys::{Version, TESTED, TESTED_TEXT};

/// Returns the plan in the configuration of the current root context; `None` if it is not valid, which is
/// logged.
pub fn plan() -> Option<Plan> {
    let text = abi::buffer(Buffer::Configuration, 0, usize::MAX);
    let text = text.ok().flatten().unwrap_or_default();
    let loaded = match config::load_bytes(&text) {
        Ok(loaded) => loaded,
        Err(rejected) => {
            for problem in &rejected.errors {
                log::error!("invalid EndpointPickerConfig: {problem}");
            }
            return None;
        }
    };
    for problem in &loaded.warnings {
        log::warn!("EndpointPickerConfig: {problem}");
    }
    let build = super::build::stamp();
    log::info!(
        "EndpointPickerConfig in force: {}; epp-wasm {} (commit {}, digest {}), {}",
        loaded.plan.summary(),
        build.version(),
        build.commit(),
        build.digest(),
        host_version()
    );
    Some(loaded.plan)
}

/// Returns the version of the Envoy that runs the module, if it is known.
fn envoy_version() -> Option<Version> {
    let version = abi::property("xds\0node\0user_agent_build_version\0version");
    // A message of three numbers, in Protocol Buffers' encoding.
    match *version.ok().flatten()? {
        [8, major, 16, minor] => Some((major, minor, 0)),
        [8, major, 16, minor, 24, patch] => Some((major, minor, patch)),
        _ => None,
    }
}

/// Returns the version of Envoy, if the module was not tested with it. Nothing else depends on the version.
pub fn untested_version() -> Option<Version> {
    envoy_version().filter(|version| !TESTED.contains(version))
}

/// Returns the version of Envoy as text, and which ones were tested if it is not among them.
fn host_version() -> String {
    let Some(version) = envoy_version() else {
        return "a host of unknown version".to_owned();
    };
    let (major, minor, patch) = version;
    let (but, tested) = match TESTED.contains(&version) {
        true => ("", ""),
        false => ("; tested with ", TESTED_TEXT),
    };
    format!("Envoy {major}.{minor}.{patch}{but}{tested}")
}

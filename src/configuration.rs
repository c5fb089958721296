//! The configuration of a root context.

use super::abi::{self, Buffer};
use epp_core::config::value::Problem;
use epp_core::config::{self, Plan};
use epp_core::metrics::definitions::BUILD_INFO;
use epp_core::metrics::labels::Build;
use tested_envoys::{Version, TESTED, TESTED_TEXT};

/// Problems of a document that are logged.
const MAX_PROBLEMS: usize = 20;

/// Returns the plan in the configuration of the current root context; `None` if it is not valid, which is
/// logged.
pub fn plan() -> Option<Plan> {
    let text = abi::buffer(Buffer::Configuration, 0, usize::MAX);
    let text = text.ok().flatten().unwrap_or_default();
    let loaded = match config::load_bytes(&text) {
        Ok(loaded) => loaded,
        Err(rejected) => {
            let (logged, more) = bounded(&rejected.errors);
            for problem in logged {
                log::error!("invalid EndpointPickerConfig: {problem}");
            }
            log::error!("EndpointPickerConfig refused, {more} more errors: the one that is in force stays so");
            return None;
        }
    };
    let (logged, more) = bounded(&loaded.warnings);
    for problem in logged {
        log::warn!("EndpointPickerConfig: {problem}");
    }
    if more > 0 {
        log::warn!("EndpointPickerConfig: {more} more warnings; eppctl check lists all");
    }
    introduce(&loaded.plan);
    Some(loaded.plan)
}

/// Returns the problems to log, and how many there are beyond them: each VM logs them.
fn bounded(problems: &[Problem]) -> (&[Problem], usize) {
    let (logged, more) = problems.split_at(problems.len().min(MAX_PROBLEMS));
    (logged, more.len())
}

/// Says which plan is in force, which build of the module this is, and which Envoy runs it, in the log and as a metric.
fn introduce(plan: &Plan) {
    let (build, envoy) = (super::build::stamp(), envoy_version());
    let (version, commit, digest) = (build.version(), build.commit(), build.digest());
    log::info!(
        "EndpointPickerConfig in force: {}; epp-wasm {version} (commit {commit}, digest {digest}), {}",
        plan.summary(),
        host_version(envoy)
    );
    let number = envoy.map(|(major, minor, patch)| format!("{major}.{minor}.{patch}"));
    let labels = Build {
        version,
        commit,
        digest,
        envoy: number.as_deref().unwrap_or("unknown"),
        tested: envoy.is_some_and(|version| TESTED.contains(&version)),
    };
    super::host::set(BUILD_INFO, labels, 1);
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
fn host_version(version: Option<Version>) -> String {
    let Some(version) = version else {
        return "a host of unknown version".to_owned();
    };
    let (major, minor, patch) = version;
    let (but, tested) = match TESTED.contains(&version) {
        true => ("", ""),
        false => ("; tested with ", TESTED_TEXT),
    };
    format!("Envoy {major}.{minor}.{patch}{but}{tested}")
}

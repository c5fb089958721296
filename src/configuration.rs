//! The configuration of a root context.

use super::abi::{self, Buffer};
use super::host::Shared;
use epp_core::config::value::Problem;
use epp_core::config::{self, Loaded, Plan};
use epp_core::metrics::definitions::BUILD_INFO;
use epp_core::metrics::labels::Build;
use epp_envoy::logging::{log_problems, MAX_PROBLEMS};
use epp_sync::{Sharing, Store, BUILD};
use tested_envoys::{Version, TESTED, TESTED_TEXT};

/// Returns what is in the configuration of the current root context; `None` if it is not valid, which is logged.
pub fn load() -> Option<Loaded> {
    let text = abi::buffer(Buffer::Configuration, 0, usize::MAX);
    let text = text.ok().flatten().unwrap_or_default();
    match config::load_bytes(&text) {
        Ok(loaded) => Some(loaded),
        Err(rejected) => {
            log_problems(log::Level::Error, "invalid ", &rejected.errors);
            // The VM in which Envoy tries it knows no other.
            log::error!(
                "EndpointPickerConfig refused: if another one is in force, it stays in force"
            );
            None
        }
    }
}

/// Logs that a pool's plan is in force, and what its document is warned of.
pub fn announce(sharing: &Sharing, plan: &Plan, warnings: &[Problem]) {
    let (build, digest) = (super::build::stamp(), sharing.plan_digest());
    let key = format!("{}/announced", sharing.base());
    let mut fact = format!("{digest} {}", build.digest());
    for warning in warnings.iter().take(MAX_PROBLEMS) {
        fact += &warning.to_string();
    }
    if is_new(&key, &fact) {
        log_problems(log::Level::Warn, "", warnings);
        log::info!("EndpointPickerConfig in force: {}", plan.summary());
    }
}

/// Returns whether a fact differs from the one that a VM has noted last under this key. All VMs get the same
/// configurations, and one of them logs each.
fn is_new(key: &str, fact: &str) -> bool {
    let (noted, version) = Shared.get(key).unzip();
    noted.as_deref() != Some(fact.as_bytes()) && Shared.set(key, fact.as_bytes(), version)
}

/// Returns which build of the module this is.
pub fn build() -> String {
    let build = super::build::stamp();
    let (version, commit, digest) = (build.version(), build.commit(), build.digest());
    format!("epp-wasm {version} (commit {commit}, digest {digest})")
}

/// Says which build of the module this is, and which Envoy runs it, in the log and as a metric.
pub fn introduce() {
    let (build, envoy) = (super::build::stamp(), envoy_version());
    let (version, commit, digest) = (build.version(), build.commit(), build.digest());
    let text = self::build();
    if is_new(BUILD, &text) {
        log::info!("{text}, {}", host_version(envoy));
    }
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

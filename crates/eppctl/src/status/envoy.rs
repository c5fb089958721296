//! Facts of the Envoy itself: its version, the module's build, and the hosts of its clusters.

use std::collections::{BTreeMap, BTreeSet};

use epp_core::metrics::definitions::BUILD_INFO;
use serde::{Deserialize, Serialize};
use tested_envoys::TESTED;

use super::series::Statistics;
use crate::lint::Findings;

/// An Envoy.
#[derive(Serialize, Default)]
pub struct EnvoyFacts {
    /// Its version.
    pub version: Option<String>,
    /// Whether the filter was tested with this version.
    pub tested: Option<bool>,
    /// `LIVE`, `DRAINING`, `PRE_INITIALIZING` or `INITIALIZING`.
    pub state: Option<String>,
    /// How long this process has been running, in seconds with a unit.
    pub uptime: Option<String>,
    /// Worker threads.
    pub workers: Option<u32>,
    /// WebAssembly VMs that run, of this filter and of others.
    pub vms: Option<f64>,
    /// Filters in the configuration in force; absent if it is not exposed.
    pub filters: Option<usize>,
}

/// A part of `/server_info`.
#[derive(Deserialize, Default)]
#[serde(default)]
struct ServerInfo {
    version: String,
    state: String,
    uptime_current_epoch: String,
    command_line_options: Options,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Options {
    concurrency: Option<u32>,
}

impl EnvoyFacts {
    /// Collects them from the page `/server_info`, the statistics and the linted configuration.
    pub fn of(
        server: Option<&str>,
        statistics: &Statistics<'_>,
        linted: Option<&Findings>,
    ) -> Self {
        let info = server.and_then(|page| serde_json::from_str::<ServerInfo>(page).ok());
        let known = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let info = info.unwrap_or_default();
        // Commit, version, state of the source tree, build type, TLS library.
        let version = info.version.split('/').nth(1).and_then(known);
        let vms = statistics
            .ending(&["_runtime_v8_active"])
            .into_iter()
            .map(|series| series.value());
        Self {
            tested: version.as_deref().map(is_tested),
            version,
            state: known(&info.state),
            uptime: known(&info.uptime_current_epoch),
            workers: info.command_line_options.concurrency,
            vms: vms.reduce(|a, b| a + b),
            filters: linted.map(|linted| linted.filters),
        }
    }
}

fn is_tested(version: &str) -> bool {
    let tested = |(major, minor, patch)| format!("{major}.{minor}.{patch}");
    TESTED.map(tested).iter().any(|tested| tested == version)
}

/// A build of the module.
#[derive(Serialize, PartialEq, Eq, PartialOrd, Ord)]
pub struct Build {
    /// The module's version.
    pub version: String,
    /// The commit that it was built from.
    pub commit: String,
    /// The digest of the module.
    pub digest: String,
}

impl Build {
    /// Returns the builds that run, in an Envoy that was updated several.
    pub fn all(statistics: &Statistics<'_>) -> Vec<Self> {
        let name = BUILD_INFO.name();
        // Without their tags in `stats_tags`, labels stay in the name.
        let series = statistics
            .ours()
            .filter(|series| series.family.starts_with(name));
        let builds = series
            .filter(|series| series.value() > 0.0)
            .map(|series| Self {
                version: series.label("version"),
                commit: series.label("commit"),
                digest: series.label("digest"),
            });
        let mut builds: Vec<Self> = builds.collect();
        builds.sort_unstable();
        builds.dedup();
        builds
    }
}

/// The hosts of all clusters.
#[derive(Default)]
pub struct Hosts {
    /// Their addresses.
    all: BTreeSet<String>,
    /// Those that are not healthy, each with Envoy's flags, by the label of their cluster.
    unhealthy: BTreeMap<String, Vec<String>>,
}

impl Hosts {
    /// Parses the text form of `/clusters`.
    pub fn parse(page: &str) -> Self {
        let mut hosts = Self::default();
        for line in page.lines() {
            let host = line
                .split_once("::health_flags::")
                .and_then(|(host, flags)| {
                    let (cluster, address) = host.split_once("::")?;
                    Some((cluster, address, flags.trim_start_matches('/')))
                });
            let Some((cluster, address, flags)) = host else {
                continue;
            };
            if flags != "healthy" {
                let of_cluster = hosts.unhealthy.entry(label(cluster)).or_default();
                of_cluster.push(format!("{address} ({flags})"));
            }
            hosts.all.insert(address.to_owned());
        }
        hosts
    }

    /// Returns whether any cluster has this host. Statistics of hosts that have left stay.
    pub fn has(&self, address: &str) -> bool {
        self.all.contains(address)
    }

    /// Returns the hosts of a pool that are not healthy.
    pub fn unhealthy(&self, pool: &str) -> &[String] {
        self.unhealthy.get(pool).map_or(&[], Vec::as_slice)
    }
}

/// Returns a cluster's name as the label `pool` has it: without the characters that separate labels.
fn label(cluster: &str) -> String {
    cluster.replace([';', '='], "_")
}

//! `eppctl status`: whether a running Envoy's filter does what it is there for, and if not, what to do.

mod envoy;
mod findings;
mod pools;
mod series;
mod updates;
mod view;

use clap::Args;
use serde::Serialize;

use crate::admin::{self, Admin};
use crate::lint::{self, Findings};
use crate::output::{Error, ExitStatus, Output};
use envoy::{Build, EnvoyFacts, Hosts};
use findings::StatusFinding;
use pools::PoolFacts;
use series::Statistics;

/// Say whether a running Envoy's filter is healthy, and of each finding what to do.
///
/// Findings come from the filter itself (epp_wasm_finding), from the configuration in force (eppctl lint), and
/// from Envoy's statistics. Notes, which are no faults, do not change the verdict; advice of lint is a note. A listener that exposes
/// /stats/prometheus only is enough for the filter's own findings.
#[derive(Args)]
#[command(after_help = "Examples:
  eppctl status http://127.0.0.1:9901
  eppctl status -o json http://127.0.0.1:9901

Exit status: 0 healthy, 1 not healthy, 2 it cannot be said: Envoy cannot be reached or has no filter, or the \
filter has only just started, or is of a version that reports no findings.")]
pub struct Status {
    /// Envoy's admin interface: http://HOST:PORT, HOST:PORT, unix:PATH, or the path of a socket.
    #[arg(default_value = admin::DEFAULT, value_name = "ADMIN-URL")]
    admin: Admin,
}

/// What an admin interface says.
#[derive(Default)]
struct Pages {
    /// `/stats/prometheus`.
    statistics: String,
    /// `/clusters`, if it is exposed.
    clusters: Option<String>,
    /// `/config_dump`, if it is exposed.
    dump: Option<String>,
    /// `/server_info`, if it is exposed.
    server: Option<String>,
}

/// The verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Verdict {
    /// Nothing is wrong; there may be notes.
    Healthy,
    /// Something is wrong.
    NotHealthy,
    /// Nothing was found, by a filter that does not report findings, or that has only just started.
    Unknown,
}

/// The status of one Envoy.
#[derive(Serialize)]
struct Report {
    verdict: Verdict,
    /// The worst first.
    findings: Vec<StatusFinding>,
    envoy: EnvoyFacts,
    /// The builds of the module that run, usually one.
    builds: Vec<Build>,
    pools: Vec<PoolFacts>,
}

impl Status {
    /// Prints the verdict.
    pub fn run(&self, output: &mut Output) -> Result<ExitStatus, Error> {
        let report = Report::of(&Pages::read(&self.admin)?, &self.admin)?;
        output.print(&report)?;
        Ok(match report.verdict {
            Verdict::Healthy => ExitStatus::Ok,
            Verdict::NotHealthy => ExitStatus::Findings,
            Verdict::Unknown => ExitStatus::Unknown,
        })
    }
}

impl Pages {
    fn read(admin: &Admin) -> Result<Self, Error> {
        let page = |path| {
            let page = admin.get_exposed(path)?;
            Ok::<_, Error>(page.map(|page| String::from_utf8_lossy(&page).into_owned()))
        };
        Ok(Self {
            statistics: admin.statistics_page()?,
            clusters: page("/clusters")?,
            dump: page("/config_dump")?,
            server: page("/server_info")?,
        })
    }
}

impl Report {
    fn of(pages: &Pages, admin: &Admin) -> Result<Self, Error> {
        let statistics = Statistics::parse(&pages.statistics);
        let hosts = pages.clusters.as_deref().map(Hosts::parse);
        let linted = pages.dump.as_deref().map(lint).transpose()?;
        let configured = linted.as_ref().is_some_and(|linted| linted.filters > 0);
        if statistics.is_empty() && !configured {
            return Err(admin.without_filter());
        }
        let builds = Build::all(&statistics);
        let mut findings = findings::reported(&statistics, hosts.as_ref());
        findings::add_linted(&mut findings, linted.as_ref());
        let received = pages.dump.as_deref().map(lint::received_filters);
        findings::add_seen(&mut findings, &statistics, received.as_deref());
        findings.sort_by_key(|finding| finding.severity);
        let pools = PoolFacts::all(&statistics, hosts.as_ref());
        let faults = findings.iter().any(StatusFinding::is_fault);
        let tells =
            !builds.is_empty() && !pools.is_empty() && pools.iter().all(|pool| pool.ready > 0.0);
        Ok(Self {
            verdict: match (faults, tells) {
                (true, _) => Verdict::NotHealthy,
                (false, false) => Verdict::Unknown,
                (false, true) => Verdict::Healthy,
            },
            findings,
            envoy: EnvoyFacts::of(pages.server.as_deref(), &statistics, linted.as_ref()),
            builds,
            pools,
        })
    }
}

/// Lints the configuration in force. A dump without anything that lint reads has no filter.
fn lint(dump: &str) -> Result<Findings, Error> {
    lint::findings_in_dump("/config_dump", dump)
}

#[cfg(test)]
mod module_tests;
#[cfg(test)]
mod tests;

//! The status as text.

use std::collections::BTreeMap;
use std::io::{self, Write};

use anstyle::Style;
use epp_core::findings::Severity;

use super::findings::StatusFinding;
use super::pools::{FlowFacts, PoolFacts};
use super::{Report, Verdict};
use crate::output::{self, styled, ERROR, FAINT, GOOD, STRONG, WARNING};

impl output::Report for Report {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}\n", self.verdict())?;
        for finding in &self.findings {
            finding.text(out)?;
        }
        self.facts(out)?;
        self.pools.iter().try_for_each(|pool| pool.text(out))
    }
}

impl Report {
    /// Returns the first line.
    fn verdict(&self) -> String {
        let count = |severity| {
            self.findings
                .iter()
                .filter(|one| one.severity == severity)
                .count()
        };
        let notes = match count(Severity::Note) {
            0 => String::new(),
            1 => "; 1 note".to_owned(),
            several => format!("; {several} notes"),
        };
        match self.verdict {
            Verdict::Healthy => {
                let ready = self.pools.iter().fold(0.0, |sum, pool| sum + pool.ready);
                let pools = match self.pools.as_slice() {
                    [pool] => pool.pool.clone(),
                    pools => format!("{} pools", pools.len()),
                };
                styled(
                    GOOD,
                    format!("healthy: {ready} endpoints of {pools} can be picked{notes}"),
                )
            }
            Verdict::NotHealthy => {
                let severities = [Severity::Broken, Severity::Degraded];
                let counts = severities.map(|severity| (count(severity), severity.name()));
                let counts = counts.iter().filter(|(count, _)| *count > 0);
                let counts: Vec<String> = counts
                    .map(|(count, name)| format!("{count} {name}"))
                    .collect();
                let idle = self.pools.iter().filter(|pool| pool.ready <= 0.0);
                let idle: Vec<&str> = idle.map(|pool| pool.pool.as_str()).collect();
                let style = match (count(Severity::Broken), idle.as_slice()) {
                    (0, []) => WARNING,
                    _ => ERROR,
                };
                let idle = match idle.is_empty() {
                    true => String::new(),
                    false => format!("; no endpoint of {} can be picked", idle.join(", ")),
                };
                let counts = counts.join(", ");
                styled(style, format!("not healthy: {counts}{idle}{notes}"))
            }
            Verdict::Unknown => {
                let reason = match self.builds.is_empty() {
                    true => "the filter is of a version that reports no findings (it has no epp_wasm_build_info)",
                    false => "no endpoint can be picked yet; a finding needs a few seconds",
                };
                styled(WARNING, format!("unknown: {reason}{notes}"))
            }
        }
    }

    fn facts(&self, out: &mut dyn Write) -> io::Result<()> {
        let envoy = &self.envoy;
        let mut facts = vec![match (&envoy.version, envoy.tested) {
            (Some(version), Some(true)) => format!("{version} (tested)"),
            (Some(version), _) => format!("{version} (not tested)"),
            (None, _) => "version not exposed here".to_owned(),
        }];
        facts.extend(match (&envoy.state, &envoy.uptime) {
            (Some(state), Some(uptime)) => Some(format!("{state}, up for {uptime}")),
            _ => None,
        });
        facts.extend(envoy.workers.map(|workers| format!("workers: {workers}")));
        facts.extend(envoy.vms.map(|vms| format!("WebAssembly VMs: {vms}")));
        line(out, "Envoy", &facts.join(", "))?;
        for build in &self.builds {
            let known = |text: &str| {
                if text.is_empty() {
                    "unknown".to_owned()
                } else {
                    text.to_owned()
                }
            };
            let (version, commit, digest) = (
                known(&build.version),
                known(&build.commit),
                known(&build.digest),
            );
            line(
                out,
                "module",
                &format!("{version}, commit {commit}, digest {digest}"),
            )?;
        }
        let configuration = match envoy.filters {
            Some(1) => "1 filter with an EndpointPickerConfig".to_owned(),
            Some(filters) => format!("{filters} filters with an EndpointPickerConfig"),
            None => "not exposed here, so that it was not checked".to_owned(),
        };
        line(out, "configuration", &configuration)
    }
}

impl StatusFinding {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let style: Style = match self.severity {
            Severity::Broken => ERROR,
            Severity::Degraded => WARNING,
            Severity::Note => FAINT,
        };
        let pool = self
            .pool
            .as_deref()
            .map(|pool| format!(" of {pool}"))
            .unwrap_or_default();
        writeln!(
            out,
            "{}: {}{pool}",
            styled(style, self.severity.name()),
            styled(STRONG, &self.id)
        )?;
        writeln!(out, "  cause: {}", self.cause)?;
        if let Some(place) = &self.place {
            writeln!(out, "  where: {place}")?;
        }
        writeln!(out, "  remedy: {}\n", self.remedy)
    }
}

impl PoolFacts {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", styled(STRONG, format!("pool {}", self.pool)))?;
        line(
            out,
            "endpoints",
            &format!(
                "{} can be picked; metrics of {} fresh, {} stale, {} never read",
                self.ready, self.fresh, self.stale, self.unknown
            ),
        )?;
        let ejected = if self.ejected.is_empty() {
            "none".to_owned()
        } else {
            self.ejected.join(", ")
        };
        line(out, "ejected", &ejected)?;
        let mode = match self.decision_mode {
            Some(2.0) => "on the endpoints' metrics",
            Some(1.0) => "on this Envoy's own counts",
            Some(_) => "on nothing yet",
            None => "not exposed",
        };
        line(out, "decisions", mode)?;
        line(
            out,
            "requests",
            &format!(
                "since the module was loaded: {} picked, {} rejected, {} left to Envoy, {} served elsewhere, {} left alone (for other clusters)",
                self.picked,
                total(&self.rejected),
                total(&self.left_to_envoy),
                self.served_elsewhere,
                self.left_alone
            ),
        )?;
        if let Some(flow) = &self.flow {
            line(out, "flow control", &flow.text())?;
        }
        line(out, "cache", &self.cache())?;
        let errors = named(&self.poll_errors);
        line(
            out,
            "poll errors",
            &format!("since the module was loaded: {errors}"),
        )?;
        let all: usize = self.series.values().sum();
        let mut families: Vec<(&String, &usize)> = self.series.iter().collect();
        families.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let most = families
            .iter()
            .take(3)
            .map(|(family, count)| format!("{family} {count}"));
        let most = most.collect::<Vec<_>>().join(", ");
        line(
            out,
            "series",
            &format!("{all} of at most {}; the most: {most}", self.series_bound),
        )
    }

    fn cache(&self) -> String {
        let share = |ratio: f64| format!("{:.0} %", ratio * 100.0);
        let expected = match self.expected_hit_ratio {
            Some(ratio) => format!("{} of a prompt expected in it", share(ratio)),
            None => "no prompts yet".to_owned(),
        };
        let reported = match (self.reports_cached_tokens, self.reported_hit_ratio) {
            (Some(true), Some(ratio)) => format!("{} reported by the servers", share(ratio)),
            (Some(true), None) => "reported by the servers".to_owned(),
            (Some(false), _) => "servers do not report cached tokens".to_owned(),
            (None, _) => "no response with usage yet".to_owned(),
        };
        format!("{expected}; {reported}")
    }
}

impl FlowFacts {
    fn text(&self) -> String {
        let saturation = self.saturation.iter();
        let saturation: Vec<String> = saturation
            .map(|(stage, value)| format!("{stage} {:.0} %", value * 100.0))
            .collect();
        let saturation = match saturation.is_empty() {
            true => "0 %".to_owned(),
            false => saturation.join(", "),
        };
        // The highest priority goes first.
        let waiting = self.waiting.iter().rev();
        let waiting: Vec<String> = waiting
            .map(|(priority, requests)| format!("{requests} of priority {priority}"))
            .collect();
        let waiting = match waiting.is_empty() {
            true => "none".to_owned(),
            false => format!("{} ({:.0} KiB)", waiting.join(", "), self.bytes / 1024.0),
        };
        let outcomes = named(&self.outcomes);
        format!(
            "saturation: {saturation}; waiting: {waiting}; since the module was loaded: {outcomes}, {} evicted",
            self.evicted
        )
    }
}

fn total(counts: &BTreeMap<String, f64>) -> f64 {
    // An empty sum would be -0.
    counts.values().fold(0.0, |sum, count| sum + count)
}

/// Returns counts with their names; a name is empty where the filter counts without one.
fn named(counts: &BTreeMap<String, f64>) -> String {
    let counts: Vec<String> = counts
        .iter()
        .map(|(name, count)| match &**name {
            "" => count.to_string(),
            name => format!("{name} {count}"),
        })
        .collect();
    match counts.is_empty() {
        true => "none".to_owned(),
        false => counts.join(", "),
    }
}

fn line(out: &mut dyn Write, name: &str, value: &str) -> io::Result<()> {
    let name = format!("{name:<14}");
    writeln!(out, "  {}{value}", styled(FAINT, name))
}

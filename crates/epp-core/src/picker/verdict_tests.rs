//! Findings of a picker, as its host sees them: lines of the log and the metric.

use std::collections::BTreeMap;

use xxhash_rust::xxh64::xxh64;

use super::super::testing::NOW;
use super::super::{Fetch, FetchError, Fetched, HostState};
use super::*;
use crate::config;
use crate::endpoints::discovery::Listing;
use crate::endpoints::outlier::{Ejection, EjectionRecord, Reason};
use crate::endpoints::store::Member;
use crate::metrics::MetricUpdate;
use crate::scheduling::{Endpoint, Health, Slot};
use crate::time::Timestamp;

const PAGE: &[u8] = b"vllm:num_requests_waiting 7\n";

/// A picker that polls, and its host.
struct Host {
    picker: Picker,
    now: Timestamp,
    names: BTreeMap<u32, String>,
    gauges: BTreeMap<String, u64>,
    /// Members, and whether their pages can be fetched; none where discovery fails.
    members: Option<Vec<(&'static str, bool)>>,
}

impl Host {
    fn new() -> Self {
        let text = "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: queue-scorer}, {name: pods, type: envoy-cluster-discovery, parameters: {clusters: [pool]}}]
schedulingProfiles: [{name: default, plugins: [{pluginRef: queue-scorer}]}]
dataLayer: {discovery: {pluginRef: pods}}
";
        Self {
            picker: Picker::new(config::load(text).unwrap().plan, 1),
            now: NOW,
            names: BTreeMap::new(),
            gauges: BTreeMap::new(),
            members: Some(vec![("10.0.0.1:80", true), ("10.0.0.2:80", true)]),
        }
    }

    /// Ticks for so many seconds. Returns the lines that were logged.
    fn run(&mut self, seconds: u32) -> Vec<String> {
        let mut lines = Vec::new();
        for _ in 0..seconds * 20 {
            self.now = self.now.after(Duration::from_millis(50));
            self.picker.tick(self.now);
            while let Some(effect) = self.picker.poll_effect() {
                match effect {
                    Effect::Fetch { id, fetch, .. } => {
                        let mut page = crate::body::SliceBody::whole(PAGE);
                        let fetched = self.fetched(&fetch);
                        let fetched = fetched.map(|members| match members {
                            Some(members) => Fetched::Members(Listing {
                                members,
                                missing: 0,
                            }),
                            None => Fetched::Page(&mut page),
                        });
                        self.picker
                            .fetched(self.now, id, fetched.ok_or(FetchError::Unreachable));
                    }
                    Effect::Log { text, .. } => lines.push(text),
                    other => panic!("{other:?}"),
                }
            }
            self.take_metrics();
        }
        lines
    }

    /// Returns the members or, in a second option, a page; none where that cannot be fetched.
    fn fetched(&self, fetch: &Fetch) -> Option<Option<Vec<Member>>> {
        let members = self.members.as_ref()?;
        match fetch {
            Fetch::Members => {
                let member = |(address, _): &(&str, bool)| Member {
                    name: (*address).to_owned(),
                    address: (*address).to_owned(),
                    health: Health::Healthy,
                    ..Member::default()
                };
                Some(Some(members.iter().map(member).collect()))
            }
            Fetch::Survey { .. } => None,
            Fetch::Metrics { address } | Fetch::Loads { address } => {
                let known = members.iter().find(|(known, _)| known == address);
                known.filter(|(_, responds)| *responds).map(|_| None)
            }
        }
    }

    fn take_metrics(&mut self) {
        while let Some(update) = self.picker.poll_metric() {
            match update {
                MetricUpdate::Define { id, name, .. } => {
                    self.names.insert(id.0, name);
                }
                MetricUpdate::Set { id, value } => {
                    self.gauges.insert(self.names[&id.0].clone(), value);
                }
                MetricUpdate::Add { .. } => (),
            }
        }
    }

    fn findings(&self) -> Vec<(&str, u64)> {
        let prefix = "epp_wasm_finding;pool=pool;finding=";
        let gauges = self.gauges.iter();
        gauges
            .filter_map(|(name, value)| Some((name.strip_prefix(prefix)?, *value)))
            .collect()
    }
}

#[test]
fn a_healthy_pool_says_nothing_for_an_hour() {
    let mut host = Host::new();
    assert_eq!(host.run(3_600), Vec::<String>::new());
    assert_eq!(host.findings(), []);
}

#[test]
fn an_empty_pool_is_found_and_over_with_one_line_each() {
    let mut host = Host::new();
    host.members = Some(Vec::new());
    let lines = host.run(60);
    assert_eq!(
        lines,
        ["pool pool: pool-empty (broken): The pool has no endpoints. [cluster pool] Compare `clusters` of the \
          discovery plugin with the members on Envoy's admin page /clusters."]
    );
    assert_eq!(host.findings(), [("pool-empty", 1)]);
    host.members = Some(vec![("10.0.0.1:80", true)]);
    let lines = host.run(60);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(
        lines[0].starts_with("pool pool: pool-empty: over after"),
        "{lines:?}"
    );
    assert_eq!(host.findings(), [("pool-empty", 0)]);
}

#[test]
fn unknown_members_are_not_an_empty_pool() {
    let mut host = Host::new();
    host.members = None;
    host.run(10);
    assert_eq!(
        host.findings(),
        [("admin-unreachable", 1), ("balanced-blindly", 1)]
    );
}

#[test]
fn metrics_that_cannot_be_read_are_one_finding_with_the_endpoints_and_reasons() {
    let mut host = Host::new();
    host.run(10);
    host.members = Some(vec![("10.0.0.1:80", true), ("10.0.0.2:80", false)]);
    let lines = host.run(30);
    let line = "[1 of 2 endpoints: 10.0.0.2:80 (unreachable)]";
    let about = lines
        .iter()
        .filter(|text| text.contains("polls-fail") && text.contains(line));
    assert_eq!(about.count(), 1, "{lines:?}");
    assert_eq!(host.findings(), [("polls-fail", 1)], "one cause");
}

#[test]
fn what_peers_find_is_found_and_what_another_picker_has_opened_is_known() {
    let mut host = Host::new();
    host.run(10);
    host.picker.verdict.peers = vec![Condition::new(Finding::MemoryHigh, "600 MiB")];
    assert_eq!(host.run(10).len(), 1);
    assert_eq!(host.findings(), [("memory-high", 1)]);
    let open = host.picker.peers().open_findings();
    assert_eq!(open.len(), 1);
    // The line that says who polls.
    host.picker.adopt_findings(open.clone());
    assert_eq!(host.run(10).len(), 1);
    assert_eq!(host.picker.peers().open_findings(), open, "and since when");
}

#[test]
fn what_several_pickers_find_says_how_many_and_whether_they_differ() {
    let met = |details: &[&str]| {
        let conditions = details.iter();
        let conditions = conditions.map(|detail| Condition::new(Finding::MemoryHigh, detail));
        let verdict = Verdict {
            peers: conditions.collect(),
            ..Verdict::default()
        };
        verdict.together().remove(0).detail
    };
    assert_eq!(met(&["600 MiB"]), "600 MiB");
    assert_eq!(met(&["a", "a", "a"]), "a (3 workers)");
    assert_eq!(met(&["a", "b"]), "a (one of 2 workers)");
}

#[test]
fn a_host_that_was_not_tested_is_noted() {
    let mut host = Host::new();
    host.picker.set_host_state(HostState {
        untested_version: Some((1, 35, 0)),
        ..HostState::default()
    });
    let lines = host.run(10);
    assert!(
        lines[0].contains("envoy-untested (note)") && lines[0].contains("1.35.0"),
        "{lines:?}"
    );
}

#[test]
fn servers_that_do_not_report_cached_tokens_are_noted_until_one_does() {
    let mut host = Host::new();
    host.run(5);
    for _ in 0..MANY_RESPONSES {
        host.picker.dispatcher.statistics.count_expected_hit(false);
    }
    assert_eq!(host.run(10).len(), 1);
    host.picker.dispatcher.statistics.count_expected_hit(true);
    host.run(10);
    assert_eq!(host.findings(), [("no-cached-tokens", 0)]);
}

#[test]
fn a_dry_run_is_noted_also_where_the_pool_is_empty() {
    let mut host = Host::new();
    host.members = Some(Vec::new());
    host.picker.dispatcher.plan.settings.dry_run = true;
    host.run(10);
    assert_eq!(host.findings(), [("dry-run", 1), ("pool-empty", 1)]);
}

#[test]
fn a_count_is_going_on_for_a_while_after_it_last_grew() {
    let mut recent = Recent::default();
    let at = |seconds| Instant::default().after(Duration::from_secs(seconds));
    assert_eq!(recent.growth(0, at(0)), None);
    assert_eq!(recent.growth(3, at(1)), Some(3));
    assert_eq!(recent.growth(4, at(20)), Some(4));
    assert_eq!(recent.growth(4, at(50)), Some(4));
    assert_eq!(recent.growth(4, at(51)), None);
    assert_eq!(recent.growth(5, at(52)), Some(1));
}

#[test]
fn endpoints_that_stay_in_use_are_not_called_ejected() {
    let mut host = Host::new();
    host.run(10);
    let now = host.picker.dispatcher.clock.wall();
    let endpoints = &mut host.picker.dispatcher.endpoints;
    let known = endpoints.pool().iter();
    let number = |(slot, it): (Slot, &Endpoint)| (slot, xxh64(it.address.as_bytes(), 0));
    let known: Vec<(Slot, u64)> = known.map(number).collect();
    for (slot, endpoint) in known {
        let ejection = Ejection {
            reason: Reason::Unserved,
            certain: true,
            until: now.after(Duration::from_secs(60)),
            prober: None,
        };
        let record = EjectionRecord {
            ejection: Some(ejection),
            changed: Some(now),
            ..EjectionRecord::new(endpoint)
        };
        assert!(endpoints.monitor.outliers.merge(slot, record, now));
    }
    let lines = host.run(4);
    let ejected = lines.iter().filter(|line| line.contains("is ejected: "));
    assert_eq!(ejected.count(), 1, "half of the two stay: {lines:?}");
    let detail = "[2 of 2 endpoints: 10.0.0.1:80 (unserved), 10.0.0.2:80 (unserved, still in use)]";
    let found = lines.iter().filter(|line| line.contains(detail));
    assert_eq!(found.count(), 1, "{lines:?}");
    let gauges = host.gauges.iter();
    let gauges = gauges
        .filter(|(name, value)| name.starts_with("epp_wasm_endpoint_ejected") && **value == 1);
    assert_eq!(gauges.count(), 1);
}

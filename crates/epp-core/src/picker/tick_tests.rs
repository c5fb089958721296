//! Gauges of endpoints that leave or were set by another picker, and fetches that never end.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::testing::{begin, show, NOW};
use super::super::{Fetch, FetchError, FetchId, Fetched, Head};
use super::*;
use crate::config;
use crate::endpoints::discovery::{Listing, Survey};
use crate::endpoints::outlier::Reason;
use crate::endpoints::store::Member;
use crate::metrics::definitions::EJECTED;
use crate::metrics::labels::Ejection;
use crate::metrics::MetricUpdate;
use crate::scheduling::{Health, Slot};

const PAGE: &[u8] =
    b"vllm:num_requests_waiting 7\nvllm:num_requests_running 3\nvllm:kv_cache_usage_perc 0.5\n";

/// A picker that polls, and what its host has of its gauges.
struct Host {
    picker: Picker,
    now: Timestamp,
    names: BTreeMap<u32, String>,
    gauges: BTreeMap<String, u64>,
}

impl Host {
    fn new() -> Self {
        let text = "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: queue-scorer}, {type: token-load-scorer}, {name: pods, type: envoy-cluster-discovery, parameters: {clusters: [pool]}}]
schedulingProfiles: [{name: default, plugins: [{pluginRef: queue-scorer}, {pluginRef: token-load-scorer}]}]
dataLayer: {discovery: {pluginRef: pods}}
";
        let plan = config::load(text).unwrap().plan;
        Self {
            picker: Picker::new(plan, 1),
            now: NOW,
            names: BTreeMap::new(),
            gauges: BTreeMap::new(),
        }
    }

    /// Ticks after a second. Returns the fetches.
    fn tick(&mut self) -> Vec<(FetchId, Fetch)> {
        self.now = self.now.after(Duration::from_secs(1));
        self.picker.tick(self.now);
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
        let effects = std::iter::from_fn(|| self.picker.poll_effect());
        let fetches = effects.filter_map(|effect| match effect {
            Effect::Fetch { id, fetch, .. } => Some((id, fetch)),
            _ => None,
        });
        fetches.collect()
    }

    /// Responds to all that is to be fetched, with these members.
    fn respond(&mut self, members: &[&str]) {
        for (id, fetch) in self.tick() {
            let mut page = crate::body::SliceBody::whole(PAGE);
            let fetched = match fetch {
                Fetch::Members => Fetched::Members(listing(members)),
                Fetch::Survey { .. } => Fetched::Survey(Survey::None),
                Fetch::Metrics { .. } | Fetch::Loads { .. } => Fetched::Page(&mut page),
            };
            self.picker.fetched(self.now, id, Ok(fetched));
        }
    }

    /// Returns the gauges of an endpoint that are not 0.
    fn gauges(&self, address: &str) -> Vec<&str> {
        let label = format!("endpoint_name={address}");
        let gauges = self.gauges.iter();
        let gauges = gauges.filter(|(name, value)| name.contains(&label) && **value > 0);
        gauges.map(|(name, _)| name.as_str()).collect()
    }
}

const FIRST: &[&str] = &["10.0.0.1:80"];
const OTHER: &[&str] = &["10.0.0.2:80"];
/// Of which one can be ejected: half stay.
const BOTH: &[&str] = &["10.0.0.1:80", "10.0.0.2:80"];

fn listing(members: &[&str]) -> Listing {
    Listing {
        members: members.iter().map(|at| member(at)).collect(),
        missing: 0,
    }
}

fn member(address: &str) -> Member {
    Member {
        name: address.to_owned(),
        address: address.to_owned(),
        health: Health::Healthy,
        ..Member::default()
    }
}

#[test]
fn all_gauges_of_an_endpoint_that_has_left_are_reset() {
    let mut host = Host::new();
    (0..5).for_each(|_| host.respond(FIRST));
    // Its pages stop coming, so that their age is in a gauge, before discovery takes it away.
    (0..10).for_each(|_| {
        host.tick();
    });
    let set = host.gauges("10.0.0.1");
    assert!(set.len() >= 5, "{set:?}");
    (0..5).for_each(|_| host.respond(OTHER));
    assert_eq!(host.gauges("10.0.0.1"), Vec::<&str>::new());
    assert!(host.gauges("10.0.0.2").len() >= 4);
}

#[test]
fn a_result_of_another_kind_is_a_failure() {
    let mut host = Host::new();
    let addresses = |host: &Host| -> Vec<String> {
        let endpoints = host.picker.pool().iter();
        endpoints
            .map(|(_, endpoint)| endpoint.address.to_string())
            .collect()
    };
    for (id, fetch) in host.tick() {
        assert_eq!(fetch, Fetch::Members);
        let mut page = crate::body::SliceBody::whole(PAGE);
        host.picker
            .fetched(host.now, id, Ok(Fetched::Page(&mut page)));
    }
    assert_eq!(addresses(&host), [""; 0]);
    host.respond(FIRST);
    let mut pages = 0;
    for _ in 0..3 {
        for (id, fetch) in host.tick() {
            pages += usize::from(fetch != Fetch::Members);
            let other = match fetch {
                Fetch::Members => Err(FetchError::Unreachable),
                _ => Ok(Fetched::Members(listing(&["10.0.0.2:80"]))),
            };
            host.picker.fetched(host.now, id, other);
        }
    }
    assert!(pages > 0, "no page was fetched");
    assert_eq!(addresses(&host), ["10.0.0.1:80"]);
    assert_eq!(host.gauges("10.0.0.2"), Vec::<&str>::new());
}

/// The one that ejected it may have trapped, and the ejection ended before another one polled.
#[test]
fn a_picker_that_takes_over_from_a_lost_one_resets_its_ejections() {
    let mut host = Host::new();
    host.respond(BOTH);
    host.tick();
    host.picker.peers().set_polling(false);
    host.tick();
    // Another picker has set these.
    let gauges = host.picker.pool().iter();
    let addresses: Vec<String> = gauges
        .map(|(_, endpoint)| endpoint.address.to_string())
        .collect();
    let name = |address: &str, reason: Reason| {
        let mut registry = crate::metrics::Registry::new("pool");
        let labels = Ejection {
            endpoint: address,
            reason,
        };
        registry.set(EJECTED, labels, 1);
        match registry.poll() {
            Some(MetricUpdate::Define { name, .. }) => name,
            other => panic!("{other:?}"),
        }
    };
    for reason in Reason::ALL {
        host.gauges.insert(name(&addresses[0], reason), 1);
    }
    host.picker
        .dispatcher
        .endpoints
        .monitor
        .outliers
        .mark_hung(Slot(0), host.now);
    host.picker.peers().reset_ejection_gauges();
    host.picker.peers().set_polling(true);
    host.tick();
    for reason in Reason::ALL {
        let value = host.gauges[&name(&addresses[0], reason)];
        assert_eq!(value, u64::from(reason == Reason::Hung), "{reason:?}");
    }
}

/// The series of an ejection exist only once there was one.
#[test]
fn a_picker_that_stops_polling_leaves_no_ejection_behind() {
    let mut host = Host::new();
    host.respond(BOTH);
    let ejections = |host: &Host| -> Vec<u64> {
        let gauges = host.gauges.iter();
        let own = gauges.filter(|(name, _)| name.starts_with(EJECTED.name()));
        own.map(|(_, value)| *value).collect()
    };
    host.tick();
    assert_eq!(ejections(&host), Vec::<u64>::new());
    let now = host.now;
    let monitor = &mut host.picker.dispatcher.endpoints.monitor;
    monitor.outliers.mark_hung(Slot(0), now);
    host.tick();
    assert_eq!(ejections(&host), [1]);
    host.picker.peers().set_polling(false);
    host.tick();
    assert_eq!(ejections(&host), [0]);
}

#[test]
fn a_wall_clock_that_is_set_changes_no_age_and_stops_no_polling() {
    // Seconds since 1970; the clock was at a thousand.
    for set in [10, 1_000_000] {
        let mut host = Host::new();
        (0..5).for_each(|_| host.respond(FIRST));
        let ages = |host: &Host| -> Vec<u64> {
            let gauges = host.gauges.iter();
            let ages = gauges.filter(|(name, _)| name.contains("_age_milliseconds"));
            ages.map(|(_, age)| *age).collect()
        };
        assert_eq!(ages(&host), [1_000, 1_000]);
        host.now = Timestamp::from_millis(set * 1_000);
        host.respond(FIRST);
        assert!(
            ages(&host).iter().all(|age| *age <= 1_000),
            "{:?}",
            ages(&host)
        );
        let mut fetches = 0;
        for _ in 0..5 {
            let begun = host.picker.fetches.count();
            host.respond(FIRST);
            fetches += host.picker.fetches.count() - begun;
            assert!(
                ages(&host).iter().all(|age| *age <= 2_000),
                "{:?}",
                ages(&host)
            );
        }
        // Two endpoints that rest: each at least every other second.
        assert!(fetches >= 5, "{fetches}");
    }
}

#[test]
fn fetches_whose_results_the_host_drops_do_not_pile_up() {
    let mut host = Host::new();
    host.respond(FIRST);
    let first = host.tick();
    let mut begun = first.len();
    for _ in 0..1_000 {
        begun += host.tick().len();
        assert!(host.picker.fetches.len() <= 4, "{begun} so far");
    }
    assert!(begun > 100, "{begun}");
    assert!(first.iter().all(|(id, _)| !host.picker.awaits(*id)));
}

/// Each of 1,024 clients pauses within a part that was left unread, so that all are due together.
#[test]
fn a_tick_shows_a_bounded_number_of_bodies_again() {
    const CLIENTS: usize = 1_024;
    let text = "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: prefix-cache-scorer}, {type: max-score-picker},
  {type: approx-prefix-cache-producer, parameters: {autoTune: false, maxPrefixTokensToMatch: 64}},
  {name: pods, type: static-discovery, parameters: {endpoints: [{name: p, address: 10.0.0.1, port: 80}, {name: q, address: 10.0.0.2, port: 80}]}}]
schedulingProfiles: [{name: default, plugins: [{pluginRef: prefix-cache-scorer}, {pluginRef: max-score-picker}]}]
dataLayer: {discovery: {pluginRef: pods}}
";
    let mut picker = Picker::new(config::load(text).unwrap().plan, 1);
    picker.tick(NOW);
    let body = format!(
        r#"{{"cache_salt":"s","prompt":"{}","x":"yy"#,
        "a".repeat(400)
    );
    let head = Head::post_json("/v1/completions", Some(5_000));
    for id in 1..=CLIENTS as u32 {
        assert!(begin(&mut picker, id, &head).is_none());
        show(&mut picker, id, &body.as_bytes()[..body.len() - 1], false);
        show(&mut picker, id, body.as_bytes(), false);
    }
    let mut shown = Vec::new();
    for tick in 2..=CLIENTS / MAX_RELEASES_PER_TICK + 1 {
        picker.tick(NOW.after(Duration::from_millis(50 * tick as u64)));
        let effects = std::iter::from_fn(|| picker.poll_effect());
        let shows = effects.filter(|effect| matches!(effect, Effect::ShowBody { .. }));
        shown.push(shows.count());
    }
    let expected = [MAX_RELEASES_PER_TICK; CLIENTS / MAX_RELEASES_PER_TICK];
    assert_eq!(shown, expected);
}

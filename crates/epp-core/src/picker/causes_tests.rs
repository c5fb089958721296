//! Causes that are a configuration: each is told with its names.

use super::super::testing::{begin, close, NOW};
use super::super::{ExchangeId, Head, Upstream};
use super::*;
use crate::config;
use crate::endpoints::discovery::Listing;
use crate::endpoints::outlier::Reason;
use crate::endpoints::store::Member;
use crate::findings::Condition;
use crate::scheduling::{Health, Slot};
use crate::time::{Instant, Timestamp};

use std::time::Duration;

fn picker() -> Picker {
    let text = "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: queue-scorer}, {name: pods, type: envoy-cluster-discovery, parameters: {clusters: [a, b], adminCluster: adm}},
  {type: metrics-data-source, parameters: {cluster: pages}}]
schedulingProfiles: [{name: default, plugins: [{pluginRef: queue-scorer}]}]
dataLayer: {discovery: {pluginRef: pods}}
";
    Picker::new(config::load(text).unwrap().plan, 1)
}

fn members(picker: &mut Picker, count: u32) {
    let member = |number| Member {
        name: format!("p{number}"),
        address: format!("10.0.0.{number}:80"),
        health: Health::Healthy,
        ..Member::default()
    };
    let listing = Listing {
        members: (0..count).map(member).collect(),
        missing: 0,
    };
    let monitor = &mut picker.dispatcher.endpoints.monitor;
    let changes = monitor.on_members(Ok(listing), Instant::default());
    picker.apply_changes(&changes);
}

/// Returns the conditions as `id: detail`.
fn met(find: impl FnOnce(&mut Met)) -> Vec<String> {
    let mut met = Met::default();
    find(&mut met);
    let told = |condition: Condition| format!("{}: {}", condition.finding.id(), condition.detail);
    met.into_conditions().into_iter().map(told).collect()
}

fn discovery(results: &[Result<u32, FetchError>], survey: Option<Survey>) -> Vec<String> {
    let mut picker = picker();
    (0..5).for_each(|second| picker.tick(NOW.after(Duration::from_secs(second))));
    let found = &mut picker.dispatcher.endpoints.monitor.found;
    results.iter().for_each(|result| found.record(*result));
    found.record_survey(survey);
    met(|met| picker.discovery_conditions(met))
}

#[test]
fn what_discovery_meets_is_told_with_the_names_in_question() {
    let own = |names: &[&str]| Some(Survey::Own(names.iter().map(ToString::to_string).collect()));
    let none: &[&str] = &[];
    for (result, survey, expected) in [
        (Ok(0), None, none),
        (Ok(0b10), None, &["cluster-unknown: no cluster b"]),
        (
            Err(FetchError::NotListed),
            own(&["ab", "ba"]),
            &["cluster-unknown: no cluster a, b; there are ab, ba"],
        ),
        (
            Err(FetchError::NotListed),
            Some(Survey::None),
            &["admin-not-envoy: cluster \"adm\": an empty page"],
        ),
        (
            Err(FetchError::NotListed),
            Some(Survey::Foreign),
            &["admin-not-envoy: cluster \"adm\": the page of another Envoy"],
        ),
        (
            Err(FetchError::NotAPage),
            None,
            &["admin-not-envoy: cluster \"adm\": not-a-page"],
        ),
        (
            Err(FetchError::Status(404)),
            None,
            &["admin-not-envoy: cluster \"adm\": status 404"],
        ),
        (
            Err(FetchError::Status(503)),
            None,
            &["admin-unreachable: cluster \"adm\": status 503"],
        ),
        (
            Err(FetchError::WrongCluster),
            None,
            &["admin-unreachable: Envoy has no cluster \"adm\""],
        ),
        (
            Err(FetchError::Timeout),
            None,
            &["admin-unreachable: cluster \"adm\": timeout"],
        ),
    ] {
        assert_eq!(discovery(&[result; 2], survey), expected, "{result:?}");
    }
}

#[test]
fn a_response_that_is_lost_is_no_finding_and_a_second_one_is_however_it_was_lost() {
    let (timeout, reset) = (Err(FetchError::Timeout), Err(FetchError::Reset));
    let told = |results: &[_]| discovery(results, None);
    for lost in [
        &[timeout][..],
        &[Ok(0), timeout],
        &[timeout, Ok(0), timeout],
    ] {
        assert_eq!(told(lost), [""; 0], "{lost:?}");
    }
    let expected = "admin-unreachable: cluster \"adm\": reset";
    assert_eq!(told(&[Ok(0), timeout, reset]), [expected]);
}

#[test]
fn a_survey_is_made_once_a_minute_while_a_cluster_is_missing() {
    let mut picker = picker();
    let found = &mut picker.dispatcher.endpoints.monitor.found;
    let at = |seconds| Instant::default().after(Duration::from_secs(seconds));
    assert_eq!(found.take_survey_due(at(0)), None);
    found.record(Ok(0b10));
    assert_eq!(found.take_survey_due(at(1)), Some(1));
    let due = (2..120).filter(|second| {
        found.record(Ok(0b10));
        found.take_survey_due(at(*second)).is_some()
    });
    assert_eq!(due.collect::<Vec<_>>(), [61]);
    found.record(Err(FetchError::Timeout));
    assert_eq!(found.take_survey_due(at(1_000)), None);
    found.record(Err(FetchError::NotListed));
    assert_eq!(found.take_survey_due(at(1_001)), Some(0));
    found.record(Ok(0));
    assert_eq!(found.take_survey_due(at(2_000)), None);
}

#[test]
fn failing_polls_are_told_with_their_reasons() {
    let mut picker = picker();
    members(&mut picker, 5);
    let polls = |picker: &mut Picker, errors: &[FetchError]| {
        let clock = picker.dispatcher.clock;
        let monitor = &mut picker.dispatcher.endpoints.monitor;
        for (number, error) in (0..).zip(errors) {
            let address = format!("10.0.0.{number}:80");
            monitor.on_page(Slot(number), &address, Err(*error), &clock);
        }
        let mut told = met(|met| picker.endpoint_conditions(5, met));
        // Of the endpoints whose pages are not polled here.
        told.retain(|told| !told.starts_with("metrics-stale") && !told.starts_with("own-counts"));
        told
    };
    let errors = [FetchError::Unreachable, FetchError::Status(404)];
    assert_eq!(polls(&mut picker, &errors), [""; 0], "one may be lost");
    assert_eq!(
        polls(&mut picker, &errors),
        ["polls-fail: 2 of 5 endpoints: 10.0.0.0:80 (unreachable), 10.0.0.1:80 (status 404)"]
    );
    let page = b"vllm:num_requests_waiting 7\n";
    assert!((0..2).all(|slot| picker.fixture().read_page(NOW, Slot(slot), page)));
    assert_eq!(polls(&mut picker, &[]), [""; 0]);
    let errors = [FetchError::WrongCluster; 5];
    polls(&mut picker, &errors);
    assert_eq!(
        polls(&mut picker, &errors),
        ["metrics-cluster-unknown: Envoy has no cluster \"pages\""]
    );
}

#[test]
fn a_vm_that_has_just_started_does_not_blame_the_admin_interface() {
    let mut picker = picker();
    let mut told = |second| {
        picker.tick(NOW.after(Duration::from_secs(second)));
        let found = &mut picker.dispatcher.endpoints.monitor.found;
        (0..2).for_each(|_| found.record(Err(FetchError::Timeout)));
        met(|met| picker.discovery_conditions(met)).len()
    };
    let told: Vec<usize> = (0..6).map(&mut told).collect();
    assert_eq!(told, [0, 0, 0, 0, 1, 1]);
}

#[test]
fn what_is_wrong_with_an_endpoint_is_told_once_by_its_cause() {
    let mut picker = picker();
    members(&mut picker, 4);
    let clock = picker.dispatcher.clock;
    let endpoints = &mut picker.dispatcher.endpoints;
    for number in [0, 1, 2, 0, 1, 2] {
        let address = format!("10.0.0.{number}:80");
        let refused = Err(FetchError::Unreachable);
        let slot = Slot(number);
        endpoints.monitor.on_page(slot, &address, refused, &clock);
    }
    let pool = &mut endpoints.monitor.store.pool;
    pool.note(Slot(0), |it| &mut it.health, Health::FailedCheck);
    for slot in [Slot(0), Slot(1)] {
        endpoints.monitor.outliers.mark_hung(slot, clock.wall());
    }
    let told = met(|met| picker.endpoint_conditions(4, met));
    assert_eq!(
        told,
        [
            "endpoints-unhealthy: 1 of 4 endpoints: 10.0.0.0:80 (failed health check)",
            "endpoint-hung: 1 of 4 endpoints: 10.0.0.1:80 (hung, still in use)",
            "polls-fail: 1 of 4 endpoints: 10.0.0.2:80 (unreachable)",
            "metrics-stale: 1 of 4 endpoints: 10.0.0.3:80",
        ]
    );
}

#[test]
fn requests_for_other_clusters_are_told_until_one_is_for_the_pool() {
    let mut picker = picker();
    let told = |picker: &Picker| met(|met| picker.route_conditions(met));
    (1..MIN_ELSEWHERE).for_each(|_| picker.left_alone(b"web"));
    assert_eq!(told(&picker), [""; 0]);
    picker.left_alone(b"api");
    assert_eq!(
        told(&picker),
        [r#"requests-left-alone: 10 requests go to "web", "api", none to a"#]
    );
    picker.sharing.statistics.others_serve = true;
    assert_eq!(told(&picker), [""; 0], "another worker has one");
    picker.sharing.statistics.others_serve = false;
    begin(&mut picker, 1, &Head::post_json("/v1/completions", None));
    assert_eq!(told(&picker), [""; 0]);
}

/// Sends requests for 20 s, each of which the next endpoint serves instead of the named one, with this attempt.
fn served_elsewhere(attempts: Option<u64>) -> Picker {
    let other = |named| format!("10.0.0.{}:80", (named + 1) % 4);
    served_by(picker(), attempts, &other, "a")
}

/// Sends requests for 20 s that this server responds to, by the slot that was picked, on a route to this cluster.
fn served_by(
    mut picker: Picker,
    attempts: Option<u64>,
    server: &dyn Fn(u32) -> String,
    cluster: &str,
) -> Picker {
    members(&mut picker, 4);
    let mut now = NOW;
    for id in 0..200 {
        now = now.after(Duration::from_millis(100));
        picker.tick(now);
        let head = Head {
            path: b"/v1/completions",
            method: b"POST",
            end: true,
            ..Head::default()
        };
        begin(&mut picker, id, &head);
        let exchange = picker.exchanges.get(ExchangeId(id)).unwrap();
        let named = exchange.primary().unwrap().slot.0;
        let seen = Upstream {
            server: Some(server(named).into_bytes()),
            status: Some(200),
            attempts,
            cluster: Some(cluster.as_bytes().to_vec()),
            ..Upstream::default()
        };
        assert!(picker.is_served_elsewhere(ExchangeId(id), &seen));
        picker.response_headers(now, ExchangeId(id), Some(&seen));
        close(&mut picker, id);
    }
    picker
}

#[test]
fn a_cluster_that_ignores_the_header_is_told_and_nothing_is_ejected_for_it() {
    let ejections = |picker: &Picker| {
        let outliers = &picker.dispatcher.endpoints.monitor.outliers;
        (0..4)
            .filter_map(|slot| outliers.reason(Slot(slot)))
            .count()
    };
    let picker = served_elsewhere(Some(1));
    let told = met(|met| picker.route_conditions(met));
    let expected = "no-override-host: cluster a, header x-gateway-destination-endpoint";
    assert_eq!(told, [expected]);
    assert_eq!(ejections(&picker), 0);
    // What a retry brings elsewhere is the first endpoint's failure, as before.
    for attempts in [Some(2), None] {
        let picker = served_elsewhere(attempts);
        assert_eq!(met(|met| picker.route_conditions(met)), [""; 0]);
    }
}

/// As under `requests: all`, where not all routes lead to the pool.
#[test]
fn requests_that_are_routed_to_another_cluster_say_nothing_of_the_pools() {
    let told = |picker: &mut Picker| {
        let now = picker.dispatcher.clock.now();
        let own = picker.own_conditions(now).into_iter();
        let told = own.map(|own| format!("{}: {}", own.finding.id(), own.detail));
        told.filter(|told| !told.starts_with("bodies-unread"))
            .collect::<Vec<_>>()
    };
    let stranger = |_| "10.0.9.9:80".to_owned();
    for attempts in [Some(1), Some(2), None] {
        let mut picker = served_by(picker(), attempts, &stranger, "web");
        let told = told(&mut picker);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(
            told[0].starts_with("routed-elsewhere: ")
                && told[0].ends_with("the last one to \"web\""),
            "{told:?}"
        );
        let outliers = &picker.dispatcher.endpoints.monitor.outliers;
        assert!((0..4).all(|slot| outliers.reason(Slot(slot)).is_none()));
    }
    // The pool's own cluster has a member that is not listed, or another one has the pool's members.
    let other = |named| format!("10.0.0.{}:80", (named + 1) % 4);
    for (server, cluster) in [(&stranger as &dyn Fn(u32) -> String, "a"), (&other, "twin")] {
        let mut picker = served_by(picker(), Some(1), server, cluster);
        let told = told(&mut picker);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with("no-override-host: "), "{told:?}");
    }
}

/// The endpoint is gone from the proxy's cluster, or unhealthy there, and discovery knows.
#[test]
fn an_endpoint_that_may_not_be_picked_any_more_is_no_proof() {
    let mut picker = picker();
    members(&mut picker, 2);
    let slots = [Slot(0), Slot(1)];
    for slot in slots {
        let pool = picker.fixture().pool();
        pool.note(slot, |endpoint| &mut endpoint.health, Health::Unhealthy);
    }
    let record = |picker: &mut Picker, now: Timestamp, id: u32| {
        picker.dispatcher.begin_event(now);
        let seen = Upstream {
            server: Some(b"10.0.0.9:80".to_vec()),
            status: Some(200),
            attempts: Some(1),
            ..Upstream::default()
        };
        let mut exchange = picker.exchanges.get_mut(ExchangeId(id)).unwrap();
        picker.dispatcher.begin_response(&mut exchange, Some(&seen));
    };
    begin(&mut picker, 1, &Head::post_json("/v1/models", Some(0)));
    for number in 0..100 {
        record(
            &mut picker,
            NOW.after(Duration::from_millis(100 * number)),
            1,
        );
        let now = picker.dispatcher.clock.now();
        picker
            .dispatcher
            .endpoints
            .override_check
            .end_period(Duration::ZERO, now);
    }
    assert!(!picker.dispatcher.endpoints.override_check.is_ignored());
    let outliers = &picker.dispatcher.endpoints.monitor.outliers;
    assert!(slots
        .iter()
        .all(|slot| outliers.reason(*slot) != Some(Reason::Unserved)));
}

//! Responses: what follows from one for its endpoint, and what does not.

use std::time::Duration;

use super::super::flow_testing::Host;
use super::super::flow_testing::Outcome::{Forwarded, Held};
use super::super::testing::{begin, close, NOW};
use super::super::{ExchangeId, FetchError, Head, Picker};
use super::*;
use crate::config;
use crate::endpoints::store::Condition;
use crate::metrics::definitions::SCRAPE_ERRORS;
use crate::time::Timestamp;

fn picker() -> Picker {
    let text = "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: random-picker}, {type: queue-scorer},
  {name: pods, type: static-discovery, parameters: {endpoints: [{name: a, address: 10.0.0.1, port: 80}]}}]
schedulingProfiles: [{name: default, plugins: [{pluginRef: queue-scorer}, {pluginRef: random-picker}]}]
dataLayer: {discovery: {pluginRef: pods}}
";
    let plan = config::load(text).unwrap().plan;
    let mut picker = Picker::new(plan.clone(), 1);
    picker.install(plan);
    picker.tick(NOW);
    picker
}

/// Sends a request with a body to the one endpoint.
fn send(picker: &mut Picker, id: u32) {
    let head = Head {
        path: b"/v1/completions",
        method: b"POST",
        ..Head::default()
    };
    assert!(begin(picker, id, &head).is_some());
}

fn seen(status: u16, origin: ResponseOrigin) -> Upstream {
    Upstream {
        server: Some(b"10.0.0.1:80".to_vec()),
        status: Some(status),
        origin,
        ..Upstream::default()
    }
}

#[test]
fn only_responses_of_the_endpoint_count() {
    let avoided = |status, origin| {
        let mut picker = picker();
        for id in 0..10 {
            send(&mut picker, id);
            picker.response_headers(NOW, ExchangeId(id), Some(&seen(status, origin)));
            close(&mut picker, id);
        }
        picker.dispatcher.endpoints.monitor.outliers.reason(Slot(0))
    };
    assert_eq!(avoided(503, ResponseOrigin::Overflow), None);
    assert_eq!(avoided(501, ResponseOrigin::Endpoint), None);
    assert_eq!(
        avoided(503, ResponseOrigin::Unreachable),
        Some(Reason::Unserved)
    );
    assert_eq!(avoided(504, ResponseOrigin::Proxy), Some(Reason::Unserved));
    assert_eq!(
        avoided(503, ResponseOrigin::Endpoint),
        Some(Reason::Overloaded)
    );
    assert_eq!(avoided(500, ResponseOrigin::Endpoint), Some(Reason::Errors));
}

/// A retry overtakes a response that takes long, and how long it takes is the client's choice.
#[test]
fn a_request_that_another_endpoint_served_is_proof_only_where_the_page_comes_no_more() {
    let certain = |status, freshness| {
        seen(status, ResponseOrigin::Endpoint)
            .elsewhere(Reason::Unserved, freshness)
            .certain
    };
    assert!(certain(200, Freshness::Stale));
    assert!(!certain(200, Freshness::Fresh) && !certain(200, Freshness::Unknown));
    assert!(!certain(500, Freshness::Stale));
}

/// Returns why the endpoint is ejected after another one has responded to its requests, so long after they were sent.
fn ejected_for_giving_away(pages_come: bool, taken: Duration) -> Option<Reason> {
    let mut picker = picker();
    let head = Head {
        end: true,
        ..Head::post_json("/v1/completions", None)
    };
    let other = Upstream {
        server: Some(b"10.0.0.2:80".to_vec()),
        attempts: Some(2),
        ..seen(200, ResponseOrigin::Endpoint)
    };
    let mut now = NOW;
    for id in (0..10).map(ExchangeId) {
        picker.request_headers(now, id, &head);
        while picker.poll_effect().is_some() {}
        now = now.after(taken);
        picker.response_headers(now, id, Some(&other));
        picker.closed(now, id);
        if pages_come {
            let page = b"vllm:num_requests_waiting 7\n";
            now = now.after(Duration::from_millis(1));
            assert!(picker.fixture().read_page(now, Slot(0), page));
            picker.tick(now);
            while picker.poll_effect().is_some() {}
        }
    }
    picker.dispatcher.endpoints.monitor.outliers.reason(Slot(0))
}

#[test]
fn requests_that_a_reachable_endpoint_gave_away_at_once_met_an_overload() {
    let (soon, late) = (Duration::from_millis(100), Duration::from_millis(1_100));
    let reason = ejected_for_giving_away(true, soon);
    assert_eq!(reason, Some(Reason::Overloaded));
    // Perhaps it cannot be reached.
    let reason = ejected_for_giving_away(false, soon);
    assert_eq!(reason, Some(Reason::Unserved));
    // Perhaps a timeout was over.
    let reason = ejected_for_giving_away(true, late);
    assert_eq!(reason, Some(Reason::Unserved));
}

#[test]
fn a_pool_counts_as_empty_from_when_the_proxy_has_no_endpoint_until_discovery_must_have_found_out()
{
    let none = |cluster: &str| Upstream {
        server: None,
        cluster: Some(cluster.into()),
        ..seen(503, ResponseOrigin::NoEndpoint)
    };
    let mut host = Host::with_capacity(1, 1.0);
    host.get(1);
    for id in 2..=4 {
        assert_eq!(host.get(id), [Held(id)]);
    }
    assert!(host.picker.wants_upstream(ExchangeId(1)));
    let cluster = host.picker.plan().cluster().to_owned();
    let elsewhere = none("another pool's");
    let now = host.now;
    host.picker
        .response_headers(now, ExchangeId(1), Some(&elsewhere));
    assert_eq!(host.end(1), [Forwarded(2)]);
    host.picker
        .response_headers(now, ExchangeId(2), Some(&none(&cluster)));
    assert_eq!(host.end(2), []);
    let interval = host.picker.plan().discovery.interval();
    let outcomes = host.wait(interval + 2 * MAX_ADOPTION);
    let [(waited, Forwarded(3))] = outcomes[..] else {
        panic!("{outcomes:?}");
    };
    assert!(waited >= interval + MAX_ADOPTION, "{waited:?}");
}

#[test]
fn a_page_of_an_endpoint_that_has_left_is_not_a_poll_error() {
    let mut picker = picker();
    let mut now = NOW;
    let mut fetch = |picker: &mut Picker| loop {
        // A fetch without a result is waited for for a while.
        now = Timestamp::from_nanos(now.as_nanos() + 20_000_000);
        picker.tick(now);
        if let Some(Effect::Fetch { id, .. }) = picker.poll_effect() {
            return id;
        }
    };
    let errors = |picker: &Picker| picker.dispatcher.statistics.registry.total(&SCRAPE_ERRORS);
    let id = fetch(&mut picker);
    picker.fetched(NOW, id, Err(FetchError::Unreachable));
    assert_eq!(errors(&picker), 1, "it is there");
    let id = fetch(&mut picker);
    picker.dispatcher.endpoints.monitor.store.remove(Slot(0));
    picker.fetched(NOW, id, Err(FetchError::Unreachable));
    assert_eq!(errors(&picker), 1);
}

#[test]
fn a_page_that_arrives_once_another_picker_polls_is_ignored() {
    let mut picker = picker();
    let page = b"vllm:num_requests_waiting 7\n";
    assert!(picker.fixture().read_page(NOW, Slot(0), page));
    let waiting = |picker: &Picker| picker.pool().get(Slot(0)).unwrap().metrics.waiting;
    assert_eq!(waiting(&picker), Some(7.0));
    picker.peers().set_polling(false);
    let condition = picker.peers().endpoints().condition(Slot(0));
    let later = Condition {
        scraped: condition
            .scraped
            .map(|at| at.after(Duration::from_millis(1))),
        ..condition
    };
    picker
        .peers()
        .adopt_metrics(vec![(Slot(0), later, crate::testing::waiting(9.0))]);
    assert_eq!(waiting(&picker), Some(9.0));
    assert!(!picker.fixture().read_page(NOW, Slot(0), page));
    assert_eq!(waiting(&picker), Some(9.0));
}

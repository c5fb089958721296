//! Counting, and the updates for the host.

use std::collections::BTreeMap;

use super::super::definitions::{
    NORMALIZED_TIME_PER_TOKEN, OUTPUT_TOKENS, PICKS, READY_ENDPOINTS, SCRAPE_ERRORS,
    SHARED_WRITTEN, TIME_TO_FIRST_TOKEN,
};
use super::super::labels::{Model, NoLabels, Picked, PollError};
use super::super::Exported;
use super::*;
use crate::endpoints::fetch_error::FetchError;

fn registry() -> Registry {
    Registry::new("a;b")
}

/// The labels of a model at all endpoints.
fn model(name: &str) -> Model<'_> {
    Model {
        endpoint: None,
        name,
    }
}

#[test]
fn counters_are_handed_over_as_sums() {
    let (mut registry, mut host) = (registry(), Exported::default());
    for _ in 0..3 {
        registry.add(PICKS, Picked("x"), 1);
    }
    host.take(&mut registry);
    assert!(host.values.is_empty(), "not before a flush");
    registry.flush();
    host.take(&mut registry);
    registry.flush();
    host.take(&mut registry);
    let name = "llm_d_epp_scheduler_attempts_total;pool=a_b;status=success;endpoint_name=x";
    assert_eq!(host.values, BTreeMap::from([(name.to_owned(), 3)]));
    let handle = registry.counter(PICKS, Picked("x"));
    registry.count(handle, 2);
    assert_eq!(registry.counted(handle), 5);
    registry.add(PICKS, Picked("y"), 1);
    assert_eq!(registry.total(&PICKS), 6);
}

#[test]
fn a_metric_that_has_counted_nothing_is_exported_as_0() {
    let (mut registry, mut host) = (registry(), Exported::default());
    registry.add(SHARED_WRITTEN, NoLabels, 0);
    registry.flush();
    host.take(&mut registry);
    let name = "epp_wasm_shared_written_bytes_total;pool=a_b";
    assert_eq!(host.values, BTreeMap::from([(name.to_owned(), 0)]));
    let updates = host.updates;
    registry.add(SHARED_WRITTEN, NoLabels, 7);
    registry.flush();
    registry.add(SHARED_WRITTEN, NoLabels, 0);
    registry.flush();
    host.take(&mut registry);
    assert_eq!((host.values[name], host.updates), (7, updates + 1));
}

#[test]
fn a_gauge_is_handed_over_without_a_flush_and_as_it_was_set_last() {
    let (mut registry, mut host) = (registry(), Exported::default());
    registry.set(READY_ENDPOINTS, NoLabels, 1);
    registry.set(READY_ENDPOINTS, NoLabels, 2);
    let name = "llm_d_epp_ready_endpoints;pool=a_b";
    host.take(&mut registry);
    assert_eq!(host.values[name], 2);
    assert_eq!(host.updates, 2, "its definition and its value");
    registry.set(READY_ENDPOINTS, NoLabels, 0);
    host.take(&mut registry);
    assert_eq!((host.values[name], host.updates), (0, 3));
}

#[test]
fn a_host_that_takes_no_updates_costs_no_more_than_its_metrics() {
    let mut registry = registry();
    for number in 0..1_000 {
        registry.set(READY_ENDPOINTS, NoLabels, number);
        registry.add(SHARED_WRITTEN, NoLabels, 1);
        registry.flush();
    }
    assert_eq!(registry.ready.len(), 2);
}

#[test]
fn a_histogram_is_a_counter_for_each_bound() {
    let (mut registry, mut host) = (registry(), Exported::default());
    let handle = registry.histogram(NORMALIZED_TIME_PER_TOKEN, model("m"));
    for value in [0.001, 0.6, 0.7, 100.0] {
        registry.observe(handle, value);
    }
    registry.flush();
    host.take(&mut registry);
    let get = |part: &str, le: &str| {
        let name = format!("llm_d_epp_request_ntpot_seconds_{part};pool=a_b;model_name=m{le}");
        host.values.get(&name).copied()
    };
    assert_eq!(
        get("bucket", ";le=0.001"),
        Some(1),
        "a bound is in its bucket"
    );
    assert_eq!(get("bucket", ";le=0.5"), Some(1));
    assert_eq!(get("bucket", ";le=1"), Some(3));
    assert_eq!(get("bucket", ";le=10"), Some(3));
    assert_eq!(get("bucket", ";le=+Inf"), Some(4));
    assert_eq!(get("count", ""), Some(4));
    assert_eq!(get("sum", ""), Some(101), "whole seconds; the rest is kept");
    assert_eq!(host.values.len(), 13 + BEYOND_BOUNDS);
}

#[test]
fn the_bound_below_the_lowest_value_is_exported_as_0() {
    let (mut registry, mut host) = (registry(), Exported::default());
    let handle = registry.histogram(NORMALIZED_TIME_PER_TOKEN, model("m"));
    for (value, lower, bound) in [(0.6, "0.5", "1"), (0.015, "0.01", "0.02")] {
        registry.observe(handle, value);
        registry.flush();
        host.take(&mut registry);
        let values = host.values.iter();
        let buckets = values.filter_map(|(name, count)| Some((name.split_once(";le=")?.1, *count)));
        let buckets: BTreeMap<_, _> = buckets.collect();
        let lowest = |le: &&&str| le.parse().is_ok_and(|le: f64| le < value);
        assert_eq!(buckets.keys().filter(lowest).collect::<Vec<_>>(), [&lower]);
        assert_eq!((buckets[lower], buckets[bound]), (0, 1), "{buckets:?}");
    }
    // Once: what has counted nothing is not sent again.
    let updates = host.updates;
    registry.observe(handle, 0.015);
    registry.flush();
    host.take(&mut registry);
    let counters = host.updates - updates;
    assert_eq!(
        counters,
        9 + 2,
        "of greater bounds, beyond all, and the count"
    );
}

#[test]
fn fractions_add_up_over_time() {
    let (mut registry, mut host) = (registry(), Exported::default());
    let handle = registry.histogram(TIME_TO_FIRST_TOKEN, model("m"));
    for _ in 0..10 {
        registry.observe(handle, 0.25);
        registry.flush();
        host.take(&mut registry);
    }
    let name = "llm_d_epp_request_ttft_seconds_sum;pool=a_b;model_name=m";
    assert_eq!(host.values[name], 2);
}

#[test]
fn a_value_cannot_end_its_label() {
    let (mut registry, mut host) = (registry(), Exported::default());
    let labels = PollError {
        endpoint: "x;reason=y",
        reason: FetchError::Timeout,
    };
    registry.add(SCRAPE_ERRORS, labels, 1);
    registry.flush();
    host.take(&mut registry);
    let name =
        "llm_d_epp_datalayer_poll_errors_total;pool=a_b;endpoint_name=x_reason_y;reason=timeout";
    assert_eq!(host.values[name], 1);
}

#[test]
fn beyond_the_bound_new_labels_are_left_out() {
    let (mut registry, mut host) = (registry(), Exported::default());
    registry.add(PICKS, Picked("first"), 1);
    for number in 0..MAX_SERIES {
        registry.histogram(OUTPUT_TOKENS, model(&number.to_string()));
        if registry.series >= MAX_SERIES {
            break;
        }
    }
    // A histogram counts for all its buckets.
    assert!(registry.known.len() <= MAX_SERIES / 12);
    for number in 0..10 {
        registry.add(PICKS, Picked(&number.to_string()), 1);
    }
    registry.add(PICKS, Picked("first"), 1);
    registry.flush();
    host.take(&mut registry);
    let name = "llm_d_epp_scheduler_attempts_total;pool=a_b";
    assert_eq!(host.values[name], 10);
    let first = format!("{name};status=success;endpoint_name=first");
    assert_eq!(host.values[&first], 2, "it was known before");
}

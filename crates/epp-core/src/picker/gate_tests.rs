//! What an operator sees of flow control.

use std::time::Duration;

use super::super::flow_testing::{control, plan, Host};
use super::super::shares::{Backlog, WaitingBand};
use super::*;
use crate::config;
use crate::findings::Condition;
use crate::scheduling::{Health, Slot};

fn report(host: &mut Host) -> Vec<String> {
    host.picker.status().flow
}

/// Why requests wait, if any does.
fn gate(host: &mut Host) -> String {
    host.picker.why_requests_wait().unwrap_or_default()
}

#[test]
fn without_flow_control_there_is_nothing_to_report() {
    assert_eq!(
        report(&mut Host::new({
            let mut plan = plan(1, "");
            plan.flow = None;
            plan
        })),
        [""; 0]
    );
}

fn conditions(host: &mut Host) -> Vec<(&'static str, String)> {
    let (now, mut met) = (host.picker.dispatcher.clock.now(), Met::default());
    host.picker.flow_conditions(now, &mut met);
    let conditions = met.into_conditions().into_iter();
    let shown = conditions.map(
        |Condition {
             finding, detail, ..
         }| (finding.id(), detail),
    );
    shown.collect()
}

#[test]
fn a_report_has_what_waits_and_why() {
    let mut host = Host::with_capacity(1, 2.0);
    assert_eq!(gate(&mut host), "");
    host.get(1);
    host.get(2);
    host.get_with(3, "high", "");
    host.get_with(4, "low", "");
    host.wait(Duration::from_secs(3));
    host.get_with(5, "low", "");
    let report = report(&mut host);
    assert_eq!(
        report,
        [
            "saturation 100 %; requests wait: capacity measures 100 %, and priority 10 stops at 100 %; 0 rejected, \
             0 expired, 0 evicted",
            "priority 10: 1 requests wait (0 KiB), the first for 3000 ms; stops at 100 %",
            "priority -10: 2 requests wait (0 KiB), the first for 3000 ms; stops at 100 %",
        ]
    );
}

#[test]
fn a_band_waits_for_those_of_other_workers() {
    let mut host = Host::with_capacity(1, 1.0);
    host.get(1);
    host.get(2);
    let elsewhere = Backlog {
        bands: vec![WaitingBand {
            priority: 10,
            requests: 1,
            bytes: 0,
        }],
        ..Backlog::default()
    };
    let flow = &mut host.picker.dispatcher.flow;
    flow.set_others(&mut [&elsewhere].into_iter());
    assert_eq!(
        gate(&mut host),
        "requests of priority 10 wait in another worker"
    );
}

#[test]
fn an_empty_pool_is_why() {
    let mut host = Host::with_capacity(1, 1.0);
    let pool = host.picker.fixture().pool();
    pool.note(Slot(0), |endpoint| &mut endpoint.health, Health::Unhealthy);
    host.get(1);
    assert_eq!(gate(&mut host), "the pool has no endpoints");
    assert_eq!(conditions(&mut host), [], "pool-empty is the finding");
}

/// A host whose endpoint was never scraped, under a detector with these parameters.
fn unscraped(parameters: &str) -> Host {
    let text = format!(
        "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
featureGates: [flowControl]
plugins: [{{type: active-request-scorer}}, {{type: utilization-detector, parameters: {{{parameters}}}}},
  {{name: few, type: concurrency-detector, parameters: {{maxConcurrency: 1}}}},
  {{name: both, type: max-saturation-detector, parameters: {{detectors: [few, utilization-detector]}}}},
  {{name: pods, type: static-discovery, parameters: {{endpoints: [{{name: p, address: 10.0.0.1, port: 80}}]}}}}]
flowControl: {{saturationDetector: {{pluginRef: both}}}}
schedulingProfiles: [{{name: default, plugins: [{{pluginRef: active-request-scorer}}]}}]
dataLayer: {{discovery: {{pluginRef: pods}}}}
"
    );
    Host::new(config::load(&text).unwrap().plan)
}

#[test]
fn a_pool_without_fresh_metrics_shuts_the_gate_and_is_a_finding() {
    let mut host = unscraped("");
    assert_eq!(conditions(&mut host), []);
    host.get(1);
    let why = "no endpoint has fresh metrics; both measures 100 %, and priority 0 stops at 100 %";
    assert_eq!(gate(&mut host), why);
    let detail = "1 waiting, 0 of 1 endpoints with fresh metrics".to_owned();
    assert_eq!(conditions(&mut host), [("gate-shut", detail)]);
}

#[test]
fn a_pool_that_is_full_without_metrics_is_no_finding() {
    let mut host = unscraped("stalenessPolicy: ignore");
    host.get(1);
    host.get(2);
    assert_eq!(
        gate(&mut host),
        "both measures 100 %, and priority 0 stops at 100 %"
    );
    assert_eq!(conditions(&mut host), []);
}

#[test]
fn requests_that_are_rejected_or_expire_are_findings_for_a_while() {
    let mut plan = plan(1, "");
    let mut control = control(1.0);
    control.max_requests = Some(2);
    plan.flow = Some(control);
    let mut host = Host::new(plan);
    assert_eq!(conditions(&mut host), []);
    for id in 1..=5 {
        host.get(id);
    }
    let full = ("queue-full", "2 requests".to_owned());
    assert_eq!(conditions(&mut host), std::slice::from_ref(&full));
    host.wait(Duration::from_secs(11));
    let expire = ("requests-expire", "2 requests".to_owned());
    assert_eq!(conditions(&mut host), [full, expire]);
    assert_eq!(
        report(&mut host)[0],
        "saturation 100 %; nothing has to wait; 2 rejected, 2 expired, 0 evicted"
    );
    host.wait(Duration::from_secs(60));
    assert_eq!(conditions(&mut host), []);
}

#[test]
fn the_fullest_stage_is_named_where_there_are_two() {
    let of = |prefill, decode| {
        fuller(Saturation {
            prefill,
            decode,
            effective: 1.0,
        })
    };
    assert_eq!(
        of(Some(1.2), Some(1.0)),
        (Partition::Prefill, " for prefill")
    );
    assert_eq!(of(Some(0.5), Some(1.0)), (Partition::Decode, " for decode"));
    assert_eq!(of(None, Some(1.0)), (Partition::Decode, ""));
    assert_eq!(of(None, None), (Partition::All, ""));
}

//! Clients and plans against the queues: what one of them costs the others.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::super::flow_testing::Outcome::{Bypassed, Forwarded, Held};
use super::super::flow_testing::{control, plan, Host};
use super::super::{ExchangeId, Head};
use crate::metrics::definitions::{FLOW_QUEUE_BYTES, FLOW_QUEUE_SIZE, SATURATION};
use crate::metrics::{MetricId, MetricUpdate};

const SECOND: Duration = Duration::from_secs(1);

/// A host whose only endpoint serves request 1 and takes no other, with this limit on the bytes that wait in a band.
fn full(max_bytes: u64) -> Host {
    let mut plan = plan(1, "");
    let mut control = control(1.0);
    control.default_band.max_bytes = Some(max_bytes);
    plan.flow = Some(control);
    let mut host = Host::new(plan);
    host.get(1);
    host
}

#[test]
fn a_length_without_the_bytes_takes_no_more_room_than_the_host_buffers() {
    const BUFFER: u64 = 1 << 20;
    let mut host = full(4 * BUFFER);
    let waiting = |host: &Host| {
        let mut waiting = host.picker.dispatcher.flow.queues.waiting();
        let (_, requests, bytes) = waiting.next().unwrap();
        (requests as u32, bytes)
    };
    // A length, one that nothing could keep, and none: it may bring as much as is buffered.
    for (id, length, bytes) in [
        (2, Some(1_000), 1_000),
        (3, Some(usize::MAX), 1_000 + BUFFER),
        (4, None, 1_000 + 2 * BUFFER),
    ] {
        let head = Head::post_json("/v1/completions", length);
        assert_eq!(host.begin(id, &head), [Held(id)]);
        assert_eq!(waiting(&host), (id - 1, bytes));
    }
    assert_eq!(host.get(5), [Held(5)]);
    assert_eq!(waiting(&host), (4, 1_000 + 2 * BUFFER), "it has no body");
}

#[test]
fn a_dry_run_leaves_those_in_the_queue_that_wait_from_before() {
    let mut host = full(1 << 20);
    assert_eq!(host.get(2), [Held(2)]);
    let mut dry = plan(1, "dryRun: true");
    dry.flow = Some(control(2.0));
    // There is room from now on, which the next event would use.
    host.picker.install(dry);
    assert_eq!(host.get(3), [Bypassed(3)]);
    assert!(host.picker.holds(ExchangeId(2)));
    assert_eq!(host.tick(), [Forwarded(2)]);
}

/// Takes what the host would set, and returns the gauges of flow control that are not 0.
fn gauges(host: &mut Host, known: &mut BTreeMap<String, u64>, names: &mut Names) -> Vec<String> {
    host.wait(2 * SECOND);
    while let Some(update) = host.picker.poll_metric() {
        match update {
            MetricUpdate::Define { id, name, .. } => drop(names.insert(id, name)),
            MetricUpdate::Set { id, value } => drop(known.insert(names[&id].clone(), value)),
            MetricUpdate::Add { .. } => {}
        }
    }
    let set = known.iter().filter(|(name, value)| {
        let (metric, _) = name.split_once(';').unwrap();
        let is_flow = [
            FLOW_QUEUE_SIZE.name(),
            FLOW_QUEUE_BYTES.name(),
            SATURATION.name(),
        ];
        **value > 0 && is_flow.contains(&metric)
    });
    set.map(|(name, value)| format!("{name} {value}")).collect()
}

type Names = HashMap<MetricId, String>;

#[test]
fn no_gauge_says_that_requests_wait_where_another_picker_polls_or_flow_control_is_off() {
    let (mut known, mut names) = (BTreeMap::new(), Names::new());
    let mut host = full(1 << 20);
    host.get_with(2, "high", "");
    let waits = [
        "epp_wasm_flow_control_pool_saturation_ppm;pool=inference-pool;stage=decode 1000000",
        "epp_wasm_flow_control_pool_saturation_ppm;pool=inference-pool;stage=effective 1000000",
        "llm_d_epp_flow_control_queue_size;pool=inference-pool;priority=10 1",
    ];
    assert_eq!(gauges(&mut host, &mut known, &mut names), waits);
    host.picker.peers().set_polling(false);
    assert_eq!(gauges(&mut host, &mut known, &mut names), [""; 0]);
    host.picker.peers().set_polling(true);
    assert_eq!(gauges(&mut host, &mut known, &mut names), waits);
    let mut off = plan(1, "");
    off.flow = None;
    host.picker.install(off);
    assert_eq!(gauges(&mut host, &mut known, &mut names), [""; 0]);
}

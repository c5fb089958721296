//! Times flow control: a request that comes and goes at once, one that goes while thousands wait, and how full the pool
//! is.

mod timing;

use std::sync::Arc;
use std::time::Duration;

use criterion::Criterion;
use epp_core::flow::{
    Arrival, BandSpec, Fairness, FlowControl, Meter, Ordering, ProgramAware, Queues, Saturation,
    SaturationDetector, Strategy, UsageLimit,
};
use epp_core::prefix::key::{Key, Secret};
use epp_core::scheduling::{Endpoint, InFlight, Needs, Slot};
use epp_core::time::Instant;
use epp_core::ExchangeId;
use timing::{criterion, measure};

/// Measures nothing: the pool always has room.
#[derive(Debug)]
struct Room;

impl SaturationDetector for Room {
    fn value(&self, _: &Endpoint, _: InFlight) -> Option<f64> {
        None
    }

    fn saturation_at(&self, _: f64) -> f64 {
        0.0
    }

    fn needs(&self) -> Needs {
        Needs::default()
    }
}

fn control(fairness: Fairness) -> FlowControl {
    let band = BandSpec {
        priority: 0,
        max_requests: None,
        max_bytes: None,
        ttl: None,
        ordering: Ordering::Fcfs,
        fairness,
    };
    FlowControl {
        max_requests: None,
        max_bytes: None,
        ttl: Some(Duration::from_secs(60)),
        empty_pool_ttl: Some(Duration::from_secs(60)),
        bands: vec![band],
        default_band: band,
        negative_band: band,
        usage_limit: UsageLimit::Static(1.0),
        detector_name: "capacity".to_owned(),
        detector: Arc::new(Room),
        eviction: false,
        eviction_grace: Duration::ZERO,
    }
}

/// Requests of so many flows that come and go, with as many waiting all the time.
struct Bench {
    control: FlowControl,
    queues: Queues,
    flows: Vec<String>,
    next: u32,
    now: Instant,
}

impl Bench {
    fn new(fairness: Fairness, flows: usize, waiting: usize) -> Self {
        let mut bench = Self {
            control: control(fairness),
            queues: Queues::new(Key::Secret(Secret::from(1))),
            flows: (0..flows).map(|flow| format!("tenant-{flow}")).collect(),
            next: 0,
            now: Instant::default().after(Duration::from_secs(1)),
        };
        for _ in 0..waiting {
            bench.arrive();
        }
        bench
    }

    fn arrive(&mut self) {
        let flow = self.flows.get(self.next as usize % self.flows.len());
        self.next = self.next.wrapping_add(1);
        self.now = self.now.after(Duration::from_micros(10));
        let arrival = Arrival {
            id: ExchangeId(self.next),
            priority: 0,
            fairness_id: flow.map_or("", |flow| flow),
            bytes: 4 << 10,
            received: self.now,
            slo_ttft: None,
            ttl: None,
        };
        let _ = self.queues.enqueue(&self.control, &arrival, self.now);
    }

    fn pass(&mut self) -> bool {
        self.arrive();
        let queues = &mut self.queues;
        queues.dispatch(&self.control, 0.5, self.now).is_some()
    }
}

fn queueing(criterion: &mut Criterion) {
    let las = Strategy::Las {
        service_weight: 0.8,
        wait_weight: 0.2,
        half_life: Some(Duration::from_secs(60)),
    };
    let program_aware = Fairness::ProgramAware(ProgramAware {
        strategy: las,
        idle: None,
    });
    let policies = [
        ("global-strict", Fairness::GlobalStrict),
        ("round-robin", Fairness::RoundRobin),
        ("program-aware", program_aware),
    ];
    let mut group = criterion.benchmark_group("enqueue and dispatch");
    for (name, fairness) in policies {
        for (flows, waiting) in [
            (1, 0),
            (100, 0),
            (100, 5_000),
            (1_000, 5_000),
            (5_000, 5_000),
        ] {
            let mut bench = Bench::new(fairness, flows, waiting);
            let name = format!("{name}, {flows} flows, {waiting} waiting");
            measure(&mut group, &name, || bench.pass());
        }
    }
    group.finish();
}

/// How long it takes to measure how full a pool is: all of it, and after a request was sent to one of its endpoints.
fn measuring(criterion: &mut Criterion) {
    let text = "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
featureGates: [flowControl]
plugins: [{type: queue-scorer}, {name: pods, type: static-discovery, parameters: {endpoints: [{name: a, address: 10.0.0.1, port: 80}]}}]
dataLayer: {discovery: {pluginRef: pods}}
";
    let control = epp_core::config::load(text)
        .ok()
        .and_then(|loaded| loaded.plan.flow);
    let Some(FlowControl { detector, .. }) = control else {
        return;
    };
    let mut group = criterion.benchmark_group("saturation");
    for endpoints in [10, 100, 1_000] {
        let mut pool = native_benches::pool(endpoints);
        let name = format!("of {endpoints} endpoints");
        measure(&mut group, &name, || Saturation::of(&*detector, &pool));
        let mut meter = Meter::new(&detector);
        meter.measure(&pool);
        let mut requests = 0;
        let name = format!("of {endpoints} endpoints, after a request");
        measure(&mut group, &name, || {
            requests = (requests + 1) % 50;
            let load = InFlight {
                requests,
                ..InFlight::default()
            };
            pool.set_load(Slot(3), load);
            meter.measure(&pool)
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = criterion();
    queueing(&mut criterion);
    measuring(&mut criterion);
    criterion.final_summary();
}

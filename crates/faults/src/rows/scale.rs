//! Large numbers: of endpoints, of streams, and of hours.

use std::time::{Duration, Instant};

use fake_model_server::{Settings, Sim};

use super::{Form, Row};
use crate::load::Mix;
use crate::stage::{document, pod, Plan};
use crate::verdict::{Bar, Measured};

/// The row that takes an hour.
pub const SOAK: &str = "soak";

/// The rows, in the order of the table.
pub const ROWS: &[Row] = &[
    Row {
        name: "1,000 endpoints",
        what: "1,000 pods, each polled every 5 s; 100 of them are gone for 4 s",
        epp: "not measured",
        play: thousand,
    },
    Row {
        name: "10,000 streams",
        what: "500 new streams per second for 20 s, each open for 25 s: 10,000 at a time",
        epp: "not measured",
        play: streams,
    },
    Row {
    name: SOAK,
    what: "50 requests/s for an hour without a fault; Envoy's memory must not grow after the first sixth",
    epp: "not measured",
    play: soak,
    },
];

fn thousand(_: &Form) -> Measured {
    let mut plan = Plan::new(1_000);
    // At the default of 200 ms the simulated pods alone would take both cores.
    let polled =
        "{type: metrics-data-source, parameters: {interval: 5s, stalenessThreshold: 15s}}\n\
        - {type: core-metrics-extractor}\n- {type: envoy-proxy";
    plan.setup.configs = vec![
        document("").replace("{type: envoy-proxy", polled)
            + "dataLayer: {sources: [\
        {pluginRef: metrics-data-source, extractors: [{pluginRef: core-metrics-extractor}]}]}\n",
    ];
    let mut stage = plan.start();
    let known = stage.proxy.counted("llm_d_epp_ready_endpoints");
    for pod in 0..100 {
        stage.allow_loss_on(pod);
        stage.sim.stop(pod);
    }
    stage.run(Duration::from_secs(4));
    (0..100).for_each(|pod| stage.sim.restart(pod).unwrap());
    stage.run(Duration::from_secs(3));
    let memory = stage.proxy.memory();
    let mut measured = stage.end(Bar::begun(Duration::from_secs(2)));
    measured.require(known == 1_000, || format!("{known} endpoints were ready"));
    measured.note(format!("Envoy had {} MiB", memory >> 20));
    measured
}

fn streams(_: &Form) -> Measured {
    let mut plan = Plan::new(0);
    let slow = Settings {
        token_time: Duration::from_secs(5),
        max_running: 20_000,
        ..pod()
    };
    plan.sim = Sim::start(8, &slow).unwrap();
    plan.setup.pods = plan.sim.addresses();
    // A first byte may be late while 500 streams per second are opened.
    plan.setup.route["retry_policy"]["per_try_timeout"] = "20s".into();
    plan.mix = Mix {
        rate: 500,
        streams: 10,
        prompt: 500,
        tokens: 5,
        http2: 20,
        patience: Duration::from_secs(90),
        ..Mix::default()
    };
    let stage = plan.start();
    let before = stage.proxy.memory();
    stage.run(Duration::from_secs(18));
    let open: usize = stage.sim.pods().map(|pod| pod.shown().running).sum();
    let memory = stage.proxy.memory();
    let mut bar = Bar::none(Duration::ZERO);
    bar.fast = Duration::from_secs(60);
    let mut measured = stage.end(bar);
    measured.require(open >= 9_500, || {
        format!("{open} streams were open at a time")
    });
    measured.note(format!(
        "{open} open at a time; Envoy grew from {} to {} MiB",
        before >> 20,
        memory >> 20
    ));
    measured
}

fn soak(form: &Form) -> Measured {
    /// Bytes by which memory may grow: the allocator keeps some of a peak.
    const SLACK: u64 = 8 << 20;
    let mut plan = Plan::new(4);
    plan.mix.rate = 50;
    // A small index is full within minutes; one that still grows would look like a leak, and hide one.
    let small = "{type: approx-prefix-cache-producer, parameters: {autoTune: false, lruCapacityPerServer: 500}}\n- {type: envoy-proxy";
    let document = document("").replace("{type: envoy-proxy", small);
    plan.setup.configs = vec![document];
    let stage = plan.start();
    let (since, length) = (Instant::now(), form.soak.unwrap_or_default());
    let mut warm = 0;
    let mut peak = 0;
    while since.elapsed() < length {
        stage.run(Duration::from_secs(5));
        let memory = stage.proxy.memory();
        if since.elapsed() < length / 6 {
            warm = memory.max(warm);
        } else {
            peak = memory.max(peak);
        }
        eprintln!(
            "   {:5.0} s: {} KiB",
            since.elapsed().as_secs_f64(),
            memory >> 10
        );
    }
    // There is no fault to recover from, and other work on the machine is not one.
    let mut bar = Bar::none(Duration::ZERO);
    bar.fast = Duration::from_secs(20);
    let mut measured = stage.end(bar);
    measured.require(peak <= warm + SLACK, || {
        format!("memory grew from {} to {} MiB", warm >> 20, peak >> 20)
    });
    measured.note(format!(
        "{} min, at most {:.1} MiB in the first sixth, {:.1} after it",
        length.as_secs() / 60,
        warm as f64 / f64::from(1 << 20),
        peak as f64 / f64::from(1 << 20)
    ));
    measured
}

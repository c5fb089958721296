//! Faults of metrics pages, which hang, fail, are invalid or far too long, and of the admin interface.

use std::time::Duration;

use envoy_harness::client::post;
use fake_model_server::{Faults, Metrics};
use serde_json::json;

use super::Row;
use crate::gate::Gate;
use crate::stage::{Plan, Stage};
use crate::verdict::{Bar, Measured};

/// The rows, in the order of the table.
pub const ROWS: &[Row] = &[
    Row {
        name: "metrics hang",
        what: "the metrics page of 1 of 4 pods does not respond for 4 s",
        epp: "none fails; it keeps using the old values",
        play: |_| page(Metrics::Hang),
    },
    Row {
        name: "metrics 500",
        what: "the metrics page of 1 of 4 pods returns 500 for 4 s",
        epp: "not measured",
        play: |_| page(Metrics::Error),
    },
    Row {
        name: "metrics garbage",
        what: "the metrics page of 1 of 4 pods is not a valid page for 4 s",
        epp: "not measured",
        play: |_| page(Metrics::Garbage),
    },
    Row {
        name: "metrics 2 MB",
        what: "the metrics pages of all 4 pods are 2 MB long for 4 s",
        epp: "not measured",
        play: |_| huge(),
    },
    Row {
        name: "admin gone",
        what: "Envoy's admin interface and one pod are unreachable for 4 s, and the pool changes when they return",
        epp: "not applicable: it watches Kubernetes",
        play: |_| admin_gone(),
    },
];

/// The bar for recovery: no request waits for a metrics page.
const MAX_RECOVERY: Duration = Duration::from_millis(500);

fn with(metrics: Metrics) -> Faults {
    Faults {
        metrics,
        ..Faults::default()
    }
}

fn page(metrics: Metrics) -> Measured {
    let stage = Plan::new(4).start();
    stage.set_faults(0, with(metrics));
    stage.run(Duration::from_secs(4));
    let failures = stage.proxy.counted("llm_d_epp_datalayer_poll_errors_total");
    stage.set_faults(0, Faults::default());
    stage.run(Duration::from_secs(2));
    let mut measured = stage.end(Bar::none(MAX_RECOVERY));
    measured.require(failures > 0, || "no failed scrape was counted".to_owned());
    measured
}

fn huge() -> Measured {
    let stage = Plan::new(4).start();
    (0..4).for_each(|pod| stage.set_faults(pod, with(Metrics::Huge)));
    stage.run(Duration::from_secs(4));
    (0..4).for_each(|pod| stage.set_faults(pod, Faults::default()));
    stage.run(Duration::from_secs(1));
    stage.end(Bar::none(MAX_RECOVERY))
}

fn admin_gone() -> Measured {
    let mut plan = Plan::new(5);
    let addresses = plan.sim.addresses();
    plan.setup.pods.truncate(4);
    let gate = Gate::open().unwrap();
    plan.setup.admin_through = Some(gate.address());
    let mut stage = plan.start_then(|proxy| gate.leads_to(proxy.admin));
    gate.close();
    stage.run(Duration::from_secs(1));
    stage.allow_loss_on(0);
    stage.sim.stop(0);
    stage.run(Duration::from_secs(3));
    gate.reopen();
    stage.proxy.set_pods(addresses.get(1..).unwrap());
    stage.run(Duration::from_secs(3));
    // New prompts: those of the load stay with the pods that have them.
    for number in 0..40 {
        let prompt = format!("{number} is new. ").repeat(100);
        let body = json!({"model": "demo", "prompt": prompt, "max_tokens": 1});
        let response = post(stage.proxy.port, "/v1/completions", &body, &[]);
        assert_eq!(response.status, 200);
    }
    let picks = |stage: &Stage| {
        let name = "llm_d_epp_scheduler_attempts_total";
        stage.proxy.counted_with(name, &addresses[4].to_string())
    };
    // Counters are published once a second.
    stage.run(Duration::from_millis(1_500));
    let new = picks(&stage);
    let mut measured = stage.end(Bar::begun(Duration::from_secs(1)));
    measured.require(new > 0, || {
        "the pod that joined is not used once the interface is back".to_owned()
    });
    measured
}

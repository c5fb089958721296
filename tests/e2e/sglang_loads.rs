//! SGLang's `/v1/loads`, which is read instead of the metrics page.

use fake_model_server::{Faults, Pinned, Settings, Sim};

use crate::client::complete;
use crate::proxy::Proxy;
use crate::start;

/// A plan for servers of the engine `sglang`, whose page has vLLM's names.
const DOCUMENT: &str = r#"apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: queue-scorer}
- {type: metrics-data-source, parameters: {sglangLoads: true, interval: 500ms, maxInterval: 500ms}}
- type: core-metrics-extractor
  parameters:
    defaultEngine: sglang
    engineConfigs:
    - {name: sglang, queuedRequestsSpec: "vllm:num_requests_waiting", kvUsageSpec: "vllm:kv_cache_usage_perc"}
schedulingProfiles:
- {name: default, plugins: [{pluginRef: queue-scorer}]}
"#;

/// Has one pod report many waiting requests and the other none. Waits until only the idle one is picked.
fn wait_until_avoided(sim: &Sim, proxy: &Proxy, busy: usize) {
    for pod in 0..2 {
        let waiting = Some(if pod == busy { 50 } else { 0 });
        sim.pod(pod).pin(Pinned {
            waiting,
            ..Pinned::default()
        });
    }
    let idle = ["pod-2", "pod-1"][busy];
    proxy.wait_until("the busy pod is avoided", || {
        (0..20).all(|_| complete(proxy.port, "m", "hello").pod() == idle)
    });
}

/// Waits until a pod is asked for one thing several times in a row, and not for the other meanwhile.
fn wait_until_asked(
    proxy: &Proxy,
    what: &str,
    wanted: impl Fn() -> usize,
    other: impl Fn() -> usize,
) {
    let mut before = (wanted(), other());
    proxy.wait_until(what, || {
        let now = (wanted(), other());
        if now.1 != before.1 {
            before = now;
        }
        now.0 >= before.0 + 5
    });
}

#[test]
fn loads_are_read_instead_of_the_page_and_the_page_where_there_are_none() {
    let sim = Sim::start(2, &Settings::default()).unwrap();
    let proxy = start(&sim, DOCUMENT);
    let [first, second] = [sim.pod(0), sim.pod(1)];
    for pod in [first, second] {
        wait_until_asked(
            &proxy,
            "loads are asked for",
            || pod.loads(),
            || pod.scrapes(),
        );
        assert!(pod.scrapes() >= 1, "for constants");
    }
    wait_until_avoided(&sim, &proxy, 0);

    first.set_faults(Faults {
        no_loads: true,
        ..Faults::default()
    });
    wait_until_asked(
        &proxy,
        "the page is asked for",
        || first.scrapes(),
        || first.loads(),
    );
    // The load of one pod is known from its page, and that of the other from its loads.
    wait_until_avoided(&sim, &proxy, 1);
    wait_until_avoided(&sim, &proxy, 0);
    proxy.wait_until("the failure is counted", || {
        let page = proxy.prometheus();
        let mut lines = page.lines();
        lines.any(|line| line.contains("poll_errors_total{") && line.contains("\"status\""))
    });
}

//! Metrics and explanations, which users see.

use fake_model_server::{Pinned, Settings, Sim};

use crate::client::{complete, explain};
use crate::{document, explained, scorer, start};

#[test]
fn the_metrics_are_exported_under_their_names() {
    let sim = Sim::start(2, &Settings::default()).unwrap();
    let config = document(
        "{type: prefix-cache-scorer}, {type: queue-scorer}",
        "{pluginRef: prefix-cache-scorer}, {pluginRef: queue-scorer}",
    );
    let proxy = start(&sim, &config);
    let prompt = "the same prompt again and again, long enough for blocks. ".repeat(10);
    for _ in 0..5 {
        complete(proxy.port, "m", &prompt);
    }
    let pod = sim.addresses()[0].to_string();
    let expected = [
        "llm_d_epp_scheduler_attempts_total{".to_owned(),
        "llm_d_epp_scheduler_e2e_duration_seconds_bucket{pool=\"inference-pool\",le=\"0.1\"} 1"
            .to_owned(),
        "llm_d_epp_prefix_indexer_hit_ratio_bucket{pool=\"inference-pool\",le=\"1\"}".to_owned(),
        "llm_d_epp_prefix_indexer_hit_ratio_count{pool=\"inference-pool\"}".to_owned(),
        "llm_d_epp_prefix_indexer_size{pool=\"inference-pool\"}".to_owned(),
        "llm_d_epp_ready_endpoints{pool=\"inference-pool\"} 2".to_owned(),
        format!("epp_wasm_endpoint_freshness{{pool=\"inference-pool\",endpoint_name=\"{pod}\"}} 2"),
        format!(
            "epp_wasm_scrape_age_milliseconds{{pool=\"inference-pool\",endpoint_name=\"{pod}\"}}"
        ),
    ];
    for name in expected {
        proxy.wait_until(&name, || proxy.prometheus().contains(&name));
    }
    // The requests of `start` may be counted as picks, too, or be left to Envoy while discovery has no result.
    let count = "llm_d_epp_prefix_indexer_hit_ratio_count{pool=\"inference-pool\"}";
    proxy.wait_until("every pick has a hit ratio", || {
        let page = proxy.prometheus();
        [5, 6]
            .iter()
            .any(|hits| page.contains(&format!("{count} {hits}\n")))
    });
    let responses = |family: &str| -> f64 {
        let page = proxy.prometheus();
        let lines = page.lines().filter(|line| {
            line.starts_with(&format!("llm_d_epp_request_{family}_count{{"))
                && line.contains("model_name=\"m\"")
        });
        lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    };
    for family in [
        "ttft_seconds",
        "input_tokens",
        "output_tokens",
        "cached_tokens",
        "ntpot_seconds",
    ] {
        proxy.wait_until(family, || responses(family) == 5.0);
    }
    let sum = |name: &str| proxy.counted(name);
    // All but the first found the prompt in the cache, as the index expected.
    assert!(sum("epp_wasm_reported_cached_tokens_total") > 0);
    assert!(sum("epp_wasm_predicted_cached_tokens_total") > 0);
    let log = proxy.logged();
    assert!(log.contains("EndpointPickerConfig in force"), "{log}");
}

#[test]
fn an_explanation_is_returned_if_it_is_allowed_and_requested() {
    let sim = Sim::start(2, &Settings::default()).unwrap();
    sim.pod(0).pin(Pinned {
        waiting: Some(4),
        ..Pinned::default()
    });
    let allowed = start(&sim, &explained("queue-scorer"));
    let addresses: Vec<String> = sim.addresses().iter().map(ToString::to_string).collect();
    let text = format!(
        "{}=1.0000(queue-scorer:1.0000); {}=0.0000(queue-scorer:0.0000)",
        addresses[1], addresses[0]
    );
    allowed.wait_until("the scores are in the header", || {
        explain(allowed.port, "m", "x").header("x-epp-explain") == text
    });
    assert_eq!(complete(allowed.port, "m", "x").header("x-epp-explain"), "");
    let silent = start(&sim, &scorer("queue-scorer"));
    assert_eq!(explain(silent.port, "m", "x").header("x-epp-explain"), "");
}

//! The metrics page: vLLM's families, in a page as long as a real server's; and SGLang's `/v1/loads`.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::pod::PageValues;

/// Histograms of a real page, which no picker reads; they make the page 50 KB long.
const HISTOGRAMS: [&str; 20] = [
    "vllm:e2e_request_latency_seconds",
    "vllm:iteration_tokens_total",
    "vllm:kv_block_idle_before_evict_seconds",
    "vllm:kv_block_lifetime_seconds",
    "vllm:request_time_per_output_token_seconds",
    "vllm:inter_token_latency_seconds",
    "vllm:request_decode_time_seconds",
    "vllm:request_generation_tokens",
    "vllm:request_inference_time_seconds",
    "vllm:request_max_num_generation_tokens",
    "vllm:request_params_max_tokens",
    "vllm:request_params_n",
    "vllm:request_prefill_kv_computed_tokens",
    "vllm:request_prefill_time_seconds",
    "vllm:request_prompt_tokens",
    "vllm:request_queue_time_seconds",
    "vllm:time_to_first_token_seconds",
    "http_request_duration_highr_seconds",
    "http_request_duration_seconds",
    "http_response_size_bytes",
];

/// Buckets of each: a real page's histograms have 15 to 30.
const BUCKETS: [&str; 24] = [
    "0.001", "0.005", "0.01", "0.02", "0.04", "0.06", "0.08", "0.1", "0.25", "0.5", "0.75", "1.0",
    "2.5", "5.0", "7.5", "10.0", "20.0", "40.0", "80.0", "160.0", "640.0", "2560.0", "7680.0",
    "+Inf",
];

/// Returns the metrics page of a pod.
pub fn page(model: &str, shown: &PageValues) -> String {
    let mut page = String::with_capacity(64 << 10);
    let labels = format!("engine=\"0\",model_name=\"{model}\"");
    let received = shown.received as f64;
    gauge(
        &mut page,
        "vllm:num_requests_running",
        &labels,
        shown.running as f64,
    );
    gauge(
        &mut page,
        "vllm:num_requests_waiting",
        &labels,
        shown.waiting as f64,
    );
    gauge(
        &mut page,
        "vllm:kv_cache_usage_perc",
        &labels,
        shown.kv_usage,
    );
    for name in [
        "vllm:prefix_cache_queries",
        "vllm:prefix_cache_hits",
        "vllm:num_preemptions",
    ] {
        family(&mut page, &format!("{name}_total"), "counter");
        // Writing to a String cannot fail; here and below.
        let _ = writeln!(page, "{name}_total{{{labels}}} {received:?}");
    }
    let generated = shown.generated as f64;
    family(&mut page, "vllm:generation_tokens_total", "counter");
    let _ = writeln!(
        page,
        "vllm:generation_tokens_total{{{labels}}} {generated:?}"
    );
    let blocks = shown.cache_blocks;
    let cache = format!("block_size=\"16\",cache_dtype=\"auto\",enable_prefix_caching=\"True\",engine=\"0\",num_gpu_blocks=\"{blocks}\"");
    gauge(&mut page, "vllm:cache_config_info", &cache, 1.0);
    if shown.max_lora > 0 {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let lora = format!(
            "max_lora=\"{}\",running_lora_adapters=\"{}\",waiting_lora_adapters=\"{}\"",
            shown.max_lora,
            shown.active.join(","),
            shown.waiting_adapters.join(",")
        );
        gauge(
            &mut page,
            "vllm:lora_requests_info",
            &lora,
            since.as_secs_f64(),
        );
    }
    HISTOGRAMS
        .into_iter()
        .for_each(|name| histogram(&mut page, name, &labels, received));
    page
}

/// Returns what SGLang's `/v1/loads` says of a pod, with one rank.
pub fn loads(shown: &PageValues) -> String {
    serde_json::json!({
        "timestamp": "2026-06-01T10:30:00.123456+00:00",
        "version": "0.5.12",
        "accelerator": null,
        "num_accelerators": 1,
        "loads": [{
            "dp_rank": 0,
            "timestamp": 1_780_309_800.123,
            "num_running_reqs": shown.running,
            "num_waiting_reqs": shown.waiting,
            "num_used_tokens": 0,
            "num_total_tokens": 0,
            "max_total_num_tokens": shown.cache_blocks * 16,
            "token_usage": shown.kv_usage,
            "gen_throughput": 0.0,
            "cache_hit_rate": 0.0,
            "utilization": 0.0,
            "max_running_requests": 256,
        }],
    })
    .to_string()
}

fn histogram(page: &mut String, name: &str, labels: &str, value: f64) {
    family(page, name, "histogram");
    for bucket in BUCKETS {
        let _ = writeln!(page, "{name}_bucket{{{labels},le=\"{bucket}\"}} {value:?}");
    }
    let _ = writeln!(page, "{name}_count{{{labels}}} {value:?}");
    let _ = writeln!(page, "{name}_sum{{{labels}}} {value:?}");
}

fn family(page: &mut String, name: &str, kind: &str) {
    let _ = writeln!(
        page,
        "# HELP {name} As on a real server's page.\n# TYPE {name} {kind}"
    );
}

fn gauge(page: &mut String, name: &str, labels: &str, value: f64) {
    family(page, name, "gauge");
    let _ = writeln!(page, "{name}{{{labels}}} {value:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_the_state_and_is_as_long_as_a_real_one() {
        let shown = PageValues {
            waiting: 3,
            running: 2,
            kv_usage: 0.25,
            generated: 12,
            active: vec!["sql".to_owned()],
            max_lora: 4,
            ..PageValues::default()
        };
        let page = page("m", &shown);
        for line in [
            "vllm:num_requests_waiting{engine=\"0\",model_name=\"m\"} 3.0",
            "vllm:num_requests_running{engine=\"0\",model_name=\"m\"} 2.0",
            "vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"m\"} 0.25",
            "vllm:generation_tokens_total{engine=\"0\",model_name=\"m\"} 12.0",
        ] {
            assert!(page.lines().any(|own| own == line), "{line}");
        }
        assert!(page.contains("running_lora_adapters=\"sql\""));
        assert!((40_000..60_000).contains(&page.len()), "{}", page.len());
    }
}

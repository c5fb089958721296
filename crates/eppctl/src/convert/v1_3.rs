//! Parameters of the Gateway API Inference Extension v1.3, whose names match case-insensitively.

use epp_core::plugins::source::core_metrics_extractor::FORMER_NAME;
use serde_json::{json, Map, Value};

use super::kind;

/// Renames parameters to their current names; the extractor's specs become an engine's.
pub fn rename(plugin: &mut Value) {
    const LATER: [&str; 3] = ["engineConfigs", "defaultEngine", "engineLabelKey"];
    const OTHERS: [&str; 3] = ["scheme", "path", "insecureSkipVerify"];
    let is_extractor = kind(plugin) == FORMER_NAME;
    if !is_extractor && kind(plugin) != "metrics-data-source" {
        return;
    }
    // Missing specs default to vLLM's.
    let specs = [
        (
            "queueRequestsSpec",
            "queuedRequestsSpec",
            "vllm:num_requests_waiting",
        ),
        (
            "runningRequestsSpec",
            "runningRequestsSpec",
            "vllm:num_requests_running",
        ),
        ("kvUsageSpec", "kvUsageSpec", "vllm:kv_cache_usage_perc"),
        ("loraSpec", "loraSpec", "vllm:lora_requests_info"),
        ("cacheInfoSpec", "cacheInfoSpec", "vllm:cache_config_info"),
    ];
    let parameters = plugin.get_mut("parameters").and_then(Value::as_object_mut);
    let Some(parameters) = parameters else { return };
    let names = || specs.iter().map(|spec| spec.0).chain(LATER).chain(OTHERS);
    let renamed = std::mem::take(parameters).into_iter().map(|(key, value)| {
        let name = names().find(|name| name.eq_ignore_ascii_case(&key));
        (name.map_or(key, str::to_owned), value)
    });
    *parameters = renamed.collect();
    if !is_extractor {
        return;
    }
    let is_later = LATER.iter().any(|name| parameters.contains_key(*name));
    let mut engine = Map::new();
    engine.insert("name".to_owned(), json!("vllm"));
    let mut any = false;
    for (former, name, default) in specs {
        let given = parameters.shift_remove(former).filter(Value::is_string);
        any |= given.is_some();
        let spec = given.unwrap_or_else(|| json!(default));
        engine.insert(name.to_owned(), spec);
    }
    if any && !is_later {
        parameters.insert("engineConfigs".to_owned(), json!([engine]));
    }
}

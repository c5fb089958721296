//! The metric families of each inference engine.

use super::spec::MetricSpec;

/// The label of `vllm:cache_config_info` with the tokens per block. The Endpoint Picker assumes it by default.
const VLLM_BLOCK_SIZE: &str = "block_size";
/// The label of `vllm:cache_config_info` with the number of blocks. The Endpoint Picker assumes it by default.
const VLLM_NUM_BLOCKS: &str = "num_gpu_blocks";

/// vLLM's family with the KV-cache geometry in labels.
const VLLM_CACHE_INFO: &str = "vllm:cache_config_info";

/// SGLang, the engine that may serve `/v1/loads`.
pub const SGLANG: &str = "sglang";

/// The built-in engine without a gauge of running requests.
pub const TRITON: &str = "triton";

/// Returns whether a family is a counter by its name, in Prometheus' convention or in Triton's, which differs.
pub fn is_counter_name(family: &str) -> bool {
    family.ends_with("_total") || family == "nv_inference_exec_count"
}

/// Returns whether each engine's series of an info family has the number of blocks of all engines. vLLM's front end
/// adds them up before it writes a series for each engine; SGLang's ranks each write their own.
pub fn reports_all_parts(info: &str) -> bool {
    info == VLLM_CACHE_INFO
}

/// The metric families of one engine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EngineConfig {
    /// The value of the engine label.
    pub name: String,
    /// Waiting requests.
    pub queued: Option<MetricSpec>,
    /// Running requests.
    pub running: Option<MetricSpec>,
    /// KV-cache utilization, 0 to 1.
    pub kv_usage: Option<MetricSpec>,
    /// An earlier name of the KV-cache utilization, read if the page lacks the current one.
    pub old_kv_usage: Option<MetricSpec>,
    /// LoRA adapters.
    pub lora: Option<MetricSpec>,
    /// KV-cache geometry in labels: the family, and the names of the labels with the tokens per block and the number
    /// of blocks. Empty names mean vLLM's.
    pub cache_info: Option<(MetricSpec, String, String)>,
    /// Tokens per block as a value.
    pub block_size: Option<MetricSpec>,
    /// Number of blocks as a value.
    pub num_blocks: Option<MetricSpec>,
    /// Custom attributes: their names, and what they are read from.
    pub custom: Vec<(String, MetricSpec)>,
}

impl EngineConfig {
    /// Returns the counter of generated tokens, which shows with every page whether the engine works: vLLM's, which
    /// counts with each step. Others count a response when it ends, which may be a minute later.
    pub fn generated(&self) -> Option<MetricSpec> {
        let queued = self.queued.as_ref()?;
        let is_vllm = queued.name.starts_with("vllm:");
        is_vllm.then(|| MetricSpec::family("vllm:generation_tokens_total"))
    }

    /// Returns [`Self::cache_info`] with vLLM's label names in place of empty ones.
    pub fn cache_labels(&self) -> Option<(&MetricSpec, &str, &str)> {
        let (spec, block_size, num_blocks) = self.cache_info.as_ref()?;
        let block_size = non_empty(block_size).unwrap_or(VLLM_BLOCK_SIZE);
        let num_blocks = non_empty(num_blocks).unwrap_or(VLLM_NUM_BLOCKS);
        Some((spec, block_size, num_blocks))
    }
}

fn non_empty(name: &str) -> Option<&str> {
    Some(name).filter(|name| !name.is_empty())
}

fn spec(name: &str, labels: &[(&str, &str)]) -> Option<MetricSpec> {
    let labels = labels.iter();
    Some(MetricSpec {
        name: name.to_owned(),
        labels: labels
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
    })
}

fn info(name: &str, block_size: &str, num_blocks: &str) -> Option<(MetricSpec, String, String)> {
    let spec = MetricSpec::family(name);
    Some((spec, block_size.to_owned(), num_blocks.to_owned()))
}

/// Returns the engines that need no configuration (llm-d-router's table). vLLM's KV-cache family had another name
/// until 0.10, which the GIE v1 defaults still ask for; both are read.
pub fn built_in() -> Vec<EngineConfig> {
    let triton = |kind| spec("nv_trt_llm_request_metrics", &[("request_type", kind)]);
    let blocks = |kind| {
        let label = [("kv_cache_block_type", kind)];
        spec("nv_trt_llm_kv_cache_block_metrics", &label)
    };
    vec![
        EngineConfig {
            name: "vllm".to_owned(),
            queued: spec("vllm:num_requests_waiting", &[]),
            running: spec("vllm:num_requests_running", &[]),
            kv_usage: spec("vllm:kv_cache_usage_perc", &[]),
            old_kv_usage: spec("vllm:gpu_cache_usage_perc", &[]),
            lora: spec("vllm:lora_requests_info", &[]),
            cache_info: info(VLLM_CACHE_INFO, VLLM_BLOCK_SIZE, VLLM_NUM_BLOCKS),
            ..EngineConfig::default()
        },
        EngineConfig {
            name: SGLANG.to_owned(),
            queued: spec("sglang:num_queue_reqs", &[]),
            running: spec("sglang:num_running_reqs", &[]),
            kv_usage: spec("sglang:token_usage", &[]),
            cache_info: info("sglang:cache_config_info", "page_size", "num_pages"),
            ..EngineConfig::default()
        },
        EngineConfig {
            name: "trtllm-serve".to_owned(),
            queued: spec("trtllm_num_requests_waiting", &[]),
            running: spec("trtllm_num_requests_running", &[]),
            kv_usage: spec("trtllm_kv_cache_utilization", &[]),
            block_size: spec("trtllm_kv_cache_tokens_per_block", &[]),
            num_blocks: spec("trtllm_kv_cache_max_blocks", &[]),
            ..EngineConfig::default()
        },
        EngineConfig {
            name: "triton-tensorrt-llm".to_owned(),
            queued: triton("waiting"),
            running: triton("scheduled"),
            kv_usage: blocks("fraction"),
            block_size: blocks("tokens_per"),
            num_blocks: blocks("max"),
            ..EngineConfig::default()
        },
        // Triton on its own has no gauge of running requests. The Endpoint Picker reads `nv_inference_exec_count`,
        // which counts all requests that a server ever ran, so that the youngest server seems the idlest.
        EngineConfig {
            name: TRITON.to_owned(),
            queued: spec("nv_inference_pending_request_count", &[]),
            ..EngineConfig::default()
        },
    ]
}

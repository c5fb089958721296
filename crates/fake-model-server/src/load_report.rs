//! The header `endpoint-load-metrics`, as vLLM sets it on responses that are not streamed.

use crate::pod::{Pod, ReceivedRequest};
use crate::response::Api;

/// The header.
pub const NAME: &str = "endpoint-load-metrics";

/// Returns the header's value, if the request has asked for it in a format that vLLM knows, at one of its two paths.
pub fn value(pod: &Pod, request: &ReceivedRequest, api: Option<Api>) -> Option<String> {
    if !matches!(api, Some(Api::Chat | Api::Completions)) {
        return None;
    }
    let format = request.header("endpoint-load-metrics-format")?;
    let shown = pod.shown();
    // As Python writes floating-point numbers.
    let (usage, waiting) = (shown.kv_usage, shown.waiting as f64);
    match format.to_ascii_lowercase().as_str() {
        "text" => Some(format!(
            "TEXT named_metrics.kv_cache_usage_perc={usage:?}, named_metrics.num_requests_waiting={waiting:?}"
        )),
        "json" => Some(format!(
            "JSON {{\"named_metrics\": {{\"kv_cache_usage_perc\": {usage:?}, \"num_requests_waiting\": {waiting:?}}}}}"
        )),
        _ => None,
    }
}

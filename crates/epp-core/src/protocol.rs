//! Header names that picker, proxy, model servers and clients agree on.

/// Request headers that only a picker may set, beside the destination header, whose name is configurable.
/// A host removes a client's own: they would steer the request, or make the model server fetch from
/// any address that they name.
pub const OWNED_HEADERS: [&str; 7] = [
    "x-gateway-destination-endpoint-subset",
    "x-gateway-destination-endpoint-served",
    PREFILL_HEADER,
    ENCODE_HEADER,
    DATA_PARALLEL_HEADER,
    "x-kv-cache-source-host-port",
    DROPPED_REASON_HEADER,
];

/// Names the endpoints of a request, in the order in which they are to be tried, unless the document names another
/// header.
pub const DESTINATION_HEADER: &str = "x-gateway-destination-endpoint";

/// Names the endpoint that computes the prompt, for the primary target.
pub const PREFILL_HEADER: &str = "x-prefiller-host-port";

/// Names the endpoint itself where the request is sent to a port that leads to several.
pub const DATA_PARALLEL_HEADER: &str = "x-data-parallel-host-port";

/// Names the endpoints that encode media, separated by commas, for the primary target.
pub const ENCODE_HEADER: &str = "x-encoder-hosts-ports";

/// Request headers that name another model to ask for; of two the first counts. Obeyed with
/// `rewriteHeader: true` only: a client that passes a check of the body's model must not get another one by a
/// header.
pub const REWRITE_HEADERS: [&str; 2] =
    ["x-llm-d-model-name-rewrite", "x-gateway-model-name-rewrite"];

/// Request headers that name the objective of a request, and so its priority; of two the first counts.
pub const OBJECTIVE_HEADERS: [&str; 2] = [
    "x-llm-d-inference-objective",
    "x-gateway-inference-objective",
];

/// Request headers that name the flow of a request, among whose like it is treated fairly; of two the first counts.
pub const FAIRNESS_ID_HEADERS: [&str; 2] = [
    "x-llm-d-inference-fairness-id",
    "x-gateway-inference-fairness-id",
];

/// Request headers that say how soon the first token is due, in milliseconds; of two the first counts.
pub const SLO_TTFT_HEADERS: [&str; 2] = ["x-llm-d-slo-ttft-ms", "x-slo-ttft-ms"];

/// The request header that says how long a request may be queued, such as `1.5s`.
pub const TTL_HEADER: &str = "x-llm-d-inference-ttl";

/// The response header that says why a request was dropped (llm-d-router).
pub const DROPPED_REASON_HEADER: &str = "x-llm-d-request-dropped-reason";

/// The request header that asks a model server for its load, and names the format. A client's own is passed on.
pub const LOAD_FORMAT_HEADER: &str = "endpoint-load-metrics-format";

/// The response header with which a model server reports its load.
pub const LOAD_HEADER: &str = "endpoint-load-metrics";

/// Asks for an explanation in a request, and carries it in the response.
pub const EXPLAIN_HEADER: &str = "x-epp-explain";

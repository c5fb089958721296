//! Parameters that another dialect has in another place.

/// Parameters, and what has them in which dialect.
const MOVED: [(&[&str], &str); 4] = [
    (
        &["hashBlockSize"],
        "prefix-cache-scorer has it under inference.networking.x-k8s.io/v1alpha1, in bytes; under llm-d.ai \
         approx-prefix-cache-producer has blockSizeTokens",
    ),
    (
        &[
            "blockSize",
            "blockSizeTokens",
            "autoTune",
            "maxPrefixBlocksToMatch",
            "maxPrefixTokensToMatch",
            "lruCapacityPerServer",
        ],
        "prefix-cache-scorer has it under inference.networking.x-k8s.io/v1alpha1, approx-prefix-cache-producer \
         under llm-d.ai",
    ),
    (
        &["queueRequestsSpec"],
        "an entry of core-metrics-extractor's engineConfigs has it, as queuedRequestsSpec",
    ),
    (
        &[
            "queuedRequestsSpec",
            "runningRequestsSpec",
            "kvUsageSpec",
            "loraSpec",
            "cacheInfoSpec",
        ],
        "an entry of core-metrics-extractor's engineConfigs has it",
    ),
];

/// Returns what has a parameter of this name, if it is one that dialects have in different places.
pub fn place_of(name: &str) -> Option<&'static str> {
    let found = MOVED.iter().find(|(names, _)| names.contains(&name))?;
    Some(found.1)
}

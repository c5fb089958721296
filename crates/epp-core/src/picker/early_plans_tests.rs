//! Random plans, for the comparison of early decisions with late ones.

use std::collections::BTreeSet;

/// Scorers and filters beside the prefix scorer, of which a random profile has some.
const SCORERS: [&str; 13] = [
    "queue-scorer",
    "kv-cache-utilization-scorer",
    "lora-affinity-scorer",
    "active-request-scorer",
    "token-load-scorer",
    "load-aware-scorer",
    "endpoint-attribute-scorer",
    "latency-scorer",
    "no-hit-lru-scorer",
    "prefix-rendezvous-scorer",
    "mm-embeddings-cache-scorer",
    "session-affinity-scorer",
    "topology-affinity-scorer",
];
const FILTERS: [&str; 8] = [
    "label-selector-filter",
    "context-length-aware",
    "utilization-filter",
    "concurrency-detector",
    "decode-filter",
    "prefix-cache-affinity-filter",
    "session-affinity-filter",
    "topology-affinity-filter",
];

/// Those of them that read prefix matches, which the llm-d dialect alone lets them share.
const MATCHING: [&str; 3] = [
    "latency-scorer",
    "no-hit-lru-scorer",
    "prefix-cache-affinity-filter",
];

/// What the plans or the requests must have had in some decision before the body's end, or the test proves nothing of it.
pub const MUST_OCCUR: [&str; 17] = [
    "apiVersion: llm-d.ai",
    "prefix-rendezvous-scorer",
    "mm-embeddings-cache-scorer",
    "session-affinity-scorer",
    "session-affinity-filter",
    "topology-affinity-scorer",
    "topology-affinity-filter",
    "always-disagg-pd-decider",
    "prefix-based-pd-decider",
    "always-disagg-multimodal-decider",
    "type: disagg-profile-handler",
    "pd-profile-handler",
    "disagg-headers-handler",
    "header-profile-handler",
    "stageOrder: prefill-first",
    "strategy: session_id",
    "name: encode",
];

/// A random plan: a dialect, one profile, or one for each part of a request, each with some filters and scorers with
/// weights; a window, a picker.
pub fn configuration(rng: &mut fastrand::Rng, endpoints: u32) -> String {
    let gie_v1 = rng.bool();
    let version = match gie_v1 {
        true => "inference.networking.x-k8s.io/v1alpha1",
        false => "llm-d.ai/v1alpha1",
    };
    let known = SCORERS.into_iter().chain(FILTERS);
    let known: Vec<&str> = known
        .filter(|kind| !gie_v1 || !MATCHING.contains(kind))
        .collect();
    let (handler, names): (String, &[&str]) = match gie_v1 || rng.bool() {
        true => (String::new(), &["default"]),
        false => handler(rng),
    };
    let mut used = BTreeSet::new();
    let profiles: Vec<String> = names
        .iter()
        .map(|name| profile(rng, name, &known, &mut used))
        .collect();
    let declared = used.iter().map(|kind| {
        let parameters = parameters(rng, kind);
        format!("{{type: {kind}, parameters: {parameters}}}, ")
    });
    let declared: String = declared.collect();
    let estimates = rng.bool();
    let load = format!(
        "{{type: inflight-load-producer, parameters: {{addEstimatedOutputTokens: {estimates}}}}}, "
    );
    let load = ["", &load][rng.usize(0..2)];
    let prefix = prefix_plugins(rng, gie_v1);
    let (picks, ties) = (rng.u32(1..4), ["rotate", "draw"][rng.usize(0..2)]);
    format!(
        "apiVersion: {version}
kind: EndpointPickerConfig
plugins: [{prefix}, {{type: topology-extractor}}, {declared}{load}{handler}{{type: max-score-picker, parameters: {{maxNumOfEndpoints: {picks}, ties: {ties}}}}},
  {{type: core-metrics-extractor, parameters: {{engineConfigs: [{{name: mine, customMetrics: [{{attributeKey: heat, metricSpec: heat}}]}}]}}}},
  {{name: pods, type: static-discovery, parameters: {{endpoints: [{}]}}}},
  {{type: envoy-proxy, parameters: {{explain: true, decideAfterBytes: 100000000}}}}]
schedulingProfiles: [{}]
dataLayer: {{discovery: {{pluginRef: pods}}}}
",
        members(rng, endpoints),
        profiles.join(", ")
    )
}

/// A profile of some of these plugins.
fn profile(
    rng: &mut fastrand::Rng,
    name: &str,
    known: &[&'static str],
    used: &mut BTreeSet<&'static str>,
) -> String {
    // Most plugins in few profiles: with all of them, every request would wait for its end.
    let share = rng.u32(3..9);
    let chosen: Vec<&str> = known
        .iter()
        .copied()
        .filter(|_| rng.u32(0..share) == 0)
        .collect();
    used.extend(&chosen);
    let references = chosen.iter().map(|kind| {
        let weight = rng.u32(0..4);
        format!("{{pluginRef: {kind}, weight: {weight}}}, ")
    });
    let references: String = references.collect();
    let weight = rng.u32(0..5);
    format!("{{name: {name}, plugins: [{references}{{pluginRef: prefix-cache-scorer, weight: {weight}}}, {{pluginRef: max-score-picker}}]}}")
}

/// A handler of several profiles with what it refers to, and the profiles.
fn handler(rng: &mut fastrand::Rng) -> (String, &'static [&'static str]) {
    let (tokens, prompt) = (rng.u32(0..300), rng.u32(0..300));
    let by_cache = format!(
        "{{type: prefix-based-pd-decider, parameters: {{nonCachedTokens: {tokens}, promptTokens: {prompt}}}}}"
    );
    let (decider, name) = [
        (
            "{type: always-disagg-pd-decider}",
            "always-disagg-pd-decider",
        ),
        (by_cache.as_str(), "prefix-based-pd-decider"),
    ][rng.usize(0..2)];
    let media = "{type: always-disagg-multimodal-decider}";
    let disagg =
        |parameters: &str| format!("{{type: disagg-profile-handler, parameters: {parameters}}}");
    let encode = "encode: always-disagg-multimodal-decider";
    let (text, three) = match rng.u32(0..7) {
        0 => (disagg("{stageOrder: prefill-first}"), false),
        1 => {
            let handler = disagg(&format!(
                "{{stageOrder: prefill-first, deciders: {{{encode}}}}}"
            ));
            (format!("{media}, {handler}"), true)
        }
        2 => (
            format!(
                "{media}, {}",
                disagg(&format!("{{deciders: {{{encode}}}}}"))
            ),
            true,
        ),
        3 => {
            let handler = disagg(&format!("{{deciders: {{prefill: {name}, {encode}}}}}"));
            (format!("{decider}, {media}, {handler}"), true)
        }
        4 => {
            let headers = ["", "{type: disagg-headers-handler}, "][rng.usize(0..2)];
            (format!("{decider}, {headers}{{type: pd-profile-handler, parameters: {{deciderPluginName: {name}}}}}"), false)
        }
        5 => ("{type: header-profile-handler}".to_owned(), false),
        _ => (
            format!(
                "{decider}, {}",
                disagg(&format!("{{deciders: {{prefill: {name}}}}}"))
            ),
            false,
        ),
    };
    let names: &[&str] = match three {
        true => &["decode", "prefill", "encode"],
        false => &["decode", "prefill"],
    };
    (format!("{text}, "), names)
}

/// Parameters by which a plugin decides differently for some of the prompts here.
fn parameters(rng: &mut fastrand::Rng, kind: &str) -> String {
    match kind {
        "token-load-scorer" => {
            // Low enough that some prompts reach it, or out of reach.
            let threshold = [rng.u32(20..4_000), 4_194_304][rng.usize(0..2)];
            format!("{{queueThresholdTokens: {threshold}}}")
        }
        "prefix-rendezvous-scorer" => format!("{{anchorBlocks: {}}}", rng.u32(1..5)),
        "session-affinity-scorer" | "session-affinity-filter" => {
            let profile = ["", ", profileName: prefill"][rng.usize(0..2)];
            let strategy = ["encoded_endpoint_header", "session_id"][rng.usize(0..2)];
            format!("{{strategy: {strategy}{profile}}}")
        }
        "topology-affinity-filter" => {
            let least = ["host", "zone"][rng.usize(0..2)];
            format!("{{minAffinity: {least}}}")
        }
        "load-aware-scorer" => "{threshold: 3}".to_owned(),
        "endpoint-attribute-scorer" => {
            "{attributeKey: heat, algorithm: {type: linear_lower_is_better}}".to_owned()
        }
        "label-selector-filter" => "{matchLabels: {half: a}}".to_owned(),
        "context-length-aware" => format!("{{label: lengths, enableFiltering: {}}}", rng.bool()),
        "utilization-filter" => format!(
            "{{conditions: [{{metric: waiting-queue, maxValue: {}}}], fallbackOnEmpty: {}}}",
            rng.u32(0..4),
            rng.bool()
        ),
        "concurrency-detector" => {
            let mode = ["requests", "tokens", "hybrid"][rng.usize(0..3)];
            let open = rng.bool();
            format!("{{concurrencyMode: {mode}, maxConcurrency: 3, maxTokenConcurrency: 400, failOpen: {open}}}")
        }
        "prefix-cache-affinity-filter" => format!(
            "{{affinityThreshold: 0.{}, explorationProbability: 0.{}, maxTTFTPenaltyMs: {}, peakPrefillThroughput: 100}}",
            rng.u32(1..10),
            rng.u32(0..5),
            rng.u32(0..2) * rng.u32(0..3_000)
        ),
        _ => "{}".to_owned(),
    }
}

/// The endpoints as a list of static-discovery, each second one in the other half.
fn members(rng: &mut fastrand::Rng, endpoints: u32) -> String {
    let listed: Vec<String> = (0..endpoints)
        .map(|n| {
            let half = ["a", "b"][n as usize % 2];
            let role = ["decode", "prefill", "both"][rng.usize(0..3)];
            let lengths = ["0-100", "101-300", "0-300", "0-100000"][rng.usize(0..4)];
            format!(
                "{{name: p{n}, address: 10.0.0.{}, port: 80, labels: {{half: {half}, llm-d.ai/role: {role}, lengths: {lengths}, kubernetes.io/hostname: h{}, topology.kubernetes.io/zone: z{}}}}}",
                n + 1,
                rng.u32(0..3),
                rng.u32(0..2)
            )
        })
        .collect();
    listed.join(", ")
}

/// The values of the headers that a plan reads, in its order.
pub fn headers<'h>(
    rng: &mut fastrand::Rng,
    names: impl Iterator<Item = &'h str>,
) -> Vec<Option<&'static [u8]>> {
    let of = |name: &str| -> &'static [&'static str] {
        match name {
            "prefer" => &["if-available", "if-available", "respond-async"],
            "x-session-id" => &["a", "b", ""],
            // p0 to p2, and none.
            "x-session-token" => &["cDA=", "cDE=", "cDI=", "cDk="],
            "epp-profile" => &["decode", "prefill", "prefill"],
            _ => &[],
        }
    };
    let values = names.map(|name| {
        let known = of(name);
        let place = rng.usize(0..known.len() + 1);
        known.get(place).map(|value| value.as_bytes())
    });
    values.collect()
}

/// The plugins that match prefixes.
fn prefix_plugins(rng: &mut fastrand::Rng, gie_v1: bool) -> String {
    if gie_v1 {
        let (block, blocks) = (rng.u32(1..40), rng.u32(1..30));
        format!("{{type: prefix-cache-scorer, parameters: {{hashBlockSize: {block}, maxPrefixBlocksToMatch: {blocks}}}}}")
    } else {
        let tokens = [rng.u32(64..300), rng.u32(64..2_000)][rng.usize(0..2)];
        let weight = f64::from(rng.u32(0..5)) / 4.0;
        format!(
            "{{type: prefix-cache-scorer, parameters: {{matchLengthWeight: {weight}}}}}, \
             {{type: approx-prefix-cache-producer, parameters: {{autoTune: false, maxPrefixTokensToMatch: {tokens}}}}}"
        )
    }
}

//! Early decisions equal late ones, whatever the plan, the pool, the prompt and its chunks.

use std::collections::BTreeSet;

use super::testing::{begin, change, close, decision, exchange, show, NOW};
use super::*;
use crate::config;
use crate::request::TextBuffer;
use crate::scheduling::{AttributeId, Freshness, Lora, Metrics as EndpointMetrics, Scratch, Slot};

/// Scorers and filters beside the prefix scorer, of which a random profile has some.
const SCORERS: [&str; 9] = [
    "queue-scorer",
    "kv-cache-utilization-scorer",
    "lora-affinity-scorer",
    "active-request-scorer",
    "token-load-scorer",
    "load-aware-scorer",
    "endpoint-attribute-scorer",
    "latency-scorer",
    "no-hit-lru-scorer",
];
const FILTERS: [&str; 6] = [
    "label-selector-filter",
    "context-length-aware",
    "utilization-filter",
    "concurrency-detector",
    "decode-filter",
    "prefix-cache-affinity-filter",
];

/// Those of them that read prefix matches, which the llm-d dialect alone lets them share.
const MATCHING: [&str; 3] = [
    "latency-scorer",
    "no-hit-lru-scorer",
    "prefix-cache-affinity-filter",
];

/// A random plan: a dialect, one profile, or one for the prompt and one for the response, each with some filters and
/// scorers with weights; a window, a picker.
fn configuration(rng: &mut fastrand::Rng, endpoints: u32) -> String {
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
        false => (disaggregation(rng), &["decode", "prefill"]),
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
plugins: [{prefix}, {declared}{load}{handler}{{type: max-score-picker, parameters: {{maxNumOfEndpoints: {picks}, ties: {ties}}}}},
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
    let share = rng.u32(2..6);
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

/// A handler of two profiles, with what decides whether both run.
fn disaggregation(rng: &mut fastrand::Rng) -> String {
    let (tokens, prompt) = (rng.u32(0..300), rng.u32(0..300));
    let (decider, parameters) = [
        (String::new(), "{stageOrder: prefill-first}"),
        (
            "{type: always-disagg-pd-decider}, ".to_owned(),
            "{deciders: {prefill: always-disagg-pd-decider}}",
        ),
        (
            format!(
                "{{type: prefix-based-pd-decider, parameters: {{nonCachedTokens: {tokens}, promptTokens: {prompt}}}}}, "
            ),
            "{deciders: {prefill: prefix-based-pd-decider}}",
        ),
    ][rng.usize(0..3)]
    .clone();
    format!("{decider}{{type: disagg-profile-handler, parameters: {parameters}}}, ")
}

/// Parameters by which a plugin decides differently for some of the prompts here.
fn parameters(rng: &mut fastrand::Rng, kind: &str) -> String {
    match kind {
        "token-load-scorer" => {
            // Low enough that some prompts reach it, or out of reach.
            let threshold = [rng.u32(20..4_000), 4_194_304][rng.usize(0..2)];
            format!("{{queueThresholdTokens: {threshold}}}")
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
            format!("{{concurrencyMode: {mode}, maxConcurrency: 3, maxTokenConcurrency: 400}}")
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
                "{{name: p{n}, address: 10.0.0.{}, port: 80, labels: {{half: {half}, llm-d.ai/role: {role}, lengths: {lengths}}}}}",
                n + 1
            )
        })
        .collect();
    listed.join(", ")
}

/// The plugins that match prefixes.
fn prefix_plugins(rng: &mut fastrand::Rng, gie_v1: bool) -> String {
    if gie_v1 {
        let (block, blocks) = (rng.u32(1..40), rng.u32(1..30));
        format!("{{type: prefix-cache-scorer, parameters: {{hashBlockSize: {block}, maxPrefixBlocksToMatch: {blocks}}}}}")
    } else {
        let tokens = rng.u32(64..2_000);
        let weight = f64::from(rng.u32(0..5)) / 4.0;
        format!(
            "{{type: prefix-cache-scorer, parameters: {{matchLengthWeight: {weight}}}}}, \
             {{type: approx-prefix-cache-producer, parameters: {{autoTune: false, maxPrefixTokensToMatch: {tokens}}}}}"
        )
    }
}

fn metrics(rng: &mut fastrand::Rng) -> EndpointMetrics {
    let adapters = |rng: &mut fastrand::Rng| (0..rng.u32(0..3)).map(|n| format!("m{n}")).collect();
    EndpointMetrics {
        waiting: Some(f64::from(rng.u32(0..4))),
        running: Some(f64::from(rng.u32(0..4))),
        kv_usage: Some(f64::from(rng.u32(0..5)) / 4.0),
        lora: Lora {
            active: adapters(rng),
            waiting: adapters(rng),
            max: rng.u32(0..4),
        },
        attributes: match rng.bool() {
            true => vec![(AttributeId::of("heat"), f64::from(rng.u32(0..3)))],
            false => Vec::new(),
        },
        ..EndpointMetrics::default()
    }
}

/// A picker whose endpoints have random metrics.
fn picker(rng: &mut fastrand::Rng) -> Picker {
    let endpoints = rng.u32(1..6);
    let text = configuration(rng, endpoints);
    let plan = config::load(&text)
        .unwrap_or_else(|rejected| panic!("{text}\n{rejected:#?}"))
        .plan;
    let mut picker = Picker::new(plan.clone(), rng.u64(..));
    picker.install(plan);
    picker.tick(NOW);
    for slot in (0..endpoints).map(Slot) {
        let endpoint = picker.fixture().pool().get_mut(slot).unwrap();
        endpoint.metrics = metrics(rng);
        endpoint.freshness =
            [Freshness::Fresh, Freshness::Fresh, Freshness::Stale][rng.usize(0..3)];
        for _ in 0..rng.u32(0..4) {
            let tokens = u64::from(rng.u32(0..4)) * 64;
            picker
                .dispatcher
                .endpoints
                .begin_target(slot, false, tokens);
        }
    }
    picker
}

const WORDS: [&str; 6] = [
    "rain ",
    "in ",
    "Spain\\n",
    "\\u00e9t\\u00e9 ",
    "falls, ",
    "日本 ",
];

fn words(rng: &mut fastrand::Rng, most: usize) -> String {
    (0..rng.usize(0..most))
        .map(|_| WORDS[rng.usize(0..WORDS.len())])
        .collect()
}

/// A chat completion that begins as `head` does, its keys in random order.
fn body(rng: &mut fastrand::Rng, head: &str) -> String {
    let content = format!("{head}{}", words(rng, 200));
    let mut parts = vec![
        format!("\"messages\": [{{\"role\": \"user\", \"content\": \"{content}\"}}, {{\"content\": \"{}\", \"role\": \"user\"}}]", words(rng, 60)),
        format!("\"model\": \"m{}\"", rng.u32(0..3)),
        "\"temperature\": 0.5".to_owned(),
    ];
    if rng.u32(0..4) == 0 {
        parts.push(
            "\"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"f\"}}]".to_owned(),
        );
    }
    if rng.u32(0..4) == 0 {
        parts.push("\"cache_salt\": \"s\"".to_owned());
    }
    if rng.bool() {
        parts.push(format!("\"max_tokens\": {}", rng.u32(0..2_000)));
    }
    rng.shuffle(&mut parts);
    format!("{{{}}}", parts.join(", "))
}

/// A completion of some prompts, the first of which begins as `head` does.
fn list(rng: &mut fastrand::Rng, head: &str) -> String {
    let prompts = (0..rng.usize(1..5)).map(|number| {
        let head = if number == 0 { head } else { "" };
        format!("\"{head}{}\"", words(rng, 60))
    });
    let prompts = prompts.collect::<Vec<_>>().join(", ");
    let mut parts = [
        format!("\"prompt\": [{prompts}]"),
        format!("\"model\": \"m{}\"", rng.u32(0..3)),
        format!("\"max_tokens\": {}", rng.u32(0..2_000)),
    ];
    rng.shuffle(&mut parts);
    format!("{{{}}}", parts.join(", "))
}

const LIST: Head<'_> = Head {
    path: b"/v1/completions",
    ..HEAD
};

pub(super) const HEAD: Head<'_> = Head {
    path: b"/v1/chat/completions",
    method: b"POST",
    content_type: b"application/json",
    content_encoding: b"",
    upgrade: false,
    explain: true,
    content_length: Some(1), /* it fits: parts of it can be read again */
    rewrite: b"",
    model: b"",
    end: false,
    headers: &[],
};

/// The groups of equal sums that the picks are drawn from, best first.
fn choice(picker: &Picker, id: u32) -> Vec<BTreeSet<Slot>> {
    let explanation = exchange(picker, id).explanation.as_ref().unwrap();
    let mut groups: Vec<(f64, BTreeSet<Slot>)> = Vec::new();
    let mut ranked = explanation.ranking.clone();
    ranked.sort_by(|a, b| b.score.total_cmp(&a.score));
    for scored in ranked {
        match groups.last_mut() {
            Some((score, group)) if (*score - scored.score).abs() < 1e-12 => {
                group.insert(scored.slot);
            }
            _ => groups.push((scored.score, BTreeSet::from([scored.slot]))),
        }
    }
    let mut left = explanation.picks;
    let needed = groups.into_iter().take_while(|(_, group)| {
        let wanted = left > 0;
        left = left.saturating_sub(group.len());
        wanted
    });
    needed.map(|(_, group)| group).collect()
}

/// What becomes of a request.
#[derive(Debug, PartialEq)]
enum Outcome {
    /// The groups that the picks are drawn from, and who does parts of the request.
    Sent(Vec<BTreeSet<Slot>>, String),
    /// The local reply.
    Refused(String),
}

fn outcome(picker: &Picker, id: u32, effect: &Effect) -> Outcome {
    match effect {
        Effect::Reply { reply, .. } => Outcome::Refused(format!("{reply:?}")),
        _ => {
            let explanation = exchange(picker, id).explanation.as_ref().unwrap();
            let parts = format!("{:?}", explanation.parts);
            Outcome::Sent(choice(picker, id), parts)
        }
    }
}

/// Decides once everything was read.
fn whole(picker: &mut Picker, id: u32, head: &Head<'_>, body: &str) -> Outcome {
    assert!(begin(picker, id, head).is_none());
    change(picker, id, |_, exchange| {
        let reader = &mut exchange.reader;
        reader.push(body.as_bytes(), &mut TextBuffer::default());
        reader.finish();
    });
    reread(picker, id, body);
    change(picker, id, |dispatcher, exchange| {
        exchange.reader.stop();
        dispatcher.walk(exchange);
        dispatcher.decide(exchange);
    });
    let effect = decision(picker).unwrap();
    outcome(picker, id, &effect)
}

fn reread(picker: &mut Picker, id: u32, body: &str) {
    while let Some(range) = exchange(picker, id).reader.reread() {
        let bytes = &body.as_bytes()[range.start..range.end.min(body.len())];
        change(picker, id, |_, exchange| {
            let reader = &mut exchange.reader;
            reader.feed_again(range.start, bytes, &mut TextBuffer::default());
        });
    }
}

/// Feeds the body in random pieces, as the filter does, until it is released; how much was read.
fn early(
    picker: &mut Picker,
    id: u32,
    head: &Head<'_>,
    body: &str,
    rng: &mut fastrand::Rng,
) -> (Outcome, usize) {
    assert!(begin(picker, id, head).is_none());
    let mut read = 0;
    while read < body.len() {
        let size = rng.usize(1..200).min(body.len() - read);
        read += size;
        let shown = &body.as_bytes()[..read];
        if let Some(effect) = show(picker, id, shown, read == body.len()) {
            return (outcome(picker, id, &effect), read);
        }
    }
    panic!("never released: {body}");
}

#[test]
fn an_early_decision_is_the_decision_on_the_whole_body() {
    let (mut earlier, mut refused, mut decisions) = (0, 0, 0);
    for seed in 0..3_000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut picker = picker(&mut rng);
        let beginning = words(&mut rng, 100);
        let lists = seed % 4 == 3;
        let head = if lists { LIST } else { HEAD };
        let body = |rng: &mut fastrand::Rng| match lists {
            true => list(rng, &beginning),
            false => body(rng, &beginning),
        };
        // Some endpoints have seen prompts that begin alike.
        for id in 0..rng.u32(0..6) {
            let body = body(&mut rng);
            whole(&mut picker, id, &head, &body);
        }
        let body = body(&mut rng);
        // Neither run may teach the index for the other, nor add to a queue.
        picker.dispatcher.plan.settings.correct_queue = false;
        let indexes = std::mem::take(&mut picker.dispatcher.prefixes.indexes);
        picker.dispatcher.prefixes.indexes = indexes.clone();
        let states = picker.dispatcher.states.clone();
        // What is drawn falls alike, and whose turn it is.
        let scratch = || Scratch::new(fastrand::Rng::with_seed(seed));
        picker.dispatcher.scratch = scratch();
        let expected = whole(&mut picker, 100, &head, &body);
        close(&mut picker, 100);
        picker.dispatcher.prefixes.indexes = indexes;
        picker.dispatcher.states = states;
        picker.dispatcher.scratch = scratch();
        let (found, read) = early(&mut picker, 101, &head, &body, &mut rng);
        assert_eq!(
            found,
            expected,
            "seed {seed}, released after {read} of {} bytes: {body}",
            body.len()
        );
        refused += usize::from(matches!(found, Outcome::Refused(_)));
        earlier += usize::from(read < body.len());
        decisions += 1;
    }
    // The test would prove nothing if every request waited for its end.
    assert!(
        earlier > decisions / 10,
        "{earlier} of {decisions} were early"
    );
    assert!(
        refused < decisions / 2,
        "{refused} of {decisions} were refused"
    );
    println!("{earlier} of {decisions} decisions were taken before the body's end, {refused} were refusals");
}

use std::collections::BTreeSet;
use std::time::Duration;

use super::statistics::EVENTS_PER_TIMING;
use super::testing::{
    begin, change, close, decision, exchange, respond, respond_with_body, show, NOW,
};
use super::*;
use crate::config;
use crate::request::TextBuffer;
use crate::scheduling::ByRole;
use crate::scheduling::{Freshness, Lora, Metrics as EndpointMetrics, Slot};

/// A random plan: a dialect, some scorers with weights, a filter or none, a window, a picker, a prefill profile or none.
fn configuration(rng: &mut fastrand::Rng, endpoints: u32) -> String {
    let gie_v1 = rng.bool();
    let version = if gie_v1 {
        "inference.networking.x-k8s.io/v1alpha1"
    } else {
        "llm-d.ai/v1alpha1"
    };
    let prefix = prefix_plugins(rng, gie_v1);
    let others = [
        "queue-scorer",
        "kv-cache-utilization-scorer",
        "lora-affinity-scorer",
        "active-request-scorer",
        "token-load-scorer",
    ];
    let chosen: Vec<&str> = others.into_iter().filter(|_| rng.bool()).collect();
    let plugins: String = chosen
        .iter()
        .map(|kind| match *kind {
            "token-load-scorer" => {
                // Low enough that some prompts reach it, or out of reach.
                let threshold = [rng.u32(20..4_000), 4_194_304][rng.usize(0..2)];
                format!(", {{type: {kind}, parameters: {{queueThresholdTokens: {threshold}}}}}")
            }
            kind => format!(", {{type: {kind}}}"),
        })
        .collect();
    let estimates = rng.bool();
    let load = format!(
        ", {{type: inflight-load-producer, parameters: {{addEstimatedOutputTokens: {estimates}}}}}"
    );
    let plugins = plugins + ["", &load][rng.usize(0..2)];
    let references: String = chosen
        .iter()
        .map(|kind| format!(", {{pluginRef: {kind}, weight: {}}}", rng.u32(0..4)))
        .collect();
    let (filter, filters) = [
        (
            ", {type: label-selector-filter, parameters: {matchLabels: {half: a}}}",
            "{pluginRef: label-selector-filter}, ",
        ),
        ("", ""),
    ][rng.usize(0..2)];
    let weight = rng.u32(0..5);
    let picks = rng.u32(1..4);
    let (handler, prefill) = match !gie_v1 && rng.bool() {
        true => disaggregated(rng),
        false => Default::default(),
    };
    format!(
        "apiVersion: {version}
kind: EndpointPickerConfig
plugins: [{prefix}{plugins}{filter}{handler}, {{type: max-score-picker, parameters: {{maxNumOfEndpoints: {picks}}}}},
  {{name: pods, type: static-discovery, parameters: {{endpoints: [{}]}}}},
  {{type: envoy-proxy, parameters: {{explain: true, decideAfterBytes: 100000000}}}}]
schedulingProfiles: [{{name: default, plugins: [{filters}{{pluginRef: prefix-cache-scorer, weight: {weight}}}{references}, {{pluginRef: max-score-picker}}]}}{prefill}]
dataLayer: {{discovery: {{pluginRef: pods}}}}
",
        members(endpoints)
    )
}

/// A handler of a prefill profile with its decider, and the profile.
fn disaggregated(rng: &mut fastrand::Rng) -> (String, String) {
    let (missing, prompt) = (rng.u32(1..300), rng.u32(0..300));
    let handler = format!(
        ", {{type: prefix-based-pd-decider, parameters: {{nonCachedTokens: {missing}, promptTokens: {prompt}}}}}, \
         {{type: disagg-profile-handler, parameters: {{profiles: {{decode: default}}, \
         deciders: {{prefill: prefix-based-pd-decider}}}}}}"
    );
    let profile = ", {name: prefill, plugins: [{pluginRef: prefix-cache-scorer}, {pluginRef: max-score-picker}]}";
    (handler, profile.to_owned())
}

/// The endpoints as a list of static-discovery, each second one in the other half.
fn members(endpoints: u32) -> String {
    let listed: Vec<String> = (0..endpoints)
        .map(|n| {
            let half = ["a", "b"][n as usize % 2];
            format!(
                "{{name: p{n}, address: 10.0.0.{}, port: 80, labels: {{half: {half}}}}}",
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

const HEAD: Head<'_> = Head {
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

/// The groups of equal sums that the picks are drawn from, best first; then an empty one if another endpoint computes the
/// prompt, unless it depends on the draw which endpoint the decider compares with.
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
    let mut groups: Vec<BTreeSet<Slot>> = needed.map(|(_, group)| group).collect();
    let mut parts = explanation.parts.iter();
    let elsewhere = parts.any(|(_, stage, _)| stage.picked().is_some());
    if elsewhere && groups.first().is_some_and(|first| first.len() == 1) {
        groups.push(BTreeSet::new());
    }
    groups
}

/// Decides once everything was read.
fn whole(picker: &mut Picker, id: u32, head: &Head<'_>, body: &str) -> Vec<BTreeSet<Slot>> {
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
    assert!(decision(picker).is_some());
    choice(picker, id)
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
) -> (Vec<BTreeSet<Slot>>, usize) {
    assert!(begin(picker, id, head).is_none());
    let mut read = 0;
    while read < body.len() {
        let size = rng.usize(1..200).min(body.len() - read);
        read += size;
        let shown = &body.as_bytes()[..read];
        if show(picker, id, shown, read == body.len()).is_some() {
            return (choice(picker, id), read);
        }
    }
    panic!("never released: {body}");
}

#[test]
fn an_early_decision_is_the_decision_on_the_whole_body() {
    let (mut earlier, mut decisions) = (0, 0);
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
        let expected = whole(&mut picker, 100, &head, &body);
        close(&mut picker, 100);
        picker.dispatcher.prefixes.indexes = indexes;
        let (found, read) = early(&mut picker, 101, &head, &body, &mut rng);
        assert_eq!(
            found,
            expected,
            "seed {seed}, released after {read} of {} bytes: {body}",
            body.len()
        );
        earlier += usize::from(read < body.len());
        decisions += 1;
    }
    // The test would prove nothing if every request waited for its end.
    assert!(
        earlier > decisions / 10,
        "{earlier} of {decisions} were early"
    );
    println!("{earlier} of {decisions} decisions were taken before the body's end");
}

/// Discovery by the cluster, before any response and after one without members.
#[test]
fn members_not_yet_known_are_not_an_empty_pool() {
    let text = "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: queue-scorer}]
schedulingProfiles: [{name: default, plugins: [{pluginRef: queue-scorer}]}]
";
    let plan = config::load(text).unwrap().plan;
    let new = || {
        let mut picker = Picker::new(plan.clone(), 1);
        picker.install(plan.clone());
        picker
    };
    let asked = |picker: &mut Picker| {
        let head = Head {
            end: true,
            ..Head::default()
        };
        begin(picker, 1, &head).expect("nothing to wait for")
    };
    let decision = asked(&mut new());
    assert!(
        matches!(decision, Effect::Bypass { rewrite: None, .. }),
        "{decision:?}"
    );
    let mut poller = new();
    let now = poller.dispatcher.clock.now();
    poller
        .dispatcher
        .endpoints
        .monitor
        .on_members(Some(&[]), now);
    assert!(matches!(asked(&mut poller), Effect::Reply { .. }));
    // So is it where another picker polls.
    let mut other = new();
    other.peers().adopt_members(Vec::new());
    assert!(matches!(asked(&mut other), Effect::Reply { .. }));
}

#[test]
fn an_identical_plan_changes_nothing_and_another_fetches_the_members_at_once() {
    let plan = |path: &str| {
        let text = format!(
            "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{{type: queue-scorer}}, {{type: metrics-data-source, parameters: {{path: {path}}}}}]
schedulingProfiles: [{{name: default, plugins: [{{pluginRef: queue-scorer}}]}}]
"
        );
        config::load(&text).unwrap().plan
    };
    let mut picker = Picker::new(plan("/metrics"), 1);
    let asks = |picker: &mut Picker, milliseconds: u64| {
        picker.tick(NOW.after(Duration::from_millis(milliseconds)));
        let effects: Vec<Effect> = std::iter::from_fn(|| picker.poll_effect()).collect();
        let now = picker.dispatcher.clock.now();
        picker.dispatcher.endpoints.monitor.on_members(None, now);
        !effects.is_empty()
    };
    assert!(asks(&mut picker, 0));
    assert!(!asks(&mut picker, 50));
    picker.install(plan("/metrics"));
    assert!(!asks(&mut picker, 100));
    picker.install(plan("/other"));
    assert!(asks(&mut picker, 150));
}

/// Returns the requests in flight at each of two endpoints.
fn in_flight(picker: &Picker) -> [u32; 2] {
    [0, 1].map(|slot| picker.pool().load(Slot(slot)).requests)
}

#[test]
fn the_endpoint_that_computes_the_prompt_is_done_with_the_first_bytes_of_the_response() {
    let text = "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: queue-scorer}, {name: pods, type: static-discovery, parameters: {endpoints: [
  {name: p0, address: 10.0.0.1, port: 80}, {name: p1, address: 10.0.0.2, port: 80}]}}]
schedulingProfiles: [{name: default, plugins: [{pluginRef: queue-scorer}]}]
dataLayer: {discovery: {pluginRef: pods}}
";
    let plan = config::load(text).unwrap().plan;
    let mut picker = Picker::new(plan, 1);
    picker.tick(NOW);
    let head = Head {
        end: true,
        ..Head::default()
    };
    begin(&mut picker, 1, &head);
    close(&mut picker, 1);
    assert_eq!(in_flight(&picker), [0, 0]);
    let mut exchange = Box::<exchange::Exchange>::default();
    exchange.id = ExchangeId(1);
    picker.exchanges.insert(exchange);
    change(&mut picker, 1, |dispatcher, exchange| {
        let selection = decide::Selection {
            additions: Default::default(),
            endpoints: effect::Addresses::new(),
            slots: ByRole {
                primary: Slot(0),
                prefill: Some(Slot(1)),
                encode: Vec::new(),
            },
            port: None,
            stages: None,
            hit: None,
        };
        let effect = dispatcher.send(exchange, selection);
        dispatcher.effects.push_back(effect);
    });
    let Some(Effect::Forward { route, .. }) = decision(&mut picker) else {
        panic!("it is sent");
    };
    assert_eq!(
        route.headers,
        [("x-prefiller-host-port", "10.0.0.2:80".to_owned())]
    );
    assert_eq!(in_flight(&picker), [1, 1]);
    respond(&mut picker, 1);
    assert_eq!(in_flight(&picker), [1, 1]);
    respond_with_body(&mut picker, 1);
    assert_eq!(in_flight(&picker), [1, 0]);
    close(&mut picker, 1);
    assert_eq!(in_flight(&picker), [0, 0]);
}

#[test]
fn one_event_in_seventeen_is_timed_where_nothing_is_looked_up() {
    let text = "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: queue-scorer}, {name: pods, type: static-discovery, parameters: {endpoints: [
  {name: p0, address: 10.0.0.1, port: 80}]}}]
schedulingProfiles: [{name: default, plugins: [{pluginRef: queue-scorer}]}]
dataLayer: {discovery: {pluginRef: pods}}
";
    let mut picker = Picker::new(config::load(text).unwrap().plan, 1);
    picker.tick(NOW);
    let mut timed = 0;
    for id in 0..10 * EVENTS_PER_TIMING as u32 {
        timed += usize::from(picker.wants_timing());
        assert!(
            begin(&mut picker, id, &HEAD).is_some(),
            "nothing to wait for"
        );
        close(&mut picker, id);
    }
    assert_eq!(timed, 10);
}

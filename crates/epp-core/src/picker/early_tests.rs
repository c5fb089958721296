//! Early decisions equal late ones, whatever the plan, the pool, the prompt and its chunks.

#[path = "early_plans_tests.rs"]
mod plans;

use std::collections::{BTreeMap, BTreeSet};

use self::plans::{configuration, headers, MUST_OCCUR};

use super::testing::{begin, change, close, decision, exchange, show, NOW};
use super::*;
use crate::config;
use crate::request::TextBuffer;
use crate::scheduling::{
    AttributeId, Declined, Freshness, Lora, Metrics as EndpointMetrics, Scratch, Slot, Stage,
};

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

/// A picker whose endpoints have random metrics, and its document.
fn picker(rng: &mut fastrand::Rng) -> (Picker, String) {
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
    (picker, text)
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
    let content = format!("\"{head}{}\"", words(rng, 200));
    let content = match rng.u32(0..3) {
        0 => with_images(rng, &content),
        _ => content,
    };
    let mut parts = vec![
        format!("\"messages\": [{{\"role\": \"user\", \"content\": {content}}}, {{\"content\": \"{}\", \"role\": \"user\"}}]", words(rng, 60)),
        format!("\"model\": \"m{}\"", rng.u32(0..3)),
        "\"temperature\": 0.5".to_owned(),
    ];
    // The turns come after all that may precede them in the prompt: only then can they be cut off.
    let last = rng.bool();
    if last || rng.u32(0..4) == 0 {
        parts.push(
            "\"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"f\"}}]".to_owned(),
        );
    }
    if last || rng.u32(0..4) == 0 {
        parts.push("\"cache_salt\": \"s\"".to_owned());
    }
    if rng.bool() {
        parts.push(format!("\"max_tokens\": {}", rng.u32(0..2_000)));
    }
    let beside = if last { 1 } else { 0 };
    rng.shuffle(&mut parts[beside..]);
    parts.rotate_left(beside);
    format!("{{{}}}", parts.join(", "))
}

/// The content of a message with this text and some of a few images, in any order.
fn with_images(rng: &mut fastrand::Rng, text: &str) -> String {
    let mut parts = vec![format!("{{\"type\": \"text\", \"text\": {text}}}")];
    parts.extend((0..rng.u32(1..4)).map(|_| {
        let image = rng.u32(0..4);
        format!("{{\"type\": \"image_url\", \"image_url\": {{\"url\": \"http://a/{image}.png\"}}}}")
    }));
    rng.shuffle(&mut parts);
    format!("[{}]", parts.join(", "))
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
    asks_load: false,
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

/// Forgets how many tokens were counted when a part of a request was declined: those of a prompt that is too short for it
/// whatever follows are not all read.
fn forget_count(stage: &mut Stage) {
    let Stage::Declined(declined) = stage else {
        return;
    };
    match declined {
        Declined::Short { tokens: count, .. } | Declined::Cached { missing: count, .. } => {
            *count = 0.0;
        }
        _ => {}
    }
}

fn outcome(picker: &Picker, id: u32, effect: &Effect) -> Outcome {
    match effect {
        Effect::Reply { reply, .. } => Outcome::Refused(format!("{reply:?}")),
        _ => {
            let explanation = exchange(picker, id).explanation.as_ref().unwrap();
            let mut parts = explanation.parts.clone();
            parts
                .iter_mut()
                .for_each(|(_, stage, _)| forget_count(stage));
            let parts = format!("{parts:?}");
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

/// A decision that is the same before the body's end and there.
struct Compared {
    outcome: Outcome,
    /// Whether it was taken before.
    early: bool,
    document: String,
    body: String,
}

/// Decides on one random request in both ways.
fn compared(seed: u64) -> Compared {
    let mut rng = fastrand::Rng::with_seed(seed);
    let (mut picker, document) = picker(&mut rng);
    let beginning = words(&mut rng, 100);
    let lists = seed % 4 == 3;
    let names = picker.dispatcher.plan.headers.clone();
    let values = |rng: &mut fastrand::Rng| headers(rng, names.iter().map(|name| &**name));
    let body = |rng: &mut fastrand::Rng| match lists {
        true => list(rng, &beginning),
        false => body(rng, &beginning),
    };
    let kind = if lists { LIST } else { HEAD };
    // Some endpoints have seen prompts that begin alike.
    for id in 0..rng.u32(0..6) {
        let (headers, body) = (values(&mut rng), body(&mut rng));
        let headers = &headers;
        whole(&mut picker, id, &Head { headers, ..kind }, &body);
    }
    let (headers, body) = (values(&mut rng), body(&mut rng));
    let head = Head {
        headers: &headers,
        ..kind
    };
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
    let (outcome, read) = early(&mut picker, 101, &head, &body, &mut rng);
    assert_eq!(
        outcome,
        expected,
        "seed {seed}, released after {read} of {} bytes: {body}\n{document}",
        body.len()
    );
    let early = read < body.len();
    Compared {
        outcome,
        early,
        document,
        body,
    }
}

#[test]
fn an_early_decision_is_the_decision_on_the_whole_body() {
    let (mut earlier, mut refused, mut decisions) = (0, 0, 0);
    let mut occurred: BTreeMap<&str, u32> = BTreeMap::new();
    for seed in 0..3_000 {
        let case = compared(seed);
        let said = format!("{:?}", case.outcome);
        let found = MUST_OCCUR
            .into_iter()
            .map(|kind| (kind, case.document.contains(kind)));
        let found = found.chain([
            ("media", case.body.contains("image_url")),
            (
                "media encoded elsewhere",
                said.contains("(\\\"encode\\\", Picked"),
            ),
            (
                "prompt computed elsewhere",
                said.contains("(\\\"prefill\\\", Picked"),
            ),
            ("not cached", said.contains("status: 412")),
        ]);
        for (kind, _) in found.filter(|(_, found)| *found && case.early) {
            *occurred.entry(kind).or_default() += 1;
        }
        refused += usize::from(matches!(case.outcome, Outcome::Refused(_)));
        earlier += usize::from(case.early);
        decisions += 1;
    }
    println!("{earlier} of {decisions} decisions were taken before the body's end, {refused} were refusals; with {occurred:?}");
    // The test would prove nothing if every request waited for its end.
    assert!(
        earlier > decisions / 10,
        "{earlier} of {decisions} were early"
    );
    assert!(
        refused < decisions / 2,
        "{refused} of {decisions} were refused"
    );
    // What occurs in few of them proves little.
    let enough = occurred.values().filter(|count| **count >= 5).count();
    assert_eq!(enough, MUST_OCCUR.len() + 4, "{occurred:?}");
}

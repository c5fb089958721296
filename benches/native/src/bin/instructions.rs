//! `instructions CASE N`: sends N whole requests of a case through the picker.
//!
//! `scripts/instructions` runs it under callgrind with two values of N. The difference of the counts over
//! the difference of N is the cost of one request, without start and setup. Instruction counts are
//! repeatable, unlike times: they reveal a slowdown of a few percent.

use std::process::ExitCode;

use epp_core::body::SliceBody;
use epp_core::config;
use epp_core::picker::{Effect, ExchangeId, Fetched, Head, Picker};
use epp_core::time::Timestamp;
use properties::collisions;

type BoxError = Box<dyn std::error::Error>;

/// The cases: name, number of endpoints, requests.
const CASES: [(&str, usize, Requests); 11] = [
    ("short-10", 10, Requests::Same(4 << 10)),
    ("short-100", 100, Requests::Same(4 << 10)),
    ("short-1000", 1_000, Requests::Same(4 << 10)),
    ("watched-100", 100, Requests::Watched),
    ("gated-100", 100, Requests::Gated),
    ("gated-1000", 1_000, Requests::Gated),
    ("rendezvous-1000", 1_000, Requests::Rendezvous),
    ("long-100", 100, Requests::Same(220 << 10)),
    ("cold-100", 100, Requests::New(64 << 10)),
    ("list-random", 1, Requests::List(random)),
    ("list-crafted", 1, Requests::List(colliding)),
];

/// The requests of a case.
#[derive(Clone, Copy)]
enum Requests {
    /// Prompts of this many bytes, which repeat.
    Same(usize),
    /// Prompts of 4 KiB, which repeat, while the status page is open: each decision is recorded for it.
    Watched,
    /// Prompts of 4 KiB, which repeat, under flow control in a pool that is not full.
    Gated,
    /// Prompts of 4 KiB, which repeat, with a scorer by which several gateways agree.
    Rendezvous,
    /// Prompts of this many bytes that were not sent before.
    New(usize),
    /// Lists of short prompts, more than the index holds for an endpoint: each is evicted before it is sent
    /// again. The function returns this many prompts.
    List(fn(usize) -> Vec<String>),
}

/// The position of eight digits at the beginning of a prompt, which make it a new one.
const DIGITS: std::ops::Range<usize> = 39..47;

/// The time of all requests.
const NOW: Timestamp = Timestamp::from_nanos(1_000_000_000_000);

/// Prompts in rotation.
const PROMPTS: usize = 16;

/// Decisions that are recorded from one report for the status page to the next.
const DECISIONS_PER_REPORT: usize = 50;

/// Prompts of a list: as many as the blocks that a request may have.
const PROMPTS_PER_LIST: usize = 2_048;

/// A configuration in which the prompts of a list count, and a block need not be full.
const LISTS: &str = "
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: prefix-cache-scorer
- type: approx-prefix-cache-producer
  parameters: {autoTune: false}
schedulingProfiles:
- name: default
  plugins:
  - {pluginRef: prefix-cache-scorer}
";

/// Flow control, before the other plugins of a document.
const GATE: &str = include_str!("../../../gate.yaml");

const PAGE: &str = include_str!("../../../../tests/fixtures/vllm-0.32/metrics_busy.txt");

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (case, count) = (arguments.next(), arguments.next());
    match run(case.as_deref(), count.as_deref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let names: Vec<&str> = CASES.iter().map(|(name, ..)| *name).collect();
            eprintln!("{error}\nusage: instructions {} N", names.join("|"));
            ExitCode::FAILURE
        }
    }
}

fn run(case: Option<&str>, count: Option<&str>) -> Result<(), BoxError> {
    let known = CASES.iter().find(|(name, ..)| Some(*name) == case);
    let (_, endpoints, requests) = known.ok_or("no such case")?;
    let count: usize = count.unwrap_or_default().parse()?;
    let document = match requests {
        Requests::List(_) => LISTS.to_owned(),
        _ => std::fs::read_to_string("examples/full.yaml")?,
    };
    let document = match requests {
        Requests::Gated => document.replacen("\nplugins:", GATE, 1),
        Requests::Rendezvous => document
            .replacen(
                "\nplugins:",
                "\nplugins:\n- type: prefix-rendezvous-scorer",
                1,
            )
            .replacen(
                "\n  plugins:",
                "\n  plugins:\n  - pluginRef: prefix-rendezvous-scorer",
                1,
            ),
        _ => document,
    };
    let mut picker = picker(&document, *endpoints)?;
    let mut bodies: Vec<Vec<u8>> = match requests {
        Requests::Same(bytes) | Requests::New(bytes) => {
            (0..PROMPTS).map(|prompt| body(*bytes, prompt)).collect()
        }
        Requests::Gated | Requests::Rendezvous | Requests::Watched => {
            (0..PROMPTS).map(|prompt| body(4 << 10, prompt)).collect()
        }
        Requests::List(texts) => lists(&texts(PROMPTS * PROMPTS_PER_LIST)),
    };
    let path: &str = match requests {
        Requests::List(_) => "/v1/completions",
        _ => "/v1/chat/completions",
    };
    // Each prompt once before the N requests: the index then has them all, and buffers have grown.
    for number in 0..PROMPTS + count {
        let body = bodies.get_mut(number % PROMPTS).ok_or("no body")?;
        if matches!(requests, Requests::Watched) && number % DECISIONS_PER_REPORT == 0 {
            picker.peers().status();
        }
        if let Requests::New(_) = requests {
            let digits = body.get_mut(DIGITS).ok_or("too short")?;
            digits.copy_from_slice(format!("{number:08}").as_bytes());
        }
        request(&mut picker, path, body)?;
    }
    Ok(())
}

/// Creates a picker with fresh metrics of all endpoints.
fn picker(document: &str, endpoints: usize) -> Result<Picker, BoxError> {
    let listed: Vec<String> = (0..endpoints)
        .map(|n| {
            format!(
                "{{name: p{n}, address: 10.0.{}.{}, port: 80}}",
                n / 250,
                n % 250
            )
        })
        .collect();
    let document = document.replacen(
        "\nschedulingProfiles:",
        &format!(
            "\n- {{name: pods, type: static-discovery, parameters: {{endpoints: [{}]}}}}\n\
             dataLayer: {{discovery: {{pluginRef: pods}}}}\nschedulingProfiles:",
            listed.join(", ")
        ),
        1,
    );
    let rejected = |rejected: config::Rejected| format!("{rejected:?}");
    let plan = config::load(&document).map_err(rejected)?.plan;
    let mut picker = Picker::new(plan.clone(), 1);
    picker.install(plan);
    // The endpoints, then their pages, which are requested over a whole interval.
    for _ in 0..2_000 {
        picker.tick(NOW);
        while let Some(effect) = picker.poll_effect() {
            if let Effect::Fetch { id, .. } = effect {
                let mut page = SliceBody::whole(PAGE.as_bytes());
                picker.fetched(NOW, id, Ok(Fetched::Page(&mut page)));
            }
        }
    }
    Ok(picker)
}

/// Sends one request. Its body is shown as Envoy does it: with each read of 16 KiB, from the beginning on.
fn request(picker: &mut Picker, path: &str, body: &[u8]) -> Result<(), BoxError> {
    const ID: ExchangeId = ExchangeId(1);
    const READ: usize = 16 << 10;
    let head = Head::post_json(path, Some(body.len()));
    picker.request_headers(NOW, ID, &head);
    let mut decided = is_decided(picker);
    let mut shown = 0;
    while shown < body.len() {
        shown = body.len().min(shown + READ);
        let mut view = match body.get(..shown) {
            Some(part) if shown < body.len() => SliceBody::beginning(part),
            _ => SliceBody::whole(body),
        };
        picker.request_body(NOW, ID, &mut view);
        decided |= is_decided(picker);
    }
    picker.response_headers(NOW, ID, None);
    picker.closed(NOW, ID);
    decided
        .then_some(())
        .ok_or_else(|| "a request was never decided".into())
}

/// Takes the effects without carrying them out. Returns whether the request was decided.
fn is_decided(picker: &mut Picker) -> bool {
    let mut decided = false;
    while let Some(effect) = picker.poll_effect() {
        decided |= effect.is_decision();
    }
    decided
}

/// Returns random texts of eight characters.
fn random(count: usize) -> Vec<String> {
    let mut rng = fastrand::Rng::with_seed(1);
    let text = |_| (0..8).map(|_| rng.alphanumeric()).collect();
    (0..count).map(text).collect()
}

/// Returns texts of eight characters that collide in an index whose hashes are not keyed.
fn colliding(count: usize) -> Vec<String> {
    collisions::strings("bench", collisions::BITS, count)
}

/// Returns completions with this many of the prompts each.
fn lists(texts: &[String]) -> Vec<Vec<u8>> {
    let lists = texts.chunks(PROMPTS_PER_LIST).map(|texts| {
        let list = texts.join("\",\"");
        format!(r#"{{"model":"bench","prompt":["{list}"]}}"#).into_bytes()
    });
    lists.collect()
}

/// Returns a chat completion with the messages before the model, as OpenAI's package sends it.
fn body(bytes: usize, prompt: usize) -> Vec<u8> {
    let text = format!("prompt {prompt} says it again\\n").repeat(bytes / 26);
    let messages = format!(r#"[{{"role":"user","content":"{:08} {text}"}}]"#, 0);
    format!(r#"{{"messages":{messages},"model":"bench","max_tokens":8}}"#).into_bytes()
}

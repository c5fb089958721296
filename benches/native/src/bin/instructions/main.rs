//! `instructions CASE N`: N whole requests of that case through the picker.
//!
//! `scripts/instructions` runs it under callgrind with two numbers; the difference over the
//! difference is what one request takes, start and setup left out. Instructions are repeatable
//! where seconds are not: that is what guards against getting slower unnoticed.

mod crafted;

use std::process::ExitCode;

use epp_core::body::SliceBody;
use epp_core::config;
use epp_core::picker::{Effect, ExchangeId, Head, Picker};
use epp_core::time::Timestamp;

type Trouble = Box<dyn std::error::Error>;

/// The cases: name, endpoints, and what is asked for.
const CASES: [(&str, usize, Asked); 7] = [
    ("short-10", 10, Asked::Same(4 << 10)),
    ("short-100", 100, Asked::Same(4 << 10)),
    ("short-1000", 1_000, Asked::Same(4 << 10)),
    ("long-100", 100, Asked::Same(220 << 10)),
    ("cold-100", 100, Asked::New(64 << 10)),
    ("list-random", 1, Asked::List(crafted::random)),
    ("list-crafted", 1, Asked::List(crafted::colliding)),
];

/// What the requests of a case ask for.
#[derive(Clone, Copy)]
enum Asked {
    /// Prompts of so many bytes that repeat.
    Same(usize),
    /// Prompts of so many bytes that were not sent before.
    New(usize),
    /// Lists of so many short prompts, of which an endpoint's memory does not hold as many as there are:
    /// they are dropped in the order in which they come again.
    List(fn(usize) -> Vec<[u8; 8]>),
}

/// Where a prompt begins with eight digits, which make a new one of it.
const DIGITS: std::ops::Range<usize> = 39..47;

/// The time of all requests.
const NOW: Timestamp = Timestamp::from_nanos(1_000_000_000_000);

/// Prompts in rotation.
const PROMPTS: usize = 16;

/// Prompts of one list: as many blocks as count of a request.
const LISTED: usize = 2_048;

/// Under these rules a list's prompts count, and a block need not be full.
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

const PAGE: &str = include_str!("../../../../../tests/fixtures/vllm-0.32/metrics_busy.txt");

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (case, count) = (arguments.next(), arguments.next());
    match run(case.as_deref(), count.as_deref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            let names: Vec<&str> = CASES.iter().map(|(name, ..)| *name).collect();
            eprintln!("{trouble}\nusage: instructions {} N", names.join("|"));
            ExitCode::FAILURE
        }
    }
}

fn run(case: Option<&str>, count: Option<&str>) -> Result<(), Trouble> {
    let known = CASES.iter().find(|(name, ..)| Some(*name) == case);
    let (_, endpoints, asked) = known.ok_or("no such case")?;
    let count: usize = count.unwrap_or_default().parse()?;
    let document = match asked {
        Asked::List(_) => LISTS.to_owned(),
        _ => std::fs::read_to_string("examples/full.yaml")?,
    };
    let mut picker = picker(&document, *endpoints)?;
    let mut bodies: Vec<Vec<u8>> = match asked {
        Asked::Same(bytes) | Asked::New(bytes) => {
            (0..PROMPTS).map(|prompt| body(*bytes, prompt)).collect()
        }
        Asked::List(texts) => lists(&texts(PROMPTS * LISTED)),
    };
    let path: &[u8] = match asked {
        Asked::List(_) => b"/v1/completions",
        _ => b"/v1/chat/completions",
    };
    // Each prompt once before it counts: the index holds them all, buffers are grown.
    for number in 0..PROMPTS + count {
        let body = bodies.get_mut(number % PROMPTS).ok_or("no body")?;
        if let Asked::New(_) = asked {
            let digits = body.get_mut(DIGITS).ok_or("too short")?;
            digits.copy_from_slice(format!("{number:08}").as_bytes());
        }
        request(&mut picker, path, body)?;
    }
    Ok(())
}

/// A picker with fresh metrics of all endpoints.
fn picker(document: &str, endpoints: usize) -> Result<Picker, Trouble> {
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
    // The endpoints, then their pages: asked for over a whole interval.
    for _ in 0..2_000 {
        picker.tick(NOW);
        while let Some(effect) = picker.poll_effect() {
            if let Effect::Fetch { id, .. } = effect {
                picker.fetched(NOW, id, Ok(&mut SliceBody::whole(PAGE.as_bytes())));
            }
        }
    }
    Ok(picker)
}

/// One request, shown as Envoy shows it: more of the whole body with each read of 16 KiB.
fn request(picker: &mut Picker, path: &[u8], body: &[u8]) -> Result<(), Trouble> {
    const ID: ExchangeId = ExchangeId(1);
    const READ: usize = 16 << 10;
    let head = Head {
        path,
        method: b"POST",
        content_type: b"application/json",
        content_length: Some(body.len()),
        ..Head::default()
    };
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

/// Carries out nothing. Returns whether the request was decided.
fn is_decided(picker: &mut Picker) -> bool {
    let mut decided = false;
    while let Some(effect) = picker.poll_effect() {
        decided |= effect.is_decision();
    }
    decided
}

/// Completions with so many of these prompts each. Their bytes stand as they are: a client need not send
/// UTF-8.
fn lists(texts: &[[u8; 8]]) -> Vec<Vec<u8>> {
    let lists = texts.chunks(LISTED).map(|texts| {
        let mut body = br#"{"model":"bench","prompt":["#.to_vec();
        for (number, text) in texts.iter().enumerate() {
            body.extend_from_slice(if number == 0 { b"\"" } else { b",\"" });
            body.extend_from_slice(text);
            body.push(b'"');
        }
        body.extend_from_slice(b"]}");
        body
    });
    lists.collect()
}

/// A chat completion with the messages before the model, as OpenAI's package sends it.
fn body(bytes: usize, prompt: usize) -> Vec<u8> {
    let text = format!("prompt {prompt} says it again\\n").repeat(bytes / 26);
    let messages = format!(r#"[{{"role":"user","content":"{:08} {text}"}}]"#, 0);
    format!(r#"{{"messages":{messages},"model":"bench","max_tokens":8}}"#).into_bytes()
}

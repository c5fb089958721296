//! Measures the bytes per second of the body reader: without hashing, with hashing of the whole prompt, and
//! with hashing of GIE v1's prompt window; and of serde_json on the same bodies.

mod timing;

use std::borrow::Cow;

use criterion::Throughput;
use epp_core::prefix::digest::BlockSpec;
use epp_core::prefix::key::{Key, Secret};
use epp_core::request::{Api, BodyReader, Flattening, ReadPlan, TextBuffer};
use native_benches::{chat, Order, SIZES};
use serde::Deserialize;
use serde_json::Value;
use timing::{criterion, measure};

/// The parts of a chat that the reader reads, borrowed if nothing is escaped.
#[derive(Deserialize)]
struct Chat<'a> {
    #[serde(borrow)]
    model: Cow<'a, str>,
    #[serde(borrow)]
    messages: Vec<Message<'a>>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    role: Cow<'a, str>,
    #[serde(borrow)]
    content: Cow<'a, str>,
}

/// Bytes of a part of a body, about as Envoy delivers them.
const PART: usize = 16 << 10;

fn read(reader: &mut BodyReader, plan: &ReadPlan, body: &str) -> bool {
    reader.reset(Api::ChatCompletions, plan.clone());
    body.as_bytes()
        .chunks(PART)
        .for_each(|part| reader.push(part, &mut TextBuffer::default()));
    reader.finish();
    reader.stream()
}

fn plan(flattening: Flattening, block_bytes: usize, blocks: &[Option<usize>]) -> ReadPlan {
    let spec = |max_blocks: &Option<usize>| BlockSpec {
        block_bytes,
        max_blocks: *max_blocks,
        keep_partial: flattening == Flattening::LlmD,
    };
    ReadPlan {
        flattening,
        blocks: blocks.iter().map(spec).collect(),
        // As in service.
        key: Key::Secret(Secret::from(1)),
        ..ReadPlan::default()
    }
}

fn main() {
    let mut criterion = criterion();
    // llm-d's rules wait for a salt, so that these two read to the end.
    let alone = plan(Flattening::LlmD, 0, &[]);
    let hashed = plan(Flattening::LlmD, 256, &[None]);
    let window = plan(Flattening::GieV1, 64, &[Some(256)]);
    for (order_name, order) in Order::ALL {
        for size in SIZES {
            let body = chat(size << 10, order);
            let mut reader = BodyReader::default();
            let mut group = criterion.benchmark_group(format!("{size} KB, {order_name}"));
            group.throughput(Throughput::Bytes(body.len() as u64));
            for (name, plan) in [
                ("scanner", &alone),
                ("scanner and hashes", &hashed),
                ("GIE v1's window", &window),
            ] {
                measure(&mut group, name, || read(&mut reader, plan, &body));
            }
            measure(&mut group, "serde_json, Value", || {
                serde_json::from_str::<Value>(&body).is_ok()
            });
            measure(&mut group, "serde_json, borrowed", || {
                let chat: Option<Chat<'_>> = serde_json::from_str(&body).ok();
                chat.map(|chat| {
                    let texts = chat.messages.iter();
                    let texts = texts.map(|text| text.role.len() + text.content.len());
                    texts.sum::<usize>() + chat.model.len()
                })
            });
            group.finish();
        }
    }
    criterion.final_summary();
}

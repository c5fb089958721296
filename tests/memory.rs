//! The memory of a body's reader is bounded for any body: counted at the allocator.

use epp_core::prefix::digest::BlockSpec;
use epp_core::request::{Api, BodyReader, Flattening, ReadPlan, TextBuffer};

#[allow(dead_code)]
#[path = "memory/bodies.rs"]
mod bodies;
#[path = "memory/counting.rs"]
mod counting;

/// The plan of a generation's defaults.
fn plan(flattening: Flattening, most: usize) -> ReadPlan {
    let block_bytes = if flattening == Flattening::GieV1 {
        64
    } else {
        256
    };
    let spec = BlockSpec {
        block_bytes,
        max_blocks: Some(most).filter(|most| *most > 0),
        keep_partial: flattening == Flattening::LlmD,
    };
    ReadPlan {
        flattening,
        blocks: vec![spec],
        ..ReadPlan::default()
    }
}

/// Returns a text buffer that has allocated its memory, as in a worker that has read a body before.
fn text_buffer() -> TextBuffer {
    let (mut reader, mut buffer) = (BodyReader::default(), TextBuffer::default());
    reader.reset(Api::Completions, plan(Flattening::LlmD, 1));
    reader.push(br#"{"prompt":""#, &mut buffer);
    buffer
}

/// Returns the maximum memory in use while a body of this many MB is read, and the memory that the reader keeps for other
/// bodies.
fn cost(api: Api, plan: ReadPlan, head: &str, rest: &str, megabytes: usize) -> (usize, usize) {
    let chunk = rest.repeat((64 << 10) / rest.len());
    let mut buffer = text_buffer();
    let before = counting::used();
    let (most, mut reader) = counting::most(|| {
        let mut reader = BodyReader::default();
        reader.reset(api, plan);
        reader.push(head.as_bytes(), &mut buffer);
        (0..16 * megabytes).for_each(|_| reader.push(chunk.as_bytes(), &mut buffer));
        reader.finish();
        reader
    });
    reader.reset(Api::PassThrough, ReadPlan::default());
    (most, counting::used() - before)
}

/// The memory that a reader counts for the VM's budget equals what it has allocated.
fn no_buffer_is_forgotten() {
    let mut buffer = text_buffer();
    for body in bodies::hostile() {
        let bytes = body.bytes();
        let before = counting::used();
        let mut reader = BodyReader::default();
        let plan = plan(Flattening::LlmD, 2_048);
        let cuts = plan.blocks.capacity() * size_of::<BlockSpec>();
        reader.reset(Api::of_path(body.path.as_bytes()), plan);
        for part in bytes.chunks(16 << 10) {
            reader.push(part, &mut buffer);
            let given = counting::used() - before;
            assert!(
                given.abs_diff(reader.allocated()) <= cuts,
                "{}: {given} given, {} counted",
                body.name,
                reader.allocated()
            );
        }
    }
}

// A table of hostile bodies, long as it is.
#[allow(clippy::too_many_lines)]
#[test]
fn no_body_makes_the_reader_grow() {
    // In this test, because another one would allocate meanwhile.
    no_buffer_is_forgotten();
    let bodies = [
        (
            Api::ChatCompletions,
            r#"{"messages":[{"role":"u","content":""#,
            "x",
        ),
        (Api::ChatCompletions, r#"{"messages":[{"content":""#, "x"),
        (Api::ChatCompletions, r#"{"messages":[{"role":""#, "x"),
        (
            Api::ChatCompletions,
            r#"{"messages":[{"content":[{"text":""#,
            "x",
        ),
        (
            Api::ChatCompletions,
            r#"{"messages":[{"content":[{"image_url":{"url":"data:image/png;base64,"#,
            "x",
        ),
        (
            Api::ChatCompletions,
            r#"{"messages":[{"content":["#,
            r#"{"type":"audio_url"},"#,
        ),
        (
            Api::ChatCompletions,
            r#"{"messages":["#,
            r#"{"content":"a"},"#,
        ),
        (Api::ChatCompletions, r#"{"model":""#, "x"),
        (Api::ChatCompletions, r#"{""#, "x"),
        (Api::ChatCompletions, r#"{"tools":["#, "[],"),
        (Api::ChatCompletions, r#"{"tools":[{"#, r#""a":1,"#),
        (Api::ChatCompletions, r#"{"tools":[{""#, "x"),
        (Api::ChatCompletions, r#"{"tools":["#, r#"{"a":"#),
        (Api::Messages, r#"{"system":[{"text":""#, "x"),
        (
            Api::Messages,
            r#"{"messages":[{"content":[{"input":["#,
            "1,",
        ),
        (
            Api::Messages,
            r#"{"messages":[{"content":[{"content":["#,
            r#"{"type":"text","text":"a"},"#,
        ),
        (Api::Completions, r#"{"prompt":["#, r#""a","#),
        (Api::Completions, r#"{"prompt":["#, "1,"),
        (Api::Completions, r#"{"prompt":"#, "1"),
        (
            Api::Responses,
            r#"{"input":["#,
            r#"{"role":"user","content":"a"},"#,
        ),
        (Api::Embeddings, r#"{"input":""#, "<"),
    ];
    for (api, head, rest) in bodies {
        for (flattening, window, limit) in [
            // GIE v1's window is 16 KB, llm-d's half a megabyte; without one a megabyte is held, and so it is
            // of what is written as JSON, whose members are put in order before any is cut off.
            (
                Flattening::GieV1,
                256,
                if api == Api::Responses {
                    2 << 20
                } else {
                    200 << 10
                },
            ),
            (Flattening::LlmD, 2_048, 4 << 20),
            (Flattening::LlmD, 0, 6 << 20),
        ] {
            // Three megabytes are more than is ever held.
            let string = head.ends_with("\"content\":\"") && window == 2_048;
            let megabytes = if string { 50 } else { 3 };
            let plan = plan(flattening, window);
            let (most, kept) = cost(api, plan, head, rest, megabytes);
            let what = format!("{api:?} {flattening:?} {window} {head}{rest}…");
            assert!(most < limit, "{what}: {most} bytes");
            assert!(kept < 200 << 10, "{what}: {kept} bytes kept");
        }
    }
}

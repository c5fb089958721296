use super::*;
use crate::prefix::digest::BlockSpec;
use crate::prefix::key::{Key, Secret};
use crate::request::{Flattening, TextBuffer, MAX_DEPTH};

const LLM_D: BlockSpec = BlockSpec {
    block_bytes: 256,
    max_blocks: Some(2_048),
    keep_partial: true,
};

const GIE_V1: BlockSpec = BlockSpec {
    block_bytes: 64,
    max_blocks: Some(256),
    keep_partial: false,
};

fn reader(api: Api, flattening: Flattening, blocks: &[BlockSpec]) -> BodyReader {
    let mut reader = BodyReader::default();
    let blocks = blocks.to_vec();
    let plan = ReadPlan {
        flattening,
        blocks,
        ..ReadPlan::default()
    };
    reader.reset(api, plan);
    reader
}

fn chat(flattening: Flattening) -> BodyReader {
    let spec = if flattening == Flattening::GieV1 {
        GIE_V1
    } else {
        LLM_D
    };
    reader(Api::ChatCompletions, flattening, &[spec])
}

fn count(reader: &BodyReader) -> usize {
    reader.prompts_from(0, 0).flatten().count()
}

#[test]
fn nothing_is_needed_once_window_and_model_are_read() {
    let mut reader = chat(Flattening::GieV1);
    reader.push(
        br#"{"model":"m","messages":[{"role":"user","content":""#,
        &mut TextBuffer::default(),
    );
    assert_eq!(reader.model(), Fact::Known("m"));
    assert_eq!(reader.salt(), Fact::Absent, "the GIE dialect has none");
    assert!(!reader.pending().earlier_parts);
    reader.push(&[b'x'; 256 * 64 - 100], &mut TextBuffer::default());
    assert!(reader.needs_more() && !reader.window_full());
    reader.push(&[b'x'; 100], &mut TextBuffer::default());
    assert!(!reader.needs_more() && reader.window_full());
    assert_eq!((count(&reader), reader.reading()), (256, Reading::Enough));
    reader.push(
        b"not JSON at all, and not looked at",
        &mut TextBuffer::default(),
    );
    reader.finish();
    assert_eq!((count(&reader), reader.reading()), (256, Reading::Enough));
}

#[test]
fn a_late_model_is_awaited_behind_a_full_window() {
    let mut reader = chat(Flattening::GieV1);
    reader.push(
        br#"{"messages":[{"role":"user","content":""#,
        &mut TextBuffer::default(),
    );
    (0..100).for_each(|_| reader.push(&[b'x'; 1_000], &mut TextBuffer::default()));
    assert!(reader.window_full() && reader.needs_more());
    reader.push(br#""}],"model":"m","#, &mut TextBuffer::default());
    assert!(!reader.needs_more());
    assert_eq!(reader.model(), Fact::Known("m"));
}

#[test]
fn tools_and_salt_of_llm_d_are_awaited_to_the_end() {
    let mut reader = chat(Flattening::LlmD);
    reader.push(
        br#"{"model":"m","messages":[{"role":"user","content":"Hi"}],"#,
        &mut TextBuffer::default(),
    );
    assert!(!reader.window_full() && reader.needs_more());
    assert!(reader.pending().earlier_parts);
    assert_eq!(reader.salt(), Fact::Unknown);
    reader.push(br#""cache_salt":"s","#, &mut TextBuffer::default());
    assert!(reader.pending().earlier_parts);
    reader.push(br#""x":1}"#, &mut TextBuffer::default());
    assert!(!reader.pending().earlier_parts && !reader.needs_more());
    assert_eq!(
        (reader.reading(), reader.reread()),
        (Reading::Complete, None)
    );
}

#[test]
fn blocks_come_before_the_message_ends() {
    let mut reader = chat(Flattening::LlmD);
    reader.push(
        br#"{"messages":[{"role":"user","content":[{"type":"text","text":""#,
        &mut TextBuffer::default(),
    );
    reader.push(&[b'x'; 300], &mut TextBuffer::default());
    assert_eq!(count(&reader), 1);
    let mut reader = self::reader(Api::Messages, Flattening::LlmD, &[LLM_D]);
    reader.push(
        br#"{"messages":[{"role":"user","content":[{"type":"text","text":""#,
        &mut TextBuffer::default(),
    );
    reader.push(&[b'x'; 300], &mut TextBuffer::default());
    assert_eq!(count(&reader), 1);
}

#[test]
fn a_late_part_is_reread_in_pieces_and_only_as_far_as_needed() {
    let mut body = br#"{"messages":[{"role":"user","content":""#.to_vec();
    body.resize(body.len() + 1_000_000, b'x');
    body.extend_from_slice(br#""}],"tools":[{"a":1}],"model":"m"}"#);
    let mut reader = chat(Flattening::LlmD);
    reader.push(&body, &mut TextBuffer::default());
    assert!(reader.pending().earlier_parts && reader.needs_more() && !reader.window_full());
    assert_eq!((count(&reader), reader.restarts()), (2_048, 0));
    let mut fed = 0;
    while let Some(range) = reader.reread() {
        assert!(range.len() <= REREAD_BYTES);
        fed += range.len();
        reader.feed_again(range.start, &body[range], &mut TextBuffer::default());
    }
    // The window is half a megabyte.
    assert!(
        (512 << 10..=(512 << 10) + REREAD_BYTES).contains(&fed),
        "{fed}"
    );
    assert_eq!((count(&reader), reader.restarts()), (2_048, 1));
    assert!(!reader.pending().earlier_parts && !reader.needs_more() && reader.window_full());
}

#[test]
fn a_part_that_cannot_be_read_again_leaves_the_prompt_as_it_is() {
    let body = br#"{"messages":[{"role":"user","content":"Hi"}],"tools":[{"a":1}]}"#;
    for (offset, bytes) in [(0, &b""[..]), (1, b"xx")] {
        let mut reader = chat(Flattening::LlmD);
        reader.push(body, &mut TextBuffer::default());
        let before: Vec<u64> = reader.prompts_from(0, 0).flatten().copied().collect();
        let range = reader.reread().unwrap();
        reader.feed_again(range.start + offset, bytes, &mut TextBuffer::default());
        assert_eq!(reader.reread(), None);
        assert!(!reader.pending().earlier_parts && !reader.needs_more());
        let after: Vec<u64> = reader.prompts_from(0, 0).flatten().copied().collect();
        assert_eq!(after, before);
        reader.feed_again(0, b"not requested", &mut TextBuffer::default());
    }
}

#[test]
fn a_broken_body_yields_what_was_read_before_the_error() {
    let deep = format!(r#"{{"model":"m","x":{}"#, "[".repeat(10_000));
    for (body, reading) in [
        (r#"{"model":"m","x":y}"#.to_owned(), Reading::NotJson(17)),
        (
            r#"{"model":"m","messages":[{"role":"u","content":"Hi"#.to_owned(),
            Reading::EndedEarly,
        ),
        (deep, Reading::TooDeep),
    ] {
        let mut reader = chat(Flattening::LlmD);
        reader.push(body.as_bytes(), &mut TextBuffer::default());
        reader.finish();
        assert_eq!(reader.reading(), reading);
        assert_eq!(reader.model(), Fact::Known("m"));
        assert_eq!(reader.salt(), Fact::Absent);
        assert!(!reader.needs_more() && reader.window_full() && !reader.pending().earlier_parts);
    }
    const { assert!(MAX_DEPTH < 10_000) };
}

#[test]
fn without_streams_only_the_facts_are_read() {
    let mut reader = reader(Api::ChatCompletions, Flattening::LlmD, &[]);
    assert!(reader.window_full());
    reader.push(
        br#"{"cache_salt":"s","messages":[{"role":"u","content":"Hi"}],"model":"m","#,
        &mut TextBuffer::default(),
    );
    assert_eq!(
        (reader.model(), reader.salt()),
        (Fact::Known("m"), Fact::Known("s"))
    );
    assert!(!reader.needs_more());
}

#[test]
fn each_block_spec_is_applied_separately() {
    let small = BlockSpec {
        block_bytes: 4,
        max_blocks: Some(2),
        keep_partial: true,
    };
    let mut reader = reader(Api::Completions, Flattening::LlmD, &[small, LLM_D]);
    reader.push(br#"{"prompt":"aaaaaaaaaaaa"}"#, &mut TextBuffer::default());
    assert_eq!(reader.prompts_from(0, 0).flatten().count(), 2);
    assert_eq!(reader.prompts_from(1, 0).flatten().count(), 1);
    assert_eq!(reader.prompts_from(2, 0).count(), 0);
}

#[test]
fn facts_of_a_body_that_is_not_read_are_absent() {
    let reader = reader(Api::PassThrough, Flattening::LlmD, &[LLM_D]);
    assert_eq!(
        (reader.model(), reader.salt()),
        (Fact::Absent, Fact::Absent)
    );
    assert!(!reader.needs_more() && reader.window_full() && !reader.pending().earlier_parts);
}

#[test]
fn another_prompt_may_follow_only_where_there_are_lists_of_them() {
    let may = |body: &str| {
        let mut reader = reader(Api::Completions, Flattening::LlmD, &[LLM_D]);
        reader.push(body.as_bytes(), &mut TextBuffer::default());
        reader.may_add_prompts()
    };
    for (body, expected) in [
        (r#"{"model":"m","#, true),
        (r#"{"prompt":"a"#, false),
        (r#"{"prompt":["a""#, true),
        (r#"{"prompt":[1,"#, false),
        (r#"{"prompt":["a"]"#, false),
        (r#"{"prompt":{"#, false),
    ] {
        assert_eq!(may(body), expected, "{body}");
    }
}

#[test]
fn a_body_whose_middle_is_not_read_may_name_another_model() {
    let start = br#"{"messages":[{"role":"user","content":""#;
    let middle = br#""}],"model":"real","#;
    let end = br#""stream":true,"model":"other"}"#;
    let body = |reader: &mut BodyReader| {
        reader.push(start, &mut TextBuffer::default());
        reader.push(&[b'x'; 256 * 64 + 100], &mut TextBuffer::default());
    };
    let mut reader = chat(Flattening::GieV1);
    body(&mut reader);
    assert!(reader.wants_only_model());
    let at = start.len() + 256 * 64 + 100 + middle.len();
    let tail = [b",".as_slice(), end].concat();
    assert!(reader.push_tail(at - 1, &tail, &mut TextBuffer::default()));
    assert_eq!(reader.model(), Fact::Known("other"));
    assert!(!reader.is_whole_read() && !reader.repeats_model());
    let mut reader = chat(Flattening::LlmD);
    reader.push(
        br#"{"messages":[],"model":"m"}"#,
        &mut TextBuffer::default(),
    );
    assert!(reader.is_whole_read());
}

/// The anchor of a body, read in pieces of this size by a gateway with this secret.
fn anchor(api: Api, body: &str, piece: usize, secret: u64) -> Option<u64> {
    let mut reader = BodyReader::default();
    let plan = ReadPlan {
        flattening: Flattening::LlmD,
        blocks: vec![LLM_D],
        key: Key::Secret(Secret::from(secret)),
        anchor_bytes: 512,
        ..ReadPlan::default()
    };
    reader.reset(api, plan);
    let mut buffer = TextBuffer::default();
    for bytes in body.as_bytes().chunks(piece) {
        reader.push(bytes, &mut buffer);
    }
    reader.finish();
    while let Some(range) = reader.reread() {
        let again = &body.as_bytes()[range.start..range.end.min(body.len())];
        reader.feed_again(range.start, again, &mut buffer);
    }
    reader.anchor()
}

#[test]
fn an_anchor_is_the_same_in_every_gateway_and_depends_on_the_beginning_alone() {
    let chat = |head: &str, text: &str, tail: &str| {
        format!("{{\"model\": \"m\"{head}, \"messages\": [{{\"role\": \"user\", \"content\": \"{text}\"}}]{tail}}}")
    };
    let anchor = |body: &str| {
        let found = anchor(Api::ChatCompletions, body, 1 << 20, 1);
        assert!(found.is_some(), "{body}");
        for (piece, secret) in [(1, 1), (7, 2), (300, 3)] {
            assert_eq!(
                anchor(Api::ChatCompletions, body, piece, secret),
                found,
                "{body}"
            );
        }
        found
    };
    let (long, other) = ("a".repeat(600), "b".repeat(600));
    let expected = anchor(&chat("", &long, ""));
    assert_eq!(anchor(&chat("", &format!("{long}{other}"), "")), expected);
    assert_ne!(anchor(&chat("", &other, "")), expected);
    assert_ne!(
        anchor(&chat("", &long[..300], "")),
        expected,
        "it is shorter"
    );
    // Fields behind a short prompt are digested with the gateway's key, and are no part of the anchor.
    let short = anchor(&chat("", "a", ""));
    assert_eq!(anchor(&chat("", "a", ", \"user\": \"u\"")), short);
    // Tools that come late have the prompt restarted, and the fields before it digested.
    let tools = ", \"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"f\"}}]";
    let with_tools = anchor(&chat(", \"user\": \"u\"", &long, tools));
    assert_ne!(with_tools, expected);
}

#[test]
fn the_anchor_is_the_beginning_of_the_first_prompt_and_known_as_soon_as_it_was_read() {
    let list = |prompts: &str| format!("{{\"prompt\": [{prompts}], \"model\": \"m\"}}");
    let anchor = |prompts: &str| anchor(Api::Completions, &list(prompts), 64, 1);
    assert_eq!(anchor("\"one\", \"two\""), anchor("\"one\", \"three\""));
    assert_ne!(anchor("\"one\", \"two\""), anchor("\"two\""));
    assert_eq!(anchor("\"\", \"two\""), anchor("\"two\""));
    assert_eq!(anchor(""), None);

    let mut reader = BodyReader::default();
    let plan = ReadPlan {
        anchor_bytes: 512,
        ..ReadPlan::default()
    };
    reader.reset(Api::Completions, plan);
    let mut buffer = TextBuffer::default();
    reader.push(
        format!("{{\"prompt\": \"{}", "a".repeat(511)).as_bytes(),
        &mut buffer,
    );
    assert_eq!(reader.anchor(), None);
    reader.push(b"a", &mut buffer);
    assert!(reader.anchor().is_some());
    assert!(reader.window_full(), "nothing else is read of the prompt");
}

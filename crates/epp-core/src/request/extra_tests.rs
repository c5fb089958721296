use super::*;
use crate::prefix::digest::BlockSpec;
use crate::prefix::key::Secret;
use crate::request::{Api, BodyReader, Flattening, ReadPlan, TextBuffer};

const GIE_V1: BlockSpec = BlockSpec {
    block_bytes: 64,
    max_blocks: Some(256),
    keep_partial: false,
};

fn plan(flattening: Flattening) -> ReadPlan {
    ReadPlan {
        flattening,
        blocks: vec![GIE_V1],
        ..ReadPlan::default()
    }
}

fn read(body: &str, plan: ReadPlan) -> Vec<u64> {
    let mut reader = BodyReader::default();
    reader.reset(Api::ChatCompletions, plan);
    reader.push(body.as_bytes(), &mut TextBuffer::default());
    reader.finish();
    while let Some(range) = reader.reread() {
        reader.feed_again(
            range.start,
            &body.as_bytes()[range],
            &mut TextBuffer::default(),
        );
    }
    reader.prompts_from(0, 0).flatten().copied().collect()
}

fn matched(one: &[u64], two: &[u64]) -> usize {
    one.iter()
        .zip(two)
        .take_while(|(one, two)| one == two)
        .count()
}

#[test]
fn a_short_difference_counts_in_a_block_that_is_not_full() {
    let text = "x".repeat(64);
    let body = |part: &str| {
        format!(r#"{{"messages":[{{"role":"user","content":["{text}",{part}]}}],"model":"m"}}"#)
    };
    let read = |part: &str| read(&body(part), plan(Flattening::GieV1));
    for (one, two) in [
        (r#"{"type":"file","file":1}"#, r#"{"type":"file","file":2}"#),
        (r#"{"text":"a"}"#, r#"{"text":"b"}"#),
        ("1", "2"),
    ] {
        let (one, two) = (read(one), read(two));
        assert!(matched(&one, &two) < one.len(), "{one:?}");
    }
    // What the GIE dialect reads is cut as its Endpoint Picker cuts it.
    let read = |text: &str| {
        let body = format!(r#"{{"messages":[{{"role":"user","content":"{text}"}}]}}"#);
        self::read(&body, plan(Flattening::GieV1))
    };
    assert!(read("short").is_empty());
}

#[test]
fn fields_behind_the_turns_take_one_block_and_those_before_stand_first() {
    let text = "x".repeat(1_000);
    let tools = |name: &str| format!(r#""tools":[{{"name":"{name}","x":"{text}"}}]"#);
    let messages = format!(r#""messages":[{{"role":"user","content":"{text}"}}]"#);
    let read = |body: String| read(&body, plan(Flattening::GieV1));
    let plain = read(format!("{{{messages}}}"));
    let [one, two] = ["a", "b"].map(|name| read(format!("{{{messages},{}}}", tools(name))));
    assert_eq!(one.len(), plain.len() + 1);
    assert_eq!(matched(&one, &two), plain.len());
    let [one, two] = ["a", "b"].map(|name| read(format!("{{{},{messages}}}", tools(name))));
    assert!(one.len() > 2 * plain.len() - 2);
    assert_eq!(matched(&one, &two), 0);
}

#[test]
fn fields_before_the_turns_stay_first_when_the_prompt_restarts() {
    let body = |document: &str| {
        format!(
            r#"{{"documents":["{document}"],"messages":[{{"role":"user","content":"{}"}}],"tools":[{{"a":1}}],"thinking":true}}"#,
            "x".repeat(1_000)
        )
    };
    let [one, two] = ["a", "b"].map(|document| read(&body(document), plan(Flattening::LlmD)));
    assert_eq!((one.len() > 15, matched(&one, &two)), (true, 0));
}

#[test]
fn fields_behind_late_tools_count_where_all_else_is_known() {
    let read = |thinking: u8| {
        let body = format!(
            r#"{{"model":"m","cache_salt":"s","messages":[{{"role":"user","content":"Hi"}}],"tools":[{{"a":1}}],"thinking":{thinking}}}"#
        );
        read(&body, plan(Flattening::LlmD))
    };
    assert_ne!(read(1), read(2));
}

#[test]
fn turns_end_the_prompt_if_the_rest_is_assumed_absent() {
    for flattening in [Flattening::GieV1, Flattening::LlmD] {
        let mut reader = BodyReader::default();
        let messages = r#"{"model":"m","messages":[{"role":"user","content":"Hi","x":1}]"#;
        for (assume_absent, full) in [(false, false), (true, true)] {
            let plan = ReadPlan {
                assume_absent,
                ..plan(flattening)
            };
            reader.reset(Api::ChatCompletions, plan.clone());
            reader.push(messages.as_bytes(), &mut TextBuffer::default());
            assert_eq!(reader.window_full(), full, "{flattening:?}");
            let [one, two] = ["1", "2"]
                .map(|value| read(&format!("{messages},\"prompt\":{value}}}"), plan.clone()));
            assert_eq!(one == two, assume_absent, "{flattening:?}");
        }
    }
}

#[test]
fn unknown_values_are_not_stored() {
    let mut reader = BodyReader::default();
    for flattening in [Flattening::GieV1, Flattening::LlmD] {
        for (before, piece) in [
            (r#"{"messages":[{"role":"user","x":""#, "0123456789"),
            (
                r#"{"messages":[{"role":"user","content":[{"type":""#,
                "0123456789",
            ),
            (
                r#"{"messages":[{"role":"user","content":[{"type":"x","y":["#,
                "{\"a\":[1]},",
            ),
            (r#"{"prompt":["#, "{\"a\":[1]},"),
            (r#"{"documents":""#, "0123456789"),
            (r#"{"messages":[],"documents":["#, "[[1],2],"),
            (r#"{"messages":[],""#, "0123456789"),
        ] {
            reader.reset(Api::ChatCompletions, plan(flattening));
            reader.push(before.as_bytes(), &mut TextBuffer::default());
            (0..1_000).for_each(|_| {
                reader.push(piece.repeat(100).as_bytes(), &mut TextBuffer::default())
            });
            assert!(
                reader.allocated() < 32 << 10,
                "{before}: {}",
                reader.allocated()
            );
            assert!(reader.prompts_from(0, 0).flatten().count() <= 256);
        }
    }
}

#[test]
fn fields_behind_the_turns_are_digested_up_to_a_bound() {
    let body = |start: &str, end: &str| {
        let list = "[1],".repeat(1 << 18);
        format!(r#"{{"messages":[],"tools":["{start}",{list}"{end}"]}}"#)
    };
    let read = |start: &str, end: &str| read(&body(start, end), plan(Flattening::GieV1));
    assert_ne!(read("a", "x"), read("b", "x"));
    assert_eq!(read("a", "x"), read("a", "y"));
}

#[test]
fn long_names_and_numbers_that_differ_behind_the_stored_bytes_differ() {
    for kept in [8, 48] {
        let fold = |text: &str| {
            let mut kept_text = Vec::new();
            text.as_bytes()
                .chunks(5)
                .for_each(|piece| fold(&mut kept_text, piece, kept));
            kept_text
        };
        let start = "k".repeat(kept);
        assert_eq!(fold(&start), start.as_bytes());
        let ends = ["", "\0", "\0\0", "a", "b", "ab", "ba", "aaaaaaaaaaaaaaaaaa"];
        let all = ends.map(|end| fold(&format!("{start}{end}")));
        for (at, one) in all.iter().enumerate() {
            assert!(!all[..at].contains(one) && one.len() <= kept + 8, "{at}");
        }
    }
    let number = |end: &str| {
        let tools = format!(
            r#"{{"tools":[{{"a":1.{}{end}}}],"messages":[]}}"#,
            "0".repeat(60)
        );
        read(
            &tools,
            ReadPlan {
                blocks: vec![BlockSpec {
                    keep_partial: true,
                    ..GIE_V1
                }],
                ..plan(Flattening::LlmD)
            },
        )
    };
    assert_ne!(number("e5"), number("e6"));
}

#[test]
fn fields_that_collide_in_xxh64_do_not_when_keyed() {
    let mut rng = fastrand::Rng::with_seed(1);
    for round in 0..50 {
        let pair = crate::prefix::key::tests::pair(&mut rng);
        let sums = |key: &Key| {
            pair.clone().map(|bytes| {
                let mut sum = FieldDigest::default();
                bytes.chunks(60).for_each(|part| sum.update(part, key));
                sum.digest()
            })
        };
        let [one, other] = sums(&Key::Plain);
        assert_eq!(one, other);
        let [one, other] = sums(&Key::Secret(Secret::from(round)));
        assert_ne!(one, other);
    }
}

#[test]
fn a_body_does_not_affect_the_digests_of_the_next() {
    let body = |extra: &str| format!(r#"{{"messages":[{{"role":"user","content":"a"}}]{extra}}}"#);
    let (with, without) = (body(r#","documents":["d"]"#), body(""));
    for key in [Key::Plain, Key::Secret(Secret::from(1))] {
        let plan = || ReadPlan {
            key: key.clone(),
            ..plan(Flattening::LlmD)
        };
        let mut reader = BodyReader::default();
        let mut read = |body: &str| {
            reader.reset(Api::ChatCompletions, plan());
            reader.push(body.as_bytes(), &mut TextBuffer::default());
            reader.finish();
            reader
                .prompts_from(0, 0)
                .flatten()
                .copied()
                .collect::<Vec<u64>>()
        };
        let (first, plain) = (read(&with), read(&without));
        assert_eq!(
            (read(&with), read(&without)),
            (first.clone(), plain.clone())
        );
        assert_ne!(first, plain);
    }
}

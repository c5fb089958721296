//! Reads the facts at the end of a body without reading the bytes before.
//!
//! The most used client libraries send the messages first and the model last. Once the prompt window is full, only the
//! model is missing, and reading up to it would cost as much as the body is long. The last members can be read alone: if
//! a suffix, read as members of an object, ends that object with the very last byte of the body, it is the end of the
//! outermost object. (Had the suffix begun inside a string, its first quote would end that string, without a comma or
//! brace behind it; had it begun in an inner object, the body would go on.) This holds for every body that is JSON; the
//! model server rejects others.

use memchr::memmem;

use super::api::{Api, Field};
use super::facts::{self, Facts};
use super::scan::{Reading, Scanner, ValueKind, Visit, Want};
use super::text::TextBuffer;

/// Bytes at the end of a body that are read like this: many times the size of the model and the parameters around it.
pub const TAIL: usize = 4 << 10;

/// The key that is searched.
const MODEL_KEY: &[u8] = b"\"model\"";

/// Occurrences of the key that are tried, from the last one: the key also occurs in tools and metadata.
const MAX_ATTEMPTS: usize = 4;

/// Returns the facts in the last members of a body, from its model on, if the model is among them. `at` is the offset of
/// `tail` in the body.
pub fn facts_at_end(tail: &[u8], at: usize, api: Api, buffer: &mut TextBuffer) -> Option<Facts> {
    let tail = tail.trim_ascii_end();
    let mut end = tail.len();
    for _ in 0..MAX_ATTEMPTS {
        end = memmem::rfind(tail.get(..end)?, MODEL_KEY)?;
        // A quote behind a backslash is part of a string.
        let before = tail.get(end.checked_sub(1)?)?;
        if *before != b'\\' {
            if let Some(facts) = members(tail.get(end..)?, at + end, api, buffer) {
                return Some(facts);
            }
        }
    }
    None
}

/// Reads members and the brace with which the last byte ends their object.
fn members(suffix: &[u8], at: usize, api: Api, buffer: &mut TextBuffer) -> Option<Facts> {
    let (last, inside) = suffix.split_last()?;
    let mut scanner = Scanner::default();
    let mut members = Members {
        fields: api.fields(),
        facts: Facts::default(),
    };
    members.facts.reset(true, false);
    scanner.reset_in_object(TailNode::Members, at);
    scanner.push(inside, buffer, &mut members);
    let open = scanner.reading() == Reading::Going;
    scanner.push(&[*last], buffer, &mut members);
    let whole = open && scanner.reading() == Reading::Complete;
    whole.then_some(members.facts)
}

#[derive(Debug, Clone, Copy)]
enum TailNode {
    Members,
    Fact(facts::FactNode),
}

struct Members {
    fields: &'static [(&'static [u8], Field)],
    facts: Facts,
}

impl Visit for Members {
    type Node = TailNode;

    fn begin(&mut self, _: TailNode, key: &[u8], kind: ValueKind, at: usize) -> Want<TailNode> {
        let field = self.fields.iter().find(|(name, _)| *name == key);
        match field {
            Some((_, Field::Fact(place))) => match self.facts.begin(*place, kind, at) {
                Want::Inside(place) => Want::Inside(TailNode::Fact(place)),
                _ => Want::Nothing,
            },
            _ => Want::Nothing,
        }
    }

    fn bytes(&mut self, place: TailNode, bytes: &[u8]) -> bool {
        match place {
            TailNode::Fact(place) => self.facts.bytes(place, bytes),
            TailNode::Members => false,
        }
    }

    fn end(&mut self, place: TailNode, at: usize) {
        if let TailNode::Fact(place) = place {
            self.facts.end(place, at);
        }
    }

    fn is_done(&self) -> bool {
        // The grammar must be checked to the end.
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Fact;

    fn facts(tail: &[u8], at: usize) -> Option<Facts> {
        facts_at_end(tail, at, Api::ChatCompletions, &mut TextBuffer::default())
    }

    fn model(tail: &str) -> Option<String> {
        let facts = facts(tail.as_bytes(), 0)?;
        facts.model().known().map(str::to_owned)
    }

    #[test]
    fn the_model_is_found_among_the_last_members() {
        for tail in [
            r#"lazy dog"}],"model":"m"}"#,
            "lazy dog\"}], \"model\" : \"m\" , \"stream\":true}\n ",
            r#"x"}],"model":"m","metadata":{"model":"other"}}"#,
            r#"x"}],"model":"m","tools":[{"model":"a"},{"model":"b"},{"c":{"model":"d"}}]}"#,
            r#"say \"model\": \"y\""}],"model":"m","max_tokens":8}"#,
        ] {
            assert_eq!(model(tail).as_deref(), Some("m"), "{tail}");
        }
        let tail = br#","model":"m","max_tokens":8}"#;
        let facts = facts(tail, 100).unwrap();
        assert_eq!(
            (facts.max_tokens(), facts.model_span()),
            (Some(8), 109..112)
        );
    }

    #[test]
    fn other_objects_are_not_confused_with_the_outermost_one() {
        for tail in [
            // In a message.
            r#","messages":[{"role":"user","model":"x"}]}"#,
            // In an object behind it.
            r#","metadata":{"model":"x"}}"#,
            // In a string, whose quotes are escaped.
            r#"he said ,\"model\":\"x\"}"}]}"#,
            // Behind an escaped backslash the quote ends a string and does not begin a key.
            r#"a\\"model":"x"}"#,
            // Not the end.
            r#","model":"x"} {"#,
            r#","model":"x""#,
            r#","model":"x"]}"#,
            // Its beginning is not seen.
            r#""model":"x"}"#,
            "",
        ] {
            assert_eq!(model(tail), None, "{tail}");
        }
    }

    #[test]
    fn a_model_that_is_not_a_text_is_absent() {
        let facts = facts(br#","model":7}"#, 0);
        assert_eq!(facts.map(|facts| facts.model() == Fact::Absent), Some(true));
    }
}

//! Text to [`Node`], YAML or JSON, and back from a path to its line and column.
//!
//! Nodes have no spans, because serde hands none over: the text is read again for the places of the few
//! problems that are shown. A second YAML parser that keeps spans would cost the module more than those
//! lines, and would have to agree with this one on every document that Envoy is given.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::find::{Find, Target};
use super::nesting;
use crate::config::value::{Node, Path, Problems};

/// No configuration is larger; the Endpoint Picker's own file discovery has the same bound.
const MAX_BYTES: usize = 1 << 20;

/// Nodes of the largest sensible document, aliases expanded: a pool of 1,000 endpoints has 10,000.
const MAX_NODES: usize = 200_000;

/// Text of all keys and strings of the largest sensible document, aliases expanded. Without aliases it
/// is not longer than the document, but for escapes that are shorter than what they stand for.
const MAX_TEXT: usize = 2 * MAX_BYTES;

/// Levels of the deepest sensible document: the deepest that is read has seven.
const MAX_DEPTH: usize = 64;

/// Digits of the longest sensible number: the greatest that a double holds has 309. An alias repeats a
/// number without adding to the text, and each time all of its digits are read.
const MAX_DIGITS: usize = 400;

/// Problems that are given their place: more are not fixed at a time.
const MAX_LOCATED: usize = 20;

/// Bytes of text that are read again to find the places of problems, once for each step of a path at
/// the worst: it takes two or three times as long as the first reading, whatever the text.
const MAX_READ_AGAIN_BYTES: usize = 2 * MAX_BYTES;

/// Parses a document; repeated keys are problems, but do not end the reading.
pub fn parse(text: &str, problems: &mut Problems) -> Option<Node> {
    if let Err((message, location)) = check_size(text) {
        problems.refuse(message, location);
        return None;
    }
    let builder = Builder::default();
    let parsed = read(
        text,
        Build {
            builder: &builder,
            path: Path::default(),
        },
    );
    for path in builder.repeated.into_inner() {
        problems.error(&path, "this key is given twice");
    }
    match parsed {
        Ok(node) => Some(node),
        Err(trouble) => {
            let limit = builder.limit.into_inner();
            problems.refuse(limit.unwrap_or(trouble.message), trouble.location);
            None
        }
    }
}

/// Returns an error if a text is too large to be parsed, in length or in the time that the parsers would need.
fn check_size(text: &str) -> Result<(), (String, Option<(usize, usize)>)> {
    if text.len() > MAX_BYTES {
        let message = format!("found {} bytes, expected at most {MAX_BYTES}", text.len());
        return Err((message, None));
    }
    let mut digits = 0;
    for (place, byte) in text.bytes().enumerate() {
        digits = if byte.is_ascii_digit() { digits + 1 } else { 0 };
        if digits > MAX_DIGITS {
            let message = format!("found a longer number, expected at most {MAX_DIGITS} digits");
            return Err((message, Some(place_of(text, place))));
        }
    }
    Ok(())
}

/// Line and column, from one, of a byte.
fn place_of(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or(before);
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

fn too_deep() -> String {
    format!("found values nested deeper than {MAX_DEPTH} levels, expected at most {MAX_DEPTH}")
}

/// Gives the first problems of a text that parses their lines and columns.
pub fn locate(text: &str, problems: &mut Problems) {
    let mut left = MAX_READ_AGAIN_BYTES;
    let all = problems.errors.iter_mut().chain(&mut problems.warnings);
    let unlocated = all.filter(|problem| problem.location.is_none());
    for problem in unlocated.take(MAX_LOCATED) {
        let mut steps = problem.path.steps();
        // What is missing is at the place that it is missing from.
        while let Some((_, parent)) = steps.split_last() {
            let Some(rest) = left.checked_sub(text.len()) else {
                return;
            };
            left = rest;
            let found = Cell::new(false);
            let outcome = read(text, Find::new(steps, Target::Key, &found));
            if let (true, Err(trouble)) = (found.get(), outcome) {
                problem.location = trouble.location;
                break;
            }
            steps = parent;
        }
    }
}

/// A parser's error, or the reason why a text is not parsed.
struct Trouble {
    message: String,
    location: Option<(usize, usize)>,
}

/// A text that begins with a brace is JSON if JSON takes it: YAML knows neither tabs nor JSON's
/// surrogate pairs.
fn read<'t, S>(text: &'t str, seed: S) -> Result<S::Value, Trouble>
where
    S: DeserializeSeed<'t> + Clone,
{
    if text.trim_start().starts_with('{') {
        let mut json = serde_json::Deserializer::from_str(text);
        let value = seed.clone().deserialize(&mut json);
        let value = value.and_then(|value| json.end().map(|()| value));
        let is_json = !matches!(&value, Err(error) if error.is_syntax());
        if is_json {
            return value.map_err(|error| Trouble {
                message: neither(&error),
                location: Some((error.line(), error.column())),
            });
        }
    }
    if let Some(place) = nesting::too_deep(text) {
        return Err(Trouble {
            message: too_deep(),
            location: Some(place_of(text, place)),
        });
    }
    let yaml = serde_yaml::Deserializer::from_str(text);
    seed.deserialize(yaml).map_err(|error| Trouble {
        location: error.location().map(|place| (place.line(), place.column())),
        message: neither(&error),
    })
}

fn neither(error: &impl fmt::Display) -> String {
    format!("this is neither YAML nor JSON: {error}")
}

/// State of one build.
#[derive(Default)]
struct Builder {
    nodes: Cell<usize>,
    /// Bytes of keys and strings.
    text: Cell<usize>,
    repeated: RefCell<Vec<Path>>,
    /// The bound that was exceeded, if one was.
    limit: RefCell<Option<String>>,
}

impl Builder {
    fn refuse<E: Error>(&self, message: String) -> E {
        let error = E::custom(&message);
        *self.limit.borrow_mut() = Some(message);
        error
    }

    fn count<E: Error>(&self, path: &Path) -> Result<(), E> {
        let nodes = self.nodes.get() + 1;
        self.nodes.set(nodes);
        if nodes > MAX_NODES {
            let message =
                format!("found more than {MAX_NODES} values, expected at most {MAX_NODES}");
            return Err(self.refuse(message));
        }
        if path.steps().len() > MAX_DEPTH {
            return Err(self.refuse(too_deep()));
        }
        Ok(())
    }

    fn count_text<E: Error>(&self, text: &str) -> Result<(), E> {
        let size = self.text.get() + text.len();
        self.text.set(size);
        if size > MAX_TEXT {
            let message = format!(
                "found more than {MAX_TEXT} bytes of keys and strings, aliases expanded, expected at most {MAX_TEXT}"
            );
            return Err(self.refuse(message));
        }
        Ok(())
    }
}

/// Builds the node at a path.
#[derive(Clone)]
struct Build<'b> {
    builder: &'b Builder,
    path: Path,
}

impl<'de> DeserializeSeed<'de> for Build<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        self.builder.count(&self.path)?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Build<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a configuration value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Number(value as f64))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Number(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        // -0 and 0 are the same, and only one of them is shown.
        Ok(Node::Number(value + 0.0))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Node, E> {
        self.builder.count_text(value)?;
        Ok(Node::String(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut nodes = Vec::new();
        loop {
            let path = self.path.index(nodes.len());
            let Some(node) = access.next_element_seed(Build {
                builder: self.builder,
                path,
            })?
            else {
                return Ok(Node::List(nodes));
            };
            nodes.push(node);
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut entries: Vec<(String, Node)> = Vec::new();
        let mut known = BTreeMap::new();
        while let Some(key) = access.next_key::<String>()? {
            self.builder.count_text(&key)?;
            let path = self.path.key(&key);
            let node = access.next_value_seed(Build {
                builder: self.builder,
                path: path.clone(),
            })?;
            if known.insert(key.clone(), entries.len()).is_none() {
                entries.push((key, node));
            } else {
                self.builder.repeated.borrow_mut().push(path);
            }
        }
        Ok(Node::Map(entries))
    }
}

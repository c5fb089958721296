//! Fields that hold more than one value.

use super::{Fields, ABSENT};
use crate::config::value::{Kind, Node, Path};

/// Entries of a list of parts, such as plugins or references to them: the longest that is known has a
/// dozen. What is done with parts takes time in proportion to the square of their number.
const MAX_PARTS: usize = 1_000;

/// Bytes of a label's name or value: Kubernetes allows 317 and 63. Workers share the labels of endpoints, and take no
/// longer text from each other than 4 KiB.
const MAX_LABEL_BYTES: usize = 1 << 10;

impl<'a> Fields<'a> {
    /// A mapping, to be read as one; none where it is absent.
    pub fn section(&mut self, name: &'static str) -> Option<Fields<'_>> {
        self.ask(name, Kind::Section, None);
        let node = self.node(name);
        if node.is_none() && !self.problems.is_recording() {
            return None;
        }
        Some(Fields::new(node, self.path.key(name), self.problems))
    }

    /// A mapping that must be given, to be read as one.
    pub fn required_section(&mut self, name: &'static str) -> Option<Fields<'_>> {
        self.ask_required(name, Kind::Section);
        let node = self.node(name);
        if matches!(node, None | Some(Node::Null)) && !self.problems.is_recording() {
            let message = "found nothing, expected a mapping";
            self.problems.error(&self.path.key(name), message);
            return None;
        }
        Some(Fields::new(node, self.path.key(name), self.problems))
    }

    /// The entries of a list of parts with their places; none where it is absent. A list of more than a
    /// thousand is an error.
    pub fn list(&mut self, name: &'static str) -> Vec<(&'a Node, Path)> {
        self.ask(name, Kind::List(0), None);
        let mut entries = self.entries_of(name, "a list");
        let found = entries.len();
        if found > MAX_PARTS {
            let message = format!("found {found} entries, expected at most {MAX_PARTS}");
            self.problems.error(&self.path.key(name), message);
            entries.truncate(MAX_PARTS);
        }
        entries
    }

    /// The entries of a list that must be given, with at least this many.
    pub fn required_list(
        &mut self,
        name: &'static str,
        of: &str,
        least: usize,
    ) -> Vec<(&'a Node, Path)> {
        self.ask_required(name, Kind::List(least));
        let expected = format!("a list of {of}");
        let entries = self.entries_of(name, &expected);
        let missing = match self.node(name) {
            None | Some(Node::Null) => true,
            Some(Node::List(entries)) => entries.len() < least,
            // Said already.
            Some(_) => false,
        };
        if missing {
            let message = format!("found nothing, expected {expected}");
            self.problems.error(&self.path.key(name), message);
        }
        entries
    }

    /// The entries of a list with their places, without a question.
    pub fn entries_of(&mut self, name: &'static str, expected: &str) -> Vec<(&'a Node, Path)> {
        let path = self.path.key(name);
        match self.node(name) {
            None | Some(Node::Null) if self.problems.is_recording() => {
                vec![(&ABSENT, path.index(0))]
            }
            None | Some(Node::Null) => Vec::new(),
            Some(Node::List(entries)) => {
                let places = entries.iter().enumerate();
                places
                    .map(|(index, entry)| (entry, path.index(index)))
                    .collect()
            }
            Some(other) => {
                self.refuse(name, other, expected);
                Vec::new()
            }
        }
    }

    /// The entries of a list of strings with their places; an entry that is not a string is a problem.
    pub fn texts(&mut self, name: &'static str) -> Vec<(&'a str, Path)> {
        self.ask(name, Kind::Strings, None);
        self.texts_of(name)
    }

    /// The entries of a list of strings that must have one at least, with their places.
    pub fn required_texts(&mut self, name: &'static str, of: &str) -> Vec<(&'a str, Path)> {
        self.ask_required(name, Kind::Strings);
        let texts = self.texts_of(name);
        let other = !matches!(self.node(name), None | Some(Node::Null | Node::List(_)));
        if texts.is_empty() && !other && !self.problems.is_recording() {
            let message = format!("found nothing, expected a list of {of}");
            self.problems.error(&self.path.key(name), message);
        }
        texts
    }

    fn texts_of(&mut self, name: &'static str) -> Vec<(&'a str, Path)> {
        let mut texts = Vec::new();
        if let None | Some(Node::Null) = self.node(name) {
            return texts;
        }
        for (entry, path) in self.entries_of(name, "a list of strings") {
            match entry {
                Node::String(text) => texts.push((text.as_str(), path)),
                other => {
                    let message = format!("found {}, expected a string", other.found());
                    self.problems.error(&path, message);
                }
            }
        }
        texts
    }

    /// A list of strings.
    pub fn strings(&mut self, name: &'static str, default: &[String]) -> Vec<String> {
        let list = |texts: &[String]| Node::List(texts.iter().cloned().map(Node::String).collect());
        let stated = (!default.is_empty()).then(|| list(default));
        self.ask(name, Kind::Strings, stated);
        let values = match self.node(name) {
            None | Some(Node::Null) => default.to_vec(),
            Some(_) => {
                let texts = self.texts_of(name);
                texts.into_iter().map(|(text, _)| text.to_owned()).collect()
            }
        };
        self.note(name, list(&values));
        values
    }

    /// Strings by name, such as labels.
    pub fn string_map(&mut self, name: &'static str) -> Vec<(String, String)> {
        self.ask(name, Kind::StringMap, None);
        let mut pairs = Vec::new();
        match self.node(name) {
            None | Some(Node::Null) => {}
            Some(Node::Map(entries)) => {
                for (key, value) in entries {
                    match value {
                        Node::String(value) if key.len().max(value.len()) <= MAX_LABEL_BYTES => {
                            pairs.push((key.clone(), value.clone()));
                        }
                        other => {
                            let path = self.path.key(name).key(key);
                            let found = other.found();
                            let message = format!("found {found}, expected a string of at most {MAX_LABEL_BYTES} bytes");
                            self.problems.error(&path, message);
                        }
                    }
                }
            }
            Some(other) => self.refuse(name, other, "a mapping of strings"),
        }
        pairs
    }
}

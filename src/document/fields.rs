//! The typed reading of a mapping: each field is asked for with its default and bounds; what was
//! given but never asked for is unknown.

use super::nearest::nearest;
use super::node::Node;
use super::problem::{Path, Problems};

/// A mapping being read.
///
/// Every question notes the value in force, so that after the reading the effective parameters
/// (given or defaulted) are known.
pub struct Fields<'a> {
    entries: &'a [(String, Node)],
    path: Path,
    problems: &'a mut Problems,
    asked: Vec<&'static str>,
    effective: Vec<(String, Node)>,
}

impl<'a> Fields<'a> {
    /// Reads `node`, which may be absent or null (then every field has its default).
    pub fn new(node: Option<&'a Node>, path: Path, problems: &'a mut Problems) -> Self {
        let entries: &[(String, Node)] = match node {
            Some(Node::Map(entries)) => entries,
            None | Some(Node::Null) => &[],
            Some(other) => {
                let message = format!("found {}, expected a mapping", other.found());
                problems.error(&path, message);
                &[]
            }
        };
        Self {
            entries,
            path,
            problems,
            asked: Vec::new(),
            effective: Vec::new(),
        }
    }

    /// Where this mapping is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where problems are noted.
    pub fn problems(&mut self) -> &mut Problems {
        self.problems
    }

    /// Whether a field is given.
    pub fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|(key, _)| key == name)
    }

    /// The raw value of a field; marks it as known.
    pub fn node(&mut self, name: &'static str) -> Option<&'a Node> {
        self.asked.push(name);
        let entries: &'a [(String, Node)] = self.entries;
        let given = entries.iter().find(|(key, _)| key == name)?;
        Some(&given.1)
    }

    /// A whole number of at least `least`.
    pub fn integer(&mut self, name: &'static str, default: i64, least: i64) -> i64 {
        let value = match self.node(name) {
            None | Some(Node::Null) => default,
            Some(Node::Number(number)) if number.fract() == 0.0 && *number >= least as f64 => {
                *number as i64
            }
            Some(other) => {
                self.refuse(name, other, &format!("a whole number of at least {least}"));
                default
            }
        };
        self.note(name, Node::Number(value as f64));
        value
    }

    /// A whole number above 0 that fits 32 bits.
    pub fn positive(&mut self, name: &'static str, default: u32) -> u32 {
        u32::try_from(self.integer(name, i64::from(default), 1)).unwrap_or(u32::MAX)
    }

    /// A whole number, 0 included, that fits 32 bits.
    pub fn natural(&mut self, name: &'static str, default: u32) -> u32 {
        u32::try_from(self.integer(name, i64::from(default), 0)).unwrap_or(u32::MAX)
    }

    /// A whole number where zero and less mean the default, as the Endpoint Picker reads some.
    pub fn positive_or_default(&mut self, name: &'static str, default: u32) -> u32 {
        let value = self.integer(name, i64::from(default), i64::MIN);
        match u32::try_from(value) {
            Ok(0) | Err(_) => default,
            Ok(value) => value,
        }
    }

    /// A number within bounds, both included.
    pub fn number(&mut self, name: &'static str, default: f64, bounds: (f64, f64)) -> f64 {
        let (least, most) = bounds;
        let value = match self.node(name) {
            None | Some(Node::Null) => default,
            Some(Node::Number(number)) if (least..=most).contains(number) => *number,
            Some(other) => {
                self.refuse(name, other, &format!("a number from {least} to {most}"));
                default
            }
        };
        self.note(name, Node::Number(value));
        value
    }

    /// A truth value.
    pub fn boolean(&mut self, name: &'static str, default: bool) -> bool {
        let value = match self.node(name) {
            None | Some(Node::Null) => default,
            Some(Node::Bool(value)) => *value,
            Some(other) => {
                self.refuse(name, other, "true or false");
                default
            }
        };
        self.note(name, Node::Bool(value));
        value
    }

    /// A string.
    pub fn string(&mut self, name: &'static str, default: &str) -> String {
        let value = match self.node(name) {
            None | Some(Node::Null) => default.to_owned(),
            Some(Node::String(value)) => value.clone(),
            Some(other) => {
                self.refuse(name, other, "a string");
                default.to_owned()
            }
        };
        self.note(name, Node::String(value.clone()));
        value
    }

    /// A duration such as `200ms`, `5s` or `1m30s`, of at least `least` milliseconds.
    pub fn duration_ms(&mut self, name: &'static str, default: u64, least: u64) -> u64 {
        let value = match self.node(name) {
            None | Some(Node::Null) => default,
            Some(given) => match given {
                Node::String(text) => parse_duration_ms(text).filter(|value| *value >= least),
                _ => None,
            }
            .unwrap_or_else(|| {
                let expected = format!("a duration such as 200ms, 5s or 1m, at least {least}ms");
                self.refuse(name, given, &expected);
                default
            }),
        };
        self.note(name, Node::String(format!("{value}ms")));
        value
    }

    /// The entries of a list with their places; none where it is absent.
    pub fn list(&mut self, name: &'static str) -> Vec<(&'a Node, Path)> {
        let path = self.path.key(name);
        match self.node(name) {
            None | Some(Node::Null) => Vec::new(),
            Some(Node::List(entries)) => {
                let places = entries.iter().enumerate();
                places
                    .map(|(index, entry)| (entry, path.index(index)))
                    .collect()
            }
            Some(other) => {
                self.refuse(name, other, "a list");
                Vec::new()
            }
        }
    }

    /// A string that must be given.
    pub fn required_string(&mut self, name: &'static str) -> String {
        let value = self.string(name, "");
        let given = self.has(name);
        if value.is_empty()
            && !matches!(self.node(name), Some(node) if !matches!(node, Node::String(_) | Node::Null))
        {
            let found = if given { "an empty string" } else { "nothing" };
            let message = format!("found {found}, expected a string");
            self.problems.error(&self.path.key(name), message);
        }
        value
    }

    /// A list of strings.
    pub fn strings(&mut self, name: &'static str, default: &[String]) -> Vec<String> {
        let mut values = default.to_vec();
        match self.node(name) {
            None | Some(Node::Null) => {}
            Some(Node::List(entries)) => {
                values.clear();
                for (index, entry) in entries.iter().enumerate() {
                    match entry {
                        Node::String(value) => values.push(value.clone()),
                        other => {
                            let message = format!("found {}, expected a string", other.found());
                            let path = self.path.key(name).index(index);
                            self.problems.error(&path, message);
                        }
                    }
                }
            }
            Some(other) => self.refuse(name, other, "a list of strings"),
        }
        let nodes = values.iter().cloned().map(Node::String).collect();
        self.note(name, Node::List(nodes));
        values
    }

    /// One of a few words.
    pub fn choice<T: Copy>(
        &mut self,
        name: &'static str,
        default: T,
        words: &[(&'static str, T)],
    ) -> T {
        let given = self.string(name, "");
        if given.is_empty() {
            return default;
        }
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == given) {
            return *value;
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        self.refuse(name, &Node::String(given), &known.join(" or "));
        default
    }

    /// Notes that a field's value is not allowed.
    pub fn refuse(&mut self, name: &str, found: &Node, expected: &str) {
        let message = format!("found {}, expected {expected}", found.found());
        self.problems.error(&self.path.key(name), message);
    }

    /// Ends the reading: whatever was given and never asked for is unknown. Returns the effective
    /// values.
    pub fn finish(self) -> Vec<(String, Node)> {
        for (key, _) in self.entries {
            if !self.asked.contains(&key.as_str()) {
                let message = match nearest(key, self.asked.iter().copied()) {
                    Some(name) => format!("unknown field; did you mean {name}?"),
                    None => {
                        let known: &[&str] = &self.asked;
                        match known {
                            [] => "unknown field; nothing can be set here".to_owned(),
                            known => format!("unknown field; known here: {}", known.join(", ")),
                        }
                    }
                };
                self.problems.error(&self.path.key(key), message);
            }
        }
        self.effective
    }

    /// Notes the value in force of a field that was read as a raw node.
    pub fn note(&mut self, name: &str, value: Node) {
        self.effective.push((name.to_owned(), value));
    }
}

/// Go's duration syntax as far as configurations use it: numbers with units, one after the other.
fn parse_duration_ms(text: &str) -> Option<u64> {
    let mut rest = text.trim();
    if rest == "0" {
        return Some(0);
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let factor = match unit {
            "us" | "µs" => 0.001,
            "ms" => 1.0,
            "s" => 1_000.0,
            "m" => 60_000.0,
            "h" => 3_600_000.0,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * factor;
        rest = tail;
    }
    (!text.trim().is_empty()).then_some(total.round() as u64)
}

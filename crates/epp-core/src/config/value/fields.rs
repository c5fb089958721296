//! The typed reading of a mapping: each field is read with its default and bounds; what was
//! given but never read is unknown.

mod choices;
mod lists;
mod quantity;

use std::time::Duration;

use super::duration::parse_duration;
use super::moved::place_of;
use super::nearest::nearest;
use super::node::Node;
use super::problem::{Path, Problems};
use super::question::{Kind, Question};
use crate::time::whole_millis;

/// The entry that a list has in a reading of nothing.
static ABSENT: Node = Node::Null;

/// A mapping being read.
///
/// Every question notes the value in force, so that after the reading the effective parameters
/// (given or defaulted) are known.
pub struct Fields<'a> {
    entries: &'a [(String, Node)],
    path: Path,
    problems: &'a mut Problems,
    asked: Vec<&'static str>,
    any_case: bool,
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
            any_case: false,
            effective: Vec::new(),
        }
    }

    /// Returns the location of this mapping.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the list of problems.
    pub fn problems(&mut self) -> &mut Problems {
        self.problems
    }

    /// Makes names match in any case from here on, as Go reads a field without a JSON name of its own.
    pub fn in_any_case(&mut self) {
        self.any_case = true;
    }

    fn is(&self, key: &str, name: &str) -> bool {
        key == name || (self.any_case && key.eq_ignore_ascii_case(name))
    }

    /// The value of a field. Of several that differ in case the last counts, as in Go.
    // In line, this and what else is called for each field would be 4 KB of the module.
    #[inline(never)]
    fn find(&self, name: &str) -> Option<&'a Node> {
        let mut entries = self.entries.iter().rev();
        let given = entries.find(|(key, _)| self.is(key, name))?;
        Some(&given.1)
    }

    /// Returns whether a field is given.
    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// The raw value of a field; marks it as known. Who reads it so says with
    /// [`Self::ask`] what it may hold.
    #[inline(never)]
    pub fn node(&mut self, name: &'static str) -> Option<&'a Node> {
        if !self.asked.contains(&name) {
            self.asked.push(name);
        }
        self.find(name)
    }

    /// Notes what a field may hold, if this is a recording.
    pub fn ask(&mut self, name: &str, kind: Kind, default: Option<Node>) {
        if let Some(questions) = &mut self.problems.questions {
            questions.push(Question {
                path: self.path.key(name),
                kind,
                default,
                required: false,
            });
        }
    }

    fn ask_required(&mut self, name: &str, kind: Kind) {
        self.ask(name, kind, None);
        let questions = self.problems.questions.as_mut();
        if let Some(question) = questions.and_then(|questions| questions.last_mut()) {
            question.required = true;
        }
    }

    /// A field of any form.
    pub fn any(&mut self, name: &'static str) -> Option<&'a Node> {
        self.ask(name, Kind::Any, None);
        self.node(name)
    }

    /// A whole number within bounds, both included.
    pub fn whole(&mut self, name: &'static str, default: i64, bounds: (i64, i64)) -> i64 {
        let (least, most) = bounds;
        let given = |bound: i64, open: i64| (bound != open).then_some(bound);
        let kind = Kind::Integer(given(least, i64::MIN), given(most, i64::MAX));
        self.ask(name, kind, Some(Node::Number(default as f64)));
        match self.node(name) {
            None | Some(Node::Null) => default,
            Some(Node::Number(number))
                if number.fract() == 0.0 && *number >= least as f64 && *number <= most as f64 =>
            {
                *number as i64
            }
            Some(other) => {
                let expected = match (least, most) {
                    (i64::MIN, _) => "a whole number".to_owned(),
                    (least, i64::MAX) => format!("a whole number of at least {least}"),
                    (least, most) => format!("a whole number from {least} to {most}"),
                };
                self.refuse(name, other, &expected);
                default
            }
        }
    }

    /// A whole number of at least `least`.
    pub fn integer(&mut self, name: &'static str, default: i64, least: i64) -> i64 {
        let value = self.whole(name, default, (least, i64::MAX));
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

    /// A limit: a whole number that fits 32 bits, or nothing where the document says 0.
    pub fn limit(&mut self, name: &'static str, default: Option<u32>) -> Option<u32> {
        let limit = self.natural(name, default.unwrap_or(0));
        (limit > 0).then_some(limit)
    }

    /// A whole number where zero and less mean the default, as the Endpoint Picker reads some.
    pub fn positive_or_default(&mut self, name: &'static str, default: u32) -> u32 {
        let value = self.whole(name, i64::from(default), (i64::MIN, i64::MAX));
        let value = u32::try_from(value).ok().filter(|value| *value > 0);
        let value = value.unwrap_or(default);
        self.note(name, Node::Number(f64::from(value)));
        value
    }

    /// A number within bounds, both included.
    pub fn number(&mut self, name: &'static str, default: f64, bounds: (f64, f64)) -> f64 {
        let (least, most) = bounds;
        self.ask(
            name,
            Kind::Number(Some(bounds)),
            Some(Node::Number(default)),
        );
        let value = match self.node(name) {
            None | Some(Node::Null) => default,
            Some(Node::Number(number)) if (least..=most).contains(number) => *number,
            Some(other) => {
                self.refuse(name, other, &number_within(bounds));
                default
            }
        };
        self.note(name, Node::Number(value));
        value
    }

    /// A number within bounds, both included, that must be given.
    pub fn required_number(&mut self, name: &'static str, bounds: (f64, f64)) -> f64 {
        let (least, most) = bounds;
        self.ask_required(name, Kind::Number(Some(bounds)));
        match self.node(name).unwrap_or(&ABSENT) {
            Node::Number(number) if (least..=most).contains(number) => *number,
            other => {
                self.refuse(name, other, &number_within(bounds));
                least
            }
        }
    }

    /// A number, or nothing.
    pub fn optional_number(&mut self, name: &'static str) -> Option<f64> {
        self.ask(name, Kind::Number(None), None);
        match self.node(name) {
            None | Some(Node::Null) => None,
            Some(Node::Number(number)) if number.is_finite() => Some(*number),
            Some(other) => {
                self.refuse(name, other, "a number");
                None
            }
        }
    }

    /// A whole number, 0 included, that fits 32 bits, or nothing.
    pub fn optional_natural(&mut self, name: &'static str) -> Option<u32> {
        if !matches!(self.node(name), None | Some(Node::Null)) {
            return Some(self.natural(name, 0));
        }
        self.ask(name, Kind::Integer(Some(0), None), None);
        None
    }

    /// A truth value.
    pub fn boolean(&mut self, name: &'static str, default: bool) -> bool {
        self.ask(name, Kind::Boolean, Some(Node::Bool(default)));
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

    /// A string; an empty default means none.
    pub fn string(&mut self, name: &'static str, default: &str) -> String {
        let stated = (!default.is_empty()).then(|| Node::String(default.to_owned()));
        self.ask(name, Kind::String, stated);
        let value = self.text(name, default);
        if !value.is_empty() {
            self.note(name, Node::String(value.clone()));
        }
        value
    }

    fn text(&mut self, name: &'static str, default: &str) -> String {
        match self.node(name) {
            None | Some(Node::Null) => default.to_owned(),
            Some(Node::String(value)) => value.clone(),
            Some(other) => {
                self.refuse(name, other, "a string");
                default.to_owned()
            }
        }
    }

    /// A string that must be given.
    pub fn required_string(&mut self, name: &'static str) -> String {
        self.ask_required(name, Kind::String);
        let value = self.text(name, "");
        let given = self.has(name);
        if value.is_empty()
            && !matches!(self.node(name), Some(node) if !matches!(node, Node::String(_) | Node::Null))
        {
            let found = if given { "an empty string" } else { "nothing" };
            let message = format!("found {found}, expected a string");
            self.problems.error(&self.path.key(name), message);
        }
        self.note(name, Node::String(value.clone()));
        value
    }

    /// A duration such as `200ms`, `5s` or `1m30s`, of at least `least`.
    pub fn duration(&mut self, name: &'static str, default: Duration, least: Duration) -> Duration {
        self.any_duration(name, default, least, false)
    }

    /// A duration where an empty string means the default, as the Endpoint Picker reads some.
    pub fn duration_or_default(
        &mut self,
        name: &'static str,
        default: Duration,
        least: Duration,
    ) -> Duration {
        self.any_duration(name, default, least, true)
    }

    /// A duration, 0 included; the default, which may be none, where it is absent.
    pub fn optional_duration(
        &mut self,
        name: &'static str,
        default: Option<Duration>,
    ) -> Option<Duration> {
        match (self.node(name), default) {
            (None | Some(Node::Null), None) => {
                let least = Duration::ZERO;
                self.ask(
                    name,
                    Kind::Duration {
                        least,
                        empty: false,
                    },
                    None,
                );
                None
            }
            _ => Some(self.duration(name, default.unwrap_or_default(), Duration::ZERO)),
        }
    }

    fn any_duration(
        &mut self,
        name: &'static str,
        default: Duration,
        least: Duration,
        empty: bool,
    ) -> Duration {
        let stated = Node::String(shown(default));
        self.ask(name, Kind::Duration { least, empty }, Some(stated));
        let value = match self.node(name) {
            None | Some(Node::Null) => default,
            Some(Node::String(text)) if empty && text.is_empty() => default,
            Some(given) => match given {
                Node::String(text) => parse_duration(text).filter(|value| *value >= least),
                _ => None,
            }
            .unwrap_or_else(|| {
                let least = whole_millis(least);
                let expected = format!("a duration such as 200ms, 5s or 1m, at least {least}ms");
                self.refuse(name, given, &expected);
                default
            }),
        };
        self.note(name, Node::String(shown(value)));
        value
    }

    /// A port from 1 to 65535 as a number, or nothing.
    pub fn optional_port(&mut self, name: &'static str) -> Option<u16> {
        self.ask(name, Kind::Integer(Some(1), Some(65_535)), None);
        match self.node(name) {
            None | Some(Node::Null) => None,
            Some(node) => self.port_of(name, node, false),
        }
    }

    /// A port from 1 to 65535, as a string or a number, that must be given.
    pub fn required_port(&mut self, name: &'static str) -> Option<u16> {
        self.ask_required(name, Kind::Port);
        let node = self.node(name).unwrap_or(&ABSENT);
        self.port_of(name, node, true)
    }

    fn port_of(&mut self, name: &'static str, node: &Node, quoted: bool) -> Option<u16> {
        let port = match node {
            Node::String(text) if quoted => text.parse().ok(),
            Node::Number(number) if number.fract() == 0.0 => Some(*number),
            _ => None,
        };
        let port = port.filter(|port| (1.0..=65_535.0).contains(port));
        let Some(port) = port else {
            self.refuse(name, node, "a port from 1 to 65535");
            return None;
        };
        self.note(name, Node::Number(port));
        Some(port as u16)
    }

    /// A field's former name: whether it is given (then there is a warning) or might be.
    pub fn deprecated(&mut self, name: &'static str, instead: &str) -> bool {
        if self.has(name) {
            let message = format!("deprecated; use {instead}");
            self.problems.warn(&self.path.key(name), message);
        }
        self.has(name) || self.problems.is_recording()
    }

    /// A field of the Endpoint Picker that changes nothing here: whatever it holds is let pass.
    pub fn no_effect(&mut self, name: &'static str, why: &str) {
        self.ask(name, Kind::Any, None);
        if !matches!(self.node(name), None | Some(Node::Null)) {
            self.problems.warn(&self.path.key(name), no_effect(why));
        }
    }

    /// Notes that a field's value is approximated here, where it is given. Who calls it reads the field.
    pub fn approximated(&mut self, name: &'static str, how: &str) {
        if !matches!(self.find(name), None | Some(Node::Null)) {
            let message = approximated(how);
            self.problems.approximate(&self.path.key(name), message);
        }
    }

    /// A field of the Endpoint Picker that is not supported here.
    pub fn unsupported(&mut self, name: &'static str, advice: &str) {
        if self.node(name).is_some() {
            self.problems.error(&self.path.key(name), advice);
        }
    }

    /// Notes that a field's value is not allowed.
    pub fn refuse(&mut self, name: &str, found: &Node, expected: &str) {
        let message = format!("found {}, expected {expected}", found.found());
        self.problems.error(&self.path.key(name), message);
    }

    /// Ends the reading: fields that were given and never read are unknown. Returns the effective
    /// values.
    pub fn finish(self) -> Vec<(String, Node)> {
        let (asked, path) = (&self.asked, &self.path);
        for (key, _) in self.entries {
            if !asked.iter().any(|name| self.is(key, name)) {
                self.problems.error_with(&path.key(key), || {
                    let mut message = "unknown field; ".to_owned();
                    let near = nearest(key, asked.iter().copied());
                    match (near, place_of(key), asked.as_slice()) {
                        (Some(name), _, _) => {
                            message.push_str("did you mean ");
                            message.push_str(name);
                            message.push('?');
                        }
                        (None, Some(place), _) => message.push_str(place),
                        (None, None, []) => message.push_str("nothing can be set here"),
                        (None, None, known) => {
                            message.push_str("known here: ");
                            message.push_str(&known.join(", "));
                        }
                    }
                    message
                });
            }
        }
        self.effective
    }

    /// Notes the value in force of a field that was read as a raw node.
    pub fn note(&mut self, name: &str, value: Node) {
        self.effective.push((name.to_owned(), value));
    }
}

/// Returns the warning for a setting of the Endpoint Picker that has no effect here.
pub fn no_effect(why: &str) -> String {
    format!("has no effect here: {why}")
}

/// Returns the warning for a setting of the Endpoint Picker that is approximated here.
pub fn approximated(how: &str) -> String {
    format!("approximated here: {how}")
}

/// Says which numbers are within bounds.
fn number_within((least, most): (f64, f64)) -> String {
    match most {
        f64::MAX => format!("a number of at least {least}"),
        most => format!("a number from {least} to {most}"),
    }
}

/// A duration as one writes it.
fn shown(duration: Duration) -> String {
    match whole_millis(duration) {
        whole if whole > 0 && whole % 1_000 == 0 => format!("{}s", whole / 1_000),
        other => format!("{other}ms"),
    }
}

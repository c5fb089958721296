//! What readings ask for: the schema and the reference tables are made of it, so that they cannot
//! say other than what is read.

use std::time::Duration;

use super::node::Node;
use super::problem::Path;

/// A field that was asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// Where it stands below what was read; list entries have the index 0.
    pub path: Path,
    /// What it may hold.
    pub kind: Kind,
    /// What holds where it is absent, if that can be written down.
    pub default: Option<Node>,
    /// Whether it must be given.
    pub required: bool,
}

/// What a field may hold.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// A whole number of at least this and at most that.
    Integer(Option<i64>, Option<i64>),
    /// A number within bounds, if there are any.
    Number(Option<(f64, f64)>),
    /// `true` or `false`.
    Boolean,
    /// Any string.
    String,
    /// One of these words.
    Choice(Vec<&'static str>),
    /// A duration.
    Duration {
        /// The shortest that is accepted.
        least: Duration,
        /// Whether an empty string stands for the default.
        empty: bool,
    },
    /// A port, as a number or a string.
    Port,
    /// Strings by name.
    StringMap,
    /// A list of strings.
    Strings,
    /// A list of at least so many entries, which are questions of their own.
    List(usize),
    /// A mapping; its fields are questions of their own.
    Section,
    /// Anything; who asked reads on by rules of its own.
    Any,
}

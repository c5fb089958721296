//! A record of the fields that readings use. The schema and the reference tables are made of it, so that they
//! cannot differ from what is read.

use std::time::Duration;

use super::node::Node;
use super::problem::Path;

/// A field that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// Its path below the mapping that was read; list entries have the index 0.
    pub path: Path,
    /// The values that it may have.
    pub kind: Kind,
    /// The value if it is absent, where one can be written down.
    pub default: Option<Node>,
    /// Whether it must be given.
    pub required: bool,
}

/// The values that a field may have.
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
        /// Whether an empty string means the default.
        empty: bool,
    },
    /// A Kubernetes quantity, as a number or a string.
    Quantity,
    /// A port, as a number or a string.
    Port,
    /// Strings by name.
    StringMap,
    /// A list of strings.
    Strings,
    /// A list of at least this many entries, which are questions of their own.
    List(usize),
    /// A list of names, or of mappings, whose fields are questions of their own.
    NamesOr,
    /// A mapping; its fields are questions of their own.
    Section,
    /// Any value; the caller has rules of its own.
    Any,
}

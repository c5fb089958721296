//! A parsed document: YAML and JSON read into one plain tree.

use std::fmt;

use super::problem::{shortened, MAX_SHOWN_CHARS};

/// A value of the document. Maps keep their order.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    /// `null`, `~` or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// Any number; Istio's Struct form knows doubles only, so that 64 and 64.0 are the same.
    Number(f64),
    /// A string.
    String(String),
    /// A list.
    List(Vec<Node>),
    /// A mapping, in document order; keys are unique (the parser reports repeated ones).
    Map(Vec<(String, Node)>),
}

impl Node {
    /// The value under a key of a mapping.
    // As Fields::has.
    #[inline(never)]
    pub fn get(&self, key: &str) -> Option<&Node> {
        let Self::Map(entries) = self else {
            return None;
        };
        let found = entries.iter().find(|(name, _)| name == key)?;
        Some(&found.1)
    }

    /// Returns the value as problems describe it: the value itself if it is short, otherwise its kind.
    pub fn found(&self) -> String {
        match self {
            Self::Null => "nothing".to_owned(),
            Self::Bool(value) => format!("{value}"),
            Self::Number(value) => format!("{value}"),
            Self::String(value) => format!("\"{}\"", shortened(value, MAX_SHOWN_CHARS)),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) => "a mapping".to_owned(),
        }
    }
}

/// Formats the value in YAML's flow style, on one line. It is for people, so strings are not quoted.
impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Number(value) => write!(f, "{value}"),
            Self::String(value) => f.write_str(value),
            Self::List(entries) => {
                f.write_str("[")?;
                for (position, entry) in entries.iter().enumerate() {
                    let comma = if position == 0 { "" } else { ", " };
                    write!(f, "{comma}{entry}")?;
                }
                f.write_str("]")
            }
            Self::Map(entries) => {
                f.write_str("{")?;
                for (position, (key, entry)) in entries.iter().enumerate() {
                    let comma = if position == 0 { "" } else { ", " };
                    write!(f, "{comma}{key}: {entry}")?;
                }
                f.write_str("}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_shown_on_one_line() {
        let list = Node::List(vec![Node::Number(1.0), Node::Number(0.5), Node::Null]);
        let map = Node::Map(vec![
            ("name".to_owned(), Node::String("pod".to_owned())),
            ("ports".to_owned(), list),
            ("on".to_owned(), Node::Bool(true)),
        ]);
        assert_eq!(
            map.to_string(),
            "{name: pod, ports: [1, 0.5, null], on: true}"
        );
    }
}

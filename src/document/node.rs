//! A parsed document: YAML and JSON read into one plain tree.

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
    pub fn get(&self, key: &str) -> Option<&Node> {
        let Self::Map(entries) = self else {
            return None;
        };
        let found = entries.iter().find(|(name, _)| name == key)?;
        Some(&found.1)
    }

    /// What a problem says was found: the kind of value, and the value itself where it is short.
    pub fn found(&self) -> String {
        match self {
            Self::Null => "nothing".to_owned(),
            Self::Bool(value) => format!("{value}"),
            Self::Number(value) => format!("{value}"),
            Self::String(value) => format!("\"{value}\""),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) => "a mapping".to_owned(),
        }
    }
}

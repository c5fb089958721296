//! A plugin's reference page: the comment at the top of its file, with its tables of parameters.

use epp_core::config::value::{Kind, Node, Question};
use epp_core::plugins::{self, Dialect, PluginType};

/// The comment at the beginning of a plugin's file.
pub struct Page {
    /// Its blocks in order.
    pub blocks: Vec<Block>,
}

/// A part of the comment.
pub enum Block {
    /// Text and examples, verbatim.
    Text(String),
    /// A table of parameters.
    Table(Vec<Row>),
}

/// A line of a table.
pub struct Row {
    /// Full names of the parameters that it describes.
    pub names: Vec<String>,
    /// Their default, in the page's words.
    pub default: String,
    /// Their meaning.
    pub meaning: String,
}

impl Page {
    /// Parses the comment at the top of a file.
    pub fn of(source: &str) -> Self {
        let comment = source.lines().map_while(|line| line.strip_prefix("//!"));
        let mut blocks = Vec::new();
        let mut text = String::new();
        for line in comment {
            let line = line.strip_prefix(' ').unwrap_or(line);
            if !line.starts_with('|') {
                text.push_str(line);
                text.push('\n');
                continue;
            }
            if !text.is_empty() {
                blocks.push(Block::Text(std::mem::take(&mut text)));
            }
            match (row(line), blocks.last_mut()) {
                (Some(row), Some(Block::Table(rows))) => rows.push(row),
                (Some(row), _) => blocks.push(Block::Table(vec![row])),
                (None, _) => {}
            }
        }
        blocks.push(Block::Text(text));
        if let Some(Block::Text(first)) = blocks.first_mut() {
            *first = without_name(first);
        }
        Self { blocks }
    }

    /// Returns the rows of all its tables.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.blocks.iter().flat_map(|block| match block {
            Block::Table(rows) => rows.as_slice(),
            Block::Text(_) => &[],
        })
    }

    /// Returns the first paragraph, in one line.
    pub fn summary(&self) -> String {
        let Some(Block::Text(text)) = self.blocks.first() else {
            return String::new();
        };
        let paragraph = text.split("\n\n").next().unwrap_or_default();
        paragraph.trim().replace('\n', " ")
    }
}

/// Returns a comment without the type's name at its beginning.
fn without_name(text: &str) -> String {
    let description = text.split_once(": ").map_or(text, |(_, rest)| rest);
    let mut letters = description.chars();
    let first: String = letters
        .next()
        .into_iter()
        .flat_map(char::to_uppercase)
        .collect();
    first + letters.as_str()
}

/// Parses a line of a table; `None` for its head.
fn row(line: &str) -> Option<Row> {
    let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
    let [names, default, meaning] = cells.as_slice() else {
        return None;
    };
    if !names.starts_with('`') {
        return None;
    }
    let names: Vec<&str> = names
        .split(", ")
        .map(|name| name.trim_matches('`'))
        .collect();
    // `rules[].a`, `b` are neighbours.
    let parent = names.first().and_then(|first| first.rsplit_once('.'));
    let full = |name: &&str| match parent {
        Some((parent, _)) if !name.contains('.') => format!("{parent}.{name}"),
        _ => (*name).to_owned(),
    };
    Some(Row {
        names: names.iter().map(full).collect(),
        default: (*default).to_owned(),
        meaning: (*meaning).to_owned(),
    })
}

/// Returns the parameters that a plugin type reads in either dialect, each once.
pub fn questions(plugin: &PluginType) -> Vec<Question> {
    let mut questions = plugins::questions(plugin, Dialect::LlmD);
    for question in plugins::questions(plugin, Dialect::GieV1) {
        if !questions.iter().any(|known| known.path == question.path) {
            questions.push(question);
        }
    }
    questions
}

/// Returns a question's path as the tables write it: `rules[].targets`.
pub fn name_of(question: &Question) -> String {
    question.path.to_string().replace("[0]", "[]")
}

/// Formats a value as a document would.
pub fn written(value: &Node) -> String {
    match value {
        Node::String(text) => text.clone(),
        Node::List(entries) => {
            let entries: Vec<String> = entries.iter().map(written).collect();
            format!("[{}]", entries.join(", "))
        }
        other => other.found(),
    }
}

/// Describes the values that a field accepts.
pub fn holds(kind: &Kind) -> String {
    match kind {
        Kind::Integer(None, _) => "whole number".to_owned(),
        Kind::Integer(Some(least), None) => format!("whole number ≥ {least}"),
        Kind::Integer(Some(least), Some(most)) => format!("whole number {least} to {most}"),
        Kind::Number(None | Some((f64::MIN, f64::MAX))) => "number".to_owned(),
        Kind::Number(Some((f64::MIN, most))) => format!("number ≤ {most}"),
        Kind::Number(Some((least, f64::MAX))) => format!("number ≥ {least}"),
        Kind::Number(Some((least, most))) => format!("number {least} to {most}"),
        Kind::Boolean => "`true` or `false`".to_owned(),
        Kind::String => "string".to_owned(),
        Kind::Choice(words) => {
            let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
            words.join(" or ")
        }
        Kind::Duration { least, .. } => format!("duration ≥ {}ms", least.as_millis()),
        Kind::Quantity => "quantity, such as `500`, `10k` or `5Gi`".to_owned(),
        Kind::Port => "port, quoted or not".to_owned(),
        Kind::StringMap => "strings by name".to_owned(),
        Kind::Strings => "list of strings".to_owned(),
        Kind::List(_) => "list".to_owned(),
        Kind::NamesOr => "list of strings or mappings".to_owned(),
        Kind::Section => "mapping".to_owned(),
        Kind::Any => "anything".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tables in the plugins' files must match what the plugins read.
    #[test]
    fn pages_document_each_parameter_with_its_default() {
        for (plugin, source) in plugins::KINDS.iter().flat_map(|kind| kind.plugins) {
            let (page, questions) = (Page::of(source), questions(plugin));
            assert!(!page.summary().is_empty(), "{}", plugin.name);
            for question in &questions {
                let name = name_of(question);
                let row = page.rows().find(|row| row.names.contains(&name));
                let row = row.unwrap_or_else(|| {
                    panic!("{}: no line for {name} in the file's table", plugin.name)
                });
                let stated = row.default.trim_matches('`');
                // A dash marks a default without meaning, of a deprecated parameter.
                if let Some(default) = question.default.as_ref().filter(|_| stated != "–") {
                    assert_eq!(stated, written(default), "{}: {name}", plugin.name);
                }
                assert_eq!(
                    question.required,
                    stated == "required",
                    "{}: {name}",
                    plugin.name
                );
            }
            for name in page.rows().flat_map(|row| &row.names) {
                let known = questions.iter().any(|question| name_of(question) == *name);
                assert!(known, "{} does not read {name}", plugin.name);
            }
        }
    }

    #[test]
    fn standings_are_of_parameters_that_exist() {
        for plugin in plugins::TYPES {
            let questions = questions(plugin);
            for (name, _) in plugin.parity.parameters {
                let known = questions.iter().any(|question| name_of(question) == *name);
                assert!(known, "{} does not read {name}", plugin.name);
            }
        }
    }
}

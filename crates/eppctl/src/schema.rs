//! `eppctl schema`: the document's JSON Schema, generated from what the loader reads.

#![allow(
    clippy::indexing_slicing,
    reason = "a JSON object's index by name adds the name"
)]

use std::fmt::Write as _;
use std::io::{self, Write};

use clap::Args;
use epp_core::config;
use epp_core::config::value::{Kind, Node, Question};
use epp_core::plugins::{self, Dialect, PluginType, Standing};
use serde::Serialize;
use serde_json::{json, Map, Value};

use crate::output::{Error, ExitStatus, Output, Report};
use crate::page::{name_of, Page};
use crate::reference::{meaning, standing};

/// Print the JSON Schema (2020-12) of EndpointPickerConfig, including all plugins' parameters.
#[derive(Args)]
#[command(after_help = "Examples:
  eppctl schema > epp.schema.json
  # in an editor with yaml-language-server, as a document's first line:
  # yaml-language-server: $schema=epp.schema.json")]
pub struct Schema {}

/// Go's duration syntax, as far as configurations use it.
const DURATION: &str = r"^(0|([0-9]+(\.[0-9]*)?(us|µs|ms|s|m|h))+)$";

/// Kubernetes' quantities.
const QUANTITY: &str = r"^\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+|[KMGTPE]i|[numkMGTPE])?$";

#[derive(Serialize)]
#[serde(transparent)]
struct Printed(Value);

impl Schema {
    /// Prints the schema.
    pub fn run(&self, output: &mut Output) -> Result<ExitStatus, Error> {
        output.print(&Printed(schema()))?;
        Ok(ExitStatus::Ok)
    }
}

impl Report for Printed {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{:#}", self.0)
    }
}

/// Returns the whole schema.
pub fn schema() -> Value {
    let mut top = object(&config::questions(), "", &|_| None);
    let mut definitions = Map::new();
    let mut choices = Vec::new();
    let mut of_dialect = Vec::new();
    for (plugin, source) in plugins::KINDS.iter().flat_map(|kind| kind.plugins) {
        let page = Page::of(source);
        let both = [Dialect::LlmD, Dialect::GieV1]
            .map(|dialect| parameters(plugin, &plugins::questions(plugin, dialect), &page));
        let [llm_d, gie] = both;
        let needed = llm_d.get("required").is_some();
        let definition = if llm_d == gie {
            llm_d
        } else {
            let name = format!("{} (llm-d)", plugin.name);
            of_dialect.push(only_llm_d(plugin, &name));
            let either = json!([{"$ref": format!("#/$defs/{}", escaped(&name))}, gie]);
            definitions.insert(name, llm_d);
            json!({"anyOf": either})
        };
        definitions.insert(plugin.name.to_owned(), definition);
        let mut then = json!({"properties": {"parameters": reference(plugin.name)}});
        if needed {
            then["required"] = json!(["parameters"]);
        }
        choices.push(json!({"if": of_type(plugin), "then": then}));
    }
    top["allOf"] = Value::Array(of_dialect);
    let entry = &mut top["properties"]["plugins"]["items"];
    let mut names: Vec<&str> = plugins::TYPES.iter().map(|plugin| plugin.name).collect();
    let former = plugins::TYPES.iter().flat_map(|plugin| plugin.former_names);
    names.extend(former.map(|former| former.name));
    for known in config::all_elsewhere() {
        let Some(here) = known.standing() else {
            continue;
        };
        names.push(known.name);
        choices.push(json!({
            "if": {"properties": {"type": {"const": known.name}}, "required": ["type"]},
            "then": {"description": standing(here)},
        }));
    }
    entry["properties"]["type"]["enum"] = json!(names);
    entry["allOf"] = Value::Array(choices);
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://github.com/epp-wasm/epp-wasm/docs/schema.json",
        "title": "EndpointPickerConfig",
        "description": "The EndpointPickerConfig fields that epp-wasm reads, in either dialect",
    });
    if let (Value::Object(schema), Value::Object(top)) = (&mut schema, top) {
        schema.extend(top);
        schema.insert("$defs".to_owned(), Value::Object(definitions));
    }
    schema
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/$defs/{}", escaped(name))})
}

fn of_type(plugin: &PluginType) -> Value {
    json!({"properties": {"type": {"const": plugin.name}}, "required": ["type"]})
}

fn escaped(name: &str) -> String {
    name.replace(' ', "%20")
}

/// A document of the llm-d dialect accepts only that dialect's parameters.
fn only_llm_d(plugin: &PluginType, definition: &str) -> Value {
    json!({
        "if": {"properties": {"apiVersion": {"enum": ["llm-d.ai/v1", "llm-d.ai/v1alpha1"]}}, "required": ["apiVersion"]},
        "then": {"properties": {"plugins": {"items": {
            "if": of_type(plugin),
            "then": {"properties": {"parameters": reference(definition)}},
        }}}},
    })
}

fn parameters(plugin: &PluginType, questions: &[Question], page: &Page) -> Value {
    let mut schema = object(questions, "", &|name| {
        let row = page
            .rows()
            .find(|row| row.names.iter().any(|known| known == name))?;
        Some(meaning(plugin, row, name)).filter(|meaning| !meaning.is_empty())
    });
    schema["title"] = json!(plugin.name);
    let mut description = page.summary();
    if let here @ (Standing::Approximated(_) | Standing::NoEffect(_)) = plugin.parity.plugin {
        let _ = write!(description, " Here {}.", standing(here));
    }
    schema["description"] = json!(description);
    schema
}

/// Returns the mapping whose field names begin with `prefix`.
fn object(questions: &[Question], prefix: &str, meaning: &dyn Fn(&str) -> Option<String>) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for question in questions {
        let name = name_of(question);
        let Some(field) = name.strip_prefix(prefix) else {
            continue;
        };
        if field.contains(['.', '[']) {
            continue;
        }
        let mut schema = kind_schema(&question.kind, &|inside| {
            object(questions, &format!("{name}{inside}"), meaning)
        });
        if let Some(default) = &question.default {
            schema["default"] = value(default);
        }
        if let Some(meaning) = meaning(&name) {
            schema["description"] = json!(meaning);
        }
        if question.required {
            required.push(field.to_owned());
        } else if let Some(Value::String(kind)) = schema.get("type").cloned() {
            // A field that is null counts as absent.
            schema["type"] = json!([kind, "null"]);
        } else if let Some(words) = schema.get_mut("enum").and_then(Value::as_array_mut) {
            words.push(Value::Null);
        }
        properties.insert(field.to_owned(), schema);
    }
    let kinds = if prefix.is_empty() {
        json!("object")
    } else {
        json!(["object", "null"])
    };
    let mut schema =
        json!({"type": kinds, "properties": properties, "additionalProperties": false});
    if !required.is_empty() {
        schema["type"] = json!("object");
        schema["required"] = json!(required);
    }
    schema
}

fn kind_schema(kind: &Kind, inside: &dyn Fn(&str) -> Value) -> Value {
    match kind {
        Kind::Integer(least, most) => {
            let mut schema = json!({"type": "integer"});
            if let Some(least) = least {
                schema["minimum"] = json!(least);
            }
            if let Some(most) = most {
                schema["maximum"] = json!(most);
            }
            schema
        }
        Kind::Number(None) => json!({"type": "number"}),
        Kind::Number(Some((least, f64::MAX))) => json!({"type": "number", "minimum": least}),
        Kind::Number(Some((least, most))) => {
            json!({"type": "number", "minimum": least, "maximum": most})
        }
        Kind::Boolean => json!({"type": "boolean"}),
        Kind::String => json!({"type": "string"}),
        Kind::Choice(words) => json!({"enum": words}),
        Kind::Duration { empty: false, .. } => json!({"type": "string", "pattern": DURATION}),
        Kind::Duration { empty: true, .. } => {
            json!({"type": "string", "pattern": format!("^$|{DURATION}")})
        }
        Kind::Quantity => json!({"anyOf": [
            {"type": "number", "minimum": 0},
            {"type": "string", "pattern": QUANTITY},
        ]}),
        Kind::Port => json!({"anyOf": [
            {"type": "integer", "minimum": 1, "maximum": 65_535},
            {"type": "string", "pattern": "^[0-9]{1,5}$"},
        ]}),
        Kind::StringMap => json!({"type": "object", "additionalProperties": {"type": "string"}}),
        Kind::Strings => json!({"type": "array", "items": {"type": "string"}}),
        Kind::List(least) => {
            let mut schema = json!({"type": "array", "items": inside("[].")});
            if *least > 0 {
                schema["minItems"] = json!(least);
            }
            schema
        }
        Kind::NamesOr => {
            json!({"type": "array", "items": {"anyOf": [{"type": "string"}, inside("[].")]}, "minItems": 1})
        }
        Kind::Section => inside("."),
        Kind::Any => json!({}),
    }
}

/// Converts a value of the document to JSON.
pub fn value(node: &Node) -> Value {
    match node {
        Node::Null => Value::Null,
        Node::Bool(value) => json!(value),
        // A whole number is written as one.
        Node::Number(value) if value.fract() == 0.0 && value.abs() < 9e15 => json!(*value as i64),
        Node::Number(value) => json!(value),
        Node::String(value) => json!(value),
        Node::List(entries) => entries.iter().map(value).collect(),
        Node::Map(entries) => {
            let entries = entries.iter();
            let entries = entries.map(|(key, node)| (key.clone(), value(node)));
            Value::Object(entries.collect())
        }
    }
}

//! Finds the EndpointPickerConfigs in a file, which may be nested in something else: a ConfigMap, Helm
//! values, an LLMInferenceService, a container's arguments.
//!
//! The search knows none of these by name. It walks every document of the file for mappings of the kind,
//! and for strings that contain one, which it walks in turn.

pub mod layer;

use std::rc::Rc;

use epp_core::config;
use epp_core::config::value::nearest::nearest;
use epp_core::config::value::problem::Step;
use epp_core::config::value::{Node, Path, Problem};

use crate::base64::base64;
use crate::schema::value;
use layer::{split_yaml, Layer};

const KIND: &str = "EndpointPickerConfig";

/// Nesting depth of strings that is searched: chart values in an Argo CD Application have two levels.
const MAX_EMBEDDING_DEPTH: usize = 4;

/// Problems that get a location in the file, as in the loader: more are not fixed at a time.
const MAX_LOCATED: usize = 20;

/// The annotation in which `kubectl apply` keeps a copy of the object.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// A document of a file.
pub struct Document {
    /// Its location in the file; empty if it is the file.
    pub place: String,
    /// Its text, as passed to the loader.
    pub text: String,
    layer: Rc<Layer>,
    /// Its path in its layer, if it is a mapping there and not the layer's whole text.
    mapping: Option<Path>,
}

impl Document {
    /// Translates the locations of the loader's problems to the file.
    pub fn locate(&self, problems: &mut [Problem]) {
        for (position, problem) in problems.iter_mut().enumerate() {
            let found = match &self.mapping {
                None => problem.location,
                Some(_) if position >= MAX_LOCATED => None,
                Some(above) => {
                    config::line_of(&self.layer.text, &below(above, problem.path.steps()))
                }
            };
            problem.location = found.map(|place| self.layer.in_file(place));
        }
    }
}

fn below(above: &Path, steps: &[Step]) -> Path {
    steps.iter().fold(above.clone(), |path, step| match step {
        Step::Key(key) => path.key(key),
        Step::Index(index) => path.index(*index),
    })
}

/// Returns the documents in a file's text, in order, or an error message if there are none.
pub fn documents(text: &str) -> Result<Vec<Document>, String> {
    let mut found = Vec::new();
    search(&Layer::of_file(text), "", 0, &mut found);
    if !found.is_empty() {
        return Ok(found);
    }
    if is_meant(text) {
        return Ok(vec![whole(Layer::of_file(text), "")]);
    }
    Err(format!(
        "found no {KIND}: no document in here is one, and none has one inside, as a mapping or a text (looked \
         for in everything: data of ConfigMaps and Secrets, Helm values, an LLMInferenceService, a container's arguments)"
    ))
}

/// Returns whether a text in which nothing was found may be meant as a document; the loader then reports
/// what is wrong with it.
fn is_meant(text: &str) -> bool {
    let Ok(node) = config::parse(text) else {
        return split_yaml(text).len() < 2;
    };
    let entries = match &node {
        Node::Map(entries) => entries.len(),
        _ => return true,
    };
    let of_group = |group: &&str| string(&node, "apiVersion").starts_with(*group);
    let version = ["llm-d.ai/", "inference.networking"].iter().any(of_group);
    match node.get("kind") {
        Some(Node::String(kind)) => nearest(kind, [KIND]).is_some(),
        _ => entries == 0 || version || is_written_like_one(&node),
    }
}

/// Returns whether a mapping without `kind` has fields that only an EndpointPickerConfig has.
fn is_written_like_one(node: &Node) -> bool {
    let typed = |plugins: &Node| match plugins {
        Node::List(entries) => entries.iter().any(|entry| entry.get("type").is_some()),
        _ => false,
    };
    let plugins = node.get("plugins").is_some_and(typed);
    node.get("kind").is_none() && (plugins || node.get("schedulingProfiles").is_some())
}

fn string<'n>(node: &'n Node, key: &str) -> &'n str {
    match node.get(key) {
        Some(Node::String(text)) => text,
        _ => "",
    }
}

fn whole(layer: Rc<Layer>, place: &str) -> Document {
    Document {
        place: place.to_owned(),
        text: layer.text.clone(),
        layer,
        mapping: None,
    }
}

/// Searches a text's documents.
fn search(text: &Rc<Layer>, place: &str, depth: usize, found: &mut Vec<Document>) {
    let parts = text.documents();
    let several = parts.len() > 1;
    for (position, part) in parts.into_iter().enumerate() {
        let place = match several {
            true => joined(place, &format!("document {}", position + 1)),
            false => place.to_owned(),
        };
        let part = Rc::new(part);
        match config::parse(&part.text) {
            // What does not parse may be one: the loader says why it does not.
            Err(_) if names_kind(&part.text) => found.push(whole(part, &place)),
            // A text that is not of YAML is a YAML string of itself.
            Err(_) | Ok(Node::String(_)) if depth > 0 => {}
            Err(_) => {}
            Ok(node) if string(&node, "kind") == KIND => found.push(whole(part, &place)),
            Ok(node) if depth > 0 && is_written_like_one(&node) => found.push(whole(part, &place)),
            Ok(node) => {
                let mut walk = Walk {
                    layer: &part,
                    place: &place,
                    depth,
                    found,
                };
                walk.node(&node, &Path::default());
            }
        }
    }
}

/// Returns whether a text declares the kind of an EndpointPickerConfig, even if it does not parse.
pub fn names_kind(text: &str) -> bool {
    let quotes = [' ', '\t', '"', '\'', '\\'];
    text.match_indices(KIND).any(|(place, _)| {
        let before = text.get(..place).unwrap_or_default();
        let key = before.trim_end_matches(quotes).strip_suffix(':');
        key.is_some_and(|key| key.trim_end_matches(quotes).ends_with("kind"))
    })
}

fn joined(above: &str, below: &str) -> String {
    match (above, below) {
        ("", below) => below.to_owned(),
        (above, "") => above.to_owned(),
        (above, below) => format!("{above}: {below}"),
    }
}

/// A walk over a parsed document.
struct Walk<'w> {
    layer: &'w Rc<Layer>,
    place: &'w str,
    depth: usize,
    found: &'w mut Vec<Document>,
}

impl Walk<'_> {
    fn node(&mut self, node: &Node, path: &Path) {
        match node {
            Node::Map(_) if string(node, "kind") == KIND => self.found.push(Document {
                place: joined(self.place, &path.to_string()),
                text: value(node).to_string(),
                layer: self.layer.clone(),
                mapping: Some(path.clone()),
            }),
            Node::Map(entries) => {
                let entries = entries.iter().filter(|(key, _)| key != LAST_APPLIED);
                let is_secret = string(node, "kind") == "Secret";
                for (key, entry) in entries {
                    match entry {
                        Node::Map(data) if is_secret && key == "data" => {
                            self.secret(data, &path.key(key));
                        }
                        entry => self.node(entry, &path.key(key)),
                    }
                }
            }
            Node::List(entries) => {
                for (index, entry) in entries.iter().enumerate() {
                    self.node(entry, &path.index(index));
                }
            }
            Node::String(text) => self.text(text, path),
            _ => {}
        }
    }

    /// A Secret's `data`, which is in base64.
    fn secret(&mut self, data: &[(String, Node)], path: &Path) {
        for (key, entry) in data {
            if let Node::String(coded) = entry {
                let text = base64(coded);
                self.text(text.as_deref().unwrap_or_default(), &path.key(key));
            }
        }
    }

    fn text(&mut self, text: &str, path: &Path) {
        let words = [KIND, "schedulingProfiles", "plugins"];
        let may = self.depth < MAX_EMBEDDING_DEPTH && words.iter().any(|word| text.contains(word));
        if !may {
            return;
        }
        let flag = flag(text).len();
        let place = joined(self.place, &path.to_string());
        if let Some(inside) = self.layer.text_at(path, text, flag) {
            search(&inside, &place, self.depth + 1, self.found);
        }
    }
}

/// The prefix of a value in an argument or literal: `--config-text=`, or kustomize's `config.yaml=`.
fn flag(text: &str) -> &str {
    let is_of_name = |sign: char| sign.is_alphanumeric() || matches!(sign, '_' | '.' | '-');
    match text.split_once('=') {
        Some((name, _)) if !name.is_empty() && name.chars().all(is_of_name) => {
            text.get(..name.len() + 1).unwrap_or_default()
        }
        _ => "",
    }
}

#[cfg(test)]
#[path = "embedded_tests.rs"]
mod tests;

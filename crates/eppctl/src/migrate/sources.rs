//! Finds the settings of an Endpoint Picker in files: flags of containers, Helm values, InferencePools.
//!
//! Like the search for documents, it knows no kind of object by name: a Deployment, a patch of one, an
//! LLMInferenceService and a list of any of these are all walked in the same way.

use std::collections::HashSet;

use epp_core::config;
use epp_core::config::value::{Node, Path};

use super::release::Release;
use super::target::Target;
use super::{flags, values};
use crate::embedded::layer::split_yaml;
use crate::embedded::{names_kind, LAST_APPLIED};

/// Nesting depth of texts that are searched for Helm values: those of an Argo CD Application are one text.
const MAX_DEPTH: usize = 2;

/// Characters of a value that a report shows.
const MAX_SHOWN: usize = 120;

/// A setting as found.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// Its name: `--pool-name`, or the path of a value.
    pub name: String,
    /// Its value.
    pub value: Node,
    /// Where it is: file and path.
    pub place: String,
    /// Where it goes.
    pub target: Target,
}

impl Setting {
    /// Returns what the setting has in common with others of one name: a flag that is known may be spelt in several ways.
    fn key(&self) -> String {
        match (self.target, self.name.strip_prefix('-')) {
            (Target::Unknown, _) | (_, None) => self.name.clone(),
            (_, Some(flag)) => format!("-{}", flags::plain(flag)),
        }
    }

    /// Returns the value in one short line; empty if there is none.
    pub fn shown(&self) -> String {
        let text = match (&self.value, self.target) {
            // The document is shown whole, elsewhere.
            (_, Target::Document | Target::LeftOut) => String::new(),
            (Node::Map(entries), _) => labels(entries),
            (value, _) => value.to_string(),
        };
        let line: Vec<&str> = text.split_whitespace().collect();
        let line = line.join(" ");
        match line.char_indices().nth(MAX_SHOWN) {
            Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
            None => line,
        }
    }
}

fn labels(entries: &[(String, Node)]) -> String {
    let pairs: Vec<String> = entries
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    pairs.join(",")
}

/// Which chart's values a file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chart {
    /// inferencepool of the Gateway API Inference Extension.
    Gie,
    /// llm-d-router.
    Router,
    /// llm-d-modelservice.
    ModelService,
}

/// The settings of all files of a run.
#[derive(Debug, Default)]
pub struct Sources {
    /// The settings, in order; of several with one name the last is in force.
    pub settings: Vec<Setting>,
    /// The chart whose values were found.
    pub chart: Option<Chart>,
    /// The ConfigMap that an LLMInferenceService takes its document from.
    pub config_map: Option<String>,
    /// Objects that are no part of the Endpoint Picker: objectives, rewrites, and those in which nothing was found.
    pub objects: Vec<Setting>,
    /// Documents, and references to one, that were found.
    documents: usize,
}

impl Sources {
    /// Returns the settings of files, given as names and texts; of several with one name the last. Returns an error if a
    /// part of a file does not parse: its settings would be lost.
    pub fn of(files: &[(String, String)]) -> Result<Self, String> {
        let mut sources = Self::default();
        for (file, text) in files {
            sources.read(file, text)?;
        }
        let mut known = HashSet::new();
        sources.settings.reverse();
        sources.settings.retain(|one| known.insert(one.key()));
        sources.settings.reverse();
        Ok(sources)
    }

    /// Returns the release of the chart that the tag of the Endpoint Picker's image names.
    pub fn release(&self) -> Option<Release> {
        match self.other_image() {
            Some(_) => None,
            None => Release::of_tag(&self.tag()?),
        }
    }

    /// Returns the tag of the Endpoint Picker's image.
    pub fn tag(&self) -> Option<String> {
        let mut settings = self.settings.iter();
        let tag = settings.find(|one| one.target == Target::Release)?;
        Some(tag.value.to_string())
    }

    /// Returns the name of the image that values give to the chart inferencepool instead of its own, `epp`. Its tag is
    /// not a release of the chart.
    pub fn other_image(&self) -> Option<String> {
        let mut settings = self.settings.iter().rev();
        let image = settings.find(|one| values::IMAGE_NAMES.contains(&one.name.as_str()))?;
        let path = image.value.to_string();
        let name = path.rsplit('/').next().unwrap_or_default();
        (name != "epp").then(|| name.to_owned())
    }

    fn read(&mut self, file: &str, text: &str) -> Result<(), String> {
        for (above, part) in split_yaml(text) {
            let node = config::parse(&part).map_err(|rejected| {
                let what = match part.contains("{{") {
                    true => "; a template must be rendered first, as by `helm template`",
                    false => "",
                };
                let problem = rejected.errors.first();
                let line = problem.and_then(|problem| problem.location);
                let line = above + line.map_or(1, |(line, _)| line);
                let message = problem.map_or("does not parse", |problem| &problem.message);
                format!("{file}:{line}: {message}{what}")
            })?;
            self.walk(&node, &Path::default(), file, 0);
        }
        Ok(())
    }

    fn walk(&mut self, node: &Node, path: &Path, file: &str, depth: usize) {
        match node {
            Node::Map(entries) => {
                let before = self.found();
                if let Some(chart) = chart(node) {
                    self.chart = Some(chart);
                    self.chart_values(entries, "", path, file);
                }
                self.pool(node, path, file);
                for (key, entry) in entries.iter().filter(|(key, _)| key != LAST_APPLIED) {
                    let below = path.key(key);
                    match entry {
                        Node::List(entries) if matches!(key.as_str(), "args" | "command") => {
                            self.arguments(entries, &below, file);
                        }
                        entry => self.walk(entry, &below, file, depth),
                    }
                }
                self.object(node, path, file, before);
            }
            Node::List(entries) => {
                for (index, entry) in entries.iter().enumerate() {
                    self.walk(entry, &path.index(index), file, depth);
                }
            }
            Node::String(text) if depth < MAX_DEPTH && may_hold_values(text) => {
                if let Ok(inside @ Node::Map(_)) = config::parse(text) {
                    self.walk(&inside, path, file, depth + 1);
                }
            }
            Node::String(text) if names_kind(text) => self.documents += 1,
            _ => {}
        }
    }

    /// Returns how much of an Endpoint Picker was found.
    fn found(&self) -> usize {
        self.settings.len() + self.documents
    }

    /// Adds an object of Kubernetes that is no part of the Endpoint Picker. `before` is what was found outside it.
    fn object(&mut self, node: &Node, path: &Path, file: &str, before: usize) {
        let Some(Node::String(kind)) = node.get("kind") else {
            return;
        };
        if kind == "EndpointPickerConfig" {
            self.documents += 1;
            return;
        }
        let Some(name) = at(node, &["metadata", "name"]) else {
            return;
        };
        let mut value = Node::String(String::new());
        let target = match kind.as_str() {
            "InferenceObjective" => {
                let priority = at(node, &["spec", "priority"]).unwrap_or(&Node::Null);
                value = Node::Map(vec![
                    ("name".to_owned(), name.clone()),
                    ("priority".to_owned(), priority.clone()),
                ]);
                Target::Objectives
            }
            "InferenceModelRewrite" => Target::ToDo("write its rules into model-rewrite"),
            _ if self.found() > before => return,
            _ => Target::Gone("not read"),
        };
        self.objects.push(Setting {
            name: format!("{kind} {name}"),
            value,
            place: format!("{file}: {path}"),
            target,
        });
    }

    fn arguments(&mut self, entries: &[Node], path: &Path, file: &str) {
        let texts: Vec<String> = entries.iter().map(ToString::to_string).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        for given in flags::given(&texts) {
            self.flag(&given.name, Node::String(given.value), path, file);
        }
    }

    fn flag(&mut self, name: &str, value: Node, path: &Path, file: &str) {
        let dashes = if name.len() == 1 { "-" } else { "--" };
        let target = flags::target(name);
        self.add(format!("{dashes}{name}"), value, path, file, target);
    }

    fn add(&mut self, name: String, value: Node, path: &Path, file: &str, target: Target) {
        self.settings.push(Setting {
            name,
            value,
            place: format!("{file}: {path}"),
            target,
        });
    }

    /// Adds the values below a path of a chart's values.
    fn chart_values(&mut self, entries: &[(String, Node)], above: &str, path: &Path, file: &str) {
        for (key, value) in entries {
            let name = match above {
                "" => key.clone(),
                above => format!("{above}.{key}"),
            };
            let below = path.key(key);
            if values::FLAGS.contains(&name.as_str()) {
                self.chart_flags(value, &below, file);
                continue;
            }
            match (values::target(&name), value) {
                (_, Node::Null) => {}
                ((_, true), Node::Map(entries)) => {
                    self.chart_values(entries, &name, &below, file);
                }
                (_, Node::List(entries)) if entries.is_empty() => {}
                (_, Node::Map(entries)) if entries.is_empty() => {}
                ((target, _), value) => {
                    let unknown = match above {
                        "" => Target::LeftOut,
                        _ => Target::Unknown,
                    };
                    let target = target.unwrap_or(unknown);
                    self.add(name, value.clone(), &below, file, target);
                }
            }
        }
    }

    /// Flags in values: by name, or in charts of v1.0 as a list of names and values.
    fn chart_flags(&mut self, value: &Node, path: &Path, file: &str) {
        match value {
            Node::Map(entries) => {
                for (name, value) in entries {
                    self.flag(name, value.clone(), &path.key(name), file);
                }
            }
            Node::List(entries) => {
                for (index, entry) in entries.iter().enumerate() {
                    let value = entry.get("value").cloned().unwrap_or(Node::Null);
                    if let Some(Node::String(name)) = entry.get("name") {
                        self.flag(name, value, &path.index(index), file);
                    }
                }
            }
            _ => {}
        }
    }

    /// The spec of an InferencePool, also where KServe has it, and KServe's reference to a document.
    fn pool(&mut self, node: &Node, path: &Path, file: &str) {
        if let Some(name) = at(node, &["scheduler", "config", "ref", "name"]) {
            self.config_map = Some(name.to_string());
            self.documents += 1;
        }
        let picker = node.get("endpointPickerRef").or(node.get("extensionRef"));
        let (Some(picker), Some(selector)) = (picker, node.get("selector")) else {
            return;
        };
        let selector = selector.get("matchLabels").unwrap_or(selector);
        let mut add = |name: &str, value: Option<&Node>, target| {
            if let Some(value) = value {
                self.add(
                    format!("InferencePool {name}"),
                    value.clone(),
                    path,
                    file,
                    target,
                );
            }
        };
        add("selector", Some(selector), Target::Selector);
        add("targetPorts", node.get("targetPorts"), Target::Ports);
        add(
            "targetPortNumber",
            node.get("targetPortNumber"),
            Target::Ports,
        );
        add(
            "failureMode",
            picker.get("failureMode"),
            Target::Proxy("failureMode"),
        );
    }
}

fn at<'n>(node: &'n Node, path: &[&str]) -> Option<&'n Node> {
    path.iter().try_fold(node, |node, key| node.get(key))
}

/// Returns the chart whose values these are.
fn chart(node: &Node) -> Option<Chart> {
    let has = |path: &[&str]| matches!(at(node, path), Some(Node::Map(_)));
    let found = values::TELLING.iter().find(|(path, _)| has(path));
    found.map(|(_, chart)| *chart)
}

fn may_hold_values(text: &str) -> bool {
    let roots = values::TELLING.iter().filter_map(|(path, _)| path.first());
    text.contains('\n') && roots.into_iter().any(|root| text.contains(root))
}

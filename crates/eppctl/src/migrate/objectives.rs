//! The objectives of requests, as values and InferenceObjective resources list them.

use std::collections::BTreeMap;
use std::slice;

use epp_core::config::value::Node;
use serde_json::{json, Value};

use super::apply::{Migration, Outcome};
use super::sources::Sources;
use super::target::Target;

const PLUGIN: &str = "static-objectives";
const NAME: &str = "objectives";

/// Puts the objectives into the document, unless it lists some.
pub fn put(migration: &mut Migration<'_>, sources: &Sources) {
    let has_own = migration.document.get(PLUGIN, NAME).is_some();
    // Of two with one name the last counts.
    let mut objectives = BTreeMap::new();
    let settings = sources.settings.iter().chain(&sources.objects);
    for setting in settings.filter(|one| one.target == Target::Objectives) {
        let entries = match &setting.value {
            Node::List(entries) => entries.as_slice(),
            entry => slice::from_ref(entry),
        };
        let listed: Option<Vec<_>> = entries.iter().map(objective).collect();
        let (outcome, what) = match listed {
            None => (
                Outcome::ToDo,
                "not carried over: expected a name and a priority, a whole number",
            ),
            Some(_) if has_own => (
                Outcome::ToDo,
                "list it under `objectives` of static-objectives: the document has others there already",
            ),
            Some(listed) => {
                objectives.extend(listed);
                (Outcome::Moved, "static-objectives, objectives")
            }
        };
        migration.note(setting, outcome, what);
    }
    if objectives.is_empty() {
        return;
    }
    let objectives = objectives.into_iter();
    let objectives: Vec<Value> = objectives
        .map(|(name, priority)| json!({"name": name, "priority": priority}))
        .collect();
    migration.document.set(PLUGIN, NAME, json!(objectives));
}

/// Returns name and priority of an objective; without a priority it is 0.
fn objective(entry: &Node) -> Option<(String, i32)> {
    let Some(Node::String(name)) = entry.get("name") else {
        return None;
    };
    let priority = match entry.get("priority") {
        None | Some(Node::Null) => 0,
        Some(priority) => priority.to_string().parse().ok()?,
    };
    Some((name.clone(), priority))
}

//! The standing of each plugin and field of a document: how it behaves compared with the Endpoint Picker.
//!
//! For a document that loads, this covers the configuration in force, otherwise the document as written.

use epp_core::config::value::Node;
use epp_core::config::{elsewhere, Here, Plan};
use epp_core::plugins;
use serde::Serialize;

use crate::excerpt::Diagnostic;
use crate::page::written;
use crate::reference::standing;

/// A plugin.
#[derive(Serialize)]
pub struct Plugin {
    /// Its name in the document.
    pub name: String,
    /// Its type.
    pub r#type: String,
    /// Its standing.
    pub standing: String,
    /// Its parameters.
    pub parameters: Vec<Field>,
}

/// A parameter, or a field of the document outside its plugins.
#[derive(Serialize)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// Its standing.
    pub standing: String,
}

/// Returns the plugins of a plan, including those added by default, with all parameters.
pub fn in_force(plan: &Plan) -> Vec<Plugin> {
    let instances = plan.instances.iter();
    instances
        .map(|instance| {
            let kind = plugins::find(instance.kind);
            let idle = || idle(instance.kind).unwrap_or_default();
            let of_parameter = |name: &str| match kind {
                Some(kind) => standing(kind.parity.of_parameter(name)),
                None => idle(),
            };
            Plugin {
                name: instance.name.clone(),
                r#type: instance.kind.to_owned(),
                standing: match kind {
                    Some(kind) => standing(kind.parity.plugin),
                    None => idle(),
                },
                parameters: instance
                    .parameters
                    .iter()
                    .map(|(name, value)| Field {
                        name: name.clone(),
                        value: written(value),
                        standing: of_parameter(name),
                    })
                    .collect(),
            }
        })
        .collect()
}

/// Returns the standing of a type that does not run here; `None` if it is refused or not known.
fn idle(kind: &str) -> Option<String> {
    elsewhere(kind)?.standing().map(standing)
}

/// Returns the plugins of a document that does not load, as written.
pub fn as_written(document: &Node, errors: &[Diagnostic]) -> Vec<Plugin> {
    let Some(Node::List(entries)) = document.get("plugins") else {
        return Vec::new();
    };
    let plugins = entries.iter().enumerate().filter_map(|(index, entry)| {
        let Some(Node::String(kind)) = entry.get("type") else {
            return None;
        };
        let name = match entry.get("name") {
            Some(Node::String(name)) if !name.is_empty() => name,
            _ => kind,
        };
        let path = format!("plugins[{index}]");
        Some(Plugin {
            name: name.clone(),
            r#type: kind.clone(),
            standing: of_type(kind, &path, errors),
            parameters: parameters(entry, kind, &path, errors),
        })
    });
    plugins.collect()
}

fn of_type(kind: &str, path: &str, errors: &[Diagnostic]) -> String {
    if let Some(known) = elsewhere(kind).filter(|known| known.here == Here::Refused) {
        return format!("refused: {}", known.why);
    }
    let own = |place: &str| refused(errors, |error| error == place);
    let refused = own(&format!("{path}.type"))
        .or_else(|| own(&format!("{path}.name")))
        .or_else(|| own(path));
    match (refused, plugins::find(kind)) {
        (Some(refused), _) => refused,
        (None, Some(found)) => standing(found.parity.plugin),
        (None, None) => idle(kind).unwrap_or_else(|| "refused: not a plugin type".to_owned()),
    }
}

fn parameters(entry: &Node, kind: &str, path: &str, errors: &[Diagnostic]) -> Vec<Field> {
    let Some(Node::Map(given)) = entry.get("parameters") else {
        return Vec::new();
    };
    let found = plugins::find(kind);
    let fields = given.iter().map(|(name, value)| {
        let path = format!("{path}.parameters.{name}");
        let standing = match (refused(errors, |error| is_below(error, &path)), found) {
            (Some(refused), _) => refused,
            (None, Some(found)) => standing(found.parity.of_parameter(name)),
            (None, None) => idle(kind).unwrap_or_else(|| "not checked".to_owned()),
        };
        Field {
            name: name.clone(),
            value: written(value),
            standing,
        }
    });
    fields.collect()
}

/// Returns the fields outside `plugins` that are refused or have no effect here.
pub fn others(errors: &[Diagnostic], warnings: &[Diagnostic]) -> Vec<Field> {
    let outside =
        |problem: &&Diagnostic| !problem.path.is_empty() && !is_below(&problem.path, "plugins");
    let field = |problem: &Diagnostic, standing: String| Field {
        name: problem.path.clone(),
        value: String::new(),
        standing,
    };
    let refused = errors.iter().filter(outside);
    let refused = refused.map(|error| field(error, format!("refused: {}", error.message)));
    let warned = warnings.iter().filter(outside);
    let warned = warned.map(|warning| field(warning, warning.message.clone()));
    refused.chain(warned).collect()
}

/// Returns the loader's error at a path, if there is one.
fn refused(errors: &[Diagnostic], at: impl Fn(&str) -> bool) -> Option<String> {
    let error = errors.iter().find(|error| at(&error.path))?;
    // The error itself, printed above, lists the supported types.
    let message = error.message.split("; supported: ").next();
    Some(format!("refused: {}", message.unwrap_or_default()))
}

/// Returns whether a path equals another one or is below it.
fn is_below(path: &str, place: &str) -> bool {
    let rest = path.strip_prefix(place);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

//! Resolution of a document's plugin types: built here, without effect here, or refused.

use super::Assembly;
use crate::config::document::PluginEntry;
use crate::config::known::{elsewhere, successor, Elsewhere};
use crate::config::plan::Instance;
use crate::config::value::fields::{approximated, no_effect};
use crate::config::value::nearest::nearest;
use crate::config::value::{Node, Path};
use crate::plugins::{self, Capabilities, PluginType, Standing};

/// A type that a document may hold.
#[derive(Clone, Copy)]
pub enum Known {
    /// It can be configured here.
    Type(&'static PluginType),
    /// It changes nothing here.
    Idle(&'static Elsewhere),
}

impl Assembly<'_> {
    /// Looks up an entry's type and notes where it has to be refused.
    pub fn look_up(&mut self, entry: &PluginEntry) -> Option<Known> {
        let path = entry.path.key("type");
        if let Some(kind) = plugins::find(&entry.kind) {
            if kind.name != entry.kind {
                let message = format!("renamed; use {}", kind.name);
                self.problems.warn(&path, message);
            } else if let Some(instead) = successor(kind.name) {
                let message = format!("deprecated; use {instead}");
                self.problems.warn(&path, message);
            }
            self.warn_of(&entry.kind, kind.parity.plugin, &path);
            return Some(Known::Type(kind));
        }
        let known = elsewhere(&entry.kind);
        match known.and_then(|known| Some((known, known.standing()?))) {
            Some((idle, standing)) => {
                self.warn_of(&entry.kind, standing, &path);
                return Some(Known::Idle(idle));
            }
            // That there is none was said already.
            None if entry.kind.is_empty() => {}
            _ => {
                let message = self.refusal(&entry.kind, known);
                self.problems.error(&path, message);
            }
        }
        // A type that is not known can be anything.
        self.handler_refused |= known.is_none() || entry.kind.ends_with("profile-handler");
        self.built.refused.push(entry.name.clone());
        None
    }

    /// Warns of a type that does not work as in the Endpoint Picker.
    fn warn_of(&mut self, kind: &str, standing: Standing, path: &Path) {
        match standing {
            Standing::Approximated(how) => {
                let message = format!("{kind} is {}", approximated(how));
                self.problems.approximate(path, message);
            }
            Standing::NoEffect(why) => {
                let message = format!("{kind} {}", no_effect(why));
                self.problems.warn(path, message);
            }
            Standing::Same | Standing::Differs(_) | Standing::Ours(_) => {}
        }
    }

    /// Returns the error for a type that is not supported. The first error also lists the supported types.
    fn refusal(&mut self, kind: &str, known: Option<&Elsewhere>) -> String {
        let types = || plugins::TYPES.iter().map(|kind| kind.name);
        let mut message = match known {
            Some(known) => {
                let why = known.why;
                format!("found {kind:?}, known to the Endpoint Picker: {why}")
            }
            None => format!("found {kind:?}, expected a plugin type"),
        };
        if let (None, Some(near)) = (known, nearest(kind, types())) {
            message.push_str("; did you mean ");
            message.push_str(near);
            message.push('?');
        } else if !std::mem::replace(&mut self.types_listed, true) {
            message.push_str("; supported: ");
            let types: Vec<&str> = types().collect();
            message.push_str(&types.join(", "));
        }
        message
    }
}

/// A plugin that is declared and changes nothing here.
pub fn idle(entry: &PluginEntry, idle: &'static Elsewhere) -> Instance {
    let parameters = match &entry.parameters {
        Some(Node::Map(given)) => given.clone(),
        _ => Vec::new(),
    };
    Instance {
        name: entry.name.clone(),
        kind: idle.name,
        parameters,
        capabilities: Capabilities::default(),
    }
}

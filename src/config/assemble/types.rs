//! What a document's plugin types turn out to be: built here, without effect here, or refused.

use super::Assembly;
use crate::config::document::{Document, PluginEntry};
use crate::config::known::{elsewhere, idle, Idle};
use crate::config::plan::Instance;
use crate::document::fields::no_effect;
use crate::document::nearest::nearest;
use crate::document::Node;
use crate::plugins::{self, PluginType, Role};

/// What a type that a document may hold turns out to be.
pub enum Known {
    /// It can be configured here.
    Type(&'static PluginType),
    /// It changes nothing here.
    Idle(Idle),
}

/// What a type's name stands for; `None` where it is refused.
pub fn kind_of(name: &str) -> Option<Known> {
    let found = plugins::find(name).map(Known::Type);
    found.or_else(|| idle(name).map(Known::Idle))
}

impl Assembly<'_> {
    /// A plugin that is declared and changes nothing here.
    pub fn idle(&mut self, entry: &PluginEntry, idle: Idle) -> Instance {
        self.problems
            .warn(&entry.path.key("type"), no_effect(idle.why));
        let parameters = match &entry.parameters {
            Some(Node::Map(given)) => given.clone(),
            _ => Vec::new(),
        };
        Instance {
            name: entry.name.clone(),
            kind: idle.name,
            parameters,
            role: Role::Inert,
        }
    }

    /// Notes that a type cannot be had here. The first of them lists those that can.
    pub fn refuse_type(&mut self, entry: &PluginEntry) {
        if entry.kind.is_empty() {
            return;
        }
        let listed = &mut self.types_listed;
        self.problems.error_with(&entry.path.key("type"), || {
            let types = || plugins::TYPES.iter().map(|kind| kind.name);
            let found = &entry.kind;
            let message = match (elsewhere(found), nearest(found, types())) {
                (Some(instead), _) => {
                    format!("found {found:?}, known to the Endpoint Picker, not supported here: {instead}")
                }
                (None, Some(name)) => {
                    return format!("found {found:?}, expected a plugin type; did you mean {name}?");
                }
                (None, None) => format!("found {found:?}, expected a plugin type"),
            };
            if std::mem::replace(listed, true) {
                return message;
            }
            format!("{message}; supported: {}", types().collect::<Vec<_>>().join(", "))
        });
    }

    /// Without profiles the Endpoint Picker's default one runs every plugin that filters.
    pub fn refuse_implied_filters(&mut self, document: &Document) {
        for entry in &document.plugins {
            if idle(&entry.kind).is_some_and(|idle| idle.filters) {
                let message = "filters here, as there are no schedulingProfiles, and is not supported as a filter; list profiles without it";
                self.problems.error(&entry.path.key("type"), message);
            }
        }
    }

    /// Whether a plugin whose type is refused can be the profile handler: a type that is not known can be
    /// anything.
    pub fn may_lack_handler(&self, document: &Document) -> bool {
        let mut plugins = document.plugins.iter();
        plugins.any(|entry| {
            self.refused.contains(&entry.name)
                && (entry.kind.ends_with("profile-handler") || elsewhere(&entry.kind).is_none())
        })
    }
}

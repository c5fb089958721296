//! Declarations of plugin types.
//!
//! A type declares as data what its plugins can do and in which parameters they refer to others: from that the
//! plugins of a document are put in order, so that those that are referred to are built first. Parameters are
//! declared by the function that reads them (see `build.rs`).

use super::build::Build;
use super::capability::{Capabilities, Capability};
use super::parity::Parity;

/// The Endpoint Picker by whose rules a document is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Gateway API Inference Extension v1.0: `inference.networking.x-k8s.io/v1alpha1`.
    GieV1,
    /// llm-d-router of 2026: `llm-d.ai/v1alpha1`.
    LlmD,
}

/// A name that a type had before. A document with it loads with a warning.
#[derive(Debug, Clone, Copy)]
pub struct FormerName {
    /// The name.
    pub name: &'static str,
    /// The Endpoint Picker that knows it.
    pub dialect: Dialect,
}

/// A parameter that names another plugin.
#[derive(Debug, Clone, Copy)]
pub struct Reference {
    /// The parameter; one in a section with the section's name before it, and a dot between.
    pub parameter: &'static str,
    /// The capability that the plugin which it names must have.
    pub to: Capability,
    /// The type whose name stands for a plugin with all defaults where no plugin has it.
    pub default: Option<&'static PluginType>,
}

/// A plugin type of the document.
#[derive(Debug, Clone, Copy)]
pub struct PluginType {
    /// The document's `type`.
    pub name: &'static str,
    /// Its names in older documents.
    pub former_names: &'static [FormerName],
    /// The capabilities of its plugins.
    pub provides: &'static [Capability],
    /// The parameters that name other plugins. If one is absent, it refers to any plugin that can
    /// do what it requires; so all of them are built first.
    pub references: &'static [Reference],
    /// Reads the parameters. Problems are noted in the fields; the result is then unused.
    pub build: fn(&mut Build<'_, '_>) -> Capabilities,
    /// How it and its parameters compare with the Endpoint Picker's.
    pub parity: Parity,
}

impl PluginType {
    /// Returns whether it has this name, or had it before.
    pub fn is_named(&self, name: &str) -> bool {
        let mut former = self.former_names.iter();
        self.name == name || former.any(|former| former.name == name)
    }
}

//! Plugin types, and how a plugin is built from its parameters and from the plugins that it refers to.
//!
//! Building has two phases. A type declares as data what its plugins can do and in which parameters they
//! refer to others; from that the plugins of a document are put in order, so that those that are
//! referred to are built first. Then each is built by its function.
//!
//! That function reads the parameters one by one, each with its default and bounds, and that reading is
//! also their declaration: [`questions`] runs it on an empty document and notes what it asks for. The
//! schema, the reference tables and the checks of `eppctl` are made of those notes. A table of
//! parameters beside the function would say everything twice: what a parameter may be depends on the
//! dialect and on other parameters for a third of the types, which a reading says in a line and a table
//! cannot say without a language of its own.

use super::capability::{Capabilities, Capability};
use super::parity::Parity;
use super::prefix_producer::PrefixProducer;
use crate::config::value::nearest::no_such;
use crate::config::value::{Fields, Path, Problems, Question};
use crate::scheduling::HeaderId;

/// Which Endpoint Picker's rules a document is read by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Gateway API Inference Extension v1.0: `inference.networking.x-k8s.io/v1alpha1`.
    GieV1,
    /// llm-d-router of 2026: `llm-d.ai/v1alpha1`.
    LlmD,
}

/// A parameter that names another plugin.
#[derive(Debug, Clone, Copy)]
pub struct Reference {
    /// The parameter.
    pub parameter: &'static str,
    /// What the plugin that it names can do.
    pub to: Capability,
    /// A name that stands for a plugin with all defaults where no plugin has it.
    pub default: Option<&'static str>,
}

/// A plugin type of the document.
#[derive(Debug, Clone, Copy)]
pub struct PluginType {
    /// The document's `type`.
    pub name: &'static str,
    /// What its plugins can do.
    pub provides: &'static [Capability],
    /// The parameters that name other plugins. Where one is absent, it stands for any plugin that can
    /// do what it asks for; so all of them are built first.
    pub references: &'static [Reference],
    /// Reads the parameters. Problems are noted in the fields; the result is then unused.
    pub build: fn(&mut Build<'_, '_>) -> Capabilities,
    /// How it and its parameters compare with the Endpoint Picker's.
    pub parity: Parity,
}

/// Headers that the plugins of one plan read at most: a host copies each for every request.
const MAX_HEADERS: usize = 32;

/// The part of a plan that is built so far, for the plugins that refer to it.
#[derive(Debug, Default)]
pub struct Built {
    /// The plugins, with what they can do.
    pub plugins: Vec<(String, &'static [Capability])>,
    /// Names of plugins whose types are refused: a reference to one is not a problem of its own.
    pub refused: Vec<String>,
    /// The prefix producers, each under its plugin's name. A scorer that matches prefixes refers to
    /// one by its index here, and may add one of its own.
    pub producers: Vec<(String, PrefixProducer)>,
    /// The request headers that plugins read, in lower case.
    pub headers: Vec<String>,
}

impl Built {
    /// Returns the names of the plugins that can do something.
    fn names(&self, capability: Capability) -> Vec<&str> {
        if capability == Capability::PrefixProducer {
            let names = self.producers.iter().map(|(name, _)| name.as_str());
            return names.collect();
        }
        let plugins = self.plugins.iter();
        let able = plugins.filter(|(_, provides)| provides.contains(&capability));
        able.map(|(name, _)| name.as_str()).collect()
    }
}

/// What a plugin is built from.
pub struct Build<'a, 'd> {
    /// Its name in the document.
    pub name: &'a str,
    /// Its parameters.
    pub fields: Fields<'d>,
    /// The dialect that the document is read by.
    pub dialect: Dialect,
    /// The dialect of the document's `apiVersion`.
    pub declared: Dialect,
    /// What is built already.
    pub built: &'a mut Built,
}

impl Build<'_, '_> {
    /// Reads a reference that the type declares. Returns the name that is given; an empty one where
    /// none is, or where no plugin has it, which is then a problem.
    pub fn refer(&mut self, reference: &Reference) -> String {
        let name = self.fields.string(reference.parameter, "");
        if name.is_empty() || reference.default == Some(name.as_str()) {
            return name;
        }
        let known = self.built.names(reference.to);
        if known.contains(&name.as_str()) {
            return name;
        }
        if !self.built.refused.contains(&name) {
            let path = self.fields.path().key(reference.parameter);
            let message = no_such(&name, &reference.to.a_name(), &known);
            self.fields.problems().error(&path, message);
        }
        String::new()
    }

    /// Asks for a request header, whose name a parameter gives. Plugins read its value by what this
    /// returns: [`crate::scheduling::RequestView::header`].
    pub fn header(&mut self, parameter: &'static str, name: &str) -> HeaderId {
        let name = name.to_ascii_lowercase();
        let headers = &mut self.built.headers;
        let known = headers.iter().position(|known| *known == name);
        let place = known.unwrap_or(headers.len());
        if known.is_none() && place < MAX_HEADERS {
            headers.push(name);
        } else if known.is_none() {
            let path = self.fields.path().key(parameter);
            let message = format!(
                "found {name:?}, expected at most {MAX_HEADERS} different headers in all plugins"
            );
            self.fields.problems().error(&path, message);
        }
        HeaderId(place)
    }

    /// Adds a prefix producer under a name, and returns its index in the plan.
    pub fn add_producer(&mut self, name: &str, producer: PrefixProducer) -> usize {
        self.built.producers.push((name.to_owned(), producer));
        self.built.producers.len() - 1
    }
}

/// Returns the parameters that a plugin type reads, in order: see the top of this file.
pub fn questions(plugin: &PluginType, dialect: Dialect) -> Vec<Question> {
    let mut problems = Problems::recording();
    (plugin.build)(&mut Build {
        name: plugin.name,
        fields: Fields::new(None, Path::default(), &mut problems),
        dialect,
        declared: dialect,
        built: &mut Built::default(),
    });
    problems.into_questions()
}

/// A plugin with all its defaults, as a test needs it.
#[cfg(test)]
pub fn build_default(name: &str) -> Capabilities {
    let mut problems = Problems::default();
    let path = Path::default();
    let plugin = super::find(name).unwrap();
    (plugin.build)(&mut Build {
        name,
        fields: Fields::new(None, path, &mut problems),
        dialect: Dialect::GieV1,
        declared: Dialect::GieV1,
        built: &mut Built::default(),
    })
}

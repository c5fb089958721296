//! The building of plugins from their parameters and from the plugins that they refer to.
//!
//! A type's function reads the parameters one by one, each with its default and bounds, and that reading is
//! also their declaration: [`questions`] runs it on an empty document and notes the fields that it reads. The
//! schema, the reference tables and the checks of `eppctl` are made of those notes. A table of
//! parameters beside the function would say everything twice: what a parameter may be depends on the
//! dialect and on other parameters for a third of the types, which a reading says in a line and a table
//! cannot say without a language of its own.

use std::sync::Arc;
use std::time::Duration;

use super::capability::{Capabilities, Capability};
use super::declaration::{Dialect, PluginType, Reference};
use super::prefix_producer::PrefixProducer;
use crate::config::value::nearest::no_such;
use crate::config::value::{Fields, Node, Path, Problems, Question};
use crate::config::Instance;
use crate::plugins::source::core_metrics_extractor;
use crate::scheduling::headers::COOKIE;
use crate::scheduling::{AttributeId, HeaderId, ProducerId, StateId, StateSpec};

/// Headers that the plugins of one plan read at most: a host copies each for every request.
const MAX_HEADERS: usize = 32;

/// Plugins of one plan that keep state at most; pickers number them in seven bits.
pub(super) const MAX_STATES: usize = 64;

/// Plugins of one plan that remember prompts at most; what pickers tell each other numbers them below 128, and each keeps
/// an index.
const MAX_PRODUCERS: usize = 64;

/// The part of a plan that is built so far, for the plugins that refer to it.
#[derive(Debug, Default)]
pub struct Built {
    /// The plugins, in the order in which they were built.
    pub plugins: Vec<Arc<Instance>>,
    /// Those of them that the document does not have: plugins with all defaults, for others that need them.
    pub added: Vec<Arc<Instance>>,
    /// Names of plugins whose types are refused: a reference to one is not a problem of its own.
    pub refused: Vec<String>,
    /// How prompts are cut and remembered, each under its plugin's name, by [`ProducerId`].
    pub producers: Vec<(String, PrefixProducer)>,
    /// The request headers that plugins read, in lower case, and cookies after [`COOKIE`], by [`HeaderId`].
    pub headers: Vec<String>,
    /// The state that plugins keep from request to request, by [`StateId`].
    pub states: Vec<StateSpec>,
    /// The names of the custom attributes that plugins read, with their places in the document.
    pub attributes: Vec<(String, Path)>,
}

impl Built {
    /// Has these request headers read, given in lower case. Those are left out for which there is no more room.
    pub fn read_headers(&mut self, names: &[&str]) -> Vec<HeaderId> {
        let ids = names
            .iter()
            .filter_map(|name| self.read_header((*name).to_owned()));
        ids.collect()
    }

    fn read_header(&mut self, name: String) -> Option<HeaderId> {
        let known = self.headers.iter().position(|known| *known == name);
        if known.is_none() && self.headers.len() >= MAX_HEADERS {
            return None;
        }
        Some(HeaderId(known.unwrap_or_else(|| {
            self.headers.push(name);
            self.headers.len() - 1
        })))
    }

    /// Returns the plugins that can do something.
    fn able(&self, to: Capability) -> impl Iterator<Item = &Arc<Instance>> + Clone {
        let plugins = self.plugins.iter();
        plugins.filter(move |plugin| plugin.capabilities.has(to))
    }

    /// Adds a plugin with all its defaults, named like its type.
    pub fn add(
        &mut self,
        kind: &'static PluginType,
        dialect: Dialect,
        declared: Dialect,
    ) -> Arc<Instance> {
        // Reading nothing raises no problem, and requires nothing of the document.
        let mut problems = Problems::default();
        let build = Build {
            name: kind.name,
            kind: kind.name,
            fields: Fields::new(None, Path::default(), &mut problems),
            dialect,
            declared,
            built: self,
        };
        let instance = build.finish(kind);
        self.added.push(instance.clone());
        instance
    }

    /// Returns the plugin that a reference means: the one of this name or, if it gives none, the one named like the
    /// default's type or the only one with the required capability.
    pub fn meant(&self, reference: &Reference, name: Option<&str>) -> Option<&Arc<Instance>> {
        let mut able = self.able(reference.to);
        let default = reference.default.map(|default| default.name);
        let wanted = name.or(default);
        let named = able.clone().find(|plugin| Some(&*plugin.name) == wanted);
        match (named, name) {
            (None, None) => able.next().filter(|_| able.next().is_none()),
            _ => named,
        }
    }
}

/// The inputs from which a plugin is built.
pub struct Build<'a, 'd> {
    /// Its name in the document.
    pub name: &'a str,
    /// Its type as the document writes it, which may be a former name.
    pub kind: &'a str,
    /// Its parameters.
    pub fields: Fields<'d>,
    /// The dialect that the document is read by.
    pub dialect: Dialect,
    /// The dialect of the document's `apiVersion`.
    pub declared: Dialect,
    /// The plugins that are built already.
    pub built: &'a mut Built,
}

impl Build<'_, '_> {
    /// Reads a reference that the type declares. Returns the plugin that is meant; `None` where the document has none
    /// that could be, and where no plugin has the name that is given, which is then a problem.
    pub fn refer(&mut self, reference: &Reference) -> Option<Arc<Instance>> {
        let name = self.fields.string(reference.parameter, "");
        let given = (!name.is_empty()).then_some(name.as_str());
        let found = self.built.meant(reference, given);
        let mut default = reference.default.iter();
        let stands = name.is_empty() || default.any(|default| default.name == name);
        if found.is_some() || stands {
            return found.cloned();
        }
        let path = self.fields.path().key(reference.parameter);
        self.resolve(reference.to, &name, &path)
    }

    /// Returns the plugin of this name with a capability. If there is none, that is a problem of the parameter at
    /// this path, which gives the name.
    pub fn resolve(&mut self, to: Capability, name: &str, path: &Path) -> Option<Arc<Instance>> {
        let mut able = self.built.able(to);
        let found = able.find(|plugin| plugin.name == name);
        if found.is_some() || self.built.refused.iter().any(|refused| refused == name) {
            return found.cloned();
        }
        let known = self.built.able(to).map(|plugin| plugin.name.as_str());
        let message = no_such(name, &to.a_name(), &known.collect::<Vec<_>>());
        self.fields.problems().error(path, message);
        None
    }

    /// Reads a reference like [`Self::refer`]. Where it gives the name of its default's type, and no plugin has that name,
    /// a plugin of that type is added with all its defaults: another plugin is not what was meant.
    pub fn refer_or_add(&mut self, reference: &Reference) -> Option<Arc<Instance>> {
        let given = self.fields.node(reference.parameter);
        let is_given =
            |kind: &&PluginType| matches!(given, Some(Node::String(name)) if name == kind.name);
        let default = reference.default.filter(is_given);
        let found = self.refer(reference);
        found.or_else(|| Some(self.add(default?)))
    }

    /// Asks for a request header, whose name a parameter gives. Plugins read its value by what this
    /// returns: [`crate::scheduling::RequestView::header`].
    pub fn header(&mut self, parameter: &'static str, name: &str) -> HeaderId {
        self.header_or_cookie(parameter, name.to_ascii_lowercase())
    }

    /// Asks for a cookie like for a header.
    pub fn cookie(&mut self, parameter: &'static str, name: &str) -> HeaderId {
        self.header_or_cookie(parameter, format!("{COOKIE}{name}"))
    }

    fn header_or_cookie(&mut self, parameter: &'static str, name: String) -> HeaderId {
        if let Some(header) = self.built.read_header(name.clone()) {
            return header;
        }
        let path = self.fields.path().key(parameter);
        let message = format!(
            "found {name:?}, expected at most {MAX_HEADERS} different headers in all plugins"
        );
        self.fields.problems().error(&path, message);
        HeaderId(MAX_HEADERS)
    }

    /// Reads the parameter that names a custom attribute, and the parameter `producer`, which says whose it is.
    /// Returns `None` for another producer than `core-metrics-extractor`: no endpoint has its attributes here.
    pub fn attribute(&mut self, parameter: &'static str) -> Option<AttributeId> {
        const PRODUCER: &str = "producer";
        let fields = &mut self.fields;
        let name = fields.required_string(parameter);
        let is_given = !matches!(fields.node(PRODUCER), None | Some(Node::Null));
        let producer = fields.string(PRODUCER, core_metrics_extractor::TYPE.name);
        let path = fields.path().key(parameter);
        if producer != core_metrics_extractor::TYPE.name {
            fields.approximated(PRODUCER, core_metrics_extractor::NO_OTHERS);
            return None;
        }
        if name.contains('/') && !is_given {
            let expected = "a name without a slash, or `producer` beside it";
            fields.refuse(parameter, &Node::String(name.clone()), expected);
        }
        let id = AttributeId::of(&name);
        self.built.attributes.push((name, path));
        Some(id)
    }

    /// Has prompts cut and remembered like this. Plugins read the matches by what this returns:
    /// [`crate::scheduling::RequestView::prefix_match`].
    pub fn prefix_producer(&mut self, producer: PrefixProducer) -> ProducerId {
        let found = self.built.producers.len() + 1;
        if found > MAX_PRODUCERS {
            let message = format!(
                "found {found}, expected at most {MAX_PRODUCERS} plugins that remember prompts"
            );
            let path = self.fields.path().clone();
            self.fields.problems().error(&path, message);
        }
        let producers = &mut self.built.producers;
        producers.push((self.name.to_owned(), producer));
        ProducerId(producers.len() - 1)
    }

    /// Declares state that the plugin keeps from request to request. It reads the state by what this returns:
    /// [`crate::scheduling::RequestView::state`].
    pub fn state(&mut self, capacity: usize, ttl: Option<Duration>) -> StateId {
        if self.built.states.len() >= MAX_STATES {
            let message = format!("expected at most {MAX_STATES} plugins that remember requests");
            let path = self.fields.path().clone();
            self.fields.problems().error(&path, message);
        }
        let states = &mut self.built.states;
        states.push(StateSpec {
            plugin: self.name.to_owned(),
            capacity,
            per_endpoint: false,
            ttl,
        });
        StateId(states.len() - 1)
    }

    /// Declares state like [`Self::state`] with room for so many keys of each endpoint.
    pub fn state_by_endpoint(&mut self, capacity: usize) -> StateId {
        let id = self.state(capacity, None);
        if let Some(state) = self.built.states.last_mut() {
            state.per_endpoint = true;
        }
        id
    }

    /// Adds a plugin with all its defaults for this one, which needs it.
    pub fn add(&mut self, kind: &'static PluginType) -> Arc<Instance> {
        self.built.add(kind, self.dialect, self.declared)
    }

    /// Builds the plugin, to which others can then refer.
    pub fn finish(mut self, kind: &'static PluginType) -> Arc<Instance> {
        let capabilities = (kind.build)(&mut self);
        let instance = Arc::new(Instance {
            name: self.name.to_owned(),
            kind: kind.name,
            parameters: self.fields.finish(),
            capabilities,
        });
        self.built.plugins.push(instance.clone());
        instance
    }
}

/// Returns the parameters that a plugin type reads, in order: see the top of this file.
pub fn questions(plugin: &PluginType, dialect: Dialect) -> Vec<Question> {
    let mut problems = Problems::recording();
    read_nothing(plugin, dialect, &mut problems);
    problems.into_questions()
}

/// Builds a plugin of a document that gives no parameters.
fn read_nothing(plugin: &PluginType, dialect: Dialect, problems: &mut Problems) -> Capabilities {
    (plugin.build)(&mut Build {
        name: plugin.name,
        kind: plugin.name,
        fields: Fields::new(None, Path::default(), problems),
        dialect,
        declared: dialect,
        built: &mut Built::default(),
    })
}

/// A plugin with all its defaults, as a test needs it.
#[cfg(test)]
pub fn build_default(name: &str, dialect: Dialect) -> Capabilities {
    let plugin = super::find(name).unwrap();
    read_nothing(plugin, dialect, &mut Problems::default())
}

//! What a plugin can be, and how it is built from its parameters.

use std::sync::Arc;

use super::discovery::envoy_cluster::EnvoyClusterDiscovery;
use super::discovery::inline::StaticDiscovery;
use super::producer::inflight_load::InflightLoad;
use super::proxy::envoy_proxy::EnvoyProxy;
use super::rewrite::model_rewrite::ModelRewrite;
use super::source::core_metrics_extractor::CoreMetricsExtractor;
use super::source::metrics_data_source::MetricsDataSource;
use crate::document::nearest::no_such;
use crate::document::{Fields, Path, Problems, Question};
use crate::scheduling::{Filter, Picker, ProfileHandler, Scorer};

/// Which Endpoint Picker's rules a document is read by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Gateway API Inference Extension v1.0: `inference.networking.x-k8s.io/v1alpha1`.
    GieV1,
    /// llm-d-router of 2026: `llm-d.ai/v1alpha1`.
    LlmD,
}

/// A plugin type of the document.
#[derive(Debug, Clone, Copy)]
pub struct PluginType {
    /// The document's `type`.
    pub name: &'static str,
    /// Reads the parameters. Problems are noted in the fields; what is returned is then unused.
    pub build: fn(&mut Build<'_, '_>) -> Role,
    /// How it and its parameters stand to the Endpoint Picker's.
    pub parity: Parity,
}

/// How something of the document stands to the Endpoint Picker's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Works as there.
    Same,
    /// Works nearly as there: how it differs.
    Approximated(&'static str),
    /// Is known there and changes nothing here: why.
    NoEffect(&'static str),
    /// The Endpoint Picker does not know it: what it is there for.
    Ours(&'static str),
}

/// How a plugin type and its parameters stand to the Endpoint Picker's.
#[derive(Debug, Clone, Copy)]
pub struct Parity {
    /// The plugin as a whole.
    pub plugin: Standing,
    /// The parameters that stand otherwise than the plugin, by name.
    pub parameters: &'static [(&'static str, Standing)],
}

impl Parity {
    /// Everything as in the Endpoint Picker.
    pub const SAME: Self = Self::of(Standing::Same);

    /// The plugin and all its parameters alike.
    pub const fn of(plugin: Standing) -> Self {
        Self {
            plugin,
            parameters: &[],
        }
    }

    /// How a parameter stands.
    pub fn of_parameter(&self, name: &str) -> Standing {
        let found = self.parameters.iter().find(|(known, _)| *known == name);
        found.map_or(self.plugin, |(_, standing)| *standing)
    }
}

/// What a plugin is built from.
pub struct Build<'a, 'd> {
    /// Its name in the document.
    pub name: &'a str,
    /// Its parameters.
    pub fields: Fields<'d>,
    /// The rules that the document is read by.
    pub dialect: Dialect,
    /// Whose `apiVersion` the document has.
    pub declared: Dialect,
    /// Names of plugins of the document whose types are refused: references to them are not problems of
    /// their own.
    pub refused: &'a [String],
    /// The plan's prefix producers so far, each under its plugin's name. A scorer that matches
    /// prefixes refers to one by its index here, and may add one of its own; the producers that
    /// the document declares are built before the scorers.
    pub producers: &'a mut Vec<(String, PrefixProducer)>,
    /// Names of the document's producers of in-flight load, which are built before the scorers.
    pub load_producers: &'a mut Vec<String>,
}

impl Build<'_, '_> {
    /// Notes that a field refers to a producer of prefix matches that is not there.
    pub fn refuse_prefix_producer(&mut self, field: &'static str, name: &str) {
        let known = self.producers.iter().map(|(name, _)| name.as_str());
        let known: Vec<&str> = known.collect();
        refuse_reference(
            &mut self.fields,
            self.refused,
            field,
            name,
            "a prefix producer",
            &known,
        );
    }

    /// Notes that a field refers to a producer of in-flight load that is not there.
    pub fn refuse_load_producer(&mut self, field: &'static str, name: &str) {
        let known: Vec<&str> = self.load_producers.iter().map(String::as_str).collect();
        let of = "an inflight-load-producer";
        refuse_reference(&mut self.fields, self.refused, field, name, of, &known);
    }
}

/// Notes that a field refers to a plugin that is not there, unless the plugin's own type is refused.
fn refuse_reference(
    fields: &mut Fields<'_>,
    refused: &[String],
    field: &'static str,
    name: &str,
    of: &str,
    known: &[&str],
) {
    if !refused.iter().any(|refused| refused == name) {
        let path = fields.path().key(field);
        fields.problems().error(&path, no_such(name, of, known));
    }
}

/// Bytes of text that count as one token.
pub const TOKEN_BYTES: u32 = 4;

/// How prompts are cut into prefix blocks, and how many of them an endpoint is taken to hold.
#[derive(Debug, Clone, PartialEq)]
pub struct PrefixProducer {
    /// Dialect of the hashing and of the prompt's flattening.
    pub dialect: Dialect,
    /// Size of a block: bytes in [`Dialect::GieV1`], tokens in [`Dialect::LlmD`].
    pub block: u32,
    /// Whether the block size and the capacity that a server reports go before these settings.
    pub auto_tune: bool,
    /// Blocks that are matched and remembered of one prompt; 0: all.
    pub max_blocks: u32,
    /// The same in tokens, going before `max_blocks`, which depends on the block size; 0: unused.
    pub max_tokens: u32,
    /// Blocks remembered per endpoint.
    pub capacity: u32,
}

/// Where endpoints come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Discovery {
    /// Listed in the document.
    Static(StaticDiscovery),
    /// The members of an Envoy cluster.
    EnvoyCluster(EnvoyClusterDiscovery),
}

/// What a plugin turned out to be.
#[derive(Debug, Clone)]
pub enum Role {
    /// Removes candidates.
    Filter(Arc<dyn Filter>),
    /// Scores candidates.
    Scorer(Arc<dyn Scorer>),
    /// Picks among the scored.
    Picker(Arc<dyn Picker>),
    /// Decides which profiles run.
    ProfileHandler(Arc<dyn ProfileHandler>),
    /// Says how prompts are cut into prefix blocks and remembered.
    PrefixProducer(PrefixProducer),
    /// Says what is counted of what is in flight.
    InflightLoad(InflightLoad),
    /// Where endpoints come from.
    Discovery(Discovery),
    /// Where and how often metrics pages are fetched.
    MetricsSource(MetricsDataSource),
    /// Which families of a metrics page mean what.
    MetricsExtractor(CoreMetricsExtractor),
    /// Under which name a model is asked for.
    Rewrite(ModelRewrite),
    /// Settings of the proxy itself.
    Proxy(Box<EnvoyProxy>),
    /// Checked, and without effect in a proxy.
    Inert,
    /// Without effect in a proxy, and refused where a profile would filter by it.
    Detector,
}

/// What a plugin type asks for.
pub fn questions(plugin: &PluginType, dialect: Dialect) -> Vec<Question> {
    let mut problems = Problems::recording();
    (plugin.build)(&mut Build {
        name: plugin.name,
        fields: Fields::new(None, Path::default(), &mut problems),
        dialect,
        declared: dialect,
        refused: &[],
        producers: &mut Vec::new(),
        load_producers: &mut Vec::new(),
    });
    problems.into_questions()
}

/// A plugin with all its defaults, as a test needs it.
#[cfg(test)]
pub fn build_default(name: &str) -> Role {
    let mut problems = Problems::default();
    let path = Path::default();
    let plugin = super::find(name).unwrap();
    (plugin.build)(&mut Build {
        name,
        fields: Fields::new(None, path, &mut problems),
        dialect: Dialect::GieV1,
        declared: Dialect::GieV1,
        refused: &[],
        producers: &mut Vec::new(),
        load_producers: &mut Vec::new(),
    })
}

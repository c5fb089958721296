//! The document as written: its fields, checked one by one.

use crate::document::{Fields, Node, Path, Problems};
use crate::plugins::Generation;

/// An entry of `plugins`.
#[derive(Debug)]
pub struct PluginEntry {
    /// `name`, or `type` where there is none.
    pub name: String,
    /// `type`.
    pub kind: String,
    /// `parameters`.
    pub parameters: Option<Node>,
    /// Where the entry is.
    pub path: Path,
}

/// An entry of a profile's `plugins`.
#[derive(Debug)]
pub struct Reference {
    /// `pluginRef`.
    pub name: String,
    /// `weight`.
    pub weight: Option<f64>,
    /// Where the entry is.
    pub path: Path,
}

/// An entry of `schedulingProfiles`.
#[derive(Debug)]
pub struct ProfileEntry {
    /// `name`.
    pub name: String,
    /// `plugins`.
    pub plugins: Vec<Reference>,
    /// Where the entry is.
    pub path: Path,
}

/// The whole document.
#[derive(Debug)]
pub struct Document {
    /// By whose rules it is read.
    pub generation: Generation,
    /// `plugins`.
    pub plugins: Vec<PluginEntry>,
    /// `schedulingProfiles`; `None` where there are none.
    pub profiles: Option<Vec<ProfileEntry>>,
    /// `dataLayer.discovery.pluginRef`.
    pub discovery: Option<(String, Path)>,
    /// `dataLayer.sources[].pluginRef` and `….extractors[].pluginRef`.
    pub sources: Vec<(String, Path)>,
    /// `requestHandler.parsers[].pluginRef`, or a former place of it.
    pub parsers: Vec<(String, Path)>,
}

const SEED: &str = "inference.networking.x-k8s.io/v1alpha1";
const TODAY: &str = "llm-d.ai/v1alpha1";
const KIND: &str = "EndpointPickerConfig";

/// Reads the document's fields.
pub fn read(node: &Node, problems: &mut Problems) -> Document {
    let mut fields = Fields::new(Some(node), Path::default(), problems);
    let declared = read_identity(&mut fields);
    let plugins = read_plugins(&mut fields);
    let todays = uses_todays_parts(node, &plugins);
    let generation = match declared {
        Generation::Seed if todays => {
            let path = fields.path().key("apiVersion");
            let message =
                format!("deprecated by llm-d-router, whose parts this document uses; use {TODAY}");
            fields.problems().warn(&path, message);
            Generation::Today
        }
        declared => declared,
    };
    let profiles = read_profiles(&mut fields, declared);
    let mut parsers = Vec::new();
    super::settings::read_inert(&mut fields, &mut parsers);
    let (discovery, sources) = super::settings::read_data_layer(&mut fields);
    fields.finish();
    Document {
        generation,
        plugins,
        profiles,
        discovery,
        sources,
        parsers,
    }
}

/// Whether the document has what only today's Endpoint Picker knows.
pub fn uses_todays_parts(node: &Node, plugins: &[PluginEntry]) -> bool {
    const FIELDS: [&str; 5] = [
        "featureGates",
        "dataLayer",
        "flowControl",
        "requestHandler",
        "parser",
    ];
    const TYPES: [&str; 2] = ["approx-prefix-cache-producer", "token-producer"];
    const PARAMETERS: [&str; 3] = [
        "prefixMatchInfoProducerName",
        "matchLengthWeight",
        "matchLengthScaleTokens",
    ];
    let todays = |plugin: &PluginEntry| {
        let given = |name: &&str| {
            plugin
                .parameters
                .as_ref()
                .is_some_and(|node| node.get(name).is_some())
        };
        TYPES.contains(&plugin.kind.as_str()) || PARAMETERS.iter().any(given)
    };
    // Discovery is a plugin of ours that both generations refer to from `dataLayer`.
    let only_discovery = |name: &str| {
        matches!((name, node.get(name)), ("dataLayer", Some(Node::Map(entries)))
            if entries.iter().all(|(key, _)| key == "discovery"))
    };
    let fields = FIELDS.iter().filter(|name| node.get(name).is_some());
    fields.filter(|name| !only_discovery(name)).count() > 0 || plugins.iter().any(todays)
}

fn read_identity(fields: &mut Fields<'_>) -> Generation {
    fields.required_choice("kind", &[(KIND, ())]);
    let versions = [(SEED, Generation::Seed), (TODAY, Generation::Today)];
    let version = fields.required_choice("apiVersion", &versions);
    version.unwrap_or(Generation::Today)
}

fn read_plugins(fields: &mut Fields<'_>) -> Vec<PluginEntry> {
    let mut plugins: Vec<PluginEntry> = Vec::new();
    for (entry, path) in fields.list("plugins") {
        let mut entry_fields = Fields::new(Some(entry), path.clone(), fields.problems());
        let kind = entry_fields.required_string("type");
        let name = entry_fields.string("name", "");
        entry_fields.any("parameters");
        entry_fields.finish();
        let parameters = entry.get("parameters").cloned();
        let name = if name.is_empty() { kind.clone() } else { name };
        if !name.is_empty() && plugins.iter().any(|plugin| plugin.name == name) {
            let message = format!("found a second plugin named {name:?}, expected names to be unique; give one of them a `name`");
            fields.problems().error(&path, message);
            continue;
        }
        plugins.push(PluginEntry {
            name,
            kind,
            parameters,
            path,
        });
    }
    plugins
}

fn read_profiles(fields: &mut Fields<'_>, declared: Generation) -> Option<Vec<ProfileEntry>> {
    let entries = fields.list("schedulingProfiles");
    if entries.is_empty() {
        return None;
    }
    let mut profiles: Vec<ProfileEntry> = Vec::new();
    for (entry, path) in entries {
        let mut entry_fields = Fields::new(Some(entry), path.clone(), fields.problems());
        let name = entry_fields.required_string("name");
        let mut plugins = Vec::new();
        for (reference, path) in entry_fields.list("plugins") {
            let fields = Fields::new(Some(reference), path, entry_fields.problems());
            plugins.extend(read_reference(fields, declared));
        }
        entry_fields.finish();
        if !name.is_empty() && profiles.iter().any(|profile| profile.name == name) {
            let message =
                format!("found a second profile named {name:?}, expected names to be unique");
            fields.problems().error(&path.key("name"), message);
        }
        profiles.push(ProfileEntry {
            name,
            plugins,
            path,
        });
    }
    Some(profiles)
}

fn read_reference(mut fields: Fields<'_>, declared: Generation) -> Option<Reference> {
    let path = fields.path().clone();
    let name = fields.required_string("pluginRef");
    let weight = fields.optional_number("weight", declared == Generation::Seed);
    fields.finish();
    (!name.is_empty()).then_some(Reference { name, weight, path })
}

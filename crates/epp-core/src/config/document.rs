//! The document as written: its fields, checked one by one.

use super::flow_control::FlowSection;
use super::sections::DetectorSection;
use crate::config::value::{Fields, Node, Path, Problems};
use crate::plugins::scorer::prefix_cache;
use crate::plugins::Dialect;

/// An entry of `plugins`.
#[derive(Debug)]
pub struct PluginEntry {
    /// `name`, or `type` where there is none.
    pub name: String,
    /// `type`.
    pub kind: String,
    /// `parameters`.
    pub parameters: Option<Node>,
    /// The location of the entry.
    pub path: Path,
}

/// An entry of a profile's `plugins`.
#[derive(Debug)]
pub struct Reference {
    /// `pluginRef`.
    pub name: String,
    /// `weight`.
    pub weight: Option<f64>,
    /// The location of the name.
    pub path: Path,
    /// The location of the weight.
    pub weight_path: Path,
}

/// An entry of `schedulingProfiles`.
#[derive(Debug)]
pub struct ProfileEntry {
    /// `name`.
    pub name: String,
    /// `plugins`.
    pub plugins: Vec<Reference>,
    /// The location of the entry.
    pub path: Path,
}

/// A document's `apiVersion`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// The one of the Gateway API Inference Extension.
    GieV1,
    /// The first one of llm-d-router.
    LlmDAlpha,
    /// Its successor, with another layout of `dataLayer` and without the deprecated fields.
    LlmDV1,
}

impl Version {
    /// Returns the dialect that it names.
    pub fn dialect(self) -> Dialect {
        match self {
            Self::GieV1 => Dialect::GieV1,
            Self::LlmDAlpha | Self::LlmDV1 => Dialect::LlmD,
        }
    }
}

/// The whole document.
#[derive(Debug)]
pub struct Document {
    /// The dialect by whose rules it is read.
    pub dialect: Dialect,
    /// Whose `apiVersion` it has.
    pub declared: Dialect,
    /// `plugins`.
    pub plugins: Vec<PluginEntry>,
    /// `schedulingProfiles`; `None` where there are none.
    pub profiles: Option<Vec<ProfileEntry>>,
    /// `dataLayer.discovery.pluginRef`.
    pub discovery: Option<(String, Path)>,
    /// `dataLayer.sources[].pluginRef` and `….extractors[].pluginRef`.
    pub sources: Vec<(String, Path)>,
    /// Whether the feature gate `flowControl` is on.
    pub flow_control: bool,
    /// `flowControl`, with its defaults.
    pub flow: FlowSection,
    /// `requestHandler.propagatePriority`.
    pub propagates_priority: bool,
    /// `flowControl.saturationDetector`, or a former place of it.
    pub detector: DetectorSection,
    /// `requestHandler.parsers[].pluginRef`, or a former place of it.
    pub parsers: Vec<(String, Path)>,
}

impl Document {
    /// Returns the location of a plugin's declaration; the top of the document if it has none.
    pub fn place_of(&self, name: &str) -> Path {
        let entry = self.plugins.iter().find(|entry| entry.name == name);
        entry.map(|entry| entry.path.clone()).unwrap_or_default()
    }
}

const GIE_V1: &str = "inference.networking.x-k8s.io/v1alpha1";
const LLM_D: &str = "llm-d.ai/v1alpha1";
const LLM_D_V1: &str = "llm-d.ai/v1";
const KIND: &str = "EndpointPickerConfig";

/// Reads the document's fields; `None` where it says that it is something else.
pub fn read(node: &Node, problems: &mut Problems) -> Option<Document> {
    let mut fields = Fields::new(Some(node), Path::default(), problems);
    let version = read_identity(&mut fields)?;
    let declared = version.dialect();
    let plugins = read_plugins(&mut fields);
    let gates = super::sections::read_gates(&mut fields);
    let newer = uses_llm_d_parts(node, &plugins, gates.former);
    let dialect = match declared {
        Dialect::GieV1 if newer => {
            let path = fields.path().key("apiVersion");
            let message = format!("read by llm-d-router's rules, for parts that its predecessor's v1.0 does not have; their apiVersion is {LLM_D_V1}");
            fields.problems().warn(&path, message);
            Dialect::LlmD
        }
        declared => declared,
    };
    let profiles = read_profiles(&mut fields);
    let (flow, detector) = super::sections::read_flow_control(&mut fields, gates, dialect);
    let mut parsers = Vec::new();
    let propagates_priority = super::sections::read_request_handler(&mut fields, &mut parsers);
    let detector =
        super::sections::read_former_places(&mut fields, version, detector, &mut parsers);
    let (discovery, sources) = super::sections::read_data_layer(&mut fields, version);
    fields.finish();
    Some(Document {
        dialect,
        declared,
        plugins,
        profiles,
        discovery,
        sources,
        flow_control: gates.flow_control,
        flow,
        detector,
        propagates_priority,
        parsers,
    })
}

/// Returns whether a document under GIE v1's `apiVersion` has to be read by llm-d-router's rules.
///
/// It has to where a plugin is there that is built by them. What the releases v1.1 to v1.5 of the Gateway
/// API Inference Extension know and llm-d-router does not, `former` gates among it, shows that
/// it is one of theirs; the other fields came with them and are known to both.
fn uses_llm_d_parts(node: &Node, plugins: &[PluginEntry], former: bool) -> bool {
    const FIELDS: [&str; 4] = ["featureGates", "flowControl", "requestHandler", "parser"];
    const TYPES: [&str; 2] = ["approx-prefix-cache-producer", "token-producer"];
    const PARAMETERS: [&str; 3] = [
        "prefixMatchInfoProducerName",
        "matchLengthWeight",
        "matchLengthScaleTokens",
    ];
    let mut former = former || has_any(node, &["data"]);
    for plugin in plugins {
        let kind = plugin.kind.as_str();
        let given = plugin.parameters.as_ref().unwrap_or(&Node::Null);
        if TYPES.contains(&kind) || has_any(given, &PARAMETERS) {
            return true;
        }
        former |= kind == prefix_cache::TYPE.name && has_any(given, &prefix_cache::CUTTING);
    }
    // Discovery is a plugin of ours that both dialects refer to from `dataLayer`.
    let only_discovery = match node.get("dataLayer") {
        Some(Node::Map(entries)) => entries.iter().all(|(key, _)| key == "discovery"),
        layer => layer.is_none(),
    };
    !former && (!only_discovery || has_any(node, &FIELDS))
}

// As Fields::has.
#[inline(never)]
fn has_any(node: &Node, names: &[&str]) -> bool {
    names.iter().any(|name| node.get(name).is_some())
}

/// Returns the version of a document by its `apiVersion`; `None` where it is of another kind, about which
/// there is nothing more to report.
fn read_identity(fields: &mut Fields<'_>) -> Option<Version> {
    let kind = fields.required_choice("kind", &[(KIND, ())]);
    if kind.is_none() && fields.has("kind") {
        return None;
    }
    let versions = [
        (GIE_V1, Version::GieV1),
        (LLM_D, Version::LlmDAlpha),
        (LLM_D_V1, Version::LlmDV1),
    ];
    let version = fields.required_choice("apiVersion", &versions);
    // The group of a misspelt version still shows which rules the rest was written for.
    let of_gie_group =
        |version: &Node| matches!(version, Node::String(text) if text.starts_with("inference"));
    Some(version.unwrap_or_else(|| match fields.node("apiVersion") {
        Some(version) if of_gie_group(version) => Version::GieV1,
        _ => Version::LlmDAlpha,
    }))
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

fn read_profiles(fields: &mut Fields<'_>) -> Option<Vec<ProfileEntry>> {
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
            plugins.extend(read_reference(fields));
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

fn read_reference(mut fields: Fields<'_>) -> Option<Reference> {
    let path = fields.path().clone();
    let name = fields.required_string("pluginRef");
    // Releases of GIE v1 before v1.4 take whole numbers only, which `eppctl check --dialect gie` reports.
    let weight = fields.optional_number("weight");
    fields.finish();
    (!name.is_empty()).then(|| Reference {
        name,
        weight,
        path: path.key("pluginRef"),
        weight_path: path.key("weight"),
    })
}

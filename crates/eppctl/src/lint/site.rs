//! A document of Envoy's or Istio's, and the pickers in it.

use epp_wasm::config::{self, Plan, Rejected};
use epp_wasm::document::{Node, Path};

/// The header that names the endpoint.
pub const DESTINATION: &str = "x-gateway-destination-endpoint";

/// A document.
pub struct Site<'a> {
    /// The document.
    pub top: &'a Node,
    /// All mappings in it.
    pub maps: Vec<(Path, &'a Node)>,
    /// The pickers in it.
    pub pickers: Vec<Picker<'a>>,
}

/// A filter that reads an EndpointPickerConfig.
pub struct Picker<'a> {
    /// Where its settings are: Envoy's `PluginConfig`, or the `spec` of Istio's `WasmPlugin`.
    pub path: Path,
    /// Its settings.
    pub settings: &'a Node,
    /// Whether it is Istio's `WasmPlugin`.
    pub is_wasm_plugin: bool,
    /// Where its EndpointPickerConfig is.
    pub document: Path,
    /// Whether that is a text of its own, with lines.
    pub is_text: bool,
    /// What the loader says of it.
    pub loaded: Result<Plan, Rejected>,
}

impl<'a> Site<'a> {
    /// Looks through a document.
    pub fn of(top: &'a Node) -> Self {
        let mut maps = Vec::new();
        gather(top, Path::default(), &mut maps);
        let pickers = maps
            .iter()
            .filter_map(|&(ref path, map)| picker(path, map))
            .collect();
        Self { top, maps, pickers }
    }

    /// Whether Envoy's fields have JSON's names in it, as some tools print them.
    pub fn is_camel_case(&self) -> bool {
        let typed = |(_, map): &(Path, &Node)| map.get("typedConfig").is_some();
        self.maps.iter().any(typed)
    }

    /// The clusters that it defines, in a bootstrap or in patches.
    pub fn clusters(&self) -> impl Iterator<Item = &(Path, &'a Node)> {
        self.maps.iter().filter(|(_, map)| {
            map.get("name").is_some()
                && [
                    "load_assignment",
                    "original_dst_lb_config",
                    "eds_cluster_config",
                ]
                .iter()
                .any(|key| map.get(key).is_some())
        })
    }

    /// The cluster of this name.
    pub fn cluster(&self, name: &str) -> Option<&(Path, &'a Node)> {
        self.clusters().find(|(_, map)| text(map, "name") == name)
    }
}

/// A string of a mapping, empty where there is none.
pub fn text<'n>(map: &'n Node, key: &str) -> &'n str {
    match map.get(key) {
        Some(Node::String(text)) => text,
        _ => "",
    }
}

/// Whether nobody but this machine reaches an address.
pub fn is_loopback(host: &str) -> bool {
    host.starts_with("127.") || matches!(host, "::1" | "localhost")
}

/// The node some keys below.
pub fn below<'n>(map: &'n Node, keys: &[&str]) -> Option<&'n Node> {
    keys.iter().try_fold(map, |node, key| node.get(key))
}

/// Whether a string that satisfies this stands anywhere below.
pub fn holds(node: &Node, wanted: &dyn Fn(&str) -> bool) -> bool {
    match node {
        Node::String(text) => wanted(text),
        Node::List(entries) => entries.iter().any(|entry| holds(entry, wanted)),
        Node::Map(entries) => entries.iter().any(|(_, entry)| holds(entry, wanted)),
        _ => false,
    }
}

fn gather<'a>(node: &'a Node, path: Path, maps: &mut Vec<(Path, &'a Node)>) {
    match node {
        Node::Map(entries) => {
            maps.push((path.clone(), node));
            for (key, entry) in entries {
                gather(entry, path.key(key), maps);
            }
        }
        Node::List(entries) => {
            for (index, entry) in entries.iter().enumerate() {
                gather(entry, path.index(index), maps);
            }
        }
        _ => {}
    }
}

fn picker<'a>(path: &Path, map: &'a Node) -> Option<Picker<'a>> {
    if text(map, "kind") == "WasmPlugin" {
        let settings = map.get("spec")?;
        let path = path.key("spec");
        let node = settings.get("pluginConfig")?;
        let is_ours = holds(node, &|text| text == "EndpointPickerConfig");
        return is_ours.then(|| Picker {
            document: path.key("pluginConfig"),
            path,
            settings,
            is_wasm_plugin: true,
            is_text: false,
            loaded: load(node),
        });
    }
    if !text(map, "@type").ends_with("wasm.v3.Wasm") {
        return None;
    }
    let settings = map.get("config")?;
    let path = path.key("config");
    let configuration = settings.get("configuration")?;
    let value = configuration.get("value").unwrap_or(configuration);
    let document = match configuration.get("value") {
        Some(_) => path.key("configuration").key("value"),
        None => path.key("configuration"),
    };
    let is_ours = holds(value, &|text| text.contains("EndpointPickerConfig"));
    is_ours.then(|| Picker {
        path,
        settings,
        is_wasm_plugin: false,
        document,
        is_text: matches!(value, Node::String(_)),
        loaded: load(value),
    })
}

fn load(node: &Node) -> Result<Plan, Rejected> {
    let loaded = match node {
        Node::String(text) => config::load(text),
        other => config::load(&crate::schema::value(other).to_string()),
    };
    loaded.map(|loaded| loaded.plan)
}

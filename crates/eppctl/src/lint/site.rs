//! The documents that configure one Envoy together, and the pickers in them.

use epp_core::document::{Node, Path};

use super::picker::{pickers, Picker};

/// The header that names the endpoint.
pub const DESTINATION: &str = "x-gateway-destination-endpoint";

/// Documents that are looked at together. The first step of each path is the document's index.
pub struct Site<'a> {
    /// The documents, in the order of the run.
    pub documents: &'a [Node],
    /// All mappings in them.
    pub maps: Vec<(Path, &'a Node)>,
    /// The pickers in them.
    pub pickers: Vec<Picker<'a>>,
}

impl<'a> Site<'a> {
    /// Looks through documents of the one form.
    pub fn of(documents: &'a [Node]) -> Self {
        let mut maps = Vec::new();
        for (index, document) in documents.iter().enumerate() {
            gather(document, Path::default().index(index), &mut maps);
        }
        let pickers = pickers(&maps);
        Self {
            documents,
            maps,
            pickers,
        }
    }

    /// The documents, each with its place.
    pub fn tops(&self) -> impl Iterator<Item = (Path, &'a Node)> {
        let documents = self.documents.iter().enumerate();
        documents.map(|(index, document)| (Path::default().index(index), document))
    }

    /// The objects of Kubernetes of a kind, in lists or not.
    pub fn objects(&self, kind: &'static str) -> impl Iterator<Item = &(Path, &'a Node)> {
        let of_kind = move |(_, map): &&(Path, &Node)| text(map, "kind") == kind;
        self.maps
            .iter()
            .filter(of_kind)
            .filter(|(_, map)| map.get("spec").is_some())
    }

    /// The mappings at a place and below.
    pub fn inside<'s>(&'s self, path: &'s Path) -> impl Iterator<Item = &'s (Path, &'a Node)> {
        let inside = |(place, _): &&(Path, &Node)| place.steps().starts_with(path.steps());
        self.maps.iter().filter(inside)
    }

    /// The clusters that the documents define, in a bootstrap or in patches.
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

    /// The headers that name the endpoint: those of the pickers, else the one that they have by default.
    pub fn destinations(&self) -> Vec<&str> {
        let headers = self
            .loaded()
            .map(|(_, plan)| &*plan.proxy.destination_header);
        let mut headers: Vec<&str> = headers.collect();
        if headers.is_empty() {
            headers.push(DESTINATION);
        }
        headers.sort_unstable();
        headers.dedup();
        headers
    }

    /// The pickers whose documents load.
    pub fn loaded(&self) -> impl Iterator<Item = (&Picker<'a>, &epp_core::config::Plan)> {
        let pickers = self.pickers.iter();
        pickers.filter_map(|picker| Some((picker, picker.loaded.as_ref().ok()?)))
    }
}

/// A string of a mapping, empty where there is none.
pub fn text<'n>(map: &'n Node, key: &str) -> &'n str {
    match map.get(key) {
        Some(Node::String(text)) => text,
        _ => "",
    }
}

/// The string some keys below, empty where there is none.
pub fn text_below<'n>(map: &'n Node, keys: &[&str]) -> &'n str {
    match below(map, keys) {
        Some(Node::String(text)) => text,
        _ => "",
    }
}

/// A number, which JSON may have as a string.
pub fn number(node: &Node) -> Option<f64> {
    match node {
        Node::Number(number) => Some(*number),
        Node::String(text) => text.parse().ok(),
        _ => None,
    }
}

/// A boolean, which JSON and YAML of Envoy's may have as a string.
pub fn flag(node: &Node) -> Option<bool> {
    match node {
        Node::Bool(flag) => Some(*flag),
        Node::String(text) => text.parse().ok(),
        _ => None,
    }
}

/// Whether only this machine reaches an address.
pub fn is_loopback(host: &str) -> bool {
    host.starts_with("127.") || matches!(host, "::1" | "localhost")
}

/// The node some keys below.
pub fn below<'n>(map: &'n Node, keys: &[&str]) -> Option<&'n Node> {
    keys.iter().try_fold(map, |node, key| node.get(key))
}

/// The entries of a list, none where there is none.
pub fn entries<'n>(map: &'n Node, keys: &[&str]) -> &'n [Node] {
    match below(map, keys) {
        Some(Node::List(entries)) => entries,
        _ => &[],
    }
}

/// The place some keys below.
pub fn path_below(path: &Path, keys: &[&str]) -> Path {
    keys.iter().fold(path.clone(), |path, key| path.key(key))
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

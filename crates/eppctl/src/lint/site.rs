//! The documents that together configure one Envoy, and the pickers in them.

use epp_core::config::value::{Node, Path};

use super::dump;
use super::picker::{pickers, Picker};

/// The default destination header.
pub const DESTINATION: &str = "x-gateway-destination-endpoint";

/// Documents that are checked together. The first step of each path is the document's index.
pub struct Site<'a> {
    /// The documents, in the order of the run.
    pub documents: &'a [Node],
    /// All mappings in them.
    pub maps: Vec<(Path, &'a Node)>,
    /// The pickers in them.
    pub pickers: Vec<Picker<'a>>,
}

impl<'a> Site<'a> {
    /// Collects the mappings and pickers of documents in normal form.
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

    /// Returns the documents, each with its path.
    pub fn tops(&self) -> impl Iterator<Item = (Path, &'a Node)> {
        let documents = self.documents.iter().enumerate();
        documents.map(|(index, document)| (Path::default().index(index), document))
    }

    /// Returns the bootstraps, each with its path: documents, and those in config dumps.
    pub fn bootstraps(&self) -> impl Iterator<Item = (Path, &'a Node)> {
        self.tops().flat_map(|(path, top)| {
            let sections = dump::sections(top).iter().enumerate();
            let configs = path.key("configs");
            let dumped = sections.filter_map(move |(index, section)| {
                let path = configs.index(index).key("bootstrap");
                Some((path, dump::bootstrap(section)?))
            });
            let keys = ["static_resources", "dynamic_resources", "admin"];
            let is_one = keys.iter().any(|key| top.get(key).is_some());
            is_one.then_some((path, top)).into_iter().chain(dumped)
        })
    }

    /// Returns the Kubernetes objects of a kind, whether or not they are in a List.
    pub fn objects(&self, kind: &'static str) -> impl Iterator<Item = &(Path, &'a Node)> {
        let of_kind = move |(_, map): &&(Path, &Node)| text(map, "kind") == kind;
        self.maps
            .iter()
            .filter(of_kind)
            .filter(|(_, map)| map.get("spec").is_some())
    }

    /// Returns the mappings at a path and below.
    pub fn inside<'s>(&'s self, path: &'s Path) -> impl Iterator<Item = &'s (Path, &'a Node)> {
        let inside = |(place, _): &&(Path, &Node)| place.steps().starts_with(path.steps());
        self.maps.iter().filter(inside)
    }

    /// Returns the clusters that the documents define: in a bootstrap, as resources of CDS, or in patches.
    pub fn clusters(&self) -> impl Iterator<Item = &(Path, &'a Node)> {
        self.maps.iter().filter(|(_, map)| {
            let keys = [
                "load_assignment",
                "original_dst_lb_config",
                "eds_cluster_config",
                "cluster_type",
            ];
            map.get("name").is_some()
                && (keys.iter().any(|key| map.get(key).is_some()) || is_cluster_resource(map))
        })
    }

    /// Returns the cluster of this name.
    pub fn cluster(&self, name: &str) -> Option<&(Path, &'a Node)> {
        self.clusters().find(|(_, map)| text(map, "name") == name)
    }

    /// Returns the pickers' destination headers; the default one if there are no pickers.
    pub fn destinations(&self) -> Vec<&str> {
        let headers = self
            .loaded()
            .map(|(_, plan)| &*plan.settings.destination_header);
        let mut headers: Vec<&str> = headers.collect();
        if headers.is_empty() {
            headers.push(DESTINATION);
        }
        headers.sort_unstable();
        headers.dedup();
        headers
    }

    /// Returns the pickers whose documents load.
    pub fn loaded(&self) -> impl Iterator<Item = (&Picker<'a>, &epp_core::config::Plan)> {
        let pickers = self.pickers.iter();
        pickers.filter_map(|picker| Some((picker, picker.loaded.as_ref().ok()?)))
    }
}

/// Returns whether this is a cluster as CDS delivers it, and a config dump shows it.
pub fn is_cluster_resource(map: &Node) -> bool {
    text(map, "@type").ends_with("config.cluster.v3.Cluster")
}

/// Returns a string field of a mapping; empty if there is none.
pub fn text<'n>(map: &'n Node, key: &str) -> &'n str {
    match map.get(key) {
        Some(Node::String(text)) => text,
        _ => "",
    }
}

/// Returns the string at a path of keys; empty if there is none.
pub fn text_below<'n>(map: &'n Node, keys: &[&str]) -> &'n str {
    match below(map, keys) {
        Some(Node::String(text)) => text,
        _ => "",
    }
}

/// Returns a number, which JSON may encode as a string.
pub fn number(node: &Node) -> Option<f64> {
    match node {
        Node::Number(number) => Some(*number),
        Node::String(text) => text.parse().ok(),
        _ => None,
    }
}

/// Returns a boolean, which Envoy accepts as a string, too.
pub fn flag(node: &Node) -> Option<bool> {
    match node {
        Node::Bool(flag) => Some(*flag),
        Node::String(text) => text.parse().ok(),
        _ => None,
    }
}

/// Returns whether an address is reachable from this machine only.
pub fn is_loopback(host: &str) -> bool {
    host.starts_with("127.") || matches!(host, "::1" | "localhost")
}

/// Returns the node at a path of keys.
pub fn below<'n>(map: &'n Node, keys: &[&str]) -> Option<&'n Node> {
    keys.iter().try_fold(map, |node, key| node.get(key))
}

/// Returns the entries of the list at a path of keys; empty if there is none.
pub fn entries<'n>(map: &'n Node, keys: &[&str]) -> &'n [Node] {
    match below(map, keys) {
        Some(Node::List(entries)) => entries,
        _ => &[],
    }
}

/// Appends keys to a path.
pub fn path_below(path: &Path, keys: &[&str]) -> Path {
    keys.iter().fold(path.clone(), |path, key| path.key(key))
}

/// Returns whether any string below a node satisfies a predicate.
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

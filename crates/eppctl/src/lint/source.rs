//! The documents of the files of a run, each as one plain tree.

use epp_core::config;
use epp_core::config::value::problem::Step;
use epp_core::config::value::{Node, Path};
use serde::de::IgnoredAny;
use serde_json::Value;

use super::dump;
use super::normal::{is_picker_config, normal, origin};
use super::site::text;
use crate::embedded::layer::split_yaml;
use crate::output::Error;

/// A document of a file.
pub struct Document {
    /// The file it was read from.
    pub file: String,
    /// Its text, as passed to the parser.
    text: String,
    /// Its tree, as written.
    raw: Node,
    /// Its tree in the normal form that rules read.
    pub node: Node,
    lines: Lines,
    /// True if a list was wrapped in a key to make it a mapping.
    wrapped: bool,
}

/// The mapping from lines of a document's text to lines of its file.
#[derive(Clone, Copy)]
enum Lines {
    /// The document begins after this many lines.
    Below(usize),
    /// The text is an escaped string on this line of the file.
    On(usize),
}

impl Document {
    /// Returns a path in the document as written, and its line in the file.
    ///
    /// `below` is a number of lines to add inside a block of text at that path.
    pub fn place(&self, steps: &[Step], below: usize) -> (String, Option<usize>) {
        let path = origin(&self.raw, steps);
        let line = config::line_of(&self.text, &path).map(|(line, _)| line);
        let below = match line {
            Some(line) if self.is_literal(line) => below,
            _ => 0,
        };
        let line = match self.lines {
            Lines::Below(above) => line.map(|line| above + line + below),
            Lines::On(line) => Some(line),
        };
        let shown = path.to_string();
        let shown = match self.wrapped {
            true => shown.trim_start_matches("items").to_owned(),
            false => shown,
        };
        (shown, line)
    }

    /// Returns whether a line starts a literal block, whose lines are those of its text.
    fn is_literal(&self, line: usize) -> bool {
        let line = self.text.lines().nth(line - 1).unwrap_or_default();
        let line = line.split(" #").next().unwrap_or_default().trim_end();
        line.trim_end_matches(|sign: char| matches!(sign, '+' | '-') || sign.is_ascii_digit())
            .ends_with('|')
    }

    /// Returns whether it has something that rules read.
    pub fn is_recognised(&self) -> bool {
        is_recognised(&self.node)
    }

    /// Returns whether this says how many gateways run: alone, it configures nothing around a picker.
    pub fn is_workload(&self) -> bool {
        WORKLOADS.contains(&text(&self.node, "kind"))
    }

    /// Returns whether this configures a whole Envoy: a bootstrap, or a config dump.
    pub fn is_whole(&self) -> bool {
        ["static_resources", "dynamic_resources", "configs"]
            .iter()
            .any(|key| self.node.get(key).is_some())
    }
}

/// Objects of control planes that rules read.
const KINDS: [&str; 12] = [
    "BackendTrafficPolicy",
    "ClientTrafficPolicy",
    "DestinationRule",
    "EnvoyExtensionPolicy",
    "EnvoyFilter",
    "EnvoyPatchPolicy",
    "EnvoyProxy",
    "Gateway",
    "HTTPRoute",
    "InferencePool",
    "VirtualService",
    "WasmPlugin",
];

/// Objects that run gateways, or anything else.
const WORKLOADS: [&str; 4] = [
    "DaemonSet",
    "Deployment",
    "HorizontalPodAutoscaler",
    "StatefulSet",
];

/// Fields of Envoy's resources: of a bootstrap and a config dump, a listener, a cluster and routes.
const FIELDS: [&str; 8] = [
    "admin",
    "configs",
    "dynamic_resources",
    "eds_cluster_config",
    "filter_chains",
    "load_assignment",
    "static_resources",
    "virtual_hosts",
];

/// Returns whether a node has something that rules read.
fn is_recognised(node: &Node) -> bool {
    match node {
        Node::Map(entries) => {
            KINDS.contains(&text(node, "kind"))
                || text(node, "@type").starts_with("type.googleapis.com/envoy.")
                || entries
                    .iter()
                    .any(|(key, entry)| FIELDS.contains(&&**key) || is_recognised(entry))
        }
        Node::List(entries) => entries.iter().any(is_recognised),
        _ => false,
    }
}

/// Returns the documents of a file. Those inside a ConfigMap follow it.
pub fn documents(file: &str, text: &str) -> Result<Vec<Document>, Error> {
    let mut documents = Vec::new();
    for (above, text) in split(text) {
        let raw = parse(&text).map_err(|message| {
            Error::new(format!(
                "{file}: the document that starts at line {}: {message}; expected YAML or JSON",
                above + 1
            ))
        })?;
        let wrapped = text.starts_with(WRAP);
        let mut document = Document {
            file: file.to_owned(),
            node: distinct(&raw),
            text,
            raw,
            lines: Lines::Below(above),
            wrapped,
        };
        let inside = embedded(&mut document);
        documents.push(document);
        documents.extend(inside);
    }
    Ok(documents)
}

/// Returns a document in normal form, without what a config dump repeats.
fn distinct(raw: &Node) -> Node {
    let mut node = normal(raw);
    dump::make_distinct(&mut node);
    node
}

/// The largest text that the filter's own parser accepts, in bytes. Config dumps can be larger.
const MAX_PARSED_BYTES: usize = 1 << 20;

fn parse(text: &str) -> Result<Node, String> {
    if text.len() > MAX_PARSED_BYTES {
        if let Ok(value) = serde_json::from_str(text) {
            return Ok(node(value));
        }
        if may_have_anchors(text) {
            return Err("found anchors in a text of over 1 MiB, expected none, or JSON".to_owned());
        }
        if let Ok(value) = serde_yaml::from_str(text) {
            return Ok(node(value));
        }
    }
    config::parse(text).map_err(|rejected| {
        let first = rejected.errors.first().map(ToString::to_string);
        first.unwrap_or_default()
    })
}

/// Returns whether a YAML text may name a part of it to repeat it: a few bytes could stand for gigabytes.
fn may_have_anchors(text: &str) -> bool {
    let mut before = b'\n';
    text.bytes().any(|byte| {
        let begins =
            before.is_ascii_whitespace() || matches!(before, b'[' | b'{' | b',' | b':' | b'-');
        before = byte;
        begins && byte == b'&'
    })
}

fn node(value: Value) -> Node {
    match value {
        Value::Null => Node::Null,
        Value::Bool(value) => Node::Bool(value),
        Value::Number(value) => Node::Number(value.as_f64().unwrap_or_default()),
        Value::String(value) => Node::String(value),
        Value::Array(values) => Node::List(values.into_iter().map(node).collect()),
        Value::Object(values) => {
            let entries = values.into_iter().map(|(key, value)| (key, node(value)));
            Node::Map(entries.collect())
        }
    }
}

/// The prefix that wraps a list, on its first line.
const WRAP: &str = "{\"items\":";

/// Splits a file into its documents, each with the number of lines above it.
fn split(text: &str) -> Vec<(usize, String)> {
    let text = text.trim_start_matches('\u{feff}');
    match text.trim_start().chars().next() {
        // A list, as `istioctl proxy-config -o json` prints. The parser accepts JSON, with tabs and
        // surrogate pairs, only if the text is a mapping.
        Some('[') => {
            let wrapped = format!("{WRAP}{text}}}");
            if parse(&wrapped).is_ok() {
                return vec![(0, wrapped)];
            }
        }
        Some('{') => {
            if let Some(values) = json_values(text) {
                return values;
            }
        }
        _ => {}
    }
    split_yaml(text)
}

/// Splits a sequence of JSON values.
fn json_values(text: &str) -> Option<Vec<(usize, String)>> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    let (mut begin, mut found) = (0, Vec::new());
    while let Some(value) = values.next() {
        value.ok()?;
        let end = values.byte_offset();
        let above = text.get(..begin)?.matches('\n').count();
        found.push((above, text.get(begin..end)?.to_owned()));
        begin = end;
    }
    (found.len() > 1).then_some(found)
}

/// Extracts Envoy configurations from ConfigMaps.
fn embedded(document: &mut Document) -> Vec<Document> {
    let mut places = Vec::new();
    config_maps(&document.node, Path::default(), &mut places);
    let mut found = Vec::new();
    for place in places {
        found.extend(embedded_at(document, &place.key("data")));
    }
    found
}

/// Collects the paths of ConfigMaps: the document, or items of a list as printed by `kubectl get`.
fn config_maps(node: &Node, path: Path, places: &mut Vec<Path>) {
    if text(node, "kind") == "ConfigMap" {
        places.push(path);
    } else if let Some(Node::List(items)) = node.get("items") {
        let path = path.key("items");
        for (index, item) in items.iter().enumerate() {
            config_maps(item, path.index(index), places);
        }
    }
}

/// Returns the node at a path, mutably.
fn entry_mut<'n>(node: &'n mut Node, steps: &[Step]) -> Option<&'n mut Node> {
    steps
        .iter()
        .try_fold(node, |node, step| match (step, node) {
            (Step::Key(key), Node::Map(entries)) => entries
                .iter_mut()
                .find(|(known, _)| **known == **key)
                .map(|(_, entry)| entry),
            (Step::Index(index), Node::List(entries)) => entries.get_mut(*index),
            _ => None,
        })
}

/// Extracts Envoy configurations from one ConfigMap's `data`.
fn embedded_at(document: &mut Document, data: &Path) -> Vec<Document> {
    let Some(Node::Map(entries)) = entry_mut(&mut document.node, data.steps()) else {
        return Vec::new();
    };
    let (mut found, mut kept) = (Vec::new(), Vec::new());
    for (key, entry) in std::mem::take(entries) {
        match inside(document, &data.key(&key), &entry) {
            Some(inside) => found.push(inside),
            None => kept.push((key, entry)),
        }
    }
    if let Some(node) = entry_mut(&mut document.node, data.steps()) {
        *node = Node::Map(kept);
    }
    found
}

/// Returns the Envoy configuration in a string of a document, if it is one.
fn inside(document: &Document, path: &Path, entry: &Node) -> Option<Document> {
    let Node::String(inner) = entry else {
        return None;
    };
    let raw = parse(inner).ok()?;
    let node = distinct(&raw);
    // An EndpointPickerConfig is checked by `eppctl check`.
    if !matches!(node, Node::Map(_)) || is_picker_config(&node) {
        return None;
    }
    let (line, _) = config::line_of(&document.text, &origin(&document.raw, path.steps()))?;
    let Lines::Below(above) = document.lines else {
        return None;
    };
    let lines = match document.is_literal(line) {
        true => Lines::Below(above + line),
        false => Lines::On(above + line),
    };
    Some(Document {
        file: document.file.clone(),
        text: inner.clone(),
        raw,
        node,
        lines,
        wrapped: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<(usize, String)> {
        let documents = split(text).into_iter();
        documents
            .map(|(above, text)| (above, text.trim().to_owned()))
            .collect()
    }

    #[test]
    fn every_separator_ends_a_document() {
        let expected = |above| vec![(0, "a: 1".to_owned()), (above, "b: 2".to_owned())];
        for separator in ["---", "--- ", "---\t", "---\r", "..."] {
            let text = format!("a: 1\n{separator}\nb: 2\n");
            let above = if separator == "..." { 2 } else { 1 };
            assert_eq!(lines(&text), expected(above), "{separator:?}");
        }
        assert_eq!(lines("a: 1\n--- # second\nb: 2\n")[1].0, 1);
        assert_eq!(lines("a: 1\n--- {b: 2}\n")[1], (1, "{b: 2}".to_owned()));
        assert_eq!(lines("%YAML 1.2\n---\na: 1\n...\n# end\n").len(), 1);
        // No separators: longer than one, or inside a text.
        assert_eq!(lines("a: |\n  ---\n  b\n----: 1\n").len(), 1);
    }

    #[test]
    fn lists_and_several_json_values_are_documents() {
        let list = documents("f", "\t[\n\t{\"typedConfig\": 1}]").unwrap();
        let path = Path::default().key("items").index(0).key("typed_config");
        let place = list[0].place(path.steps(), 0);
        assert_eq!(place, ("[0].typedConfig".to_owned(), Some(2)));
        let several = documents("f", "{\"a\": 1}\n{\"b\":\n 2}").unwrap();
        let place = several[1].place(Path::default().key("b").steps(), 0);
        assert_eq!(place, ("b".to_owned(), Some(2)));
    }

    #[test]
    fn a_dump_may_be_larger_than_a_configuration() {
        let filler = "x".repeat(MAX_PARSED_BYTES);
        let large =
            format!("{{\"configs\": [\"{filler}\", {{\"vmId\": null, \"a\": [true, 1.5]}}]}}");
        let found = documents("f", &large).unwrap();
        let entry = found[0].node.get("configs").unwrap().to_string();
        assert!(entry.ends_with("{vm_id: null, a: [true, 1.5]}]"));
        let yaml = documents("f", &format!("vmId: {filler}")).unwrap();
        assert!(yaml[0].node.get("vm_id").is_some());
        assert!(documents("f", &format!("{{: {filler}")).is_err());
    }

    #[test]
    fn a_config_map_holds_configurations_of_envoy() {
        let text = "kind: ConfigMap\ndata:\n  envoy.yaml: |\n    admin: {}\n    node:\n      id: a\n  other: \"{\\\"node\\\": {}}\"\n  note: text\n";
        let found = documents("f", text).unwrap();
        assert_eq!(found.len(), 3);
        let id = Path::default().key("node").key("id");
        assert_eq!(
            found[1].place(id.steps(), 0),
            ("node.id".to_owned(), Some(6))
        );
        let node = Path::default().key("node");
        assert_eq!(
            found[2].place(node.steps(), 0),
            ("node".to_owned(), Some(7))
        );
    }

    #[test]
    fn config_maps_of_a_list_hold_configurations_of_envoy() {
        let yaml = "kind: List\nitems:\n- kind: Secret\n- kind: ConfigMap\n  data:\n    mesh: |\n      node:\n        id: a\n    note: text\n";
        let json = "{\"kind\": \"List\", \"items\": [{\"kind\": \"ConfigMap\", \"data\":\n {\"mesh\": \"node:\\n  id: a\\n\"}}]}";
        let wrapped = "[{\"kind\": \"ConfigMap\", \"data\": {\n\"mesh\": \"{\\\"node\\\": {\\\"id\\\": 1}}\"}}]";
        for (text, line) in [(yaml, 8), (json, 2), (wrapped, 2)] {
            let found = documents("f", text).unwrap();
            assert_eq!(found.len(), 2, "{text}");
            let id = Path::default().key("node").key("id");
            let place = found[1].place(id.steps(), 0);
            assert_eq!(place, ("node.id".to_owned(), Some(line)), "{text}");
            assert!(!found[0].node.to_string().contains("mesh"), "{text}");
        }
    }

    #[test]
    fn lines_inside_a_text_count_where_it_is_written_in_lines() {
        let found = documents("f", "a: |\n  b\n  c\nd: \"b\\nc\"\n").unwrap();
        assert_eq!(
            found[0].place(Path::default().key("a").steps(), 2).1,
            Some(3)
        );
        assert_eq!(
            found[0].place(Path::default().key("d").steps(), 2).1,
            Some(4)
        );
    }

    #[test]
    fn a_large_text_repeats_no_part_of_itself() {
        let long = "x".repeat(MAX_PARSED_BYTES);
        let bomb = format!("a: &a {long}\nlist:\n- *a\n- *a\n");
        let found = parse(&bomb).err();
        assert!(found.is_some_and(|found| found.contains("anchors")));
        assert!(parse(&format!("a: {long}\nb: c&d\n")).is_ok());
    }
}

//! The normal form of documents, the only one that rules read: keys in snake case, each `TypedStruct`
//! replaced by the message that it encodes.

use std::borrow::Cow;

use epp_core::config::value::problem::Step;
use epp_core::config::value::{Node, Path};

/// Returns a document in normal form.
///
/// EndpointPickerConfigs stay as they are: their keys are not Envoy's.
pub fn normal(raw: &Node) -> Node {
    match raw {
        Node::List(entries) => Node::List(entries.iter().map(normal).collect()),
        Node::Map(_) if is_picker_config(raw) || is_like_one(raw) => raw.clone(),
        Node::Map(entries) => match typed_struct(raw) {
            Some(inside) => {
                let kind = ("@type".to_owned(), inside.kind.clone());
                let fields = match normal(inside.fields) {
                    Node::Map(fields) => fields,
                    _ => Vec::new(),
                };
                Node::Map(std::iter::once(kind).chain(fields).collect())
            }
            None => {
                let entries = entries.iter();
                let entries = entries.map(|(key, node)| (snake(key).into_owned(), normal(node)));
                Node::Map(entries.collect())
            }
        },
        leaf => leaf.clone(),
    }
}

/// Returns whether this is an EndpointPickerConfig.
pub fn is_picker_config(node: &Node) -> bool {
    matches!(node.get("kind"), Some(Node::String(kind)) if kind == "EndpointPickerConfig")
}

/// Returns whether this looks like an EndpointPickerConfig with a misspelt kind.
pub fn is_like_one(node: &Node) -> bool {
    let has = |key: &str| node.get(key).is_some();
    matches!(node.get("kind"), Some(Node::String(_)))
        && has("apiVersion")
        && (has("plugins") || has("schedulingProfiles"))
}

/// Maps a path in the normal form to the path in the document as written.
pub fn origin(raw: &Node, steps: &[Step]) -> Path {
    let (mut path, mut node) = (Path::default(), raw);
    for step in steps {
        if let Some(inside) = typed_struct(node) {
            if matches!(step, Step::Key(key) if **key == *"@type") {
                return path.key(inside.kind_key);
            }
            path = path.key(inside.fields_key);
            node = inside.fields;
        }
        let next = match (step, node) {
            (Step::Key(wanted), Node::Map(entries)) => {
                let verbatim = entries.iter().find(|(key, _)| **key == **wanted);
                let found = verbatim.or_else(|| {
                    entries
                        .iter()
                        .find(|(key, _)| snake(key) == wanted.as_ref())
                });
                found.map(|(key, entry)| (path.key(key), entry))
            }
            (Step::Index(index), Node::List(entries)) => {
                entries.get(*index).map(|entry| (path.index(*index), entry))
            }
            _ => None,
        };
        // A missing field is located at its parent.
        let Some((below, entry)) = next else { break };
        (path, node) = (below, entry);
    }
    path
}

/// The message inside a `TypedStruct`.
struct TypedStruct<'n> {
    kind: &'n Node,
    kind_key: &'n str,
    fields: &'n Node,
    fields_key: &'n str,
}

/// Returns the message inside a `TypedStruct` of the package `udpa.type.v1` or `xds.type.v3`.
fn typed_struct(node: &Node) -> Option<TypedStruct<'_>> {
    let Node::Map(entries) = node else {
        return None;
    };
    let entry = |wanted: &str| entries.iter().find(|(key, _)| snake(key) == wanted);
    match entry("@type")? {
        (_, Node::String(kind)) if kind.ends_with(".TypedStruct") => {}
        _ => return None,
    }
    let (kind_key, kind) = entry("type_url")?;
    let (fields_key, fields) = entry("value")?;
    matches!(fields, Node::Map(_)).then_some(TypedStruct {
        kind,
        kind_key,
        fields,
        fields_key,
    })
}

/// Converts a field's JSON name to the name in its message's definition.
///
/// Keys that are not JSON names of fields (labels, file names, headers) stay as they are.
pub fn snake(key: &str) -> Cow<'_, str> {
    let is_camel = key.starts_with(|first: char| first.is_ascii_lowercase())
        && key.chars().all(|sign| sign.is_ascii_alphanumeric())
        && key.chars().any(|sign| sign.is_ascii_uppercase());
    if !is_camel {
        return Cow::Borrowed(key);
    }
    let mut snake = String::with_capacity(key.len() + 4);
    for sign in key.chars() {
        if sign.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(sign.to_ascii_lowercase());
    }
    Cow::Owned(snake)
}

#[cfg(test)]
mod tests {
    use super::*;
    use epp_core::config;

    #[test]
    fn keys_are_the_same_at_every_depth() {
        let camel = "{typedConfig: [{vmConfig: {vmId: a}}], X-A: 1, aB-c: 1}";
        let snake = "{typed_config: [{vm_config: {vm_id: a}}], X-A: 1, aB-c: 1}";
        let parse = |text| normal(&config::parse(text).unwrap());
        assert_eq!(parse(camel), parse(snake));
        let picker = "{pluginConfig: {kind: EndpointPickerConfig, schedulingProfiles: []}}";
        let kept = "{plugin_config: {kind: EndpointPickerConfig, schedulingProfiles: []}}";
        assert_eq!(parse(picker).to_string(), kept);
    }

    #[test]
    fn a_typed_struct_is_what_it_stands_for() {
        for (package, url) in [("udpa.type.v1", "type_url"), ("xds.type.v3", "typeUrl")] {
            let text = format!("{{a: {{'@type': x/{package}.TypedStruct, {url}: x/b.C, value: {{vmConfig: [{{vmId: 1}}]}}}}}}");
            let raw = config::parse(&text).unwrap();
            let plain = normal(&raw);
            assert_eq!(
                plain.to_string(),
                "{a: {@type: x/b.C, vm_config: [{vm_id: 1}]}}"
            );
            let at = Path::default().key("a");
            let field = at.key("vm_config").index(0).key("vm_id");
            let written = origin(&raw, field.steps()).to_string();
            assert_eq!(written, "a.value.vmConfig[0].vmId");
            let kind = origin(&raw, at.key("@type").steps());
            assert_eq!(kind.to_string(), format!("a.{url}"));
            let missing = origin(&raw, at.key("vm_config").key("none").steps());
            assert_eq!(missing.to_string(), "a.value.vmConfig");
        }
    }
}

//! Patches of Envoy's configuration, by Istio's EnvoyFilter and Envoy Gateway's EnvoyPatchPolicy.

use epp_core::config::value::{Node, Path};

use super::normal::snake;
use super::site::{below, entries, number, path_below, text, text_below, Site};

/// One of an EnvoyFilter's patches.
pub struct Patch<'s> {
    /// Its path.
    pub path: &'s Path,
    /// The entry of `configPatches`.
    pub entry: &'s Node,
    /// The EnvoyFilter that contains it.
    pub filter: Option<&'s (Path, &'s Node)>,
    /// The order in which Istio applies patches, as far as the files show it.
    order: (i64, usize),
}

/// Returns the patches of all EnvoyFilters, in the order in which they are applied.
pub fn patches<'s>(site: &'s Site<'_>) -> Vec<Patch<'s>> {
    let mut found = Vec::new();
    for (index, (path, entry)) in site.maps.iter().enumerate() {
        if text(entry, "apply_to").is_empty() {
            continue;
        }
        let above = |(place, _): &&(Path, &Node)| path.steps().starts_with(place.steps());
        let filter = site.objects("EnvoyFilter").find(above);
        let priority = filter.and_then(|(_, filter)| below(filter, &["spec", "priority"]));
        let priority = priority.and_then(number).unwrap_or_default() as i64;
        found.push(Patch {
            path,
            entry,
            filter,
            order: (priority, index),
        });
    }
    found.sort_by_key(|patch| patch.order);
    found
}

impl<'s> Patch<'s> {
    /// Returns the kind of configuration that it patches, such as `CLUSTER`.
    pub fn target(&self) -> &'s str {
        text(self.entry, "apply_to")
    }

    /// Returns its operation, such as `MERGE`.
    pub fn operation(&self) -> &'s str {
        text_below(self.entry, &["patch", "operation"])
    }

    /// Returns its value.
    pub fn value(&self) -> Option<&'s Node> {
        below(self.entry, &["patch", "value"])
    }

    /// Returns the path of a field of its value.
    pub fn place(&self, keys: &[&str]) -> Path {
        path_below(&path_below(self.path, &["patch", "value"]), keys)
    }

    /// Returns whether it changes the cluster of this name, in Istio's form `outbound|PORT|SUBSET|HOST`.
    pub fn is_for_cluster(&self, name: &str) -> bool {
        let Some(wanted) = below(self.entry, &["match", "cluster"]) else {
            return true;
        };
        let mut parts = name.splitn(4, '|').skip(1);
        let mut part = || parts.next().unwrap_or_default();
        let (port, subset, host) = (part(), part(), part());
        let is =
            |key: &str, found: &str| text(wanted, key).is_empty() || text(wanted, key) == found;
        let same_port = match wanted.get("port_number").and_then(number) {
            Some(wanted) => port.parse() == Ok(wanted),
            None => true,
        };
        is("name", name) && is("subset", subset) && is("service", host) && same_port
    }

    /// Returns whether both patches may change the same listeners of the same proxies.
    ///
    /// False only if the files show that they do not.
    pub fn meets(&self, other: &Self) -> bool {
        let same = |keys: &[&str]| {
            let (one, two) = (text_below(self.entry, keys), text_below(other.entry, keys));
            one.is_empty() || two.is_empty() || one == two
        };
        let ports = |patch: &Self| {
            below(patch.entry, &["match", "listener", "port_number"]).and_then(number)
        };
        let same_port = match (ports(self), ports(other)) {
            (Some(one), Some(two)) => one == two,
            _ => true,
        };
        same_port
            && self.meets_context(other)
            && same(&["match", "listener", "name"])
            && self.shares_proxies(other.filter)
    }

    /// Returns whether both patches apply to the same kind of proxies, such as gateways.
    pub fn meets_context(&self, other: &Self) -> bool {
        let context = |entry| match text_below(entry, &["match", "context"]) {
            "ANY" => "",
            other => other,
        };
        let (one, two) = (context(self.entry), context(other.entry));
        one.is_empty() || two.is_empty() || one == two
    }

    /// Returns whether this patch and another EnvoyFilter may apply to the same proxies.
    pub fn shares_proxies(&self, other: Option<&(Path, &Node)>) -> bool {
        let (Some((_, one)), Some((_, two))) = (self.filter, other) else {
            return true;
        };
        let (first, second) = (namespace(one), namespace(two));
        let same = first.is_empty() || second.is_empty() || first == second;
        if apart(one, two) {
            return false;
        }
        let labels = |filter| below(filter, &["spec", "workload_selector", "labels"]);
        let (Some(Node::Map(one)), Some(two)) = (labels(one), labels(two)) else {
            return same;
        };
        let conflict =
            |(key, value): &(String, Node)| two.get(key).is_some_and(|other| other != value);
        same && !one.iter().any(conflict)
    }

    /// Returns whether both are in EnvoyFilters of one name and namespace, of which `kubectl apply` keeps one.
    pub fn is_same_object(&self, other: &Self) -> bool {
        let (Some((path, one)), Some((other, two))) = (self.filter, other.filter) else {
            return false;
        };
        let same = |key| {
            let (one, two) = (
                text_below(one, &["metadata", key]),
                text_below(two, &["metadata", key]),
            );
            one == two
        };
        path != other && same("name") && same("namespace")
    }
}

/// Returns whether both objects name their targets and share none.
pub fn apart(one: &Node, two: &Node) -> bool {
    let (one, two) = (targets(one), targets(two));
    !one.is_empty() && !two.is_empty() && !one.iter().any(|target| two.contains(target))
}

/// Returns the kind and name of each target of an object.
fn targets(object: &Node) -> Vec<(&str, &str)> {
    let one = below(object, &["spec", "target_ref"]);
    let several = entries(object, &["spec", "target_refs"]).iter();
    let targets = several.chain(one);
    targets
        .map(|target| (text(target, "kind"), text(target, "name")))
        .collect()
}

/// Returns the namespace of the proxies that an EnvoyFilter applies to; empty for all.
fn namespace(filter: &Node) -> &str {
    match text_below(filter, &["metadata", "namespace"]) {
        // Istio's root namespace.
        "istio-system" => "",
        other => other,
    }
}

/// One operation of an EnvoyPatchPolicy.
pub struct Operation<'s> {
    /// The path of its value.
    pub path: Path,
    /// The type of the resource, such as `Listener`.
    kind: &'s str,
    /// The selector, a JSON path or a JSON pointer.
    selector: &'s str,
    /// The last field of its path.
    field: String,
    value: &'s Node,
}

/// Returns the operations that set a value in Envoy Gateway's resources.
pub fn operations<'s>(site: &'s Site<'_>) -> Vec<Operation<'s>> {
    let mut found = Vec::new();
    for (path, policy) in site.objects("EnvoyPatchPolicy") {
        let path = path_below(path, &["spec", "json_patches"]);
        for (index, patch) in entries(policy, &["spec", "json_patches"])
            .iter()
            .enumerate()
        {
            let Some(value) = below(patch, &["operation", "value"]) else {
                continue;
            };
            if !matches!(text_below(patch, &["operation", "op"]), "add" | "replace") {
                continue;
            }
            let pointer = text_below(patch, &["operation", "path"]);
            let selector = text_below(patch, &["operation", "json_path"]);
            let last = match pointer.rsplit('/').next().unwrap_or_default() {
                "" => selector.rsplit(['.', ']']).next().unwrap_or_default(),
                last => last,
            };
            found.push(Operation {
                path: path_below(&path.index(index), &["operation", "value"]),
                kind: text(patch, "type").rsplit('.').next().unwrap_or_default(),
                selector: if selector.is_empty() {
                    pointer
                } else {
                    selector
                },
                field: snake(last).into_owned(),
                value,
            });
        }
    }
    found
}

impl<'s> Operation<'s> {
    /// Returns the value that it sets in a field of this resource type, with its path.
    pub fn sets(&self, kind: &str, field: &str) -> Option<(Path, &'s Node)> {
        if self.kind != kind {
            return None;
        }
        if self.field == field {
            return Some((self.path.clone(), self.value));
        }
        Some((self.path.key(field), self.value.get(field)?))
    }

    /// Returns whether it may change a filter with one of these names.
    ///
    /// False only if it selects by a different name.
    pub fn may_be_for(&self, own: &[&str]) -> bool {
        let quoted = |quote: char| self.selector.split(quote).skip(1).step_by(2);
        let names: Vec<&str> = quoted('"').chain(quoted('\'')).collect();
        names.is_empty()
            || names
                .iter()
                .any(|name| own.contains(name) || name.contains("wasm"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lint::normal::normal;
    use epp_core::config;

    fn with(text: &str, check: impl Fn(&Site<'_>)) {
        let documents = [normal(&config::parse(text).unwrap())];
        check(&Site::of(&documents));
    }

    #[test]
    fn a_cluster_is_matched_as_istio_does() {
        let name = "outbound|8000|v1|vllm.llm.svc";
        for (wanted, expected) in [
            ("{}", true),
            ("{name: 'outbound|8000|v1|vllm.llm.svc'}", true),
            ("{name: 'outbound|8000||vllm.llm.svc'}", false),
            ("{service: vllm.llm.svc, portNumber: 8000}", true),
            ("{service: vllm.llm.svc, portNumber: 80}", false),
            ("{service: qwen.llm.svc}", false),
            ("{service: vllm.llm.svc, subset: v2}", false),
        ] {
            let text = format!("{{applyTo: CLUSTER, match: {{cluster: {wanted}}}}}");
            with(&text, |site| {
                assert_eq!(patches(site)[0].is_for_cluster(name), expected, "{wanted}");
            });
        }
    }

    #[test]
    fn patches_of_other_gateways_do_not_meet() {
        let filter = |namespace: &str, label: &str, rest: &str| {
            format!("{{kind: EnvoyFilter, metadata: {{namespace: {namespace}}}, spec: {{workloadSelector: {{labels: {{gateway: {label}}}}}, configPatches: [{{applyTo: LISTENER, match: {rest}}}]}}}}")
        };
        let meet = |other: String| {
            let first = filter("llm", "a", "{context: GATEWAY, listener: {portNumber: 80}}");
            let mut met = false;
            let documents = [first, other].map(|text| normal(&config::parse(&text).unwrap()));
            let site = Site::of(&documents);
            let patches = patches(&site);
            if let [one, two] = patches.as_slice() {
                met = one.meets(two);
                assert_eq!(met, two.meets(one));
            }
            met
        };
        assert!(meet(filter("llm", "a", "{}")));
        assert!(meet(filter("istio-system", "a", "{context: ANY}")));
        assert!(!meet(filter("llm", "b", "{}")));
        assert!(!meet(filter("other", "a", "{}")));
        assert!(!meet(filter("llm", "a", "{context: SIDECAR_INBOUND}")));
        assert!(!meet(filter("llm", "a", "{listener: {portNumber: 81}}")));
        let attached = |name: &str| {
            let target = format!("targetRefs: [{{kind: Gateway, name: {name}}}], configPatches");
            filter("llm", "a", "{}").replace("configPatches", &target)
        };
        let meet_attached = |one: &str, two: &str| {
            let documents =
                [attached(one), attached(two)].map(|text| normal(&config::parse(&text).unwrap()));
            let site = Site::of(&documents);
            let patches = patches(&site);
            patches[0].meets(&patches[1])
        };
        assert!(meet_attached("a", "a"));
        assert!(!meet_attached("a", "b"));
    }

    #[test]
    fn operations_set_fields_by_their_path_or_in_a_value() {
        let set = |operation: &str| {
            let text = format!("{{kind: EnvoyPatchPolicy, spec: {{jsonPatches: [{{type: x/envoy.config.listener.v3.Listener, operation: {operation}}}]}}}}");
            let mut found = None;
            let documents = [normal(&config::parse(&text).unwrap())];
            let site = Site::of(&documents);
            if let Some(operation) = operations(&site).first() {
                found = operation.sets("Listener", "per_connection_buffer_limit_bytes");
            }
            found.map(|(path, node)| (path.to_string(), node.clone()))
        };
        let value = "[0].spec.json_patches[0].operation.value".to_owned();
        let expected = Some((value.clone(), Node::Number(1.0)));
        assert_eq!(
            set("{op: add, path: /per_connection_buffer_limit_bytes, value: 1}"),
            expected
        );
        assert_eq!(
            set("{op: add, path: /perConnectionBufferLimitBytes, value: 1}"),
            expected
        );
        let inside = Some((
            format!("{value}.per_connection_buffer_limit_bytes"),
            Node::Number(1.0),
        ));
        assert_eq!(
            set("{op: add, path: '', value: {perConnectionBufferLimitBytes: 1}}"),
            inside
        );
        assert_eq!(
            set("{op: remove, path: /per_connection_buffer_limit_bytes, value: 1}"),
            None
        );
        assert_eq!(set("{op: add, path: /other, value: 1}"), None);
    }
}

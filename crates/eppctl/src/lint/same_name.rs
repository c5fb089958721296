//! Two objects or extensions of one name, of which only one takes effect.

use epp_core::config::value::{Node, Path};

use super::patches::{patches, Patch};
use super::site::{text, text_below, Site};
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "same-name",
    finds: "two objects, or two extensions of a gateway, with one name and different content",
    why: "Kubernetes keeps one object per name, and Envoy one extension: the other filter does not exist, and its pool is balanced without it",
    fix: "give the copy its own names, for the object and for the extension in it (docs/istio.md), or remove one of them",
    check: |site| objects(site).chain(extensions(site)).collect(),
};

/// Finds objects that `kubectl apply` merges into one.
fn objects<'s>(site: &'s Site<'_>) -> impl Iterator<Item = Fault> + 's {
    let named = site.maps.iter().filter(|(_, map)| {
        map.get("spec").is_some() && !text_below(map, &["metadata", "name"]).is_empty()
    });
    let named: Vec<&(Path, &Node)> = named.collect();
    let mut faults = Vec::new();
    for (index, (path, object)) in named.iter().enumerate() {
        let mut before = named.iter().take(index);
        // Kubernetes adds to every field but `spec`.
        let differs = |other: &Node| other.get("spec") != object.get("spec");
        if before.any(|(_, other)| identity(other) == identity(object) && differs(other)) {
            let (_, kind, name, _) = identity(object);
            let what = format!("a second {kind} {name} with another spec");
            faults.push(Fault::at(&path.key("metadata").key("name"), what));
        }
    }
    faults.into_iter()
}

/// Returns an object's identity in the API server.
fn identity(object: &Node) -> (&str, &str, &str, &str) {
    let group = text(object, "api_version");
    let group = group.rsplit_once('/').map_or("", |(group, _)| group);
    let of = |key| text_below(object, &["metadata", key]);
    (group, text(object, "kind"), of("name"), of("namespace"))
}

/// Finds extensions that one gateway gets from several EnvoyFilters.
fn extensions(site: &Site<'_>) -> impl Iterator<Item = Fault> {
    let patches = patches(site);
    let is_added = |patch: &&Patch<'_>| {
        patch.target() == "EXTENSION_CONFIG" && matches!(patch.operation(), "ADD" | "")
    };
    let added: Vec<&Patch<'_>> = patches.iter().filter(is_added).collect();
    let name = |patch: &Patch<'_>| {
        patch
            .value()
            .map_or("", |value| text(value, "name"))
            .to_owned()
    };
    let mut faults = Vec::new();
    for (index, patch) in added.iter().enumerate() {
        let own = name(patch);
        let mut before = added.iter().take(index).filter(|other| {
            name(other) == own && other.value() != patch.value() && !patch.is_same_object(other)
        });
        let meets =
            |other: &&Patch<'_>| patch.meets_context(other) && patch.shares_proxies(other.filter);
        if !own.is_empty() && before.any(meets) {
            let what = format!("a second extension {own} of this gateway with other settings");
            faults.push(Fault::at(&patch.place(&["name"]), what));
        }
    }
    faults.into_iter()
}

#[cfg(test)]
mod tests {
    use crate::lint::found;

    const FILTER: &str = include_str!("../../../../envoy/istio/filter.yaml");

    fn beside(slips: &[(&str, &str)]) -> Vec<String> {
        let mut copy = FILTER.to_owned();
        for (right, wrong) in slips {
            assert!(copy.contains(right), "{right}");
            copy = copy.replace(right, wrong);
        }
        found(&super::RULE, &format!("{FILTER}\n---\n{copy}"))
    }

    #[test]
    fn finds_a_copy_that_takes_the_place_of_the_first() {
        let chat = ("vllm.llm", "chat.llm");
        let same = beside(&[chat]);
        let expected = "metadata.name: a second EnvoyFilter epp-filter with another spec";
        assert_eq!(same, [expected]);
        let extension = beside(&[chat, ("name: epp-filter", "name: epp-chat")]);
        let expected = "spec.configPatches[0].patch.value.name: a second extension epp of this gateway with other settings";
        assert_eq!(extension, [expected]);
        // As docs/istio.md copies it.
        assert!(beside(&[chat, ("name: epp", "name: epp-chat")]).is_empty());
        // An identical copy, one in another namespace, one of another gateway, and a merged one are accepted.
        assert!(beside(&[]).is_empty());
        assert!(beside(&[chat, ("namespace: llm", "namespace: other")]).is_empty());
        let gateway = ("gateway-name: llm", "gateway-name: other");
        let renamed = ("name: epp-filter", "name: epp-chat");
        assert!(beside(&[chat, renamed, gateway]).is_empty());
        assert!(beside(&[chat, renamed, ("operation: ADD", "operation: MERGE")]).is_empty());
    }
}

//! A patch of the pool's cluster also matches the clusters of its subsets.

use super::patches::{patches, Patch};
use super::pool::IstioCluster;
use super::routing::overrides;
use super::site::{below, entries, text, text_below, Site};
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "subset-clusters",
    finds: "a patch that also matches the clusters of subsets",
    why: "service and port also match the clusters of a DestinationRule's subsets: they get override_host, but no filter picks for them",
    fix: "match the cluster by its name: cluster: {name: \"outbound|PORT||HOST\"}",
    check: |site| {
        let patches = patches(site).into_iter().filter(|patch| {
            let wanted = below(patch.entry, &["match", "cluster"]);
            let one = wanted.is_some_and(|wanted| {
                ["name", "subset"].iter().any(|key| !text(wanted, key).is_empty())
            });
            let value = patch.value().and_then(|value| value.get("load_balancing_policy"));
            patch.target() == "CLUSTER"
                && patch.operation() == "MERGE"
                && value.is_some_and(overrides)
                && !one
        });
        patches.map(|patch| Fault::at(&patch.path.key("match"), what(site, &patch))).collect()
    },
};

fn what(site: &Site<'_>, patch: &Patch<'_>) -> String {
    let wanted = text_below(patch.entry, &["match", "cluster", "service"]);
    let cluster = IstioCluster {
        port: "",
        subset: "",
        host: wanted,
    };
    let mut names = Vec::new();
    for (_, rule) in site.objects("DestinationRule") {
        let namespace = text_below(rule, &["metadata", "namespace"]);
        if wanted.is_empty() || cluster.is_host(text_below(rule, &["spec", "host"]), namespace) {
            let subsets = entries(rule, &["spec", "subsets"]).iter();
            names.extend(subsets.map(|subset| text(subset, "name")));
        }
    }
    match names.is_empty() {
        true => "also matches the clusters of subsets".to_owned(),
        false => format!(
            "also matches the clusters of the subsets {}",
            names.join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use crate::lint::found;

    #[test]
    fn finds_a_match_by_service_or_by_nothing() {
        let text = include_str!("../../../../envoy/istio/cluster.yaml");
        assert_eq!(found(&super::RULE, text), Vec::<String>::new());
        let right = "{name: \"outbound|8000||vllm.llm.svc.cluster.local\"}";
        assert!(text.contains(right));
        for (wrong, expected) in [
            ("{service: vllm.llm.svc.cluster.local, portNumber: 8000}", 1),
            ("{}", 1),
            ("{service: vllm.llm.svc.cluster.local, subset: v1}", 0),
        ] {
            let text = text.replace(right, wrong);
            assert_eq!(found(&super::RULE, &text).len(), expected, "{wrong}");
        }
        let rule = "---\nkind: DestinationRule\nmetadata: {namespace: llm}\nspec: {host: vllm, subsets: [{name: v1}, {name: v2}]}\n";
        let service = "{service: vllm.llm.svc.cluster.local}";
        let named = found(
            &super::RULE,
            &format!("{}{rule}", text.replace(right, service)),
        );
        assert!(
            named.len() == 1 && named[0].contains("subsets v1, v2"),
            "{named:?}"
        );
        assert!(found(&super::RULE, &format!("{text}{rule}")).is_empty());
    }
}

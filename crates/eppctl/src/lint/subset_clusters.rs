//! Istio's patch of the pool's cluster is one of its subsets, too.

use super::routing::overrides;
use super::site::{below, text};
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "subset-clusters",
    why: "service and port match the clusters of a DestinationRule's subsets as well: they get override_host, and no filter picks for them",
    fix: "match the cluster by its name: cluster: {name: \"outbound|PORT||HOST\"}",
    check: |site| {
        let patches = site.maps.iter().filter(|(_, patch)| {
            let wanted = below(patch, &["match", "cluster"]);
            let one = wanted.is_some_and(|wanted| {
                ["name", "subset"].iter().any(|key| !text(wanted, key).is_empty())
            });
            let value = below(patch, &["patch", "value", "load_balancing_policy"]);
            text(patch, "applyTo") == "CLUSTER"
                && below(patch, &["patch"]).is_some_and(|patch| text(patch, "operation") == "MERGE")
                && value.is_some_and(overrides)
                && !one
        });
        patches
            .map(|(path, _)| Fault::at(&path.key("match"), "matches the clusters of subsets, too"))
            .collect()
    },
};

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
    }
}

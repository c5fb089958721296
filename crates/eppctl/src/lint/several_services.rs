//! One picker lists the clusters of several Istio services.

use epp_core::config::Plan;
use epp_core::plugins::Discovery;

use super::pool::istio;
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "several-services",
    finds: "clusters of several Istio services in one `clusters` list, without labels",
    why: "`clusters` is one pool, and requests go to its first cluster: the picker may choose endpoints of another service, which these requests cannot reach, and no filter removes client headers on that service's routes",
    fix: "give each service its own filter, with its own name and its one cluster (docs/istio.md); clusters whose members only help those of the first, or are a part of them, have labels",
    check: |site| {
        let mut faults = Vec::new();
        for (picker, plan) in site.loaded() {
            if let Some(what) = wrong(plan) {
                faults.push(Fault::at(&picker.document, what));
            }
        }
        faults
    },
};

fn wrong(plan: &Plan) -> Option<String> {
    let Discovery::EnvoyCluster(discovery) = &plan.discovery else {
        return None;
    };
    let (first, rest) = discovery.clusters.split_first()?;
    let first = istio(&first.name)?;
    // A cluster with labels says what its members are, and filters by them keep requests off those out of reach.
    let mut rest = rest.iter().filter(|other| other.labels.is_empty());
    rest.find_map(|cluster| {
        let name = &cluster.name;
        let other = istio(name)?;
        Some(match (other.host, other.port) == (first.host, first.port) {
            true => format!(
                "clusters lists {name}, a subset of the pool, which has no effect without labels"
            ),
            false => format!("clusters lists {name}, a different service from the first"),
        })
    })
}

#[cfg(test)]
mod tests {
    use crate::lint::found;

    const FILTER: &str = include_str!("../../../../envoy/istio/filter.yaml");

    #[test]
    fn finds_a_second_service_and_a_subset() {
        assert!(found(&super::RULE, FILTER).is_empty());
        let right = "[\"outbound|8000||vllm.llm.svc.cluster.local\"]";
        assert!(FILTER.contains(right));
        let with = |clusters: &str| found(&super::RULE, &FILTER.replace(right, clusters));
        let first = "outbound|8000||vllm.llm.svc.cluster.local";
        let two = with(&format!(
            "[\"{first}\", \"outbound|8000||qwen.llm.svc.cluster.local\"]"
        ));
        assert!(
            two.len() == 1 && two[0].contains("a different service"),
            "{two:?}"
        );
        let subset = with(&format!(
            "[\"{first}\", \"outbound|8000|v1|vllm.llm.svc.cluster.local\"]"
        ));
        assert!(
            subset.len() == 1 && subset[0].contains("a subset"),
            "{subset:?}"
        );
        let labelled = with(&format!(
            "[\"{first}\", {{name: \"outbound|8000|v1|vllm.llm.svc.cluster.local\", labels: {{a: b}}}}]"
        ));
        assert!(labelled.is_empty(), "{labelled:?}");
        // Envoy's own clusters may hold one pool together.
        assert!(with("[a, b]").is_empty());
    }
}

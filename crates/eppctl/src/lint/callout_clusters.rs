//! The picker asks through clusters that are not there.

use epp_wasm::document::{Node, Path};

use super::site::below;
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "callout-clusters",
    why: "without the pool's cluster nothing is routed, without the admin's no member is found, without the metrics' cluster no load is known",
    fix: "define the cluster, or name the right one: envoy-proxy's cluster, envoy-cluster-discovery's clusters and adminCluster, metrics-data-source's cluster",
    check: |site| {
        let mut faults = Vec::new();
        for (picker, plan) in site.loaded() {
            // Istio's bootstrap, and what xDS brings, are not in the files.
            let inside = |(path, _): &(Path, &Node)| picker.path.steps().starts_with(path.steps());
            let static_only = site.tops().find(inside).is_some_and(|(_, top)| {
                below(top, &["static_resources", "clusters"]).is_some()
                    && below(top, &["dynamic_resources", "cds_config"]).is_none()
            });
            if !static_only {
                continue;
            }
            let mut names = vec![plan.cluster(), plan.admin_cluster(), plan.metrics_cluster()];
            names.dedup();
            names.retain(|name| !name.is_empty() && site.cluster(name).is_none());
            let faulty = names.into_iter().map(|name| Fault::at(&picker.document, format!("there is no cluster {name}")));
            faults.extend(faulty);
        }
        faults
    },
};

#[cfg(test)]
mod tests {
    #[test]
    fn finds_the_one_that_is_missing() {
        crate::lint::finds(&super::RULE, "- name: prometheus_stats", "- name: admin");
    }
}

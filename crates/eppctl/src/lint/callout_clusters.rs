//! The picker asks through clusters that are not there.

use super::site::below;
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "callout-clusters",
    why: "without the pool's cluster nothing is routed, without the admin's no member is found, without the metrics' cluster no load is known",
    fix: "define the cluster, or name the right one: envoy-proxy's cluster, envoy-cluster-discovery's clusters and adminCluster, metrics-data-source's cluster",
    check: |site| {
        // Istio's bootstrap, and what xDS brings, are not in the file.
        let static_only = below(site.top, &["static_resources", "clusters"]).is_some()
            && below(site.top, &["dynamic_resources", "cds_config"]).is_none();
        if !static_only {
            return Vec::new();
        }
        let plans = site.pickers.iter().filter_map(|picker| Some((picker, picker.loaded.as_ref().ok()?)));
        let mut faults = Vec::new();
        for (picker, plan) in plans {
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

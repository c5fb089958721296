//! The filter sends callouts to clusters that do not exist.

use epp_core::config::value::{Node, Path};
use epp_envoy::callouts::{admin_cluster, metrics_cluster};

use super::site::{below, flag, path_below, Site};
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "callout-clusters",
    why: "without the pool's cluster no request is routed, without the admin cluster no endpoint is discovered, without the metrics cluster no load is known",
    fix: "define the cluster, or correct its name: cluster of envoy-proxy, clusters and adminCluster of envoy-cluster-discovery, cluster of metrics-data-source",
    check: |site| {
        let mut faults = switched_off(site);
        for (picker, plan) in site.loaded() {
            // Istio's bootstrap, and resources from xDS, are not in the files.
            let inside = |(path, _): &(Path, &Node)| picker.path.steps().starts_with(path.steps());
            let static_only = site.tops().find(inside).is_some_and(|(_, top)| {
                below(top, &["static_resources", "clusters"]).is_some()
                    && below(top, &["dynamic_resources", "cds_config"]).is_none()
            });
            if !static_only {
                continue;
            }
            let mut names = vec![plan.cluster(), metrics_cluster(plan)];
            names.extend(admin_cluster(plan));
            names.sort_unstable();
            names.dedup();
            names.retain(|name| !name.is_empty() && site.cluster(name).is_none());
            let faulty = names.into_iter().map(|name| Fault::at(&picker.document, format!("cluster {name} does not exist")));
            faults.extend(faulty);
        }
        faults
    },
};

/// Checks the cluster of the admin interface, which Envoy Gateway creates for Prometheus.
fn switched_off(site: &Site<'_>) -> Vec<Fault> {
    const CLUSTER: &str = "prometheus_stats";
    let mut needing = site.loaded().filter(|(picker, plan)| {
        admin_cluster(plan) == Some(CLUSTER) && picker.is_envoy_gateways(site)
    });
    if needing.next().is_none() || site.cluster(CLUSTER).is_some() {
        return Vec::new();
    }
    let keys = ["spec", "telemetry", "metrics", "prometheus", "disable"];
    let proxies = site.objects("EnvoyProxy");
    let off = proxies.filter(|(_, proxy)| below(proxy, &keys).and_then(flag) == Some(true));
    off.map(|(path, _)| {
        let what = format!("cluster {CLUSTER}, used for discovery, does not exist");
        Fault::at(&path_below(path, &keys), what)
    })
    .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn finds_the_one_that_is_missing() {
        crate::lint::finds(&super::RULE, "- name: prometheus_stats", "- name: admin");
    }

    #[test]
    fn a_cluster_is_missing_once() {
        let bootstrap = include_str!("../../../../envoy/envoy.yaml");
        for (right, wrong, missing) in [
            (
                "  - name: inference-pool\n",
                "  - name: other\n",
                "cluster inference-pool does not exist",
            ),
            (
                "{readBody: always}",
                "{readBody: always, cluster: other}",
                "cluster other does not exist",
            ),
        ] {
            let found = crate::lint::found(&super::RULE, &bootstrap.replace(right, wrong));
            assert!(found.len() == 1 && found[0].ends_with(missing), "{found:?}");
        }
    }

    #[test]
    fn finds_that_envoy_gateway_makes_no_admin_cluster() {
        let policy = crate::lint::body_unread::tests::POLICY;
        let proxy = |disable: bool| {
            format!("---\nkind: EnvoyProxy\nspec: {{telemetry: {{metrics: {{prometheus: {{disable: {disable}}}}}}}}}\n")
        };
        let count = |text: &str| crate::lint::found(&super::RULE, text).len();
        assert_eq!(count(&format!("{policy}{}", proxy(true))), 1);
        assert_eq!(count(&format!("{policy}{}", proxy(false))), 0);
        assert_eq!(count(&proxy(true)), 0);
        let added = "---\nkind: EnvoyPatchPolicy\nspec: {jsonPatches: [{type: x/envoy.config.cluster.v3.Cluster, operation: {op: add, path: '', value: {name: prometheus_stats, load_assignment: {}}}}]}\n";
        assert_eq!(count(&format!("{policy}{}{added}", proxy(true))), 0);
    }
}

//! Envoy Gateway's bootstrap lacks the cluster of the admin interface.

use epp_envoy::callouts::admin_cluster;

use super::site::{below, flag, path_below, Site};
use super::{Fault, Rule};

/// The cluster that Envoy Gateway's bootstrap has for its Prometheus listener.
const CLUSTER: &str = "prometheus_stats";

/// The rule.
pub const RULE: Rule = Rule {
    name: "prometheus-disabled",
    finds: "an EnvoyProxy of Envoy Gateway without Prometheus, whose bootstrap then has no admin cluster",
    why: "the filter does not learn the pool's endpoints: Envoy's own load balancing chooses, and after the discovery's timeout failureMode applies",
    fix: "remove telemetry.metrics.prometheus.disable from the EnvoyProxy, or add a cluster prometheus_stats that leads to the admin interface, 127.0.0.1:19000, by an EnvoyPatchPolicy (op: add, path: \"\")",
    check: |site| {
        if !asks(site) || site.cluster(CLUSTER).is_some() {
            return Vec::new();
        }
        let keys = ["spec", "telemetry", "metrics", "prometheus", "disable"];
        let proxies = site.objects("EnvoyProxy");
        let disabled = proxies.filter(|(_, proxy)| {
            below(proxy, &keys).and_then(flag) == Some(true)
        });
        let what = format!("Prometheus is disabled: the bootstrap has no cluster {CLUSTER}");
        disabled.map(|(path, _)| Fault::at(&path_below(path, &keys), &*what)).collect()
    },
};

/// Returns whether one of Envoy Gateway's pickers asks that cluster for the pool's members.
fn asks(site: &Site<'_>) -> bool {
    let mut own = site
        .loaded()
        .filter(|(picker, _)| picker.is_envoy_gateways(site));
    own.any(|(_, plan)| admin_cluster(plan) == Some(CLUSTER))
}

#[cfg(test)]
mod tests {
    use crate::lint::body_unread::tests::POLICY;
    use crate::lint::found;

    #[test]
    fn finds_the_proxy_without_prometheus() {
        let proxy = |disable: &str| {
            format!("---\nkind: EnvoyProxy\nspec: {{telemetry: {{metrics: {{prometheus: {{disable: {disable}}}}}}}}}\n")
        };
        let with = |more: &str| found(&super::RULE, &format!("{POLICY}{more}"));
        let disabled = with(&proxy("true"));
        assert!(
            disabled.len() == 1
                && disabled[0].starts_with("spec.telemetry.metrics.prometheus.disable: "),
            "{disabled:?}"
        );
        assert!(with(&proxy("false")).is_empty());
        // Without a filter it is the user's choice, and so it is where nothing asks that cluster.
        assert!(found(&super::RULE, &proxy("true")[4..]).is_empty());
        let another = POLICY.replace("/rule/0]", "/rule/0], adminCluster: admin");
        assert!(found(&super::RULE, &format!("{another}{}", proxy("true"))).is_empty());
        let patch = "---\nkind: EnvoyPatchPolicy\nspec: {jsonPatches: [{type: x/envoy.config.cluster.v3.Cluster, name: prometheus_stats, operation: {op: add, path: '', value: {name: prometheus_stats, load_assignment: {}}}}]}\n";
        assert!(with(&format!("{}{patch}", proxy("true"))).is_empty());
    }
}

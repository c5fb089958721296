//! The filter sends callouts to clusters that do not exist.

use epp_core::config::value::Node;
use epp_core::config::Plan;
use epp_envoy::callouts::admin_cluster;

use super::dump::{is, sections};
use super::picker::Picker;
use super::site::{below, flag, is_cluster_resource, path_below, Site};
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "callout-clusters",
    finds: "clusters that the filter calls and the bootstrap does not define",
    why: "without the pool's cluster no request is routed, without the admin cluster no endpoint is discovered, without the metrics cluster no load is known",
    fix: "define the cluster, or correct its name: cluster of envoy-proxy, clusters and adminCluster of envoy-cluster-discovery, cluster of metrics-data-source",
    check: |site| {
        let mut faults = switched_off(site);
        for (picker, plan) in site.loaded() {
            let known = Known::of(site, picker);
            for name in missing(site, plan) {
                faults.extend(known.fault(picker, name));
            }
        }
        faults
    },
};

/// Returns the clusters that a filter calls and that no document defines.
fn missing<'p>(site: &Site<'_>, plan: &'p Plan) -> Vec<&'p str> {
    let mut names = vec![plan.cluster(), plan.metrics_cluster()];
    names.extend(admin_cluster(plan));
    names.sort_unstable();
    names.dedup();
    names.retain(|name| !name.is_empty() && site.cluster(name).is_none());
    names
}

/// Which of the clusters that a filter can call are in the documents.
#[derive(Clone, Copy)]
enum Known {
    /// All: a bootstrap without CDS, a config dump, or a bootstrap with the files that CDS reads.
    All,
    /// Others may exist: no bootstrap was passed, or the files that CDS reads were not.
    Some,
    /// Those that a control plane does not generate and that its bootstrap does not have.
    Patched,
}

impl Known {
    fn of(site: &Site<'_>, picker: &Picker<'_>) -> Self {
        if picker.is_inserted(site) {
            return Self::Patched;
        }
        let mut sections = site.tops().flat_map(|(_, top)| sections(top));
        if sections.any(|section| is(section, "ClustersConfigDump")) {
            return Self::All;
        }
        let mut bootstraps = site.bootstraps().map(|(_, bootstrap)| bootstrap);
        let cds =
            |bootstrap: &Node| below(bootstrap, &["dynamic_resources", "cds_config"]).is_some();
        match (bootstraps.next(), bootstraps.any(cds)) {
            (None, _) => Self::Some,
            (Some(first), false) if !cds(first) => Self::All,
            _ => match site.clusters().any(|(_, map)| is_cluster_resource(map)) {
                true => Self::All,
                false => Self::Some,
            },
        }
    }

    fn fault(self, picker: &Picker<'_>, name: &str) -> Option<Fault> {
        let place = &picker.document;
        match self {
            Self::All => Some(Fault::at(place, format!("cluster {name} does not exist"))),
            // As Istio and Envoy Gateway name them, and the one that is in their bootstraps.
            Self::Patched if name.contains(['|', '/']) || name == ADMIN_CLUSTER => None,
            Self::Patched | Self::Some => Some(Fault::not_seen(place, format!("cluster {name}"))),
        }
    }
}

/// The cluster of the admin interface in the bootstraps of Istio and Envoy Gateway.
const ADMIN_CLUSTER: &str = "prometheus_stats";

/// Checks the cluster of the admin interface, which Envoy Gateway creates for Prometheus.
fn switched_off(site: &Site<'_>) -> Vec<Fault> {
    let mut needing = site.loaded().filter(|(picker, plan)| {
        admin_cluster(plan) == Some(ADMIN_CLUSTER) && picker.is_envoy_gateways(site)
    });
    if needing.next().is_none() || site.cluster(ADMIN_CLUSTER).is_some() {
        return Vec::new();
    }
    let keys = ["spec", "telemetry", "metrics", "prometheus", "disable"];
    let proxies = site.objects("EnvoyProxy");
    let off = proxies.filter(|(_, proxy)| below(proxy, &keys).and_then(flag) == Some(true));
    off.map(|(path, _)| {
        let what = format!("cluster {ADMIN_CLUSTER}, used for discovery, does not exist");
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

    /// The demo's bootstrap with its clusters in a file of CDS.
    fn with_cds(clusters: &str) -> String {
        let bootstrap = include_str!("../../../../envoy/envoy.yaml");
        let cds = "dynamic_resources: {cds_config: {path_config_source: {path: cds.yaml}}}\n";
        let kept = bootstrap.split("\n  clusters:\n").next().unwrap();
        format!("{cds}{kept}\n---\n{clusters}")
    }

    #[test]
    fn clusters_may_come_from_cds() {
        let cluster = |name: &str| {
            format!("- {{'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster, name: {name}}}\n")
        };
        let all = format!(
            "resources:\n{}{}",
            cluster("inference-pool"),
            cluster("prometheus_stats")
        );
        let found = |clusters: &str| crate::lint::found(&super::RULE, &with_cds(clusters));
        assert!(found(&all).is_empty());
        let one = found(&all.replace("inference-pool", "other"));
        assert!(
            one.len() == 1 && one[0].ends_with("cluster inference-pool does not exist"),
            "{one:?}"
        );
        // What a management server delivers is not in the files.
        let none = found("resources: []\n");
        assert!(
            none.len() == 2 && none.iter().all(|note| note.starts_with("not seen: ")),
            "{none:?}"
        );
    }

    #[test]
    fn a_dump_has_all_clusters() {
        let cluster = |name: &str| format!("{{cluster: {{name: {name}, load_assignment: {{}}}}}}");
        let filter = "{'@type': x/wasm.v3.Wasm, config: {configuration: {'@type': x/protobuf.StringValue, value: '{kind: EndpointPickerConfig, apiVersion: llm-d.ai/v1alpha1, plugins: [{type: queue-scorer}], schedulingProfiles: [{name: default, plugins: [{pluginRef: queue-scorer}]}]}'}}}";
        let dump = |name: &str| {
            let text = format!("{{configs: [{{'@type': x/v3.ClustersConfigDump, static_clusters: [{}], dynamic_active_clusters: [{}]}}, {{'@type': x/v3.EcdsConfigDump, ecds_filters: [{{ecds_filter: {{typed_config: {filter}}}}}]}}]}}", cluster("prometheus_stats"), cluster(name));
            crate::lint::found(&super::RULE, &text)
        };
        assert!(dump("inference-pool").is_empty());
        let missing = dump("other");
        assert!(
            missing.len() == 1 && missing[0].ends_with("inference-pool does not exist"),
            "{missing:?}"
        );
    }

    #[test]
    fn a_patch_may_name_a_cluster_that_no_control_plane_generates() {
        let filter = include_str!("../../../../envoy/istio/filter.yaml");
        assert!(crate::lint::found(&super::RULE, filter).is_empty());
        let misspelt = filter.replace("outbound|8000||vllm.llm.svc.cluster.local", "vllm.llm");
        let notes = crate::lint::found(&super::RULE, &misspelt);
        assert!(
            notes.len() == 1 && notes[0].ends_with("cluster vllm.llm"),
            "{notes:?}"
        );
    }
}

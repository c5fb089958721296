//! Metrics are fetched at a port that no endpoint of their cluster has.

use super::admin_cluster::addresses;
use super::site::{below, number};
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "metrics-port",
    finds: "a `port` of metrics-data-source that no endpoint of the cluster for metrics has",
    why: "the cluster reaches only its own endpoints: no metrics page is ever read, and with the utilization-detector of flow control all requests wait",
    fix: "list the endpoints with that port in the cluster that `cluster` of metrics-data-source names, apart from the pool's cluster",
    check: |site| {
        let faults = site.loaded().filter_map(|(picker, plan)| {
            let wanted = plan.source.port?;
            let name = plan.metrics_cluster();
            let (_, cluster) = site.cluster(name)?;
            let mut endpoints = Vec::new();
            addresses(below(cluster, &["load_assignment"])?, &mut endpoints);
            let ports = endpoints.into_iter().filter_map(|endpoint| {
                number(below(endpoint, &["socket_address", "port_value"])?)
            });
            let mut ports: Vec<f64> = ports.collect();
            ports.dedup();
            let first = *ports.first()?;
            let some = ports.into_iter().any(|port| port == f64::from(wanted));
            let what = format!("port {wanted}, and endpoints of {name} have port {first}");
            (!some).then(|| Fault::at(&picker.document, what))
        });
        faults.collect()
    },
};

#[cfg(test)]
mod tests {
    use crate::lint::{finds, found};

    const PLUGIN: &str = "- type: envoy-proxy";

    #[test]
    fn finds_a_port_that_no_endpoint_has() {
        let with = |port: u16| {
            format!("- type: metrics-data-source\n                      parameters: {{port: {port}, cluster: inference-pool}}\n                    {PLUGIN}")
        };
        finds(&super::RULE, PLUGIN, &with(9400));
        let bootstrap = include_str!("../../../../envoy/envoy.yaml");
        let own = found(&super::RULE, &bootstrap.replace(PLUGIN, &with(8002)));
        assert_eq!(own, Vec::<String>::new(), "a port that an endpoint has");
        let wrong = bootstrap.replace(PLUGIN, &with(9400));
        let one = found(&super::RULE, &wrong);
        let expected = "port 9400, and endpoints of inference-pool have port 8001";
        assert!(one.len() == 1 && one[0].ends_with(expected), "{one:?}");
        // Those of EDS are not in the file.
        let eds = wrong.replacen("load_assignment", "eds_cluster_config", 1);
        assert_eq!(found(&super::RULE, &eds), Vec::<String>::new());
    }
}

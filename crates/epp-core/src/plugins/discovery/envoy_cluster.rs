//! `envoy-cluster-discovery`: the endpoints are the members of an Envoy cluster, with the health
//! that Envoy knows: one that fails its health check, is ejected as an outlier, or is draining gets
//! no new requests. A plugin of ours, and the default where a document names no discovery.
//!
//! Asks Envoy's admin interface through a cluster that leads there; Istio's bootstrap has one by
//! the default's name.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `clusters` | `[inference-pool]` | whose members to take; the first is the one that requests are routed to |
//! | `adminCluster` | `prometheus_stats` | the cluster that leads to the admin interface |
//! | `interval` | `1s` | how often to ask, at least 100ms |
//!
//! ```yaml
//! - name: members
//!   type: envoy-cluster-discovery
//!   parameters: {clusters: [llama], interval: 500ms}
//! ```

use std::time::Duration;

use crate::config::value::Node;
use crate::plugins::{Build, Capabilities, Capability, Discovery, Parity, PluginType, Standing};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "envoy-cluster-discovery",
    former_names: &[],
    provides: &[Capability::Discovery],
    references: &[],
    build,
    parity: Parity::of(Standing::Ours(
        "the Endpoint Picker watches Kubernetes; this reads the members from Envoy",
    )),
};

/// The settings.
#[derive(Debug, Clone, PartialEq)]
pub struct EnvoyClusterDiscovery {
    /// Whose members are the endpoints.
    pub clusters: Vec<String>,
    /// The cluster that leads to the admin interface.
    pub admin_cluster: String,
    /// The interval of queries.
    pub interval: Duration,
}

impl Default for EnvoyClusterDiscovery {
    fn default() -> Self {
        Self {
            clusters: vec!["inference-pool".to_owned()],
            admin_cluster: "prometheus_stats".to_owned(),
            // The page of 200 members costs Envoy's main thread 2 ms.
            interval: Duration::from_secs(1),
        }
    }
}

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    let default = EnvoyClusterDiscovery::default();
    let fields = &mut build.fields;
    let clusters = fields.strings("clusters", &default.clusters);
    if clusters.is_empty() {
        fields.refuse("clusters", &Node::List(Vec::new()), "at least one cluster");
    }
    Capabilities {
        discovery: Some(Discovery::EnvoyCluster(EnvoyClusterDiscovery {
            clusters,
            admin_cluster: fields.string("adminCluster", &default.admin_cluster),
            interval: fields.duration("interval", default.interval, Duration::from_millis(100)),
        })),
        ..Capabilities::default()
    }
}

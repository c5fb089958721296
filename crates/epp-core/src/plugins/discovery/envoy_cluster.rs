//! `envoy-cluster-discovery`: the endpoints are the members of an Envoy cluster, with the health
//! that Envoy knows: one that fails its health check, is ejected as an outlier, or is draining gets
//! no new requests. A plugin of ours, and the default where a document names no discovery.
//!
//! Asks Envoy's admin interface through a cluster that leads there; Istio's bootstrap has one by
//! the default's name.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `clusters` | `[inference-pool]` | whose members to take, at most 32: names, or names with labels; the first is the one that requests are routed to |
//! | `clusters[].name` | required | the cluster's name |
//! | `clusters[].labels` | none | labels of its members: strings by name |
//! | `adminCluster` | `prometheus_stats` | the cluster that leads to the admin interface |
//! | `interval` | `1s` | how often to ask, at least 100ms |
//! | `timeout` | `30s` | how long requests are left to Envoy's own load balancing while the members are not known yet; then `failureMode` applies |
//!
//! ```yaml
//! - name: members
//!   type: envoy-cluster-discovery
//!   parameters: {clusters: [llama], interval: 500ms}
//! ```
//!
//! A member of several clusters is one endpoint, with the labels of all of them; where two give it the same label,
//! the cluster that is listed first decides. So a second cluster can be a part of the first, such as a subset of
//! Istio's DestinationRule:
//!
//! ```yaml
//! - name: members
//!   type: envoy-cluster-discovery
//!   parameters:
//!     clusters:
//!     - outbound|8000||vllm.llm.svc.cluster.local
//!     - {name: outbound|8000|decode|vllm.llm.svc.cluster.local, labels: {llm-d.ai/role: decode}}
//!     - {name: outbound|8000|prefill|vllm.llm.svc.cluster.local, labels: {llm-d.ai/role: prefill}}
//! ```
//!
//! Where plugins read labels, a member's locality adds `topology.kubernetes.io/region` and
//! `topology.kubernetes.io/zone`, unless its clusters give it these labels.

use std::time::Duration;

use crate::config::value::{Fields, Kind, Node};
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

/// Clusters whose members are taken at most. Each line of the admin interface's page is compared with each name; a
/// pool has a cluster for each role, and one for each of its Services.
pub const MAX_CLUSTERS: usize = 32;

/// A cluster whose members are endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceCluster {
    /// Its name.
    pub name: String,
    /// The labels that its members have.
    pub labels: Vec<(String, String)>,
}

impl SourceCluster {
    /// Returns a cluster whose members have no labels.
    pub fn unlabelled(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            labels: Vec::new(),
        }
    }
}

/// The settings.
#[derive(Debug, Clone, PartialEq)]
pub struct EnvoyClusterDiscovery {
    /// Whose members are the endpoints; at most [`MAX_CLUSTERS`].
    pub clusters: Vec<SourceCluster>,
    /// The cluster that leads to the admin interface.
    pub admin_cluster: String,
    /// The interval of queries.
    pub interval: Duration,
    /// The time after which members that are not known are an empty pool.
    pub timeout: Duration,
}

impl EnvoyClusterDiscovery {
    /// Returns the clusters' names.
    pub fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.clusters.iter().map(|cluster| cluster.name.as_str())
    }

    /// Returns the clusters' names in one line.
    pub fn listed(&self) -> String {
        self.names().collect::<Vec<_>>().join(", ")
    }
}

impl Default for EnvoyClusterDiscovery {
    fn default() -> Self {
        Self {
            clusters: vec![SourceCluster::unlabelled("inference-pool")],
            admin_cluster: "prometheus_stats".to_owned(),
            // The page of 200 members costs Envoy's main thread 2 ms.
            interval: Duration::from_secs(1),
            // Twice as long as Envoy itself waits for the members of a cluster by default (`initial_fetch_timeout`):
            // until then its admin interface does not list that cluster.
            timeout: Duration::from_secs(30),
        }
    }
}

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    let default = EnvoyClusterDiscovery::default();
    let fields = &mut build.fields;
    Capabilities {
        discovery: Some(Discovery::EnvoyCluster(EnvoyClusterDiscovery {
            clusters: read_clusters(fields).unwrap_or(default.clusters),
            admin_cluster: fields.string("adminCluster", &default.admin_cluster),
            interval: fields.duration("interval", default.interval, Duration::from_millis(100)),
            timeout: fields.duration("timeout", default.timeout, Duration::ZERO),
        })),
        ..Capabilities::default()
    }
}

fn read_clusters(fields: &mut Fields<'_>) -> Option<Vec<SourceCluster>> {
    let names = |default: &EnvoyClusterDiscovery| {
        Node::List(default.names().map(|name| Node::String(name.to_owned())).collect())
    };
    let default = names(&EnvoyClusterDiscovery::default());
    fields.ask("clusters", Kind::NamesOr, Some(default.clone()));
    let given = fields.node("clusters").filter(|node| **node != Node::Null);
    fields.note("clusters", given.cloned().unwrap_or(default));
    let entries = fields.entries_of("clusters", "a list of clusters");
    let mut clusters = Vec::new();
    for (entry, path) in entries {
        if let Node::String(name) = entry {
            clusters.push(SourceCluster::unlabelled(name));
            continue;
        }
        let mut entry = Fields::new(Some(entry), path, fields.problems());
        clusters.push(SourceCluster {
            name: entry.required_string("name"),
            labels: entry.string_map("labels"),
        });
        entry.finish();
    }
    if let Some(Node::List(found)) = given {
        if !(1..=MAX_CLUSTERS).contains(&found.len()) {
            let message = format!("found {} clusters, expected 1 to {MAX_CLUSTERS}", found.len());
            let path = fields.path().key("clusters");
            fields.problems().error(&path, message);
        }
        return Some(clusters);
    }
    None
}

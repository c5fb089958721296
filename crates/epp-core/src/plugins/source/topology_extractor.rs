//! `topology-extractor`: which labels say where endpoints are, for `topology-affinity-filter` and
//! `topology-affinity-scorer`.
//!
//! Reads the labels that `envoy-cluster-discovery` and `static-discovery` give endpoints. Of the locality of a cluster's
//! member Envoy knows region and zone.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `hostname` | `kubernetes.io/hostname` | the label of the host |
//! | `rack` | `topology.kubernetes.io/rack` | the label of the rack |
//! | `zone` | `topology.kubernetes.io/zone` | the label of the zone |
//! | `region` | `topology.kubernetes.io/region` | the label of the region |
//!
//! ```yaml
//! - type: topology-extractor
//!   parameters: {rack: example.com/nvlink-domain}
//! ```

use crate::plugins::topology::{Level, Topology};
use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType, Standing};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "topology-extractor",
    former_names: &[],
    provides: &[Capability::Topology],
    references: &[],
    build,
    parity: Parity::of(Standing::Differs(
        "labels come from discovery, not from Kubernetes; spec.hostname of pods is not known",
    )),
};

/// The labels of Kubernetes.
pub const LABELS: [(Level, &str); 4] = [
    (Level::Host, "kubernetes.io/hostname"),
    (Level::Rack, "topology.kubernetes.io/rack"),
    (Level::Zone, "topology.kubernetes.io/zone"),
    (Level::Region, "topology.kubernetes.io/region"),
];

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    let labels = LABELS.map(|(level, label)| {
        let parameter = match level {
            Level::Host => "hostname",
            Level::Rack => "rack",
            Level::Zone => "zone",
            Level::Region => "region",
        };
        let given = build.fields.string(parameter, label);
        let given = Some(given).filter(|given| !given.is_empty());
        (level, given.unwrap_or_else(|| label.to_owned()))
    });
    Capabilities {
        topology: Some(Topology(labels)),
        ..Capabilities::default()
    }
}

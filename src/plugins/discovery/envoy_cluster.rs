//! `envoy-cluster-discovery`: placeholder
use crate::plugins::role::{Build, PluginType, Role};
/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "envoy-cluster-discovery",
    build,
};
/// Settings.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EnvoyClusterDiscovery;
fn build(_: &mut Build<'_, '_>) -> Role {
    Role::Inert
}

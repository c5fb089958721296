//! `static-discovery`: placeholder
use crate::plugins::role::{Build, PluginType, Role};
/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "static-discovery",
    build,
};
/// Settings.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StaticDiscovery;
fn build(_: &mut Build<'_, '_>) -> Role {
    Role::Inert
}

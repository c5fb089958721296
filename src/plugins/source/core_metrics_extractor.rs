//! `core-metrics-extractor`: placeholder
use crate::plugins::role::{Build, PluginType, Role};
/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "core-metrics-extractor",
    build,
};
/// Settings.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CoreMetricsExtractor;
fn build(_: &mut Build<'_, '_>) -> Role {
    Role::Inert
}

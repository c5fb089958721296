//! `metrics-data-source`: placeholder
use crate::plugins::role::{Build, PluginType, Role};
/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "metrics-data-source",
    build,
};
/// Settings.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MetricsDataSource;
fn build(_: &mut Build<'_, '_>) -> Role {
    Role::Inert
}

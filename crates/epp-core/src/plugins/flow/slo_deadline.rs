//! `slo-deadline-ordering-policy`: of a flow's requests, the one goes first whose first token is due first.
//!
//! It is due as many milliseconds after the request's headers came as the header `x-llm-d-slo-ttft-ms` or `x-slo-ttft-ms`
//! says; requests without one go last, in the order in which they came. A band names it as its `orderingPolicyRef`. It
//! has no parameters.
//!
//! ```yaml
//! - type: slo-deadline-ordering-policy
//! ```

use crate::flow::Ordering;
use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "slo-deadline-ordering-policy",
    former_names: &[],
    provides: &[Capability::Ordering],
    references: &[],
    build,
    parity: Parity::SAME,
};

fn build(_: &mut Build<'_, '_>) -> Capabilities {
    Capabilities {
        ordering: Some(Ordering::SloDeadline),
        ..Capabilities::default()
    }
}

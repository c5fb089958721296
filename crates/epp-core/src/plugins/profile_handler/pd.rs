//! `pd-profile-handler`: the former `disagg-profile-handler`, without an encode profile.
//!
//! The decode profile picks the endpoint that the request is sent to; if the decider says so, the first
//! pick of the prefill profile computes the prompt. It is named in `x-prefiller-host-port` only if the
//! document has a `disagg-headers-handler`, too. Without an endpoint that can compute the prompt, the
//! decode endpoint does.
//!
//! With `primaryPort` requests are sent to that port of the decode endpoint's IP address, and
//! `x-data-parallel-host-port` names the endpoint itself: see `data-parallel-profile-handler`.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `decodeProfile` | `decode` | the profile that picks where the request goes |
//! | `prefillProfile` | `prefill` | the profile that picks who computes the prompt |
//! | `deciderPluginName` | `prefix-based-pd-decider` | the plugin that decides whether the prompt is computed elsewhere |
//! | `primaryPort` | 0 | the port that requests are sent to; 0: the endpoint's own |
//! | `prefixPluginType` | – | no effect |
//! | `prefixPluginName` | – | no effect |
//! | `prefixMatchInfoProducerName` | – | no effect: the decider names its producer |
//!
//! ```yaml
//! - type: always-disagg-pd-decider
//! - type: disagg-headers-handler
//! - type: pd-profile-handler
//!   parameters: {deciderPluginName: always-disagg-pd-decider}
//! schedulingProfiles: [{name: prefill}, {name: decode}]
//! ```

use super::disagg::{decider, Disaggregation, Part, StageOrder, DECODE, PREFILL};
use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType, Standing};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "pd-profile-handler",
    former_names: &[],
    provides: &[Capability::ProfileHandler],
    references: &[decider("deciderPluginName")],
    build,
    parity: Parity {
        plugin: Standing::Same,
        parameters: &[
            ("prefixPluginType", UNUSED),
            ("prefixPluginName", UNUSED),
            ("prefixMatchInfoProducerName", PRODUCER),
        ],
    },
};

const UNUSED: Standing = Standing::NoEffect("the Endpoint Picker does not use it, either");
const PRODUCER: Standing = Standing::NoEffect("the decider names its producer");

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    let fields = &mut build.fields;
    let decode = fields.string("decodeProfile", DECODE);
    let prefill = fields.string("prefillProfile", PREFILL);
    let name = fields.string("deciderPluginName", "prefix-based-pd-decider");
    let port = fields.whole("primaryPort", 0, (0, 65_535)) as u16;
    for name in ["prefixPluginType", "prefixPluginName"] {
        fields.no_effect(name, "the Endpoint Picker does not use it, either");
    }
    fields.no_effect("prefixMatchInfoProducerName", "the decider names its producer");
    let path = fields.path().key("deciderPluginName");
    let plugin = build.resolve(Capability::Decider, &name, &path);
    Capabilities::profile_handler(Disaggregation {
        order: StageOrder::DecodeFirst,
        decode,
        prefill: Part {
            profile: prefill,
            decider: plugin.and_then(|plugin| plugin.capabilities.decider.clone()),
        },
        encode: Part::default(),
        requires_prefill: false,
        names_helpers: false,
        port: (port > 0).then_some(port),
    })
}

//! End to end: a real Envoy with the real module, real HTTP, simulated model servers.
//!
//! `make test` builds what this needs and says where it is (ENVOY, EPP_WASM).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod apis;
mod bodies;
mod bursts;
mod catalogue;
mod clients;
mod configuration;
mod disaggregation;
mod drills;
mod dry_run;
mod ejection;
mod exported;
mod failure;
mod flow;
mod gateways;
mod guard;
mod headers_only;
mod labels;
mod load_reports;
mod members;
mod memory;
mod metadata;
mod ownership;
mod pauses;
mod polling;
mod preferences;
mod protocols;
mod recorded;
mod responses;
mod rewriting;
mod sessions;
mod sglang_loads;
mod slow_clients;
mod steering;
mod stream;
mod teaching;
mod ticks;
#[path = "../deploy/tls.rs"]
mod tls;
mod uploads;
mod view;
mod witness;
mod workers;

use envoy_harness::{client, proxy};
use proxy::{Proxy, Setup};

/// A document of the GIE v1 dialect: plugins, and their references in the one profile.
pub fn document(plugins: &str, references: &str) -> String {
    format!(
        "apiVersion: inference.networking.x-k8s.io/v1alpha1
kind: EndpointPickerConfig
plugins: [{plugins}]
schedulingProfiles: [{{name: default, plugins: [{references}]}}]
"
    )
}

/// A document with one scorer.
pub fn scorer(kind: &str) -> String {
    document(
        &format!("{{type: {kind}}}"),
        &format!("{{pluginRef: {kind}}}"),
    )
}

/// A document with one scorer that allows explanations.
pub fn explained(kind: &str) -> String {
    let plugins = format!("{{type: {kind}}}, {{type: envoy-proxy, parameters: {{explain: true}}}}");
    document(&plugins, &format!("{{pluginRef: {kind}}}"))
}

/// Starts an Envoy over these model servers with this configuration.
pub fn start(sim: &fake_model_server::Sim, config: &str) -> Proxy {
    Setup::new(&sim.addresses(), config).start()
}

//! Every file under envoy/ loads in a real Envoy with the real module, and serves.
//!
//! Values that only a user of a file has (addresses, the module's path, certificates) are put in
//! its place by `stage`, and nothing else.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod bootstraps;
mod chart;
mod commands;
mod crds;
mod dist;
mod endpoint_picker;
mod envoy;
mod gateway;
mod image;
mod istio;
mod monitoring;
mod stage;
mod status;
mod tls;
mod upgrade;

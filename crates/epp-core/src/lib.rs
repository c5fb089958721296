//! The endpoint picker without a host: reads an `EndpointPickerConfig`, scans metrics pages and requests,
//! matches prefixes, runs scheduling profiles, and decides where each request goes.
//!
//! No clock, no randomness of its own, no unsafe code and no IO: time, seeds and what a host can show of a
//! body are arguments. It runs the same in Envoy's wasm VMs, in tests, and in `eppctl`.
//!
//! # What a host needs
//!
//! [`config::load`] reads a document into a [`Plan`], from which [`Picker::new`] makes the picker of one pool.
//! The host hands the picker events, each with a [`Timestamp`]: the [`Head`] of a request, its body as a
//! [`BodyView`], what is known of its response, and ticks. After each event it carries out the [`Effect`]s of
//! [`Picker::poll_effect`]: hold, forward, reply, bypass, fetch, log. After each tick it may export what was counted,
//! by the [`MetricUpdate`]s of [`Picker::poll_metric`]. The modules are for tools, tests and benchmarks, and for
//! [`picker::peers`], which connects the pickers of one proxy.
//!
//! # A host that routes one request
//!
//! ```
//! use epp_core::{config, Effect, ExchangeId, FetchError, Head, Picker, SliceBody, Timestamp};
//!
//! let document = "
//! apiVersion: llm-d.ai/v1alpha1
//! kind: EndpointPickerConfig
//! plugins:
//! - {type: prefix-cache-scorer}
//! - {type: approx-prefix-cache-producer}
//! - name: pods
//!   type: static-discovery
//!   parameters: {endpoints: [{name: a, address: 10.0.0.1, port: 8000}]}
//! schedulingProfiles: [{name: default, plugins: [{pluginRef: prefix-cache-scorer}]}]
//! dataLayer: {discovery: {pluginRef: pods}}
//! ";
//! let plan = config::load(document).expect("a valid document").plan;
//! let mut picker = Picker::new(plan, 1);
//! let now = Timestamp::from_nanos(1_700_000_000_000_000_000);
//! let mut destination = None;
//! let mut carry_out = |picker: &mut Picker| {
//!     while let Some(effect) = picker.poll_effect() {
//!         match effect {
//!             // A host that reads metrics pages would fetch one here.
//!             Effect::Fetch { id, .. } => picker.fetched(now, id, Err(FetchError::Unreachable)),
//!             Effect::Forward { route, .. } => destination = route.endpoints().next().map(str::to_owned),
//!             // The request waits; its body is shown below.
//!             Effect::Hold { .. } => {}
//!             other => panic!("nothing else is expected: {other:?}"),
//!         }
//!     }
//! };
//! // The first tick adds the endpoints.
//! picker.tick(now);
//! carry_out(&mut picker);
//!
//! let body = br#"{"model": "m", "messages": [{"role": "user", "content": "Hello"}]}"#;
//! let id = ExchangeId(1);
//! let head = Head::post_json("/v1/chat/completions", Some(body.len()));
//! picker.request_headers(now, id, &head);
//! carry_out(&mut picker);
//! picker.request_body(now, id, &mut SliceBody::whole(body));
//! carry_out(&mut picker);
//! picker.response_headers(now, id, None);
//! picker.closed(now, id);
//! assert_eq!(destination.as_deref(), Some("10.0.0.1:8000"));
//! ```

#![forbid(unsafe_code)]

pub mod body;
pub mod config;
pub mod endpoints;
pub mod findings;
pub mod flow;
pub mod metrics;
mod number_hash;
pub mod picker;
pub mod plugins;
pub mod prefix;
pub mod protocol;
pub mod request;
pub mod response;
pub mod scheduling;
pub mod time;

#[cfg(test)]
mod testing;

pub use body::{BodyView, SliceBody};
pub use config::Plan;
pub use endpoints::store::Member;
pub use metrics::MetricUpdate;
pub use picker::{
    BodyDemand, Effect, ExchangeId, Fetch, FetchError, FetchId, Fetched, Head, LocalReply, Picker,
    Rewrite, Route, Upstream,
};
pub use time::Timestamp;

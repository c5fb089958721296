//! Fake model servers for tests, benchmarks and the demo: many pods in one process, each on its own port.
//!
//! A pod serves OpenAI's chat completions, completions, responses and embeddings, Anthropic's messages (JSON
//! and server-sent events, with tools), `/v1/models`, `/health`, a page of vLLM's metrics at `/metrics`,
//! and SGLang's `/v1/loads`. These and vLLM's header `endpoint-load-metrics` follow its state: a bounded number of running requests, a
//! FIFO queue, a KV cache whose reuse shortens the time to the first token, a bounded number of LoRA adapters.
//! Values of the page can be set, and faults switched on, from Rust ([`Sim`]) or over HTTP ([`control`]).
//!
//! Every pod computes prompts for others and fetches KV caches from them, as vLLM's `kv_transfer_params` say; one
//! with a routing sidecar decodes what the pods in the headers `x-prefiller-host-port` and
//! `x-encoder-hosts-ports` have prepared. [`Work`] says who did what.
//!
//! The crate uses the network and the clock, and nothing else of the workspace. `pool-sim` simulates model
//! servers without either, thousands of times faster.

mod cache;
pub mod control;
mod http;
mod load_report;
mod page;
mod pod;
mod response;
mod sidecar;
mod sim;
mod stream_body;
mod work;

pub use http::body_hash;
pub use pod::{Faults, Metrics, Pinned, Pod, ReceivedRequest, Settings};
pub use sim::Sim;
pub use stream_body::{FrameSender, StreamBody};
pub use work::Work;

//! A model-server simulator, good enough to develop a picker against.
//!
//! Many pods in one process, each on its own port: OpenAI chat completions and completions and
//! Anthropic messages (JSON and SSE, with tools), embeddings, `/v1/models`, `/health`, and a vLLM-shaped `/metrics` page that follows the pod's real
//! state: a bounded running set, a FIFO queue, a block-based KV cache whose reuse shortens the time
//! to first token, LoRA adapters with a bound. What a pod exports can be pinned, and faults can be
//! switched on, from Rust ([`Sim`]) or over HTTP ([`control`]).

mod answer;
mod cache;
pub mod control;
mod http;
mod page;
mod pod;
mod sim;
mod stream_body;

pub use http::body_hash;
pub use pod::{Faults, Metrics, Pinned, Pod, Seen, Settings};
pub use sim::Sim;
pub use stream_body::{FrameSender, StreamBody};

//! Which endpoint probably holds which part of a prompt in its KV cache: block digests, their
//! chain, and the index of what was sent where.

mod arena;
pub mod digest;
mod held;
pub mod index;
pub mod key;
mod matcher;
mod sets;
mod turnover;
pub mod walk;

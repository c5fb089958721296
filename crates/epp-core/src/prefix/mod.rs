//! An estimate of which endpoint holds which part of a prompt in its KV cache: the digests of a prompt's blocks,
//! their chained hashes, and the index of the hashes that were sent to each endpoint.

mod arena;
mod chunks;
pub mod digest;
pub mod index;
pub mod key;
mod lru;
pub mod matcher;
mod sets;
mod turnover;
pub mod walk;

//! Endpoints and what is known of them: discovery, metrics pages, freshness.

pub mod avoid;
pub mod clusters;
pub mod engine;
pub mod failure;
pub mod glimpse;
pub mod poller;
mod prompts;
mod sample;
pub mod scan;
pub mod spec;
pub mod store;

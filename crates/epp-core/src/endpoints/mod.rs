//! Endpoints and what is known of them: discovery, metrics pages, freshness.

pub mod avoid;
pub mod clusters;
pub mod engine;
pub mod failure;
pub mod glimpse;
mod lora;
pub mod poller;
mod prompts;
pub mod review;
mod sample;
pub mod scan;
mod series;
pub mod spec;
pub mod store;

//! Endpoints: the pool's members, their metrics pages, and outlier detection.

pub mod discovery;
pub mod engine;
pub mod fetch_error;
mod json_numbers;
pub mod load_report;
pub mod loads;
mod lora;
pub mod monitor;
pub mod outlier;
pub mod override_check;
pub mod partial_page;
pub mod poller;
pub mod review;
pub mod sample;
pub mod scan;
mod series;
pub mod spec;
pub mod store;
mod trust;

//! Properties of everything that reads bytes from outside: request and response bodies, metrics pages, the admin
//! interface's text, shared data, configurations.
//!
//! Each property is a function of arbitrary bytes that panics if it does not hold. The fuzzer (`fuzz/`, `make fuzz`)
//! searches for such bytes; `tests/corpus.rs` tries those in `fuzz/corpus` and `fuzz/regressions`, so that every test run
//! covers what was found once.
//!
//! The settings of a property are words in the first line of the input, so that the corpus can be read and written by
//! hand. Any words are valid settings.
//!
//! [`collisions`] computes prompts that collide in an unkeyed prefix index, for the fault suite and the instruction count.
//!
//! The crate may use all crates that read such bytes, and no IO, clock or host.

// Panics are how a property reports a failure.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing
)]

mod clusters;
pub mod collisions;
mod configuration;
#[path = "../../../tests/memory/counting.rs"]
mod counting;
mod json;
#[path = "../../../tests/reading/known.rs"]
mod known;
#[path = "../../../tests/reading/model.rs"]
mod model;
mod page;
#[path = "../../../tests/reading/pieces.rs"]
mod pieces;
mod request;
mod response;
mod shared;

pub use clusters::clusters;
pub use configuration::configuration;
pub use page::page;
pub use request::request;
pub use response::response;
pub use shared::shared;

/// A property of arbitrary bytes.
pub type Property = fn(&[u8]);

/// All properties, by the names of their fuzz targets and corpora.
pub const ALL: [(&str, Property); 6] = [
    ("clusters", clusters),
    ("configuration", configuration),
    ("page", page),
    ("request", request),
    ("response", response),
    ("shared", shared),
];

/// Splits the input into the words of its first line and the rest.
fn settings(input: &[u8]) -> (impl Iterator<Item = &str>, &[u8]) {
    let end = input.iter().position(|byte| *byte == b'\n');
    let (line, rest) = input.split_at(end.unwrap_or(input.len()));
    let words = std::str::from_utf8(line).unwrap_or_default();
    (words.split(' '), rest.get(1..).unwrap_or_default())
}

/// Returns the next word as a number, or 0 if it is not one.
fn number<'w>(words: &mut impl Iterator<Item = &'w str>) -> usize {
    let number = words.next().and_then(|word| word.parse().ok());
    number.unwrap_or_default()
}

/// Runs a function that may take at most this many bytes of memory.
fn within<T>(limit: usize, run: impl FnOnce() -> T) -> T {
    let (most, result) = counting::most(run);
    assert!(most <= limit, "{most} bytes where {limit} are enough");
    result
}

//! What must hold of whatever reads bytes from outside: bodies, answers, metrics pages, the
//! admin interface's text, shared data, configurations.
//!
//! Each property is a function of arbitrary bytes that panics where it does not hold. The fuzzer
//! (`fuzz/`, `make fuzz`) looks for such bytes; `tests/corpus.rs` tries those that are kept in
//! `fuzz/corpus` and `fuzz/regressions`, so that what was found once is looked at in every test run.
//!
//! Where a property has settings, they stand in the input's first line as words, so that the corpus
//! can be read and written by hand; whatever stands there means something.

// A panic is what is looked for here.
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

/// A property.
pub type Property = fn(&[u8]);

/// All of them, by the names of their fuzz targets and corpora.
pub const ALL: [(&str, Property); 6] = [
    ("clusters", clusters),
    ("configuration", configuration),
    ("page", page),
    ("request", request),
    ("response", response),
    ("shared", shared),
];

/// The words of the input's first line, and what follows it.
fn settings(input: &[u8]) -> (impl Iterator<Item = &str>, &[u8]) {
    let end = input.iter().position(|byte| *byte == b'\n');
    let (line, rest) = input.split_at(end.unwrap_or(input.len()));
    let words = std::str::from_utf8(line).unwrap_or_default();
    (words.split(' '), rest.get(1..).unwrap_or_default())
}

/// The next word as a number, if it is one.
fn number<'w>(words: &mut impl Iterator<Item = &'w str>) -> usize {
    let number = words.next().and_then(|word| word.parse().ok());
    number.unwrap_or_default()
}

/// Runs what may take so many bytes of memory and no more.
fn within<T>(limit: usize, run: impl FnOnce() -> T) -> T {
    let (most, result) = counting::most(run);
    assert!(most <= limit, "{most} bytes where {limit} are enough");
    result
}

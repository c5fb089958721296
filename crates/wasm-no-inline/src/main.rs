//! `wasm-no-inline IN OUT`: rewrites a module as the library describes. `scripts/wasm` runs it on the
//! linker's output.
//!
//! It is an error if the module lacks a function of the list below: the function was renamed or inlined, and
//! its calls would go through the table unnoticed. With `--may-miss` it is a note, because another
//! compiler than the pinned one may inline differently.

use std::fs;
use std::process::ExitCode;

/// Functions that a request calls once per block of its prompt or per token of JSON. By a count of all calls,
/// a known prompt of 4 KB makes 480, 190 of them to the first two; a new one 620, 64 of them to the third.
const DIRECT: [&str; 6] = [
    "xxhash_rust::xxh64::xxh64",
    "epp_core::prefix::matcher::Matcher::extend",
    "epp_core::prefix::arena::Arena::primary_of",
    "epp_core::prefix::key::Key::digest",
    "epp_core::request::prompt::Draft::clear",
    "epp_core::request::text::plain",
];

/// Such functions with a single caller, into which the linker may inline them; then no call is left. The name
/// is from another crate, whose version Cargo.lock pins.
const DIRECT_OR_INLINED: [&str; 1] = ["xxhash_rust::xxh3::xxh3_stateful_update"];

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let may_miss = arguments.first().is_some_and(|first| first == "--may-miss");
    arguments.drain(..usize::from(may_miss));
    let [from, to] = arguments.as_slice() else {
        eprintln!("usage: wasm-no-inline [--may-miss] IN OUT");
        return ExitCode::FAILURE;
    };
    match run(from, to, may_miss) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {from}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(from: &str, to: &str, may_miss: bool) -> Result<(), Box<dyn std::error::Error>> {
    let direct = [&DIRECT[..], &DIRECT_OR_INLINED].concat();
    let mut rewritten = wasm_no_inline::rewrite(&fs::read(from)?, &direct)?;
    let missing = &mut rewritten.missing;
    missing.retain(|name| !DIRECT_OR_INLINED.contains(&name.as_str()));
    if !missing.is_empty() {
        let names = missing.join(", ");
        let what = format!("no function {names}: renamed or inlined? DIRECT lists it");
        if !may_miss {
            return Err(what.into());
        }
        eprintln!("note: {from}: {what}");
    }
    fs::write(to, rewritten.module)?;
    Ok(())
}

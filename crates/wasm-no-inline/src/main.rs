//! `wasm-no-inline IN OUT`: see the library. `scripts/wasm` runs it on what the linker made.
//!
//! A function of the list below that the module does not have is an error: it was renamed, or inlined,
//! and its calls would go through the table unnoticed. With `--may-miss` it is a note: another compiler
//! than the pinned one may inline otherwise.

use std::fs;
use std::process::ExitCode;

/// What a request calls once per block of its prompt, or per token of JSON, by a count of all calls: 480
/// for 4 KB that are known, 190 of them to the first two; 620 for 4 KB that are new, 64 to the third.
const DIRECT: [&str; 6] = [
    "xxhash_rust::xxh64::xxh64",
    "epp_core::prefix::matcher::Matcher::extend",
    "epp_core::prefix::arena::Arena::primary_of",
    "epp_core::prefix::key::Key::digest",
    "epp_core::request::prompt::Draft::clear",
    "epp_core::request::text::plain",
];

/// The same, but with one caller, into which the linker may inline it: then no call is left. Its name is
/// another crate's, pinned by Cargo.lock.
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
        Err(trouble) => {
            eprintln!("error: {from}: {trouble}");
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

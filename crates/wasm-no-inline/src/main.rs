//! `wasm-no-inline IN OUT`: see the library. `scripts/wasm` runs it on what the linker made.

use std::fs;
use std::process::ExitCode;

/// What a request calls once per block of its prompt, or per token of JSON, by a count of all calls: 480
/// for 4 KB that are known, 190 of them to the first two; 620 for 4 KB that are new, 64 to the third.
const DIRECT: [&str; 7] = [
    "xxhash_rust::xxh64::xxh64",
    "epp_core::prefix::index::Index::extend",
    "epp_core::prefix::arena::Arena::first_of",
    "epp_core::prefix::key::Key::digest",
    "xxhash_rust::xxh3::xxh3_stateful_update",
    "epp_core::request::prompt::Draft::clear",
    "epp_core::request::text::plain",
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [from, to] = arguments.as_slice() else {
        eprintln!("usage: wasm-no-inline IN OUT");
        return ExitCode::FAILURE;
    };
    match run(from, to) {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            eprintln!("error: {from}: {trouble}");
            ExitCode::FAILURE
        }
    }
}

fn run(from: &str, to: &str) -> Result<(), Box<dyn std::error::Error>> {
    let rewritten = wasm_no_inline::rewrite(&fs::read(from)?, &DIRECT)?;
    for name in rewritten.missing {
        // Another compiler may have inlined it.
        eprintln!("note: {from} has no function {name}");
    }
    fs::write(to, rewritten.module)?;
    Ok(())
}

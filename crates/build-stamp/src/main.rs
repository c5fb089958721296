//! `build-stamp COMMIT FILE`: writes the commit and the digest into a linked module or program. Commits are as
//! `scripts/lib.sh` finds them.

use std::error::Error;
use std::fs;
use std::process::ExitCode;

use build_stamp::Placeholder;

static STAMP: Placeholder = Placeholder::new(env!("CARGO_PKG_VERSION"));

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [commit, file] = arguments.as_slice() else {
        eprintln!("usage: build-stamp COMMIT FILE");
        return ExitCode::FAILURE;
    };
    match stamp(commit, file) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {file}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn stamp(commit: &str, file: &str) -> Result<(), Box<dyn Error>> {
    let mut bytes = fs::read(file)?;
    STAMP.stamp(&mut bytes, commit)?;
    // Cargo may have linked the file to another name of it, which stays as it is.
    let new = format!("{file}.stamped");
    fs::write(&new, bytes)?;
    fs::set_permissions(&new, fs::metadata(file)?.permissions())?;
    fs::rename(new, file)?;
    Ok(())
}

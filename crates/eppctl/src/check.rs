//! `eppctl check`: the loader's word on documents.

use std::io::Read;
use std::process::ExitCode;

use clap::Args;
use epp_wasm::config;

/// At least one document does not load.
const FINDINGS: u8 = 1;
/// A file could not be read.
const MISUSE: u8 = 2;

/// Arguments of `eppctl check`.
#[derive(Args)]
pub struct Check {
    /// Documents, YAML or JSON; - is standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
}

impl Check {
    /// Checks all files, in order.
    pub fn run(&self) -> ExitCode {
        let mut worst = 0;
        for file in &self.files {
            worst = worst.max(match read(file) {
                Ok(bytes) => check(file, &bytes),
                Err(error) => {
                    eprintln!(
                        "eppctl: {file}: {error}; give a readable file, or - for standard input"
                    );
                    MISUSE
                }
            });
        }
        ExitCode::from(worst)
    }
}

fn read(file: &str) -> std::io::Result<Vec<u8>> {
    if file == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes)?;
        return Ok(bytes);
    }
    std::fs::read(file)
}

fn check(file: &str, bytes: &[u8]) -> u8 {
    match config::load_bytes(bytes) {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                println!("{file}: warning: {warning}");
            }
            println!("{file}: loads: {}", loaded.plan.summary());
            0
        }
        Err(rejected) => {
            for warning in &rejected.warnings {
                println!("{file}: warning: {warning}");
            }
            for error in &rejected.errors {
                println!("{file}: error: {error}");
            }
            FINDINGS
        }
    }
}

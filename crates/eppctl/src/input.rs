//! Reading what commands are given.

use std::io::Read;

use epp_wasm::config::{self, Plan};

use crate::output::Misuse;

/// The bytes of a file; `-` is standard input.
pub fn read(file: &str) -> Result<Vec<u8>, Misuse> {
    let bytes = if file == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes).map(|_| bytes)
    } else {
        std::fs::read(file)
    };
    bytes.map_err(|error| {
        Misuse::new(format!(
            "{file}: {error}; give a readable file, or - for standard input"
        ))
    })
}

/// The text of a file; `-` is standard input.
pub fn read_text(file: &str) -> Result<String, Misuse> {
    String::from_utf8(read(file)?).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Misuse::new(format!("{file}: the text is no UTF-8 at byte {at}"))
    })
}

/// The plan of a document, for commands that work with one and leave its problems to `check`.
pub fn load_plan(file: &str) -> Result<Plan, Misuse> {
    plan_of(file, &read_text(file)?)
}

/// The same of a text that was read already.
pub fn plan_of(file: &str, text: &str) -> Result<Plan, Misuse> {
    match config::load(text) {
        Ok(loaded) => Ok(loaded.plan),
        Err(rejected) => {
            let first = rejected.errors.first().map(ToString::to_string);
            Err(Misuse::new(format!(
                "{file}: does not load: {}; `eppctl check {file}` shows all problems",
                first.unwrap_or_default()
            )))
        }
    }
}

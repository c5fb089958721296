//! Reading what commands are given.

use std::io::Read;

use epp_core::config::{self, Plan};

use crate::embedded::documents;
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

/// The one document of a file, which may be inside of something else.
pub fn read_document(file: &str) -> Result<String, Misuse> {
    let found = documents(&read_text(file)?);
    let mut found = found.map_err(|none| Misuse::new(format!("{file}: {none}")))?;
    if found.len() > 1 {
        let places: Vec<String> = found.into_iter().map(|document| document.place).collect();
        return Err(Misuse::new(format!(
            "{file}: found {} EndpointPickerConfigs, expected one; they are: {}; give a file with one of them",
            places.len(),
            places.join("; ")
        )));
    }
    Ok(found
        .pop()
        .map(|document| document.text)
        .unwrap_or_default())
}

/// The plan of a document, for commands that work with one and leave its problems to `check`.
pub fn load_plan(file: &str) -> Result<Plan, Misuse> {
    plan_of(file, &read_document(file)?)
}

/// The same of a text that was read already.
pub fn plan_of(file: &str, text: &str) -> Result<Plan, Misuse> {
    match config::load(text) {
        Ok(loaded) => Ok(loaded.plan),
        Err(rejected) => {
            let first = rejected.errors.into_iter().next();
            let first = first.map(|mut problem| {
                // Its place is in the document, which may be inside of the file.
                problem.location = None;
                problem.to_string()
            });
            Err(Misuse::new(format!(
                "{file}: does not load: {}; `eppctl check {file}` shows all problems",
                first.unwrap_or_default()
            )))
        }
    }
}

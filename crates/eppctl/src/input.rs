//! Reads input files.

use std::io::Read;

use epp_core::config::{self, Plan};

use crate::embedded::documents;
use crate::output::Error;

/// Bytes of a file that are read at most: a config dump of ten thousand clusters has some 50 MB.
const MAX_BYTES: u64 = 256 << 20;

/// Returns the bytes of a file; `-` is standard input.
pub fn read(file: &str) -> Result<Vec<u8>, Error> {
    let bytes = if file == "-" {
        read_from(std::io::stdin())
    } else {
        std::fs::File::open(file).and_then(read_from)
    };
    let bytes = bytes.map_err(|error| {
        Error::new(format!(
            "{file}: {error}; expected a readable file, or - for standard input"
        ))
    })?;
    if bytes.len() as u64 > MAX_BYTES {
        let most = MAX_BYTES >> 20;
        return Err(Error::new(format!("{file}: expected at most {most} MiB")));
    }
    Ok(bytes)
}

fn read_from(source: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Returns the text of a file; `-` is standard input.
pub fn read_text(file: &str) -> Result<String, Error> {
    String::from_utf8(read(file)?).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Error::new(format!("{file}: invalid UTF-8 at byte {at}"))
    })
}

/// Returns the only document of a file, which may be nested in something else.
pub fn read_document(file: &str) -> Result<String, Error> {
    let found = documents(&read_text(file)?);
    let mut found = found.map_err(|none| Error::new(format!("{file}: {none}")))?;
    if found.len() > 1 {
        let places: Vec<String> = found.into_iter().map(|document| document.place).collect();
        return Err(Error::new(format!(
            "{file}: found {} EndpointPickerConfigs, expected one: {}",
            places.len(),
            places.join("; ")
        )));
    }
    Ok(found
        .pop()
        .map(|document| document.text)
        .unwrap_or_default())
}

/// Loads the plan of a document, for commands that leave reporting its problems to `check`.
pub fn load_plan(file: &str) -> Result<Plan, Error> {
    plan_of(file, &read_document(file)?)
}

/// Loads the plan of a text that was read from `file`.
pub fn plan_of(file: &str, text: &str) -> Result<Plan, Error> {
    match config::load(text) {
        Ok(loaded) => Ok(loaded.plan),
        Err(rejected) => {
            let first = rejected.errors.into_iter().next();
            let first = first.map(|mut problem| {
                // The location is in the document, which may be nested in the file.
                problem.location = None;
                problem.to_string()
            });
            Err(Error::new(format!(
                "{file}: does not load: {}; `eppctl check {file}` shows all problems",
                first.unwrap_or_default()
            )))
        }
    }
}

//! Calling `eppctl migrate`, and reading its result.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use serde_json::Value;

use super::eppctl;

/// Runs the command with these arguments; returns its exit status and its result.
pub fn migrate(arguments: &[&str], input: &str) -> (i32, Value) {
    let mut all = vec!["migrate", "-o", "json"];
    all.extend(arguments);
    let output = eppctl(&all, input);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let result = serde_json::from_slice(&output.stdout);
    (
        output.status.code().unwrap(),
        result.unwrap_or_else(|_| panic!("{stderr}")),
    )
}

/// Returns the parameters of the first plugin of a type.
pub fn parameters<'d>(result: &'d Value, kind: &str) -> &'d Value {
    let plugins = result["document"]["plugins"].as_array().unwrap();
    let found = plugins.iter().find(|plugin| plugin["type"] == kind);
    &found.unwrap_or_else(|| panic!("no {kind} in {plugins:#?}"))["parameters"]
}

/// Returns outcome and words of a setting.
pub fn line<'d>(result: &'d Value, setting: &str) -> (&'d str, &'d str) {
    let lines = result["settings"].as_array().unwrap();
    let found = lines.iter().find(|line| line["setting"] == setting);
    let found = found.unwrap_or_else(|| panic!("no {setting} in {lines:#?}"));
    (
        found["outcome"].as_str().unwrap(),
        found["what"].as_str().unwrap(),
    )
}

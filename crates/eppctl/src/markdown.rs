//! Generated tables inside of pages that are written by hand.

use std::io;
use std::path::Path;

/// A table, and the line of a page below which it belongs.
pub struct Inserted {
    /// The line, an HTML comment; the table ends at the next `<!-- end -->`.
    pub marker: String,
    /// The table's lines.
    pub rows: String,
}

/// Replaces tables of a Markdown file.
pub fn insert(file: &Path, tables: &[Inserted]) -> Result<(), String> {
    let failed = |error: io::Error| format!("{}: {error}", file.display());
    let mut text = std::fs::read_to_string(file).map_err(failed)?;
    for Inserted { marker, rows } in tables {
        let (before, rest) = text
            .split_once(&format!("{marker}\n"))
            .ok_or_else(|| format!("{}: found no line {marker}", file.display()))?;
        let (_, after) = rest
            .split_once("<!-- end -->")
            .ok_or_else(|| format!("{}: found no <!-- end -->", file.display()))?;
        text = format!("{before}{marker}\n{rows}<!-- end -->{after}");
    }
    std::fs::write(file, text).map_err(failed)
}

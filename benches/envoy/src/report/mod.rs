//! docs/benchmarks.md and its plots, made from a run's JSON: nothing in them is typed by hand.

mod bars;
mod plots;
pub mod tables;

use std::fs;
use std::path::Path;

use crate::result::Run;
use crate::Trouble;

/// Writes the page and the plots.
pub fn write(run: &Path, docs: &Path) -> Result<(), Trouble> {
    let run: Run = serde_json::from_str(&fs::read_to_string(run)?)?;
    for (file, content) in files(&run)? {
        let path = docs.join(file);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&path, content)?;
        eprintln!("» {}", path.display());
    }
    Ok(())
}

/// All files of the report with their names under docs/.
fn files(run: &Run) -> Result<Vec<(String, String)>, Trouble> {
    let mut files = vec![("benchmarks.md".to_owned(), tables::page(run))];
    for (name, plot) in plots::all(run)? {
        files.push((format!("benchmarks/{name}.svg"), plot));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The committed page and plots are those of the committed run.
    #[test]
    fn the_docs_are_made_of_the_run() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
        let run = fs::read_to_string(docs.join("benchmarks/run.json")).unwrap();
        let run: Run = serde_json::from_str(&run).unwrap();
        for (file, content) in files(&run).unwrap() {
            let committed = fs::read_to_string(docs.join(&file)).unwrap();
            let same = committed == content;
            assert!(same, "docs/{file} is not what `make bench-report` writes");
        }
    }
}

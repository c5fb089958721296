//! docs/benchmarks.md and its plots, made from two runs' JSON: nothing in them is typed by hand.

mod bars;
mod plots;
pub mod tables;
mod worth;

use std::fs;
use std::path::Path;

use crate::result as cost;
use crate::value::result as value;
use crate::Trouble;

/// The runs that the page is made of.
struct Runs {
    /// What the filter costs.
    cost: cost::Run,
    /// What it is worth to the model servers.
    value: value::Run,
}

impl Runs {
    fn read(docs: &Path) -> Result<Self, Trouble> {
        let read = |name| fs::read_to_string(docs.join("benchmarks").join(name));
        Ok(Self {
            cost: serde_json::from_str(&read("run.json")?)?,
            value: serde_json::from_str(&read("value.json")?)?,
        })
    }

    /// All files of the report with their names under docs/.
    fn files(&self) -> Result<Vec<(String, String)>, Trouble> {
        let page = tables::page(&self.cost) + &worth::section(&self.value);
        let mut files = vec![("benchmarks.md".to_owned(), page)];
        for (name, plot) in plots::all(&self.cost)? {
            files.push((format!("benchmarks/{name}.svg"), plot));
        }
        files.push(("benchmarks/value.svg".to_owned(), worth::plot(&self.value)?));
        Ok(files)
    }
}

/// Writes the page and the plots.
pub fn write(docs: &Path) -> Result<(), Trouble> {
    for (file, content) in Runs::read(docs)?.files()? {
        let path = docs.join(file);
        fs::write(&path, content)?;
        eprintln!("» {}", path.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The committed page and plots are those of the committed runs.
    #[test]
    fn the_docs_are_made_of_the_runs() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
        for (file, content) in Runs::read(&docs).unwrap().files().unwrap() {
            let committed = fs::read_to_string(docs.join(&file)).unwrap();
            let same = committed == content;
            assert!(same, "docs/{file} is not what `make bench-report` writes");
        }
    }
}

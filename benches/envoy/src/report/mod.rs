//! Makes docs/benchmarks.md, its plots and the tables of docs/sizing.md from the JSON of two runs.

mod balancing;
mod bars;
mod plots;
mod sizing;
pub mod tables;

use std::fs;
use std::path::Path;

use crate::balancing::result as worth;
use crate::result as cost;
use crate::BoxError;

/// The runs on the page.
struct Runs {
    /// The cost of the filter.
    cost: cost::Run,
    /// The effect of balancing on the model servers.
    balancing: worth::Run,
    /// The page whose tables are of the first.
    sizing: String,
}

impl Runs {
    fn read(docs: &Path) -> Result<Self, BoxError> {
        let read = |name| fs::read_to_string(docs.join("benchmarks").join(name));
        Ok(Self {
            cost: serde_json::from_str(&read("run.json")?)?,
            balancing: serde_json::from_str(&read("balancing.json")?)?,
            sizing: fs::read_to_string(docs.join("sizing.md"))?,
        })
    }

    /// Returns the files of the report with their paths below docs/.
    fn files(&self) -> Result<Vec<(String, String)>, BoxError> {
        let mut page = tables::page(&self.cost) + &balancing::section(&self.balancing);
        let mut plots = plots::all(&self.cost)?;
        plots.push(("balancing", balancing::plot(&self.balancing)?));
        let mut files = Vec::new();
        for (name, plot) in plots {
            let file = format!("benchmarks/{name}.svg");
            if plot.is_empty() {
                page = without(&page, &file);
            } else {
                files.push((file, plot));
            }
        }
        files.push(("benchmarks.md".to_owned(), page));
        let sizing = sizing::fill(&self.sizing, &self.cost)?;
        files.push(("sizing.md".to_owned(), sizing));
        Ok(files)
    }
}

/// Removes the link to an empty plot from the page.
fn without(page: &str, file: &str) -> String {
    let link = format!("]({file})");
    let is_link = |part: &str| part.trim_start().starts_with("![") && part.ends_with(&link);
    let parts = page.split("\n\n").filter(|part| !is_link(part));
    parts.collect::<Vec<_>>().join("\n\n")
}

/// Writes the page and the plots.
pub fn write(docs: &Path) -> Result<(), BoxError> {
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

    #[test]
    fn an_empty_plot_is_not_linked() {
        let page =
            "Above.\n\n![What](benchmarks/cpu.svg)\n\n![It](benchmarks/idle.svg)\n\nBelow.\n";
        let left = "Above.\n\n![It](benchmarks/idle.svg)\n\nBelow.\n";
        assert_eq!(without(page, "benchmarks/cpu.svg"), left);
    }

    #[test]
    fn the_docs_show_the_committed_runs() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
        for (file, content) in Runs::read(&docs).unwrap().files().unwrap() {
            let committed = fs::read_to_string(docs.join(&file)).unwrap();
            let same = committed == content;
            assert!(same, "docs/{file} is out of date: run `make bench-report`");
        }
    }
}

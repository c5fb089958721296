//! The project's own bars, and whether a run meets them. `cpu` and `other` declare them, each with its reason and with what
//! stands in the way where it is missed.

mod cpu;
mod other;

use std::fmt::Write;

use crate::result::Run;

/// A bar, as measured by a run.
struct Bar {
    /// Its row in the table, without the last column.
    cells: Vec<String>,
    /// What it is called in the list of reasons.
    name: String,
    /// How much more than the bar was measured, if it was.
    over: Option<String>,
    /// Why the bar is where it is.
    reason: &'static str,
    /// What stands in the way; shown if the bar is missed.
    missed: &'static str,
}

/// Returns how many bars a run holds, of how many.
pub fn held(run: &Run) -> String {
    let (cpu, other) = (cpu::measured(run), other::measured(run));
    let all = cpu.iter().chain(&other);
    let held = all.clone().filter(|bar| bar.over.is_none()).count();
    format!("{held} of {}", all.count())
}

/// Returns the section of the page.
pub fn section(run: &Run) -> String {
    let (cpu, other) = (cpu::measured(run), other::measured(run));
    let mut text = format!("\n## The bars\n\n{} are held. {GOALS}\n", held(run));
    if !cpu.is_empty() {
        text += FRAME;
        text += &table(&cpu::TITLES, &cpu);
    }
    if !other.is_empty() {
        text += "\n### Everything else\n\n";
        text += &table(&other::TITLES, &other);
    }
    text += "\n### Why these bars, and what stands in the way\n\n";
    let mut said = "";
    for bar in cpu.iter().chain(&other) {
        let missed = match (&bar.over, bar.missed) {
            (None, _) => String::new(),
            (Some(over), "") => format!(" Missed by {over}."),
            (Some(over), why) if why == said => format!(" Missed by {over}, for the same reasons."),
            (Some(over), why) => {
                said = why;
                format!(" Missed by {over}: {why}.")
            }
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "- **{}**: {}.{missed}", bar.name, bar.reason);
    }
    text
}

const GOALS: &str = "Those on the CPU of a request are what the project aims at.";

const FRAME: &str = "
### CPU per request

The bars were set on a machine where plain Envoy takes 34 µs for a request of 4 KB. A difference is judged as a multiple of plain
Envoy's own CPU for the same request in the same turns; the microseconds of both machines stand beside it.

";

fn table(titles: &[&str], bars: &[Bar]) -> String {
    let mut text = format!(
        "| {} | held |\n|{}--|\n",
        titles.join(" | "),
        "--|".repeat(titles.len())
    );
    for bar in bars {
        let held = match &bar.over {
            None => "yes".to_owned(),
            Some(over) => format!("**no**, by {over}"),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "| {} | {held} |", bar.cells.join(" | "));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// What stands in the way is known only of bars that a run has missed before.
    #[test]
    fn each_bar_that_the_published_run_misses_says_what_was_tried() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
        let run = std::fs::read_to_string(docs.join("benchmarks/run.json")).unwrap();
        let run: Run = serde_json::from_str(&run).unwrap();
        let bars = cpu::measured(&run).into_iter().chain(other::measured(&run));
        for bar in bars.filter(|bar| bar.over.is_some()) {
            assert!(bar.missed.contains("Tried"), "{}", bar.name);
        }
    }
}

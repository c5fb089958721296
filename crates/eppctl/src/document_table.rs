//! The table of a folder of documents, with how each works here.

use std::path::Path;

use epp_core::config::value::problem::Step;
use epp_core::config::value::{Node, Problem};
use epp_core::config::{self, Loaded};

use crate::markdown::Inserted;

/// Returns the table, which is for a page one folder below the top.
pub fn table(folder: &Path) -> Result<Inserted, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    let entries = std::fs::read_dir(folder).map_err(failed)?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut paths: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|end| end == "yaml"))
        .collect();
    paths.sort();
    let mut rows =
        "| document | shape | approximated | without effect, or renamed |\n|---|---|---|---|\n"
            .to_owned();
    for path in paths {
        let text = std::fs::read_to_string(&path).map_err(failed)?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let place = path.display();
        let about = text.lines().next().unwrap_or_default();
        let about = about.trim_start_matches(['#', ' ']);
        let standing = match config::load(&text) {
            Ok(loaded) => standing(&loaded, &text),
            Err(_) => "does not load | ".to_owned(),
        };
        rows.push_str(&format!(
            "| [{name}](../{place}) | {about} | {standing} |\n"
        ));
    }
    Ok(Inserted {
        marker: "<!-- eppctl reference: documents -->".to_owned(),
        rows,
    })
}

/// Returns what is approximated, and what else there are warnings of.
fn standing(loaded: &Loaded, text: &str) -> String {
    let Ok(tree) = config::parse(text) else {
        return String::new();
    };
    let (near, others): (Vec<_>, Vec<_>) = loaded
        .warnings
        .iter()
        .partition(|problem| problem.approximates);
    let list = |problems: Vec<&Problem>| {
        let mut subjects: Vec<String> = Vec::new();
        for subject in problems.iter().map(|problem| subject(problem, &tree)) {
            if !subjects.contains(&subject) {
                subjects.push(subject);
            }
        }
        match subjects.is_empty() {
            true => "–".to_owned(),
            false => subjects.join(", "),
        }
    };
    format!("{} | {}", list(near), list(others))
}

/// Returns what a warning is about: a plugin's type, with its parameter, or a field.
fn subject(problem: &Problem, tree: &Node) -> String {
    let steps = problem.path.steps();
    let [Step::Key(section), Step::Index(index), rest @ ..] = steps else {
        return format!("`{}`", problem.path);
    };
    let entry = match tree.get(section) {
        Some(Node::List(entries)) => entries.get(*index),
        _ => None,
    };
    match (&**section, entry) {
        ("plugins", Some(entry)) => {
            let kind = match entry.get("type") {
                Some(Node::String(kind)) => kind.as_str(),
                _ => "",
            };
            match rest {
                [Step::Key(key), Step::Key(parameter), ..] if &**key == "parameters" => {
                    format!("`{kind}` `{parameter}`")
                }
                _ => format!("`{kind}`"),
            }
        }
        ("featureGates", Some(Node::String(gate))) => format!("gate `{gate}`"),
        _ => format!("`{}`", problem.path),
    }
}

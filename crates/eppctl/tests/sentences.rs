//! Commands in the sentences of pages: eppctl understands those that are its own, and what others call exists.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::PathBuf;

use common::{eppctl, top};

/// Returns the pages but the changelog, which names what there was.
fn pages() -> Vec<PathBuf> {
    let folders = [top(), top().join("docs")].into_iter();
    let entries = folders.flat_map(|folder| fs::read_dir(folder).unwrap());
    let files = entries.map(|entry| entry.unwrap().path());
    files
        .filter(|file| {
            file.extension().is_some_and(|end| end == "md") && !file.ends_with("CHANGELOG.md")
        })
        .collect()
}

/// Returns the words of each text between backticks, outside of blocks.
fn quoted(page: &str) -> Vec<Vec<&str>> {
    let blocks = page.split("```");
    let sentences = blocks.step_by(2);
    let texts = sentences.flat_map(|text| text.split('`').skip(1).step_by(2));
    texts
        .map(|text| text.split_whitespace().collect())
        .collect()
}

/// Words that stand for others, and take any.
fn filled(word: &str) -> Option<&str> {
    match word.trim_end_matches('…') {
        "" => None,
        "N" => Some("1"),
        "ADMIN-URL" | "http://127.0.0.1:9902" | "http://127.0.0.1:9901" => Some("unix:/nowhere"),
        "FILE|FOLDER" => Some("/nowhere"),
        other => Some(other),
    }
}

#[test]
fn eppctl_understands_the_commands_in_sentences() {
    let mut checked = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for words in quoted(&text) {
            let own = match words.as_slice() {
                ["eppctl", rest @ ..] => rest,
                ["cargo", "run", "--quiet", "--package", "eppctl", "--", rest @ ..] => rest,
                _ => continue,
            };
            let mut arguments: Vec<&str> = own.iter().filter_map(|word| filled(word)).collect();
            // A name alone, and what would wait for input or a terminal.
            if arguments.len() < 2 {
                arguments.push("--help");
            }
            checked += 1;
            let output = eppctl(&arguments, "");
            let error = String::from_utf8_lossy(&output.stderr);
            let misunderstood = [
                "unexpected argument",
                "unrecognized subcommand",
                "invalid value",
            ];
            assert!(
                !misunderstood.iter().any(|words| error.contains(words)),
                "{}: {words:?}: {error}",
                page.display()
            );
        }
    }
    assert!(checked > 60, "{checked}");
}

#[test]
fn targets_and_scripts_in_sentences_exist() {
    let makefile = fs::read_to_string(top().join("Makefile")).unwrap();
    let mut checked = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for words in quoted(&text) {
            let Some((first, rest)) = words.split_first() else {
                continue;
            };
            let exists = match *first {
                "make" => rest
                    .iter()
                    .filter(|word| !word.contains('='))
                    .all(|target| makefile.contains(&format!("\n{target}:"))),
                script if script.starts_with("scripts/") => top().join(script).exists(),
                _ => continue,
            };
            checked += 1;
            assert!(exists, "{}: {words:?}", page.display());
        }
    }
    assert!(checked > 40, "{checked}");
}

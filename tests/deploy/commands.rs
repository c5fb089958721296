//! Commands in docs/ and in the documents at the top: each block says whether it is tested, and those
//! that are, are run.
//!
//! On the line behind a block: `<!-- tested -->`, `<!-- tested: what it prints -->`, `<!-- tested, exits with 1: what it
//! prints -->` or `<!-- not run: why -->`. A document that the text says to save as a file is saved for the commands, and
//! what they write with `>` is written beside it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use envoy_harness::path_of;

use crate::envoy::{self, top};

/// The mark behind a block, which says how it is tested.
#[derive(Debug, PartialEq)]
enum Mark {
    /// The exit status, and what it prints.
    Tested(i32, String),
    NotRun,
    None,
}

/// A document's blocks of shell commands, and the files that it has one save.
#[derive(Default)]
struct Document {
    commands: Vec<(String, Mark)>,
    saved: Vec<(String, String)>,
}

fn read(text: &str) -> Document {
    let mut document = Document::default();
    let mut lines = text.lines().peekable();
    let mut saved_as = None;
    while let Some(line) = lines.next() {
        if let Some((_, rest)) = line.split_once("Save this as `") {
            saved_as = rest.split_once('`').map(|(name, _)| name.to_owned());
        }
        let Some(language) = line.trim().strip_prefix("```") else {
            continue;
        };
        let block: Vec<&str> = lines
            .by_ref()
            .take_while(|line| line.trim() != "```")
            .collect();
        let block = block.join("\n");
        let mark = match lines.peek().map(|line| line.trim()) {
            Some(line) if line.starts_with("<!-- not run:") => Mark::NotRun,
            Some(line) if line.starts_with("<!-- tested") => {
                let said = line
                    .trim_start_matches("<!-- tested")
                    .trim_end_matches("-->");
                let failing = said.strip_prefix(", exits with 1");
                let words = failing.unwrap_or(said).trim_start_matches(':').trim();
                Mark::Tested(failing.map_or(0, |_| 1), words.to_owned())
            }
            _ => Mark::None,
        };
        match (language, saved_as.take()) {
            ("sh", _) => document.commands.push((block, mark)),
            ("yaml" | "json", Some(name)) => document.saved.push((name, block)),
            _ => {}
        }
    }
    document
}

/// Returns the files that a command writes, beside those that it reads.
fn written(command: &str) -> Vec<String> {
    let names = command.split_whitespace();
    let names = names.filter_map(|word| {
        word.strip_prefix('>')
            .filter(|name| !name.is_empty() && !name.contains('/'))
    });
    names.map(str::to_owned).collect()
}

fn documents() -> Vec<PathBuf> {
    let folders = [top().to_owned(), top().join("docs")];
    let entries = folders
        .into_iter()
        .flat_map(|folder| fs::read_dir(folder).unwrap());
    entries
        .map(|entry| entry.unwrap().path())
        .filter(|file| file.extension().is_some_and(|end| end == "md"))
        .collect()
}

#[test]
fn the_commands_in_the_docs_have_the_stated_results() {
    let folder = envoy::folder();
    let mut run = 0;
    for file in documents() {
        let text = fs::read_to_string(&file).unwrap();
        let document = read(&text);
        for (name, content) in &document.saved {
            fs::write(folder.path().join(name), content).unwrap();
        }
        for (command, mark) in document.commands {
            assert_ne!(mark, Mark::None, "{}: is it run? {command}", file.display());
            let Mark::Tested(status, expected) = mark else {
                continue;
            };
            let mut command = command;
            let saved = document.saved.iter().map(|(name, _)| name.clone());
            for name in saved.chain(written(&command)) {
                let place = folder.path().join(&name);
                command = command.replace(&name, &place.to_string_lossy());
            }
            let output = Command::new("bash")
                .args(["-euo", "pipefail", "-c", &command])
                .current_dir(top())
                .env("ENVOY", path_of("ENVOY"))
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert_eq!(
                output.status.code(),
                Some(status),
                "{command}: {said}{}",
                String::from_utf8_lossy(&output.stderr)
            );
            assert!(said.contains(&expected), "{command}: {said}");
            run += 1;
        }
    }
    assert!(run >= 3, "{run}");
}

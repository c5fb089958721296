//! Dependencies point down only: what each room of the core may name.
//!
//! Only `filter` knows the host's calls; what is below it is told what it needs.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

/// Each room, and the rooms that it may name besides itself.
const ROOMS: [(&str, &[&str]); 13] = [
    ("document", &[]),
    ("envoy", &[]),
    ("scheduling", &[]),
    ("prefix", &[]),
    ("request", &["prefix"]),
    ("response", &["request"]),
    ("datalayer", &["scheduling"]),
    ("plugins", &["document", "scheduling", "datalayer"]),
    (
        "config",
        &[
            "document",
            "scheduling",
            "plugins",
            "datalayer",
            "request",
            "prefix",
        ],
    ),
    (
        "worker",
        &["prefix", "scheduling", "datalayer", "plugins", "config"],
    ),
    (
        "director",
        &[
            "scheduling",
            "plugins",
            "config",
            "datalayer",
            "request",
            "response",
            "prefix",
            "worker",
        ],
    ),
    ("status", &["scheduling", "datalayer", "worker"]),
    (
        "filter",
        &["director", "config", "worker", "status", "prefix", "envoy"],
    ),
];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let mut files: Vec<PathBuf> = files
        .into_iter()
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
        .collect();
    files.extend(folders.iter().flat_map(|folder| sources(folder)));
    files
}

/// The rooms that a source names as `crate::room`, tests aside.
fn named(source: &str) -> Vec<String> {
    let code = source.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let mentions = lines.flat_map(|line| line.split("crate::").skip(1));
    let room = |rest: &str| {
        rest.chars()
            .take_while(|c| c.is_ascii_lowercase() || *c == '_')
            .collect()
    };
    mentions.map(room).collect()
}

#[test]
fn every_room_names_only_rooms_below_it() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut offences = Vec::new();
    for folder in fs::read_dir(&top)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
    {
        let room = folder.file_name().unwrap().to_str().unwrap().to_owned();
        let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
            panic!("src/{room} is not in the table of rooms: say what it may depend on");
        };
        for file in sources(&folder) {
            if file.to_string_lossy().contains("_tests") {
                continue;
            }
            for name in named(&fs::read_to_string(&file).unwrap()) {
                if name != room && !allowed.contains(&name.as_str()) {
                    offences.push(format!("{}: crate::{name}", file.display()));
                }
            }
        }
    }
    assert!(offences.is_empty(), "{offences:#?}");
}

#[test]
fn only_the_filter_calls_the_host() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut saw = 0;
    for file in sources(&top) {
        let inside = file.starts_with(top.join("filter"));
        let source = fs::read_to_string(&file).unwrap();
        let names = source
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .any(|line| line.contains("wasm_import_module"));
        saw += usize::from(names);
        assert!(inside || !names, "{} calls the host", file.display());
    }
    assert!(saw > 0, "the check sees nothing");
}

//! The properties hold for the fuzzer's corpus and for the inputs that it found to fail, without a fuzzer.

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

/// The files in a folder of `fuzz/`, which need not be there.
fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz")
        .join(folder);
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.flatten().map(|entry| entry.path()).collect()
}

#[test]
fn every_property_holds_for_its_corpus_and_past_failures() {
    let mut wrong = Vec::new();
    for (name, property) in properties::ALL {
        let corpus = files(&format!("corpus/{name}"));
        assert!(corpus.len() >= 10, "{name} has {} inputs", corpus.len());
        for path in corpus
            .into_iter()
            .chain(files(&format!("regressions/{name}")))
        {
            let input = fs::read(&path).unwrap();
            if catch_unwind(|| property(&input)).is_err() {
                wrong.push(path);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

//! `eppctl verify` and `--version`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{eppctl, out};

static STAMP: build_stamp::Placeholder = build_stamp::Placeholder::new("0.0.0-test");

/// Returns a copy of eppctl with a commit.
fn stamped(name: &str) -> PathBuf {
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let mut bytes = fs::read(env!("CARGO_BIN_EXE_eppctl")).unwrap();
    STAMP.stamp(&mut bytes, "0123456789ab+").unwrap();
    fs::copy(env!("CARGO_BIN_EXE_eppctl"), &copy).unwrap();
    fs::write(&copy, bytes).unwrap();
    copy
}

#[test]
fn a_stamped_program_says_its_commit() {
    let copy = stamped("eppctl-stamped");
    let said = std::process::Command::new(&copy)
        .arg("--version")
        .output()
        .unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert!(
        said.starts_with(&format!("eppctl {version} (commit 0123456789ab+, digest ")),
        "{said}"
    );
    let found = out(&eppctl(&["verify", &copy.to_string_lossy()], ""));
    assert!(found.contains("intact"), "{found}");
    assert!(
        found.contains(&format!("version {version}, commit 0123456789ab+")),
        "{found}"
    );
    let digest = said
        .split("digest ")
        .nth(1)
        .unwrap()
        .split(';')
        .next()
        .unwrap();
    assert!(
        found.contains(&format!("digest {digest}, sha256 ")),
        "{said}{found}"
    );
}

#[test]
fn a_patched_program_is_a_finding() {
    let copy = stamped("eppctl-patched");
    let mut bytes = fs::read(&copy).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&copy, bytes).unwrap();
    let found = eppctl(&["verify", &copy.to_string_lossy()], "");
    assert_eq!(found.status.code(), Some(1));
    assert!(out(&found).contains("damaged or patched"));
}

#[test]
fn a_program_that_was_not_stamped_and_another_file_say_so() {
    let found = eppctl(&["verify", env!("CARGO_BIN_EXE_eppctl")], "");
    assert_eq!(found.status.code(), Some(1));
    assert!(out(&found).contains("not stamped"));
    let found = eppctl(&["verify", "-"], "something else");
    assert_eq!(found.status.code(), Some(2));
    let said = String::from_utf8_lossy(&found.stderr);
    assert!(
        said.contains("-: has no build stamp: not a file of epp-wasm?"),
        "{said}"
    );
}

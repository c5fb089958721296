//! `make dist`: what it packages has the same bytes each time, and `scripts/verify-dist` finds whatever is wrong with it.
//!
//! It packages the modules of the other tests. The wasm module also stands for the programs, and this machine's dynamic
//! module for both processors: to build those takes minutes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use build_stamp::Placeholder;
use envoy_harness::path_of;
use serde_json::Value;

use crate::envoy::{self, top};

static STAMP: Placeholder = Placeholder::new(env!("CARGO_PKG_VERSION"));

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit of what is packaged.
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const TARGETS: [&str; 4] = [
    "x86_64-unknown-linux-musl",
    "x86_64-unknown-linux-gnu",
    "aarch64-unknown-linux-musl",
    "aarch64-unknown-linux-gnu",
];

/// Packages a release for these targets into a folder.
fn package(folder: &Path, commit: &str, targets: &[&str]) {
    let built = envoy::folder();
    // Those of the other tests may be from different commits.
    let stamped = |variable: &str| {
        let mut module = fs::read(path_of(variable)).unwrap();
        assert!(STAMP.verify(&module).unwrap().intact, "{variable}");
        STAMP.stamp(&mut module, commit).unwrap();
        let file = built.path().join(variable);
        fs::write(&file, module).unwrap();
        file.to_string_lossy().into_owned()
    };
    let (wasm, dynamic) = (stamped("EPP_WASM"), stamped("EPP_MODULE"));
    let argument = |target: &&str| match target.ends_with("-gnu") {
        true => format!("{target}={dynamic}"),
        false => format!("{target}={wasm}"),
    };
    let output = Command::new(top().join("scripts/package"))
        .arg(folder)
        .args([commit, &wasm])
        .args(targets.iter().map(argument))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Returns what is wrong with a folder.
fn verify(folder: &Path) -> Result<String, String> {
    let mut command = Command::new(top().join("scripts/verify-dist"));
    let output = command.arg(folder).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stderr)),
    }
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path());
    let name = |file: &Path| file.file_name().unwrap().to_string_lossy().into_owned();
    files
        .map(|file| (name(&file), fs::read(&file).unwrap()))
        .collect()
}

/// Writes the sums of a folder's files anew, as whoever replaces a file would.
fn sum_again(folder: &Path) {
    let script = "rm SHA256SUMS && sha256sum -- * >../sums && mv ../sums SHA256SUMS";
    let shell = Command::new("sh")
        .args(["-ec", script])
        .current_dir(folder)
        .status();
    assert!(shell.unwrap().success());
}

#[test]
fn a_release_is_reproducible_and_whatever_is_changed_in_it_is_found() {
    let parent = envoy::folder();
    let (first, second) = (parent.path().join("first"), parent.path().join("second"));
    package(&first, COMMIT, &TARGETS);
    package(&second, COMMIT, &TARGETS);
    let original = files(&first);
    assert!(original == files(&second), "two packagings differ");
    assert_eq!(original.len(), 11, "{:?}", original.keys());
    let said = verify(&first).unwrap();
    assert!(
        said.contains(&format!("epp-wasm {VERSION} from commit")),
        "{said}"
    );

    for (name, bytes) in &original {
        let file = first.join(name);
        let mut changed = bytes.clone();
        let middle = changed.len() / 2;
        changed[middle] ^= 1;
        fs::write(&file, changed).unwrap();
        verify(&first).unwrap_err();
        fs::remove_file(&file).unwrap();
        let said = verify(&first).unwrap_err();
        assert!(said.contains("missing"), "{name}: {said}");
        fs::write(&file, bytes).unwrap();
    }
    fs::write(first.join("more"), "").unwrap();
    assert!(verify(&first)
        .unwrap_err()
        .contains("more: not in SHA256SUMS"));
    sum_again(&first);
    assert!(verify(&first).unwrap_err().contains("is about other files"));
    fs::remove_file(first.join("more")).unwrap();
    sum_again(&first);
    verify(&first).unwrap();

    // A patched module whose sum was corrected, too.
    let module = format!("epp_wasm-{VERSION}.wasm");
    let mut patched = original[&module].clone();
    *patched.last_mut().unwrap() ^= 1;
    fs::write(first.join(&module), &patched).unwrap();
    sum_again(&first);
    let said = verify(&first).unwrap_err();
    assert!(said.contains("is about other files"), "{said}");
    let statement = format!("epp-wasm-{VERSION}.intoto.json");
    let text = String::from_utf8(original[&statement].clone()).unwrap();
    let sum = |bytes: &[u8]| STAMP.verify(bytes).unwrap().sha256;
    let text = text.replace(&sum(&original[&module]), &sum(&patched));
    fs::write(first.join(statement), text).unwrap();
    sum_again(&first);
    let said = verify(&first).unwrap_err();
    assert!(
        said.contains("the module: its stamp has the digest"),
        "{said}"
    );
}

#[test]
fn a_build_with_changes_is_no_release() {
    let parent = envoy::folder();
    let folder = parent.path().join("dist");
    package(&folder, &format!("{COMMIT}+"), &TARGETS);
    let said = verify(&folder).unwrap_err();
    assert!(said.contains("not a release"), "{said}");
    let mut command = Command::new(top().join("scripts/verify-dist"));
    let output = command.arg("--development").arg(&folder).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_release_for_one_processor_says_what_is_missing_and_what_linked_its_module() {
    let parent = envoy::folder();
    let folder = parent.path().join("dist");
    let target = "x86_64-unknown-linux-gnu";
    package(&folder, COMMIT, &[target]);
    let said = verify(&folder).unwrap();
    for missing in [
        "eppctl was not built for x86_64",
        "eppctl was not built for arm64",
        "the dynamic module was not built for arm64",
    ] {
        assert!(said.contains(missing), "{said}");
    }
    assert!(!said.contains("module was not built for x86_64"), "{said}");
    let statement = folder.join(format!("epp-wasm-{VERSION}.intoto.json"));
    let statement: Value = serde_json::from_slice(&fs::read(statement).unwrap()).unwrap();
    let toolchains = &statement["predicate"]["buildDefinition"]["internalParameters"]["toolchains"];
    let versions: Vec<String> = serde_json::from_value(toolchains[target].clone()).unwrap();
    let names = |tool: &str| versions.iter().any(|version| version.starts_with(tool));
    assert!(names("rustc version ") && names("GCC: "), "{versions:?}");
    // On arm64 Debian's `ld` links, which adds no version.
    let lld = cfg!(target_arch = "x86_64");
    assert_eq!(names("Linker: LLD "), lld, "{versions:?}");
}

/// Everything else about a crafted set is right: its sums and its statement are of the files as they are.
#[test]
fn each_crafted_set_is_refused_for_what_is_wrong_with_it() {
    let parent = envoy::folder();
    let original = parent.path().join("original");
    package(&original, COMMIT, &TARGETS);
    let craft = |arguments: &[&str]| {
        let mut command = Command::new("python3");
        command.arg(top().join("tests/deploy/crafted.py"));
        let output = command.args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        output.stdout
    };
    let cases: BTreeMap<String, String> = serde_json::from_slice(&craft(&[])).unwrap();
    assert!(cases.len() > 20, "{cases:?}");
    for (number, (case, words)) in cases.iter().enumerate() {
        let folder = parent.path().join(number.to_string());
        fs::create_dir(&folder).unwrap();
        for (name, bytes) in files(&original) {
            fs::write(folder.join(name), bytes).unwrap();
        }
        craft(&[folder.to_str().unwrap(), case]);
        match (words.as_str(), verify(&folder)) {
            ("", found) => assert!(found.is_ok(), "{case}: {found:?}"),
            (words, Err(said)) if said.contains(words) => {}
            (words, found) => panic!("{case}: expected {words:?}, found {found:?}"),
        }
    }
}

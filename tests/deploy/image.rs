//! `make image`: what it writes is read back as istio-agent reads it (pkg/wasm/imagefetcher.go).

use std::fs;
use std::path::Path;
use std::process::Command;

use envoy_harness::path_of;
use serde_json::Value;

use crate::envoy::{self, top};

fn json(file: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

/// Writes the image of a module and returns what was printed.
fn write(module: &Path, folder: &Path) -> String {
    let output = Command::new(top().join("scripts/image"))
        .arg(module)
        .arg(folder)
        .arg("0.0.0-test")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The file of a descriptor, after a look at its size and digest.
fn blob(folder: &Path, descriptor: &Value) -> std::path::PathBuf {
    let digest = descriptor["digest"].as_str().unwrap();
    let hash = digest.strip_prefix("sha256:").unwrap();
    let file = folder.join("blobs/sha256").join(hash);
    assert_eq!(fs::metadata(&file).unwrap().len(), descriptor["size"]);
    let sum = Command::new("sha256sum").arg(&file).output().unwrap();
    assert!(
        sum.stdout.starts_with(hash.as_bytes()),
        "{}",
        file.display()
    );
    file
}

#[test]
fn the_image_contains_the_module() {
    contains(&path_of("EPP_WASM"), "epp-wasm", "plugin.wasm", "wasm");
    let processor = match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "amd64",
    };
    contains(&path_of("EPP_MODULE"), "epp-module", "libepp.so", processor);
}

/// The image of a module has this title, and the module under this name, for this processor.
fn contains(file: &Path, title: &str, name: &str, processor: &str) {
    let (first, second) = (envoy::folder(), envoy::folder());
    let said = write(file, first.path());
    assert_eq!(
        json(&first.path().join("oci-layout"))["imageLayoutVersion"],
        "1.0.0"
    );
    let index = json(&first.path().join("index.json"));
    let manifest = &index["manifests"][0];
    assert!(said
        .trim_end()
        .ends_with(manifest["digest"].as_str().unwrap()));
    let content = json(&blob(first.path(), manifest));
    assert_eq!(
        content["annotations"]["org.opencontainers.image.title"],
        title
    );
    assert!(said.contains(&format!(": {title}:0.0.0-test@")), "{said}");
    let config = json(&blob(first.path(), &content["config"]));
    assert_eq!(config["architecture"], processor);
    let layers = content["layers"].as_array().unwrap();
    let layer = layers.last().unwrap();
    assert_eq!(
        layer["mediaType"],
        "application/vnd.oci.image.layer.v1.tar+gzip"
    );
    let module = Command::new("tar")
        .args(["--extract", "--gzip", "--to-stdout", "--file"])
        .arg(blob(first.path(), layer))
        .arg(name)
        .output()
        .unwrap();
    assert!(module.stdout == fs::read(file).unwrap());
    write(file, second.path());
    let again = json(&second.path().join("index.json"));
    assert_eq!(again, index, "the same module, the same digest");
}

/// The C library of the oldest system that Envoy's images are built on: Ubuntu 22.04. That without a distribution has
/// Debian 12's, 2.36, and no other library of a compiler's.
const GLIBC: [u32; 2] = [2, 35];

#[test]
fn the_dynamic_module_needs_nothing_that_an_image_of_envoy_lacks() {
    let readelf = |option: &str| {
        let output = Command::new("readelf")
            .args(["--wide", option])
            .arg(path_of("EPP_MODULE"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let dynamic = readelf("--dynamic");
    let needed = dynamic.lines().filter(|line| line.contains("(NEEDED)"));
    let library = |line: &str| line.split(['[', ']']).nth(1).unwrap().to_owned();
    let needed: Vec<String> = needed.map(library).collect();
    let libc = |name: &String| {
        ["libc.so", "libm.so", "ld-linux"]
            .iter()
            .any(|libc| name.starts_with(libc))
    };
    assert!(!needed.is_empty() && needed.iter().all(libc), "{needed:?}");
    let versions = readelf("--version-info");
    let versions = versions.split("Name: GLIBC_").skip(1);
    let version = |text: &str| -> Vec<u32> {
        let text = text.split_whitespace().next().unwrap();
        text.split('.').map(|part| part.parse().unwrap()).collect()
    };
    let newest = versions.map(version).max().unwrap();
    assert!(newest.as_slice() <= &GLIBC, "GLIBC_{newest:?}");
}

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

/// Writes the image and returns what was printed.
fn write(folder: &Path) -> String {
    let output = Command::new(top().join("scripts/image"))
        .arg(path_of("EPP_WASM"))
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
    let (first, second) = (envoy::folder(), envoy::folder());
    let said = write(first.path());
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
    blob(first.path(), &content["config"]);
    let layers = content["layers"].as_array().unwrap();
    let layer = layers.last().unwrap();
    assert_eq!(
        layer["mediaType"],
        "application/vnd.oci.image.layer.v1.tar+gzip"
    );
    let module = Command::new("tar")
        .args(["--extract", "--gzip", "--to-stdout", "--file"])
        .arg(blob(first.path(), layer))
        .arg("plugin.wasm")
        .output()
        .unwrap();
    assert!(module.stdout == fs::read(path_of("EPP_WASM")).unwrap());
    write(second.path());
    let again = json(&second.path().join("index.json"));
    assert_eq!(again, index, "the same module, the same digest");
}

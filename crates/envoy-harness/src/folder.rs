//! Folders for the files of a test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A folder below `target/`. Dropping it removes it, except during a panic: a failed test leaves its logs.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Creates an empty folder below `target/NAME/`.
    pub fn new(name: &str) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let target = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target"));
        let folder = target.join(name);
        fs::create_dir_all(&folder).unwrap();
        // A short path, because that of a socket in it may have 107 bytes.
        let folder = folder.canonicalize().unwrap();
        let folder = folder.join(format!("{}-{number}", process::id()));
        fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    /// Returns its path.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

//! A wall clock for one Envoy, which a row can step.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

use envoy_harness::host::Host;

/// A wall clock that runs with the system's, ahead of it by an offset.
pub struct Clock {
    file: fs::File,
    path: PathBuf,
    library: PathBuf,
}

impl Clock {
    /// Creates a clock with offset 0. It compiles `clock.c` with the C compiler that also links Rust.
    pub fn new() -> io::Result<Self> {
        let folder = Host::of_environment().file().with_file_name("faults");
        fs::create_dir_all(&folder)?;
        let source = folder.join("clock.c");
        fs::write(&source, include_str!("clock.c"))?;
        let library = folder.join("clock.so");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-o"]);
        let done = compiler.arg(&library).arg(&source).status()?;
        if !done.success() {
            return Err(io::Error::other("cc did not compile clock.c"));
        }
        let path = folder.join("clock");
        let file = fs::File::create(&path)?;
        let clock = Self {
            file,
            path,
            library,
        };
        clock.step(0)?;
        Ok(clock)
    }

    /// Returns the environment variables of an Envoy that uses this clock.
    pub fn environment(&self) -> Vec<(String, String)> {
        let text = |path: &PathBuf| path.to_string_lossy().into_owned();
        vec![
            ("LD_PRELOAD".to_owned(), text(&self.library)),
            ("EPP_CLOCK".to_owned(), text(&self.path)),
        ]
    }

    /// Sets the offset to this many seconds.
    pub fn step(&self, ahead: i64) -> io::Result<()> {
        self.file.write_all_at(&ahead.to_ne_bytes(), 0)
    }
}

//! An Envoy started with a configuration of this test's, in a folder of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use envoy_harness::proxy::path_of;

/// A folder that is gone after a test that passed.
pub struct Folder(pub PathBuf);

impl Folder {
    /// An empty one.
    pub fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = top().join(format!("target/deploy/{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// A running Envoy.
pub struct Envoy {
    child: Child,
    log: PathBuf,
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.logged();
            let lines: Vec<&str> = log.lines().collect();
            let from = lines.len().saturating_sub(30);
            let end = lines[from..].join("\n");
            eprintln!("the end of {}:\n{end}", self.log.display());
        }
    }
}

impl Envoy {
    /// Starts it with this configuration.
    pub fn start(folder: &Folder, name: &str, config: &str) -> Self {
        Self::start_with(folder, name, config, &[])
    }

    /// The same with more arguments.
    pub fn start_with(folder: &Folder, name: &str, config: &str, arguments: &[&str]) -> Self {
        let file = folder.0.join(format!("{name}.yaml"));
        fs::write(&file, config).unwrap();
        let log = folder.0.join(format!("{name}.log"));
        let output = fs::File::create(&log).unwrap();
        let child = Command::new(path_of("ENVOY"))
            .arg("-c")
            .arg(&file)
            .args(["--concurrency", "1", "--use-dynamic-base-id"])
            .args(["--log-level", "warning"])
            .args(["--component-log-level", "wasm:info"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        Self { child, log }
    }

    /// What `envoy --mode validate` says where it refuses a configuration.
    pub fn validate(folder: &Folder, config: &str) -> Result<(), String> {
        let mut envoy = Self::start_with(folder, "validate", config, &["--mode", "validate"]);
        match envoy.child.wait().unwrap().success() {
            true => Ok(()),
            false => Err(envoy.logged()),
        }
    }

    /// What it has logged so far.
    pub fn logged(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// The project's top folder.
pub fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

//! An Envoy started with a configuration of this test's, in a folder of its own.

use std::env;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Nothing here takes this long unless it hangs; a loaded machine is slow to start Envoy.
const PATIENCE: Duration = Duration::from_secs(30);

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
        Self::run(folder, name, config, &[])
    }

    fn run(folder: &Folder, name: &str, config: &str, arguments: &[&str]) -> Self {
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
        let mut envoy = Self::run(folder, "validate", config, &["--mode", "validate"]);
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

/// Waits for a condition, and fails where it does not come about.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        sleep(Duration::from_millis(25));
    }
}

/// The project's top folder.
pub fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A program or file that `make test` says the place of.
pub fn path_of(name: &str) -> PathBuf {
    let path = env::var_os(name).map(PathBuf::from);
    let path = path.unwrap_or_else(|| panic!("{name} is not set; call `make test`"));
    assert!(path.exists(), "{} is not there", path.display());
    path
}

/// A port of the loopback interface that nobody has.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

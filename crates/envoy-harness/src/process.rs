//! A child process with a log of its own, stopped when its value is dropped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::wait::{poll, PATIENCE};

/// The time between two checks of a process or of a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Lines of a log that are shown with a failure: enough for Envoy's reason and the filter's lines before it.
const TAIL_LINES: usize = 30;

/// A running process.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a command. Standard output and error go to a new file at `log`.
    ///
    /// Standard input stays open for as long as the value lives: a child that watches it ends with this
    /// process, even if this process is killed.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Result<Self, String> {
        let output = fs::File::create(log);
        let output = output.and_then(|file| Ok((file.try_clone()?, file)));
        let (output, errors) =
            output.map_err(|error| format!("cannot write to {}: {error}", log.display()))?;
        command.stdin(Stdio::piped()).stdout(output).stderr(errors);
        let child = command.spawn().map_err(|error| {
            let program = command.get_program().to_string_lossy();
            format!("cannot start {name} ({program}): {error}")
        })?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
        })
    }

    /// Returns its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns its log so far.
    pub fn logged(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Returns how it ended, or `None` while it runs.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        // This fails only for a process that is not our child.
        self.child.try_wait().ok().flatten()
    }

    /// Waits for it to end by itself. Returns `None` if it still runs after [`PATIENCE`].
    pub fn wait_for_exit(&mut self) -> Option<ExitStatus> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.exit_status() {
                return Some(status);
            }
            sleep(POLL_INTERVAL);
        }
        None
    }

    /// Fails with the end of its log if it no longer runs.
    pub fn check_running(&mut self) -> Result<(), String> {
        match self.exit_status() {
            None => Ok(()),
            Some(status) => Err(self.failure(&format!("stopped ({status})"))),
        }
    }

    /// Waits for a condition, for as long as it runs and at most [`PATIENCE`].
    pub fn wait_until(
        &mut self,
        what: &str,
        mut condition: impl FnMut() -> bool,
    ) -> Result<(), String> {
        let mut stopped = Ok(());
        let met = poll(POLL_INTERVAL, || {
            stopped = self.check_running();
            stopped.is_err() || condition()
        });
        stopped?;
        match met {
            true => Ok(()),
            false => Err(self.failure(&format!("did not get there within {PATIENCE:?}: {what}"))),
        }
    }

    fn failure(&self, what: &str) -> String {
        let (name, log) = (&self.name, self.log.display());
        format!(
            "{name} {what}. The end of its log, {log}:\n\n{}",
            self.tail()
        )
    }

    fn tail(&self) -> String {
        let text = self.logged();
        let skipped = text.lines().count().saturating_sub(TAIL_LINES);
        text.lines().skip(skipped).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the end of {}:\n{}", self.log.display(), self.tail());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::Folder;

    fn shell(script: &str, folder: &Folder) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::start("sh", command, &folder.path().join("log")).unwrap()
    }

    #[test]
    fn a_process_that_ends_is_an_error_with_its_log_and_not_a_long_wait() {
        let folder = Folder::new("harness");
        let mut process = shell("echo the reason >&2; exit 3", &folder);
        let error = process.wait_until("it serves", || false).unwrap_err();
        assert!(error.contains("sh stopped (exit status: 3)"), "{error}");
        assert!(error.ends_with("the reason"), "{error}");
        assert!(process.check_running().is_err());
        assert_eq!(process.wait_for_exit().unwrap().code(), Some(3));
    }

    #[test]
    fn a_process_ends_with_its_value() {
        let folder = Folder::new("harness");
        let mut process = shell("echo up; exec sleep 600", &folder);
        let log = folder.path().join("log");
        let up = || fs::read_to_string(&log).is_ok_and(|text| text == "up\n");
        process.wait_until("it is up", up).unwrap();
        let proc_entry = PathBuf::from(format!("/proc/{}", process.id()));
        assert!(proc_entry.exists());
        drop(process);
        assert!(!proc_entry.exists());
    }
}

//! Facts about the machine and the programs under test.

use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::result::Machine;
use crate::BoxError;

/// Returns the facts about this machine and the programs.
pub fn facts(picker: Option<&str>) -> Result<Machine, BoxError> {
    let module = std::env::var("EPP_WASM")?;
    let envoy = std::env::var("ENVOY")?;
    let version = printed(&envoy, &["--version"]);
    // `…  version: COMMIT/VERSION/…`
    let version = version.split_once("version:").map(|(_, version)| version);
    let version = version.and_then(|version| version.split('/').nth(1));
    // The cores of the machine. This process is pinned to one of them.
    let processors = fs::read_to_string("/proc/cpuinfo")?;
    let cores = processors
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let commit = printed("git", &["rev-parse", "--short", "HEAD"]);
    let changed = if printed("git", &["status", "--porcelain", "--untracked-files=no"]).is_empty() {
        ""
    } else {
        "+"
    };
    Ok(Machine {
        date: printed("date", &["+%Y-%m-%d"]),
        processor: field("/proc/cpuinfo", "model name"),
        cores,
        memory_mib: number(&field("/proc/meminfo", "MemTotal")) / 1024,
        kernel: printed("uname", &["-r"]),
        envoy: version.unwrap_or_default().to_owned(),
        commit: format!("{commit}{changed}"),
        module_bytes: fs::metadata(module)?.len(),
        epp: picker.map(|path| file_name(path).to_owned()),
    })
}

/// Returns the load average of the last minute.
pub fn load_average() -> Result<f64, BoxError> {
    let text = fs::read_to_string("/proc/loadavg")?;
    Ok(text.split(' ').next().unwrap_or_default().parse()?)
}

/// Load average of the last minute up to which a machine is idle. After a build on two cores it takes two minutes to fall
/// below that.
const IDLE: f64 = 0.3;

/// Waits until the machine is idle: two cores that others use as well measure nothing. Returns the load average then.
pub fn await_idle() -> Result<f64, BoxError> {
    const LOOKS: u32 = 60;
    for look in 0..LOOKS {
        let load = load_average()?;
        if load <= IDLE {
            return Ok(load);
        }
        if look == 0 {
            eprintln!("» load average {load}: waiting until it is {IDLE}");
        }
        std::thread::sleep(Duration::from_secs(10));
    }
    let load = load_average()?;
    Err(format!(
        "load average {load}, expected at most {IDLE}: stop what else runs on this machine"
    )
    .into())
}

/// Returns the last part of a path. The others are those of one machine.
fn file_name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

fn printed(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.unwrap_or_default()
}

/// Returns the value of the first line `key : value`.
fn field(file: &str, key: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(key));
    let value = line.and_then(|line| line.split_once(':'));
    value.map_or_else(String::new, |(_, value)| value.trim().to_owned())
}

fn number(text: &str) -> u64 {
    let digits = text.split_whitespace().next();
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_names_no_folder_of_the_machine() {
        assert_eq!(file_name("/home/me/bin/epp"), "epp");
        assert_eq!(file_name("epp"), "epp");
    }
}

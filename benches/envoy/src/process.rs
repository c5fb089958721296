//! Measures processes by /proc, and waits for them.

use std::fs;
use std::net::TcpStream;

use envoy_harness::Process;

use crate::BoxError;

/// Returns the time of all cores so far in hundredths of a second: busy, and in total.
pub fn cores() -> Result<(u64, u64), BoxError> {
    let text = fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().unwrap_or_default();
    // user nice system idle iowait irq softirq steal, and guests' time, which user includes.
    let times: Vec<u64> = line
        .split_whitespace()
        .skip(1)
        .take(8)
        .filter_map(|number| number.parse().ok())
        .collect();
    let all: u64 = times.iter().sum();
    let idle: u64 = times.iter().skip(3).take(2).sum();
    Ok((all - idle, all))
}

/// Returns the resident memory of a process in KiB.
pub fn resident_kib(pid: u32) -> Result<u64, BoxError> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.unwrap_or_default().split_whitespace().next();
    Ok(number.unwrap_or("0").parse()?)
}

/// Waits until a process listens at a port, and returns it.
///
/// Another thread waits, because the process may need something on this thread's runtime, such as its
/// model servers.
pub async fn listening(mut process: Process, port: u16) -> Result<Process, BoxError> {
    let waiting = tokio::task::spawn_blocking(move || {
        let connects = || TcpStream::connect(("127.0.0.1", port)).is_ok();
        process.wait_until("it listens", connects).map(|()| process)
    });
    Ok(waiting.await??)
}

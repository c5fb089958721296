//! Ports for programs that are about to start.

use std::net::TcpListener;
use std::process;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::LazyLock;

/// The first port of the range. The range lies below the kernel's own (from 32,768 on Linux), from which it
/// takes ports for clients' connections and for listeners that ask for any.
const FIRST: u16 = 10_000;
/// The number of ports in the range.
const COUNT: u16 = 20_000;

/// Returns a port that nothing listens on and that is given out to no other caller.
///
/// A port that the kernel chose for a listener of ours (`bind` to port 0) would be free again when that
/// listener is closed: the kernel could give it to another process before Envoy binds it. And Envoy
/// shares a port that another Envoy listens on, so that the tests of both would talk to either.
pub fn free_port() -> u16 {
    // Test programs that run side by side begin at different places.
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| {
        let place = process::id().wrapping_mul(499) % u32::from(COUNT);
        AtomicU16::new(u16::try_from(place).unwrap_or(0))
    });
    loop {
        let next = |number| Some((number + 1) % COUNT);
        // The update always succeeds.
        let number = NEXT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        let port = FIRST + number.unwrap_or(0);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_out_twice_and_none_is_the_kernels() {
        let mut ports: Vec<u16> = (0..200).map(|_| free_port()).collect();
        assert!(ports
            .iter()
            .all(|port| (FIRST..FIRST + COUNT).contains(port)));
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 200);
    }
}

//! What the workers have found about whether Envoy delivers bodies before it routes: a body that any of them
//! has seen outvotes those that were withheld, until the next configuration.

use super::pack::{Reader, Writer};
use super::Store;

/// One worker's view of what all have found.
#[derive(Debug, Default)]
pub struct SharedFinding {
    /// The shared value's version when this worker last looked.
    version: Option<u32>,
    /// What was found since this worker first looked: what stood there before may be about another
    /// configuration of the listener.
    found: Option<bool>,
}

impl SharedFinding {
    /// Publishes what this worker has found under this key, if it is news. Returns what the others have
    /// found, if they have; what is foreign is counted.
    pub fn exchange(
        &mut self,
        base: &str,
        own: Option<bool>,
        foreign: &mut u64,
        host: &mut dyn Store,
    ) -> Option<bool> {
        let key = format!("{base}/delivery");
        let shared = host.get(&key);
        let version = shared.as_ref().map_or(0, |(_, version)| *version);
        let before = self.version.replace(version);
        if before.is_some_and(|before| before != version) {
            self.found = shared.and_then(|(value, _)| unpack(&value));
            *foreign += u64::from(self.found.is_none());
        }
        match (own, self.found) {
            (Some(true), Some(false) | None) | (Some(false), None) => {
                // By its version: of two that write at once, the one that has seen a body writes again at
                // its next tick.
                host.set(&key, &pack(own == Some(true)), Some(version));
            }
            _ => {}
        }
        self.found
    }
}

fn pack(seen: bool) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.u32(u32::from(seen));
    writer.seal()
}

fn unpack(value: &[u8]) -> Option<bool> {
    match Reader::open(value)?.u32()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

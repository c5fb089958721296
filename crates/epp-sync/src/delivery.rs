//! The workers' common finding on whether Envoy delivers bodies before it routes: one body that was delivered to
//! any of them outvotes those that were withheld, until the next configuration.

use crate::shared::Shared;

/// One worker's view of what all have found.
#[derive(Debug)]
pub struct SharedFinding {
    key: String,
    /// The shared value's version when this worker last looked.
    version: Option<u32>,
    /// The finding since this worker first looked: an earlier value may be about another
    /// configuration of the listener.
    found: Option<bool>,
}

impl SharedFinding {
    /// Returns the view under this key.
    pub fn new(key: String) -> Self {
        Self {
            key,
            version: None,
            found: None,
        }
    }

    /// Forgets what was found: another configuration is in force.
    pub fn reset(&mut self) {
        (self.version, self.found) = (None, None);
    }

    /// Publishes what this worker has found, if it is news. Returns what the others have found, if they have.
    pub fn exchange(&mut self, own: Option<bool>, shared: &mut Shared<'_>) -> Option<bool> {
        let value = shared.bytes(&self.key);
        let version = value.as_ref().map_or(0, |(_, version)| *version);
        let before = self.version.replace(version);
        if before.is_some_and(|before| before != version) {
            self.found = value.and_then(|(value, _)| shared.decode(&value));
        }
        match (own, self.found) {
            (Some(true), Some(false) | None) | (Some(false), None) => {
                // By its version: of two that write at once, the one that has seen a body writes again at
                // its next tick.
                shared.put(&self.key, &(own == Some(true)), Some(version));
            }
            _ => {}
        }
        self.found
    }
}

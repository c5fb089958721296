//! The store of shared values.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Values by key that all pickers of one Envoy reach.
pub trait Store {
    /// Returns a value and its version.
    fn get(&mut self, key: &str) -> Option<(Vec<u8>, u32)>;
    /// Sets a value; with a version only if the value still has that version, or is missing. Returns whether
    /// it was set.
    fn set(&mut self, key: &str, value: &[u8], cas: Option<u32>) -> bool;
}

#[derive(Debug, Default)]
struct Values {
    values: HashMap<String, (Vec<u8>, u32)>,
    versions: u32,
}

/// A store in the memory of one process, whose threads share it: that of the dynamic module, and of tests. Clones reach the
/// same values.
#[derive(Debug, Default, Clone)]
pub struct InProcess(Arc<Mutex<Values>>);

impl InProcess {
    fn lock(&self) -> MutexGuard<'_, Values> {
        // Every change is complete once it is made: a thread that panicked has left nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the bytes of all values.
    pub fn size(&self) -> usize {
        let values = self.lock();
        values.values.values().map(|(value, _)| value.len()).sum()
    }

    /// Returns how many values there are.
    pub fn count(&self) -> usize {
        self.lock().values.len()
    }

    /// Returns all values by their keys.
    pub fn values(&self) -> Vec<(String, Vec<u8>)> {
        let values = self.lock();
        let values = values.values.iter();
        values
            .map(|(key, (value, _))| (key.clone(), value.clone()))
            .collect()
    }

    /// Cuts a value in half.
    #[cfg(test)]
    pub fn corrupt(&mut self, key: &str) {
        let mut values = self.lock();
        let (value, _) = values.values.get_mut(key).unwrap();
        value.truncate(value.len() / 2);
    }
}

impl Store for InProcess {
    fn get(&mut self, key: &str) -> Option<(Vec<u8>, u32)> {
        self.lock().values.get(key).cloned()
    }

    fn set(&mut self, key: &str, value: &[u8], cas: Option<u32>) -> bool {
        let mut values = self.lock();
        // As Envoy does it: a missing key takes any version, and no version overwrites.
        let known = values.values.get(key).map(|(_, version)| *version);
        if known.is_some() && cas.is_some_and(|cas| cas != 0) && cas != known {
            return false;
        }
        values.versions += 1;
        let value = (value.to_vec(), values.versions);
        values.values.insert(key.to_owned(), value);
        true
    }
}

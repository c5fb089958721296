//! Shared data in one process: for programs and tests that run the picker without an Envoy.

use std::collections::HashMap;

use super::SharedData;

/// Shared data in one process.
#[derive(Debug, Default)]
pub struct Local {
    values: HashMap<String, (Vec<u8>, u32)>,
    versions: u32,
}

impl Local {
    /// The bytes of all values.
    pub fn size(&self) -> usize {
        self.values.values().map(|(value, _)| value.len()).sum()
    }

    /// How many values there are.
    pub fn count(&self) -> usize {
        self.values.len()
    }

    /// All values by their keys.
    pub fn values(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let values = self.values.iter();
        values.map(|(key, (value, _))| (key.as_str(), value.as_slice()))
    }

    /// Cuts a value in half.
    #[cfg(test)]
    pub fn tear(&mut self, key: &str) {
        let (value, _) = self.values.get_mut(key).unwrap();
        value.truncate(value.len() / 2);
    }
}

impl SharedData for Local {
    fn get(&mut self, key: &str) -> Option<(Vec<u8>, u32)> {
        self.values.get(key).cloned()
    }

    fn set(&mut self, key: &str, value: &[u8], cas: Option<u32>) -> bool {
        // As Envoy does it: a missing key takes any version, and no version overwrites.
        let known = self.values.get(key).map(|(_, version)| *version);
        if known.is_some() && cas.is_some_and(|cas| cas != 0) && cas != known {
            return false;
        }
        self.versions += 1;
        let value = (value.to_vec(), self.versions);
        self.values.insert(key.to_owned(), value);
        true
    }
}

//! Access to shared values: encodes and verifies them, and counts bytes and unrecognised values.

use serde::de::DeserializeOwned;
use serde::Serialize;

use crate::codec;
use crate::Store;

/// The bytes that one VM has read and written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes written.
    pub written: u64,
    /// Bytes read.
    pub read: u64,
    /// Values that were corrupt or not ours.
    pub unrecognised: u64,
}

/// A value that was looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found<T> {
    /// There is none.
    Missing,
    /// It is corrupt or not ours.
    Unrecognised,
    /// The value.
    Value(T),
}

impl<T> Found<T> {
    /// Returns the value, if there is one of ours.
    pub fn value(self) -> Option<T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Missing | Self::Unrecognised => None,
        }
    }

    /// Returns the value if it meets a condition; else it is not recognised.
    fn filter(self, is_sound: impl FnOnce(&T) -> bool) -> Self {
        match self {
            Self::Value(value) if !is_sound(&value) => Self::Unrecognised,
            other => other,
        }
    }
}

/// Shared values, with what one VM has read and written of them.
pub struct Shared<'a> {
    store: &'a mut dyn Store,
    traffic: &'a mut Traffic,
}

impl<'a> Shared<'a> {
    /// Returns the values of a store.
    pub fn new(store: &'a mut dyn Store, traffic: &'a mut Traffic) -> Self {
        Self { store, traffic }
    }

    /// Returns a stored value and its version.
    pub fn bytes(&mut self, key: &str) -> Option<(Vec<u8>, u32)> {
        let found = self.store.get(key)?;
        self.traffic.read += found.0.len() as u64;
        Some(found)
    }

    /// Returns the fields of a value. One that is not recognised is counted.
    pub fn decode<T: DeserializeOwned>(&mut self, value: &[u8]) -> Option<T> {
        let fields = codec::decode(value);
        self.count(fields.is_none());
        fields
    }

    /// Counts a value that was not recognised.
    pub fn count(&mut self, unrecognised: bool) {
        self.traffic.unrecognised += u64::from(unrecognised);
    }

    /// Returns how many values were not recognised so far.
    pub fn unrecognised(&self) -> u64 {
        self.traffic.unrecognised
    }

    /// Returns a value of which `is_sound` holds, and the version of the stored value. One that is not
    /// recognised is counted.
    pub fn get<T: DeserializeOwned>(
        &mut self,
        key: &str,
        is_sound: impl FnOnce(&T) -> bool,
    ) -> (Found<T>, Option<u32>) {
        let Some((value, version)) = self.bytes(key) else {
            return (Found::Missing, None);
        };
        let found = codec::decode(&value).map_or(Found::Unrecognised, Found::Value);
        let found = found.filter(is_sound);
        self.count(matches!(found, Found::Unrecognised));
        (found, Some(version))
    }

    /// Sets a value; with a version only if the value still has that version. Returns whether it was set.
    pub fn put<T: Serialize + ?Sized>(&mut self, key: &str, fields: &T, cas: Option<u32>) -> bool {
        self.set(key, &codec::encode(fields), cas)
    }

    /// Sets the bytes of a value.
    pub fn set(&mut self, key: &str, value: &[u8], cas: Option<u32>) -> bool {
        self.traffic.written += value.len() as u64;
        self.store.set(key, value, cas)
    }
}

//! The codec of shared values: a mark that says whose they are, the fields in postcard's encoding, and a
//! checksum, so that a corrupt or unrecognised value is never decoded as one of ours.
//!
//! Lists of hashes are the exception within ([`Writer`], [`Reader`]): they are random 64-bit numbers, of
//! which postcard's variable-length integers would take ten bytes each instead of eight, and one branch per
//! byte; a handover writes a million of them in half a second.

use serde::de::DeserializeOwned;
use serde::Serialize;
use xxhash_rust::xxh64::xxh64;

/// Distinguishes our values from another plugin's under the same blank vm_id.
pub const MARK: [u8; 4] = *b"epp1";

/// Longest text that is taken over: a name, an address, a label or an adapter.
pub const MAX_TEXT_BYTES: usize = 4096;

/// More endpoints than any pool has.
pub const MAX_ENDPOINTS: usize = 65_536;

/// Returns a value with its mark and checksum.
pub fn encode<T: Serialize + ?Sized>(fields: &T) -> Vec<u8> {
    // Plain data in memory: it cannot fail, and an empty value would not be recognised.
    let value = postcard::to_extend(fields, MARK.to_vec());
    value.map(seal).unwrap_or_default()
}

/// Returns the fields of a value, unless it is corrupt or not ours.
pub fn decode<T: DeserializeOwned>(value: &[u8]) -> Option<T> {
    let (fields, rest) = postcard::take_from_bytes(open(value)?).ok()?;
    rest.is_empty().then_some(fields)
}

fn seal(mut value: Vec<u8>) -> Vec<u8> {
    let checksum = xxh64(&value, 0);
    value.extend_from_slice(&checksum.to_le_bytes());
    value
}

fn open(value: &[u8]) -> Option<&[u8]> {
    let (body, checksum) = value.split_last_chunk::<8>()?;
    let sound = xxh64(body, 0) == u64::from_le_bytes(*checksum);
    body.strip_prefix(&MARK).filter(|_| sound)
}

/// Writes a value of fixed-width numbers.
#[derive(Debug)]
pub struct Writer(Vec<u8>);

impl Default for Writer {
    fn default() -> Self {
        Self(MARK.to_vec())
    }
}

impl Writer {
    /// Returns an empty value whose memory never grows while no more than these bytes are appended.
    pub fn with_room(bytes: usize) -> Self {
        let mut value = Vec::with_capacity(MARK.len() + bytes);
        value.extend_from_slice(&MARK);
        Self(value)
    }

    /// Returns how many more bytes can be appended before the memory grows.
    pub fn room(&self) -> usize {
        self.0.capacity() - self.0.len()
    }

    /// Appends all that was appended to another value.
    pub fn append(&mut self, other: &Self) {
        let fields = other.0.get(MARK.len()..).unwrap_or_default();
        self.0.extend_from_slice(fields);
    }

    /// Appends a number.
    pub fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// Appends a number.
    pub fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// Returns the value with its checksum.
    pub fn seal(self) -> Vec<u8> {
        seal(self.0)
    }
}

/// Reads a value of fixed-width numbers; every read may reach its end.
#[derive(Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Opens a value, unless it is corrupt or not ours.
    pub fn open(value: &'a [u8]) -> Option<Self> {
        open(value).map(Self)
    }

    /// Returns the next number.
    pub fn u32(&mut self) -> Option<u32> {
        let (bytes, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*bytes))
    }

    /// Returns the next number.
    pub fn u64(&mut self) -> Option<u64> {
        let (bytes, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*bytes))
    }

    /// Returns the next `count` numbers, if there are as many.
    pub fn numbers(&mut self, count: usize) -> Option<impl Iterator<Item = u64> + 'a> {
        let (bytes, rest) = self.0.split_at_checked(count.checked_mul(8)?)?;
        self.0 = rest;
        let numbers = bytes.chunks_exact(8);
        let numbers = numbers.filter_map(|bytes| bytes.first_chunk::<8>());
        Some(numbers.map(|bytes| u64::from_le_bytes(*bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Fields = (u32, Option<f64>, Option<f64>, String);

    fn fields() -> Fields {
        (7, Some(0.5), None, "pod".to_owned())
    }

    #[test]
    fn decoding_returns_the_encoded_value() {
        let value = encode(&fields());
        assert_eq!(decode(&value), Some(fields()));
        assert_eq!(decode::<(u32, u32)>(&value), None);
        let mut writer = Writer::default();
        writer.u32(7);
        writer.u64(8);
        let value = writer.seal();
        let mut reader = Reader::open(&value).unwrap();
        assert_eq!((reader.u32(), reader.u64()), (Some(7), Some(8)));
        assert_eq!(reader.u32(), None);
    }

    #[test]
    fn a_corrupt_value_is_not_decoded() {
        let value = encode(&fields());
        for end in 0..value.len() {
            assert_eq!(decode::<Fields>(&value[..end]), None, "cut at {end}");
        }
        for position in 0..value.len() {
            let mut changed = value.clone();
            changed[position] ^= 0x40;
            assert_eq!(decode::<Fields>(&changed), None, "changed at {position}");
        }
    }
}

//! Values in shared data: little-endian fields between a head that says whose they are and a
//! checksum, so that what is foreign or torn is seen and left alone.

use xxhash_rust::xxh64::xxh64;

/// Tells our values from another plugin's under the same blank vm_id.
const MAGIC: [u8; 4] = *b"epp1";

/// Longest string taken over: a name, an address, a label or an adapter.
const MAX_TEXT: usize = 4096;

/// Writes a value.
#[derive(Debug)]
pub struct Writer(Vec<u8>);

impl Default for Writer {
    fn default() -> Self {
        Self(MAGIC.to_vec())
    }
}

impl Writer {
    /// Appends a number.
    pub fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// Appends a number.
    pub fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// Appends a number that may be missing; NaN stands for that.
    pub fn number(&mut self, value: Option<f64>) {
        self.u64(value.unwrap_or(f64::NAN).to_bits());
    }

    /// Appends a text.
    pub fn text(&mut self, text: &str) {
        self.u32(text.len() as u32);
        self.0.extend_from_slice(text.as_bytes());
    }

    /// Appends bytes, as the last field.
    pub fn rest(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The whole value, sealed with its checksum.
    pub fn seal(mut self) -> Vec<u8> {
        let checksum = xxh64(&self.0, 0);
        self.u64(checksum);
        self.0
    }
}

/// Reads a value; every read may find that there is no more.
#[derive(Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Opens a value, unless it is foreign or torn.
    pub fn open(value: &'a [u8]) -> Option<Self> {
        let (body, checksum) = value.split_last_chunk::<8>()?;
        let sound = xxh64(body, 0) == u64::from_le_bytes(*checksum);
        let fields = body.strip_prefix(&MAGIC)?;
        sound.then_some(Self(fields))
    }

    /// The next number.
    pub fn u32(&mut self) -> Option<u32> {
        let (bytes, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*bytes))
    }

    /// The next number.
    pub fn u64(&mut self) -> Option<u64> {
        let (bytes, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*bytes))
    }

    /// The next number, where it is not missing.
    pub fn number(&mut self) -> Option<Option<f64>> {
        let value = f64::from_bits(self.u64()?);
        Some((!value.is_nan()).then_some(value))
    }

    /// So many more numbers, if there are as many.
    pub fn numbers(&mut self, count: usize) -> Option<impl Iterator<Item = u64> + 'a> {
        let (bytes, rest) = self.0.split_at_checked(count.checked_mul(8)?)?;
        self.0 = rest;
        let numbers = bytes.chunks_exact(8);
        let numbers = numbers.filter_map(|bytes| bytes.first_chunk::<8>());
        Some(numbers.map(|bytes| u64::from_le_bytes(*bytes)))
    }

    /// All that is left.
    pub fn rest(self) -> &'a [u8] {
        self.0
    }

    /// The next text.
    pub fn text(&mut self) -> Option<&'a str> {
        let size = self.u32()? as usize;
        if size > MAX_TEXT || size > self.0.len() {
            return None;
        }
        let (bytes, rest) = self.0.split_at(size);
        self.0 = rest;
        std::str::from_utf8(bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value() -> Vec<u8> {
        let mut writer = Writer::default();
        writer.u32(7);
        writer.number(Some(0.5));
        writer.number(None);
        writer.text("pod");
        writer.seal()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let value = value();
        let mut reader = Reader::open(&value).unwrap();
        assert_eq!(reader.u32(), Some(7));
        assert_eq!(reader.number(), Some(Some(0.5)));
        assert_eq!(reader.number(), Some(None));
        assert_eq!(reader.text(), Some("pod"));
        assert_eq!(reader.u32(), None);
    }

    #[test]
    fn a_torn_or_changed_value_is_not_opened() {
        let value = value();
        for end in 0..value.len() {
            assert!(Reader::open(&value[..end]).is_none(), "cut at {end}");
        }
        for position in 0..value.len() {
            let mut changed = value.clone();
            changed[position] ^= 0x40;
            assert!(Reader::open(&changed).is_none(), "changed at {position}");
        }
    }
}

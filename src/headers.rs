//! The ABI's packed form of a header map: a count, the sizes of each name and value, then the
//! names and values, each with a NUL behind it; all numbers are little-endian u32.

/// Reads packed headers in place.
pub struct Pairs<'a> {
    sizes: &'a [u8],
    data: &'a [u8],
}

impl<'a> Pairs<'a> {
    /// Over what the host gave; of a torn map only the whole pairs are seen.
    pub fn new(packed: &'a [u8]) -> Self {
        let count = packed
            .first_chunk()
            .map_or(0, |count| u32::from_le_bytes(*count));
        let sizes_end = (count as usize).saturating_mul(8).saturating_add(4);
        match (packed.get(4..sizes_end), packed.get(sizes_end..)) {
            (Some(sizes), Some(data)) => Self { sizes, data },
            _ => Self {
                sizes: &[],
                data: &[],
            },
        }
    }

    fn cut(&mut self, size: usize) -> Option<&'a [u8]> {
        let part = self.data.get(..size)?;
        self.data = self.data.get(size + 1..)?;
        Some(part)
    }
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (name_size, rest) = self.sizes.split_first_chunk::<4>()?;
        let (value_size, rest) = rest.split_first_chunk::<4>()?;
        self.sizes = rest;
        let name = self.cut(u32::from_le_bytes(*name_size) as usize)?;
        let value = self.cut(u32::from_le_bytes(*value_size) as usize)?;
        Some((name, value))
    }
}

/// Packs headers for the host.
pub fn pack(headers: &[(&str, &str)]) -> Vec<u8> {
    let mut packed = (headers.len() as u32).to_le_bytes().to_vec();
    for (name, value) in headers {
        packed.extend_from_slice(&(name.len() as u32).to_le_bytes());
        packed.extend_from_slice(&(value.len() as u32).to_le_bytes());
    }
    for part in headers.iter().flat_map(|(name, value)| [name, value]) {
        packed.extend_from_slice(part.as_bytes());
        packed.push(0);
    }
    packed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_headers_are_read_back() {
        let headers = [(":path", "/v1/models"), ("empty", ""), ("x", "y")];
        let packed = pack(&headers);
        let read: Vec<_> = Pairs::new(&packed).collect();
        let expected: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
            .collect();
        assert_eq!(read, expected);
    }

    #[test]
    fn a_torn_map_gives_its_whole_pairs_only() {
        let packed = pack(&[("a", "1"), ("b", "2")]);
        for end in 0..packed.len() {
            let whole = Pairs::new(&packed[..end]).count();
            let expected = if end < packed.len() - 4 { 0 } else { 1 };
            assert_eq!(whole, expected, "{end}");
        }
    }
}

//! The bytes of a body that Envoy shows, in the offsets of the body as its sender sent it.

use std::borrow::Cow;
use std::ops::Range;

use super::abi::Chunks;
use epp_core::body::{BodyView, OutOfMemory};

/// Consecutive chunks of a body. What lies within one of them is read in place.
#[derive(Debug, Default)]
pub struct Body<'a> {
    chunks: Chunks<'a>,
    /// Bytes of the sender's body before those that are shown.
    start: usize,
    /// Bytes that a replacement has added to those that are shown, or removed. Bytes before it are never needed again.
    grown: isize,
    ended: bool,
}

impl<'a> Body<'a> {
    /// Returns a body of which `start` bytes have passed. `grown` is what replacements have added to the chunks.
    pub fn new(chunks: Chunks<'a>, start: usize, grown: isize, ended: bool) -> Self {
        Self {
            chunks,
            start,
            grown,
            ended,
        }
    }

    /// Returns how many bytes are shown.
    pub fn size(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.len()).sum()
    }

    /// Appends all that is shown to a text.
    pub fn append_to(&self, bytes: &mut Vec<u8>) {
        self.chunks
            .iter()
            .for_each(|chunk| bytes.extend_from_slice(chunk));
    }
}

impl BodyView for Body<'_> {
    fn available(&self) -> Range<usize> {
        let size = self.size().saturating_add_signed(-self.grown);
        self.start..self.start.saturating_add(size)
    }

    fn read(&mut self, range: Range<usize>) -> Result<Cow<'_, [u8]>, OutOfMemory> {
        let (Some(start), size) = (range.start.checked_sub(self.start), range.len()) else {
            return Ok(Cow::default());
        };
        let mut skip = start.saturating_add_signed(self.grown);
        let mut read = Vec::new();
        for chunk in &self.chunks {
            let Some(rest) = chunk.get(skip..) else {
                skip -= chunk.len();
                continue;
            };
            skip = 0;
            let wanted = size - read.len();
            if read.is_empty() && rest.len() >= wanted {
                return Ok(Cow::Borrowed(rest.get(..wanted).unwrap_or_default()));
            }
            read.extend_from_slice(rest.get(..wanted.min(rest.len())).unwrap_or_default());
            if read.len() >= size {
                break;
            }
        }
        Ok(Cow::Owned(read))
    }

    fn ended(&self) -> bool {
        self.ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(start: usize, grown: isize) -> Body<'static> {
        let chunks: [&[u8]; 3] = [b"abc", b"", b"defg"];
        Body::new(chunks.into_iter().collect(), start, grown, false)
    }

    #[test]
    fn every_range_is_read_across_chunks_and_within_one_in_place() {
        let whole = b"abcdefg";
        for start in 0..=8 {
            for end in start..=9 {
                let mut body = body(0, 0);
                let read = body.read(start..end).unwrap();
                let expected = &whole[start.min(7)..end.min(7)];
                assert_eq!(&*read, expected, "{start}..{end}");
                let within = end <= 3 || start >= 3 && end <= 7;
                let in_place = matches!(read, Cow::Borrowed(_));
                assert!(in_place == within || start == end, "{start}..{end}");
            }
        }
    }

    #[test]
    fn what_has_passed_is_not_shown_and_what_was_replaced_is_skipped() {
        let mut passing = body(10, 0);
        assert_eq!(passing.available(), 10..17);
        assert_eq!(*passing.read(9..12).unwrap(), b""[..]);
        assert_eq!(*passing.read(12..15).unwrap(), b"cde"[..]);
        // Two bytes more than the sender has sent.
        let mut replaced = body(0, 2);
        assert_eq!(replaced.available(), 0..5);
        assert_eq!(*replaced.read(3..5).unwrap(), b"fg"[..]);
    }
}

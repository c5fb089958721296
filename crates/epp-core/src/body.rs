//! Bodies as a host can show them.

use std::borrow::Cow;
use std::ops::Range;

/// The host has no memory for the requested bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfMemory;

/// The part of a body that a host can show now. Offsets count the bytes of the body as its sender sent it.
///
/// Hosts differ in what they can show: some keep all that has come, some show each part once. The core
/// asks for what it needs in the order in which it needs it, and copes with what it does not get.
pub trait BodyView {
    /// Returns where the bytes are that can be read now. The start moves up where the host does not keep
    /// what it has shown, the end where more has come.
    fn available(&self) -> Range<usize>;

    /// Returns the bytes in this part of the available range: fewer, or none, where the host turns out not
    /// to have them.
    fn read(&mut self, range: Range<usize>) -> Result<Cow<'_, [u8]>, OutOfMemory>;

    /// Returns whether the body ends where the available range ends.
    fn ended(&self) -> bool;
}

/// A body in memory, as far as it has come.
#[derive(Debug, Clone, Copy)]
pub struct SliceBody<'a> {
    bytes: &'a [u8],
    start: usize,
    ended: bool,
}

impl<'a> SliceBody<'a> {
    /// A body that has come whole.
    pub fn whole(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            start: 0,
            ended: true,
        }
    }

    /// The beginning of a body, of which more is to come.
    pub fn beginning(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            start: 0,
            ended: false,
        }
    }

    /// A part of a body that is shown once: `bytes` begin at offset `start`.
    pub fn passing(bytes: &'a [u8], start: usize, ended: bool) -> Self {
        Self {
            bytes,
            start,
            ended,
        }
    }
}

impl BodyView for SliceBody<'_> {
    fn available(&self) -> Range<usize> {
        self.start..self.start + self.bytes.len()
    }

    fn read(&mut self, range: Range<usize>) -> Result<Cow<'_, [u8]>, OutOfMemory> {
        let from = range.start.checked_sub(self.start);
        let to = range.end.saturating_sub(self.start).min(self.bytes.len());
        let bytes = from.and_then(|from| self.bytes.get(from..to));
        Ok(Cow::Borrowed(bytes.unwrap_or_default()))
    }

    fn ended(&self) -> bool {
        self.ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_read_by_its_place_in_the_whole_body() {
        let mut body = SliceBody::passing(b"3456", 3, false);
        assert_eq!(body.available(), 3..7);
        assert_eq!(*body.read(4..6).unwrap(), b"45"[..]);
        assert_eq!(*body.read(5..99).unwrap(), b"56"[..]);
        assert_eq!(*body.read(0..5).unwrap(), b""[..], "it has passed");
        assert_eq!(*body.read(8..9).unwrap(), b""[..], "it has not come");
    }
}

//! The part of a request's body that Envoy shows, in the offsets of the body as its client sent it.

use std::borrow::Cow;
use std::ops::Range;

use super::abi::{self, Buffer};
use epp_core::body::{BodyView, OutOfMemory};

/// The bytes that Envoy shows, or showed last and still holds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Shown {
    /// Bytes of the client's body that Envoy does not show any more.
    start: usize,
    /// Bytes that Envoy shows.
    size: usize,
    /// Bytes that a replacement has added to those, or removed. Bytes before the replacement are
    /// never needed again.
    grown: isize,
}

impl Shown {
    /// Envoy shows this many bytes: what it has buffered, and what is new.
    pub fn show(&mut self, size: usize) {
        self.size = size;
    }

    /// Envoy does not show again what it has shown.
    pub fn pass(&mut self) {
        // Of more than 4 GiB nothing is read.
        self.start = self.end();
        self.size = 0;
        self.grown = 0;
    }

    /// Returns how many bytes Envoy shows.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Returns whether nothing was shown.
    pub fn is_empty(&self) -> bool {
        self.start == 0 && self.size == 0
    }

    /// Returns the end of what it shows, in the client's body.
    fn end(&self) -> usize {
        let size = self.size.saturating_add_signed(-self.grown);
        self.start.saturating_add(size)
    }

    /// Returns it as the picker sees it; `ended` where the body ends there.
    pub fn view(self, ended: bool) -> ShownBody {
        ShownBody { shown: self, ended }
    }

    /// Replaces a part. Returns by how much the body has grown.
    pub fn replace(&mut self, range: &Range<usize>, text: &str) -> Option<isize> {
        let start = range.start.checked_sub(self.start)?;
        let end = range.end.checked_sub(self.start)?;
        // Envoy replaces from the first byte on only.
        let mut head = abi::buffer(Buffer::RequestBody, 0, end).ok()??;
        if head.len() != end {
            return None;
        }
        head.truncate(start);
        head.extend_from_slice(text.as_bytes());
        abi::replace_start(Buffer::RequestBody, end, &head).ok()?;
        let grown = head.len() as isize - end as isize;
        self.size = self.size.saturating_add_signed(grown);
        self.grown += grown;
        Some(grown)
    }
}

/// The current request's body.
pub struct ShownBody {
    shown: Shown,
    ended: bool,
}

impl BodyView for ShownBody {
    fn available(&self) -> Range<usize> {
        self.shown.start..self.shown.end()
    }

    fn read(&mut self, range: Range<usize>) -> Result<Cow<'_, [u8]>, OutOfMemory> {
        let Some(start) = range.start.checked_sub(self.shown.start) else {
            return Ok(Cow::default());
        };
        let start = start.saturating_add_signed(self.shown.grown);
        match abi::buffer(Buffer::RequestBody, start, range.len()) {
            Ok(bytes) => Ok(Cow::Owned(bytes.unwrap_or_default())),
            Err(_) => Err(OutOfMemory),
        }
    }

    fn ended(&self) -> bool {
        self.ended
    }
}

/// The current part of the response's body. Its position in the whole body does not matter.
pub struct PassingBody {
    /// Bytes that Envoy shows.
    pub size: usize,
}

impl BodyView for PassingBody {
    fn available(&self) -> Range<usize> {
        0..self.size
    }

    fn read(&mut self, range: Range<usize>) -> Result<Cow<'_, [u8]>, OutOfMemory> {
        match abi::buffer(Buffer::ResponseBody, range.start, range.len()) {
            Ok(bytes) => Ok(Cow::Owned(bytes.unwrap_or_default())),
            Err(_) => Err(OutOfMemory),
        }
    }

    fn ended(&self) -> bool {
        false
    }
}

//! The bytes of a body that Envoy has buffered when a tick releases its request.
//!
//! Once a filter has had a body buffered, Envoy adds the next part to its buffer before the filter sees
//! it, even if the request was released meanwhile. What the buffer holds besides depends on the route:
//! with a retry policy the router keeps there what it has sent. What becomes of it depends on the version
//! and on a runtime guard: 1.36 to 1.38 drop the part, 1.39 and 1.40 send the whole buffer, sent bytes
//! included. A filter can detect neither beforehand. It does not need to where nothing is left in the buffer:
//! the bytes are set aside here, Envoy passes on the headers alone, and puts the bytes before the first part
//! that it shows outside of its buffer, or, where there is none, gets them back from a tick. No byte is then
//! in the buffer twice, nor one that was sent, nor is one missing from what the router keeps for a retry.

use super::abi::{self, BodyAction, Buffer};
use epp_core::picker::Account;

/// Bytes of a body that its pod does not have yet.
#[derive(Debug)]
pub struct Detached {
    bytes: Vec<u8>,
    /// The memory for these bytes. For those that have not come none is reserved: a client could say that
    /// any number follows.
    memory: Account,
    /// The length of the whole body, as its client says.
    length: usize,
    /// Whether Envoy adds the next part to its buffer.
    buffers: bool,
    /// Whether the body has ended: a tick hands it back.
    ended: bool,
}

impl Detached {
    /// Empties Envoy's buffer, which holds `size` bytes of a body of `length`. `None` where that cannot be:
    /// then the request can only continue with the next part of its body.
    #[cold]
    pub fn take(size: usize, length: usize, memory: Account) -> Option<Self> {
        let mut detached = Self {
            bytes: Vec::new(),
            memory,
            length,
            buffers: true,
            ended: false,
        };
        detached.add(size).then_some(detached)
    }

    /// A part of the body has come, of which Envoy shows `size` bytes. Returns the action on it;
    /// after [`BodyAction::Continue`] without bytes left here all is as if nothing had been set aside.
    #[cold]
    pub fn rejoin(&mut self, size: usize, end: bool) -> BodyAction {
        // Without memory for it the part stays where it is, behind what is given back.
        if !self.buffers || !self.add(size) {
            return self.give_before(end);
        }
        self.ended = end;
        if end || self.bytes.len() >= self.length {
            // Nothing follows but the end: Envoy still shows its buffer then, and from a tick.
            return BodyAction::Buffer;
        }
        self.buffers = false;
        BodyAction::Continue
    }

    /// Gives the bytes back before a part of the body that Envoy shows, in its buffer or outside. Returns
    /// the action on them.
    #[cold]
    pub fn give_before(&mut self, end: bool) -> BodyAction {
        self.give();
        if !self.buffers {
            return BodyAction::Continue;
        }
        // What is in the buffer leaves from a tick, or with the next part.
        self.ended = end;
        match end {
            true => BodyAction::Buffer,
            false => BodyAction::Watermark,
        }
    }

    /// Sets aside all that Envoy has in its buffer. Returns whether that was done: otherwise all is as it was.
    fn add(&mut self, size: usize) -> bool {
        // Nothing may fail once Envoy does not have the bytes any more.
        if !self.memory.reserve(size) || self.bytes.try_reserve_exact(size).is_err() {
            return false;
        }
        let part = take_all(size);
        self.bytes
            .extend_from_slice(part.as_deref().unwrap_or_default());
        part.is_some()
    }

    /// The body's trailers have come.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Returns whether a tick is to hand the bytes back.
    pub fn is_due(&self) -> bool {
        self.ended
    }

    /// Returns whether all was given back.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Gives the bytes back, before what Envoy shows.
    #[cold]
    pub fn give(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if abi::replace_start(Buffer::RequestBody, 0, &bytes).is_err() {
            log::warn!("failed to return the buffered beginning of a body to Envoy");
        }
    }
}

/// Takes all that Envoy has in its buffer. `None` leaves it there.
fn take_all(size: usize) -> Option<Vec<u8>> {
    if size == 0 {
        return Some(Vec::new());
    }
    let bytes = abi::buffer(Buffer::RequestBody, 0, size).ok()??;
    if bytes.len() != size {
        return None;
    }
    abi::replace_start(Buffer::RequestBody, size, &[]).ok()?;
    Some(bytes)
}

//! How far the blocks of one prompt have been matched.

/// How far one prompt has been matched. Kept from request to request.
#[derive(Debug, Default)]
pub struct Matcher {
    pub(super) counts: Vec<u32>,
    /// Who holds the last blocks, as an entry says it, and how many blocks these are.
    pub(super) last: (u32, u16),
    pub(super) run: u32,
    /// The entry that spoke for the last of them.
    pub(super) place: u32,
    pub(super) ended: bool,
}

impl Matcher {
    /// Forgets what was matched.
    pub fn reset(&mut self) {
        self.counts.clear();
        self.run = 0;
        self.ended = false;
    }

    /// Returns the bytes of memory that it has allocated.
    pub fn allocated(&self) -> usize {
        self.counts.capacity() * size_of::<u32>()
    }

    /// Begins another prompt; what was matched so far still counts.
    pub fn restart(&mut self) {
        self.ended = false;
    }

    /// Matched blocks by slot, up to the last [`super::index::Index::settle`].
    pub fn counts(&self) -> &[u32] {
        &self.counts
    }
}

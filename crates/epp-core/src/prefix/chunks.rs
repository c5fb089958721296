//! Memory that grows piece by piece.

/// Items of one chunk.
const CHUNK: usize = 1024;

/// A vector in chunks that never move.
#[derive(Debug, Clone)]
pub struct Chunks<T> {
    chunks: Vec<Box<[T; CHUNK]>>,
    /// Number of items.
    pub len: usize,
}

impl<T: Copy> Chunks<T> {
    /// A vector without items.
    pub const EMPTY: Self = Self {
        chunks: Vec::new(),
        len: 0,
    };

    /// Returns the item at a place.
    pub fn get(&self, place: usize) -> Option<&T> {
        self.chunks.get(place / CHUNK)?.get(place % CHUNK)
    }

    /// Returns the item at a place, to change it.
    pub fn get_mut(&mut self, place: usize) -> Option<&mut T> {
        self.chunks.get_mut(place / CHUNK)?.get_mut(place % CHUNK)
    }

    /// Appends an item.
    pub fn push(&mut self, item: T) {
        let last = self.len;
        self.len += 1;
        match self.get_mut(last) {
            Some(last) => *last = item,
            None => self.chunks.push(Box::new([item; CHUNK])),
        }
    }

    /// Returns the allocated memory in bytes.
    pub fn bytes(&self) -> usize {
        self.chunks.len() * CHUNK * size_of::<T>()
            + self.chunks.capacity() * size_of::<Box<[T; CHUNK]>>()
    }
}

//! The archive that a VM which serves no requests keeps instead of a prefix index: what the other VMs' journals said,
//! in the form in which it is handed over.
//!
//! Nothing looks blocks up in such a VM, the one of Envoy's main thread, and to add blocks to an index takes most of
//! the time that sharing does. It is enough to be able to hand them over when all workers have trapped, or the only one.
//!
//! The runs do not say which VM wrote them. The VM that takes them over treats them as those of one VM, so that of blocks
//! without a confirming response any worker's failed request removes those that another one has sent since.

use std::collections::VecDeque;

use epp_core::picker::peers::{IndexPeer, Placement};

use crate::codec::Writer;
use crate::handover::PIECE_HASHES;
use crate::journal::write_run;

/// Bytes of a piece: as many as one run with all of its hashes takes.
const PIECE_BYTES: usize = 8 * PIECE_HASHES + 32;

/// An archive takes at most one part in this many of what an index may take: an entry of an index has 32 bytes and a
/// hash here has eight, so that hashes of as many blocks fit, less the heads of their runs.
const INDEX_SHARE: usize = 4;

/// An archive takes at most so many bytes for each block that the indexes may have: its hash of eight bytes four times,
/// because a full index publishes a block in use again once per quarter of its endpoint's capacity, and a part of a run's head.
const BYTES_OF_BLOCK: usize = 32;

/// The latest runs of all journals, in the order in which they were read.
#[derive(Debug)]
pub struct Archive {
    /// Fingerprint of how the hashes were made.
    fingerprint: u64,
    pieces: VecDeque<Writer>,
    /// Pieces that made room for later ones.
    dropped: usize,
    max_pieces: usize,
}

impl Archive {
    /// Creates an archive of what is in the picker's indexes, and empties these.
    pub fn of_index(picker: &mut dyn IndexPeer) -> Self {
        let mut archive = Self {
            fingerprint: picker.fingerprint(),
            pieces: VecDeque::new(),
            dropped: 0,
            max_pieces: 0,
        };
        archive.set_bound(picker);
        let mut hashes = Vec::new();
        for number in 0.. {
            let Some(list) = picker.index_list(number, &mut hashes) else {
                break;
            };
            archive.append(list, &hashes);
            hashes.clear();
        }
        picker.clear_index();
        archive
    }

    /// Returns the fingerprint of how the hashes were made.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Applies the picker's bound on the memory of its indexes.
    pub fn set_bound(&mut self, picker: &dyn IndexPeer) {
        let blocks = picker.max_index_blocks().saturating_mul(BYTES_OF_BLOCK);
        let bytes = blocks.min(picker.max_index_bytes() / INDEX_SHARE);
        self.max_pieces = (bytes / PIECE_BYTES).max(2);
        self.make_room();
    }

    /// Appends a run.
    pub fn append(&mut self, placement: Placement, hashes: &[u64]) {
        for hashes in hashes.chunks(PIECE_HASHES) {
            let fits = |piece: &&mut Writer| piece.room() >= 8 * hashes.len() + 32;
            if let Some(piece) = self.pieces.back_mut().filter(fits) {
                write_run(piece, placement, hashes);
                continue;
            }
            let mut piece = Writer::with_room(PIECE_BYTES);
            write_run(&mut piece, placement, hashes);
            self.pieces.push_back(piece);
            self.make_room();
        }
    }

    /// Returns the first piece whose number is not below this one, with the number of the piece after it.
    pub fn piece_from(&self, number: usize) -> Option<(&Writer, usize)> {
        let place = number.saturating_sub(self.dropped);
        let piece = self.pieces.get(place)?;
        Some((piece, self.dropped + place + 1))
    }

    fn make_room(&mut self) {
        while self.pieces.len() > self.max_pieces {
            self.pieces.pop_front();
            self.dropped += 1;
        }
    }
}

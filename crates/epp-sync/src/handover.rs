//! The handover of a whole prefix index to a VM that starts.
//!
//! The sender writes its index, or its archive (`archive.rs`), to the store in pieces, a part of it with each tick; the
//! VMs that requested it read them, a part with each of their own. Once no VM requests it any more the pieces are
//! emptied. So a worker that starts, or comes back after a trap, decides from the whole knowledge within a second, and a
//! handover takes memory only while it lasts: the hashes of the index, a quarter of its size.
//!
//! Envoy destroys the VMs of a former module or configuration as soon as their last request has ended, which may be
//! before the new ones have ticked once. So the last VM that knows the index writes all of it as it is destroyed, for
//! whichever VM starts next. If none does, the pieces stay, as the index of an idle VM would.

use epp_core::picker::peers::{IndexPeer, Placement};
use serde::{Deserialize, Serialize};

use crate::archive::Archive;
use crate::codec::{Reader, Writer};
use crate::journal::{read_run, write_run};
use crate::presence::MISSING;
use crate::shared::Shared;

/// Hashes handed over, or taken over, per tick: two million, which the default bound of an index
/// holds, take 16 ticks (0.8 s).
const HASHES_PER_TICK: usize = 131_072;

/// Hashes of one piece, 8 bytes each.
pub const PIECE_HASHES: usize = 8_192;

/// Ticks without news after which a request is cancelled: two seconds.
const MAX_TICKS_WITHOUT_NEWS: u32 = 40;

/// Ticks without a donor after which a request is cancelled: half a second, in which others that are late are
/// seen to send heartbeats.
const MAX_TICKS_WITHOUT_DONOR: u32 = 10;

/// Handovers that may begin for a request. A donor begins again for each further VM that starts; donors that are late in
/// turns would do so without end.
pub const MAX_BEGINNINGS: u32 = 64;

/// Ticks between checks for pieces that a sender which is gone may have left behind.
const SWEEP_TICKS: u32 = 20;

/// More pieces than an index can have; bounds the work that a wrong number could cause.
const MAX_PIECES: u32 = 1 << 16;

/// The handover's value in the store, beside its pieces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    /// Distinguishes one handover from another.
    edition: u64,
    /// Fingerprint of how the hashes were made.
    fingerprint: u64,
    /// Pieces so far.
    pieces: u32,
    /// Whether there are no more.
    done: bool,
    /// The VMs that it is for: others may miss what was placed between its beginning and their own. None where
    /// the sender was the last VM: it is for all.
    requesters: Vec<u64>,
}

impl Head {
    fn is_sound(&self) -> bool {
        self.pieces <= MAX_PIECES
    }

    /// Begins the next piece.
    fn next_piece(&self) -> Writer {
        let mut writer = Writer::default();
        writer.u64(self.edition);
        writer
    }

    /// Puts the next piece in its place.
    fn put(&mut self, piece: Writer, key: &str, shared: &mut Shared<'_>) {
        shared.set(&format!("{key}/{}", self.pieces), &piece.seal(), None);
        self.pieces += 1;
    }

    fn is_for(&self, requester: u64) -> bool {
        let left_behind = self.requesters.is_empty() && self.done && self.pieces > 0;
        left_behind || self.requesters.contains(&requester)
    }
}

/// One VM's part in handovers: it requests an index, sends one, or neither.
#[derive(Debug)]
pub struct Handover {
    key: String,
    own: u64,
    request: Option<Request>,
    sending: Option<Sending>,
    /// What this VM knows, where it is not in the picker's index.
    archive: Option<Archive>,
    editions: u64,
    idle: u32,
}

#[derive(Debug, Default)]
struct Request {
    /// The handover that is being read, once one has begun.
    edition: Option<u64>,
    read: u32,
    beginnings: u32,
    ticks_without_news: u32,
    ticks_without_donor: u32,
}

#[derive(Debug)]
struct Sending {
    head: Head,
    /// The list of the index that comes next, or the piece of the archive.
    next: usize,
    /// The hashes of one list.
    hashes: Vec<u64>,
}

impl Sending {
    /// Writes the next list of the picker's index. Returns how many hashes it has.
    fn write_list(
        &mut self,
        known: &dyn IndexPeer,
        key: &str,
        shared: &mut Shared<'_>,
    ) -> Option<usize> {
        self.hashes.clear();
        let placement = known.index_list(self.next, &mut self.hashes)?;
        self.next += 1;
        for hashes in self.hashes.chunks(PIECE_HASHES) {
            let mut writer = self.head.next_piece();
            write_run(&mut writer, placement, hashes);
            self.head.put(writer, key, shared);
        }
        Some(self.hashes.len())
    }

    /// Writes the next piece of the archive. Returns how many hashes it has at most.
    fn write_piece(
        &mut self,
        archive: &Archive,
        key: &str,
        shared: &mut Shared<'_>,
    ) -> Option<usize> {
        let (runs, next) = archive.piece_from(self.next)?;
        self.next = next;
        let mut writer = self.head.next_piece();
        writer.append(runs);
        self.head.put(writer, key, shared);
        Some(PIECE_HASHES)
    }
}

impl Handover {
    /// Returns the part of a VM that has just started; `own` distinguishes it from the others.
    pub fn new(base: &str, own: u64) -> Self {
        Self {
            key: format!("{base}/index"),
            own,
            request: Some(Request::default()),
            sending: None,
            archive: None,
            editions: 0,
            idle: 0,
        }
    }

    /// Returns whether this VM requests the others' index.
    pub fn is_requesting(&self) -> bool {
        self.request.is_some()
    }

    /// Notes with each tick whether there is a VM that knows more. Where all request, all have just started:
    /// then the request is cancelled soon.
    pub fn observe_donor(&mut self, present: bool) {
        let Some(request) = self.request.as_mut() else {
            return;
        };
        request.ticks_without_donor = match present {
            true => 0,
            false => request.ticks_without_donor + 1,
        };
        if request.ticks_without_donor >= MAX_TICKS_WITHOUT_DONOR {
            self.request = None;
        }
    }

    /// Requests no index any more.
    pub fn cancel_request(&mut self) {
        self.request = None;
    }

    /// Keeps an archive from now on, which begins with what is in the picker's index; or an index again, which
    /// this VM requests.
    pub fn set_archiving(&mut self, archives: bool, picker: &mut dyn IndexPeer) {
        let fingerprint = archives.then(|| picker.fingerprint());
        let current = self.archive.as_mut();
        if fingerprint == current.as_ref().map(|archive| archive.fingerprint()) {
            if let Some(archive) = current {
                archive.set_bound(picker);
            }
            return;
        }
        self.stop_sending();
        self.archive = archives.then(|| Archive::of_index(picker));
        if !archives {
            self.request = Some(Request::default());
        }
    }

    /// Returns the archive, if this VM keeps one.
    pub fn archive(&mut self) -> Option<&mut Archive> {
        self.archive.as_mut()
    }

    /// Returns whether the index that this VM has, or will have, holds blocks without those before them.
    pub fn allows_gaps(&self) -> bool {
        self.request.is_some() || self.archive.is_some()
    }

    /// Leaves the sending to another VM.
    pub fn stop_sending(&mut self) {
        self.sending = None;
    }

    /// Writes the next pieces of the index while there are requesters, and removes the pieces otherwise. It begins
    /// again with another requester, and where another VM has written pieces meanwhile.
    pub fn send(&mut self, requesters: &[u64], known: &dyn IndexPeer, shared: &mut Shared<'_>) {
        if requesters.is_empty() {
            self.clear_away(shared);
            return;
        }
        let stored = self.head(shared).map(|head| head.edition);
        let goes_on = |sending: &Sending| {
            let mut requesters = requesters.iter();
            requesters.all(|requester| sending.head.requesters.contains(requester))
                && stored == Some(sending.head.edition)
        };
        if !self.sending.as_ref().is_some_and(goes_on) {
            self.begin(requesters, known.fingerprint());
        }
        self.send_pieces(HASHES_PER_TICK, known, shared);
    }

    /// Returns the version of what is stored of handovers, for [`Self::leave_behind`].
    pub fn version(&self, shared: &mut Shared<'_>) -> Option<u32> {
        shared.get(&self.key, Head::is_sound).1
    }

    /// Writes the whole index, for VMs that start after this one, the last that knows it, was destroyed. `version` is from
    /// before this VM has left: of several that are destroyed at the same time, one writes.
    pub fn leave_behind(
        &mut self,
        version: Option<u32>,
        known: &dyn IndexPeer,
        shared: &mut Shared<'_>,
    ) {
        self.begin(&[], known.fingerprint());
        let head = self.sending.as_ref().map(|sending| &sending.head);
        if head.is_some_and(|head| shared.put(&self.key, head, version.or(MISSING))) {
            self.send_pieces(usize::MAX, known, shared);
        }
    }

    /// Writes pieces of about this number of hashes.
    fn send_pieces(&mut self, mut room: usize, known: &dyn IndexPeer, shared: &mut Shared<'_>) {
        let Some(sending) = self.sending.as_mut() else {
            return;
        };
        while room > 0 && !sending.head.done {
            let written = match &self.archive {
                Some(archive) => sending.write_piece(archive, &self.key, shared),
                None => sending.write_list(known, &self.key, shared),
            };
            sending.head.done = written.is_none();
            room = room.saturating_sub(written.unwrap_or_default().max(1));
        }
        shared.put(&self.key, &sending.head, None);
    }

    /// Begins a handover.
    fn begin(&mut self, requesters: &[u64], fingerprint: u64) {
        self.editions += 1;
        self.sending = Some(Sending {
            head: Head {
                edition: self.own.wrapping_add(self.editions),
                fingerprint,
                pieces: 0,
                done: false,
                requesters: requesters.to_vec(),
            },
            next: 0,
            hashes: Vec::new(),
        });
    }

    fn head(&self, shared: &mut Shared<'_>) -> Option<Head> {
        shared.get(&self.key, Head::is_sound).0.value()
    }

    /// Empties the pieces: this VM's, and those of a sender that is gone.
    fn clear_away(&mut self, shared: &mut Shared<'_>) {
        let sent = self.sending.take();
        self.idle += 1;
        if sent.is_none() && self.idle < SWEEP_TICKS {
            return;
        }
        self.idle = 0;
        // One of an empty index is cleared as well: a VM that requests one again must not take it for the answer.
        let is_left = |head: &Head| head.pieces > 0 || !head.requesters.is_empty();
        let Some(head) = self.head(shared).filter(is_left) else {
            return;
        };
        // An earlier handover may have had more than this one.
        for piece in 0..MAX_PIECES {
            let key = format!("{}/{piece}", self.key);
            let Some((value, _)) = shared.bytes(&key) else {
                break;
            };
            if !value.is_empty() {
                shared.set(&key, &[], None);
            }
        }
        let none = Head {
            pieces: 0,
            requesters: Vec::new(),
            ..head
        };
        shared.put(&self.key, &none, None);
    }

    /// Takes over a part of what another VM sends.
    pub fn receive(
        &mut self,
        fingerprint: u64,
        shared: &mut Shared<'_>,
        take: &mut dyn FnMut(Placement, &mut dyn Iterator<Item = u64>),
    ) {
        let Some(mut request) = self.request.take() else {
            return;
        };
        request.ticks_without_news += 1;
        let begins_too_often = request.beginnings > MAX_BEGINNINGS;
        if begins_too_often || request.ticks_without_news > MAX_TICKS_WITHOUT_NEWS {
            return;
        }
        let head = self
            .head(shared)
            .filter(|head| head.fingerprint == fingerprint && head.is_for(self.own));
        if let Some(head) = head {
            let mut archive = self.archive.take();
            let mut take = |list, hashes: &mut dyn Iterator<Item = u64>| match &mut archive {
                Some(archive) => archive.append(list, &hashes.collect::<Vec<_>>()),
                None => take(list, hashes),
            };
            let is_whole = self.receive_pieces(&mut request, &head, shared, &mut take);
            self.archive = archive;
            if is_whole {
                return;
            }
        }
        self.request = Some(request);
    }

    /// Returns whether these were the last.
    fn receive_pieces(
        &self,
        request: &mut Request,
        head: &Head,
        shared: &mut Shared<'_>,
        take: &mut dyn FnMut(Placement, &mut dyn Iterator<Item = u64>),
    ) -> bool {
        if request.edition != Some(head.edition) {
            request.edition = Some(head.edition);
            request.read = 0;
            request.beginnings += 1;
        }
        let mut room = HASHES_PER_TICK;
        while request.read < head.pieces && room > 0 {
            let piece = shared.bytes(&format!("{}/{}", self.key, request.read));
            let value = piece.map(|(value, _)| value).unwrap_or_default();
            let Some(mut reader) = Reader::open(&value) else {
                // It may be whole with the next tick; if not, the request is cancelled in time. Another
                // sender may be about to begin again where it is empty.
                shared.count(!value.is_empty());
                break;
            };
            if reader.u64() != Some(head.edition) {
                // Another sender has begun.
                break;
            }
            request.read += 1;
            request.ticks_without_news = 0;
            request.ticks_without_donor = 0;
            // A run without hashes, as none but another writer of the store makes, is work as well.
            let runs = std::iter::from_fn(|| read_run(&mut reader, take));
            let runs = runs.map(|hashes| hashes.max(1));
            room = room.saturating_sub(runs.sum::<usize>().max(1));
        }
        head.done && request.read >= head.pieces
    }
}

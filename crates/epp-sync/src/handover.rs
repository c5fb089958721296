//! The handover of a whole prefix index to a VM that starts.
//!
//! The sender writes its index to the store in pieces, a part of it with each tick; the VMs that requested it
//! read them, a part with each of their own. Once no VM requests it any more the pieces are emptied. So a
//! worker that starts, or comes back after a trap, decides from the whole knowledge within a second, and a
//! handover takes memory only while it lasts: the hashes of the index, a quarter of its size.
//!
//! Envoy destroys the VMs of a former module or configuration as soon as their last request has ended, which may be
//! before the new ones have ticked once. So the last VM that knows the index writes all of it as it is destroyed, for
//! whichever VM starts next. If none does, the pieces stay, as the index of an idle VM would.

use epp_core::picker::peers::{IndexPeer, Placement};
use serde::{Deserialize, Serialize};

use crate::codec::{Reader, Writer};
use crate::journal::{read_run, write_run};
use crate::shared::Shared;

/// Hashes handed over, or taken over, per tick: two million, which the default bound of an index
/// holds, take 16 ticks (0.8 s).
const HASHES_PER_TICK: usize = 131_072;

/// Hashes of one piece, 8 bytes each.
const PIECE_HASHES: usize = 8_192;

/// Ticks without news after which a request is cancelled: two seconds.
const MAX_TICKS_WITHOUT_NEWS: u32 = 40;

/// Ticks without a donor after which a request is cancelled: half a second, in which others that are late are
/// seen to send heartbeats.
const MAX_TICKS_WITHOUT_DONOR: u32 = 10;

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
    editions: u64,
    idle: u32,
}

#[derive(Debug, Default)]
struct Request {
    /// The handover that is being read, once one has begun.
    edition: Option<u64>,
    read: u32,
    ticks_without_news: u32,
    ticks_without_donor: u32,
}

#[derive(Debug)]
struct Sending {
    head: Head,
    /// The list that comes next.
    list: usize,
    /// The hashes of one list.
    hashes: Vec<u64>,
}

impl Handover {
    /// Returns the part of a VM that has just started; `own` distinguishes it from the others.
    pub fn new(base: &str, own: u64) -> Self {
        Self {
            key: format!("{base}/index"),
            own,
            request: Some(Request::default()),
            sending: None,
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

    /// Leaves the sending to another VM.
    pub fn stop_sending(&mut self) {
        self.sending = None;
    }

    /// Writes the next pieces of the index while there are requesters, and removes the pieces otherwise.
    /// With another requester it begins again.
    pub fn send(&mut self, requesters: &[u64], known: &dyn IndexPeer, shared: &mut Shared<'_>) {
        if requesters.is_empty() {
            self.clear_away(shared);
            return;
        }
        let known_to = |sending: &Sending| {
            let mut requesters = requesters.iter();
            requesters.all(|requester| sending.head.requesters.contains(requester))
        };
        if !self.sending.as_ref().is_some_and(known_to) {
            self.begin(requesters, known.fingerprint(), shared);
        }
        self.send_pieces(HASHES_PER_TICK, known, shared);
    }

    /// Writes the whole index, for VMs that start after this one, the last that knows it, was destroyed.
    pub fn leave_behind(&mut self, known: &dyn IndexPeer, shared: &mut Shared<'_>) {
        let version = self.begin(&[], known.fingerprint(), shared);
        let head = self.sending.as_ref().map(|sending| &sending.head);
        // Of several VMs that are destroyed at the same time, one writes.
        if head.is_some_and(|head| shared.put(&self.key, head, version)) {
            self.send_pieces(usize::MAX, known, shared);
        }
    }

    /// Writes pieces of about this number of hashes.
    fn send_pieces(&mut self, mut room: usize, known: &dyn IndexPeer, shared: &mut Shared<'_>) {
        let Some(sending) = self.sending.as_mut() else {
            return;
        };
        while room > 0 && !sending.head.done {
            sending.hashes.clear();
            let Some(placement) = known.index_list(sending.list, &mut sending.hashes) else {
                sending.head.done = true;
                break;
            };
            sending.list += 1;
            room = room.saturating_sub(sending.hashes.len().max(1));
            for hashes in sending.hashes.chunks(PIECE_HASHES) {
                let mut writer = Writer::default();
                writer.u64(sending.head.edition);
                write_run(&mut writer, placement, hashes);
                let key = format!("{}/{}", self.key, sending.head.pieces);
                shared.set(&key, &writer.seal(), None);
                sending.head.pieces += 1;
            }
        }
        shared.put(&self.key, &sending.head, None);
    }

    /// Begins a handover. Returns the version of the head that is stored.
    fn begin(
        &mut self,
        requesters: &[u64],
        fingerprint: u64,
        shared: &mut Shared<'_>,
    ) -> Option<u32> {
        self.editions += 1;
        let version = shared.get(&self.key, Head::is_sound).1;
        self.sending = Some(Sending {
            head: Head {
                edition: self.own.wrapping_add(self.editions),
                fingerprint,
                pieces: 0,
                done: false,
                requesters: requesters.to_vec(),
            },
            list: 0,
            hashes: Vec::new(),
        });
        version
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
        let Some(head) = self.head(shared).filter(|head| head.pieces > 0) else {
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
        if request.ticks_without_news > MAX_TICKS_WITHOUT_NEWS {
            return;
        }
        let head = self
            .head(shared)
            .filter(|head| head.fingerprint == fingerprint && head.is_for(self.own));
        if let Some(head) = head {
            if self.receive_pieces(&mut request, &head, shared, take) {
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
            room = room.saturating_sub(read_run(&mut reader, take).unwrap_or(0).max(1));
        }
        head.done && request.read >= head.pieces
    }
}

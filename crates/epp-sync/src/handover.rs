//! A VM that starts asks for what the others know, and one of them hands its index over.
//!
//! The giver writes its index to shared data in pieces, a part of it with each tick; whoever asks
//! reads them, a part with each of its own. Once nobody asks any more the pieces are emptied. So a
//! worker that starts, or comes back after a trap, decides from the whole knowledge within a
//! second, and a handover takes memory only while it lasts: the hashes of the index, a quarter of
//! its size.

use super::journal::{read_run, write_run};
use super::pack::{Reader, Writer};
use super::Store;
use epp_core::picker::learnt::Placement;

/// Hashes handed over, or taken over, per tick: two million, which the default bound of an index
/// holds, take 16 ticks (0.8 s).
const PER_TICK: usize = 131_072;

/// Hashes of one piece, 8 bytes each.
const PIECE: usize = 8_192;

/// Ticks without news after which a newcomer does without: two seconds.
const PATIENCE: u32 = 40;

/// Ticks without anybody who knows more after which a newcomer does without: half a second, in which others that are late
/// are seen to beat.
const ALONE: u32 = 10;

/// Ticks between looks at what another giver may have left behind.
const SWEEP: u32 = 20;

/// More pieces than an index can have; bounds what a wrong number makes us do.
const MOST_PIECES: u32 = 1 << 16;

/// What can be handed over.
pub trait Known {
    /// The lists there are, of one endpoint and one producer each; `None` past the last. Hashes
    /// are given in the order of their use, those used last at the end.
    fn list(&self, number: usize, hashes: &mut Vec<u64>) -> Option<Placement>;
}

/// What the head says of the pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Head {
    /// Tells one handover from another.
    edition: u64,
    /// Whose prompts are cut so.
    cut: u64,
    /// Pieces so far.
    pieces: u32,
    /// Whether there are no more.
    done: bool,
    /// Whom it is for: others may miss what was placed between its beginning and their own.
    askers: Vec<u64>,
}

impl Head {
    fn pack(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.u64(self.edition);
        writer.u64(self.cut);
        writer.u32(self.pieces);
        writer.u32(u32::from(self.done));
        writer.u32(self.askers.len() as u32);
        self.askers.iter().for_each(|asker| writer.u64(*asker));
        writer.seal()
    }

    fn unpack(value: &[u8]) -> Option<Self> {
        let mut reader = Reader::open(value)?;
        Some(Self {
            edition: reader.u64()?,
            cut: reader.u64()?,
            pieces: reader.u32()?.min(MOST_PIECES),
            done: reader.u32()? != 0,
            askers: {
                let count = reader.u32()?;
                reader.numbers(count as usize)?.collect()
            },
        })
    }
}

/// One VM's part in handovers: it asks, gives, or neither.
#[derive(Debug)]
pub struct Handover {
    base: String,
    own: u64,
    asking: Option<Asking>,
    giving: Option<Giving>,
    editions: u64,
    idle: u32,
}

#[derive(Debug, Default)]
struct Asking {
    edition: u64,
    read: u32,
    waited: u32,
    alone: u32,
}

#[derive(Debug)]
struct Giving {
    head: Head,
    /// The list that comes next.
    list: usize,
    /// The hashes of one list.
    hashes: Vec<u64>,
    /// Pieces that there are, of any edition.
    most: u32,
}

impl Handover {
    /// Of a VM that has just started; `own` tells it from the others.
    pub fn new(base: String, own: u64) -> Self {
        Self {
            base,
            own,
            asking: Some(Asking::default()),
            giving: None,
            editions: 0,
            idle: 0,
        }
    }

    /// Whether this VM asks for the others' index.
    pub fn asks(&self) -> bool {
        self.asking.is_some()
    }

    /// Whether there is somebody who knows more. Where all ask, all have just started.
    pub fn hope(&mut self, somebody: bool) {
        let Some(asking) = self.asking.as_mut() else {
            return;
        };
        asking.alone = if somebody { 0 } else { asking.alone + 1 };
        if asking.alone >= ALONE {
            self.asking = None;
        }
    }

    /// It is not asked for any more.
    pub fn do_without(&mut self) {
        self.asking = None;
    }

    /// Another VM gives.
    pub fn leave_it(&mut self) {
        self.giving = None;
    }

    /// Hands over a part of what is known while there are askers, else clears away what was handed
    /// over. With another asker it begins anew.
    pub fn give(&mut self, askers: &[u64], cut: u64, known: &dyn Known, host: &mut dyn Store) {
        if askers.is_empty() {
            self.clear_away(host);
            return;
        }
        let known_to = |giving: &Giving| {
            let mut askers = askers.iter();
            askers.all(|asker| giving.head.askers.contains(asker))
        };
        if !self.giving.as_ref().is_some_and(known_to) {
            self.begin(askers, cut, host);
        }
        let Some(giving) = self.giving.as_mut() else {
            return;
        };
        let mut room = PER_TICK;
        while room > 0 && !giving.head.done {
            giving.hashes.clear();
            let Some(run) = known.list(giving.list, &mut giving.hashes) else {
                giving.head.done = true;
                break;
            };
            giving.list += 1;
            room = room.saturating_sub(giving.hashes.len().max(1));
            for hashes in giving.hashes.chunks(PIECE) {
                let mut writer = Writer::default();
                writer.u64(giving.head.edition);
                write_run(&mut writer, run, hashes);
                let key = format!("{}/index/{}", self.base, giving.head.pieces);
                host.set(&key, &writer.seal(), None);
                giving.head.pieces += 1;
                giving.most = giving.most.max(giving.head.pieces);
            }
        }
        host.set(&format!("{}/index", self.base), &giving.head.pack(), None);
    }

    fn begin(&mut self, askers: &[u64], cut: u64, host: &mut dyn Store) {
        self.editions += 1;
        let before = host.get(&format!("{}/index", self.base));
        let before = before.and_then(|(value, _)| Head::unpack(&value));
        let before = before.map_or(0, |head| head.pieces);
        let most = self.giving.as_ref().map_or(0, |giving| giving.most);
        self.giving = Some(Giving {
            head: Head {
                edition: self.own.wrapping_add(self.editions),
                cut,
                pieces: 0,
                done: false,
                askers: askers.to_vec(),
            },
            list: 0,
            hashes: Vec::new(),
            most: most.max(before),
        });
    }

    /// Empties the pieces: this VM's, and those of a giver that is gone.
    fn clear_away(&mut self, host: &mut dyn Store) {
        let given = self.giving.take();
        self.idle += 1;
        if given.is_none() && self.idle < SWEEP {
            return;
        }
        self.idle = 0;
        let key = format!("{}/index", self.base);
        let head = host.get(&key).and_then(|(value, _)| Head::unpack(&value));
        let Some(head) = head.filter(|head| head.pieces > 0) else {
            return;
        };
        for piece in 0..given.map_or(0, |given| given.most).max(head.pieces) {
            host.set(&format!("{key}/{piece}"), &[], None);
        }
        let none = Head {
            pieces: 0,
            askers: Vec::new(),
            ..head
        };
        host.set(&key, &none.pack(), None);
    }

    /// Takes over a part of what another VM gives. What is torn or foreign is counted.
    pub fn ask(
        &mut self,
        cut: u64,
        host: &mut dyn Store,
        foreign: &mut u64,
        take: &mut dyn FnMut(Placement, &mut dyn Iterator<Item = u64>),
    ) {
        let Some(asking) = self.asking.as_mut() else {
            return;
        };
        asking.waited += 1;
        if asking.waited > PATIENCE {
            self.asking = None;
            return;
        }
        let head = host.get(&format!("{}/index", self.base));
        let head = head.map(|(value, _)| Head::unpack(&value));
        if head == Some(None) {
            *foreign += 1;
            return;
        }
        let Some(head) = head.flatten() else {
            return;
        };
        if head.cut != cut || !head.askers.contains(&self.own) {
            return;
        }
        if asking.edition != head.edition {
            asking.edition = head.edition;
            asking.read = 0;
        }
        let mut room = PER_TICK;
        while asking.read < head.pieces && room > 0 {
            let piece = host.get(&format!("{}/index/{}", self.base, asking.read));
            let value = piece.map(|(value, _)| value).unwrap_or_default();
            let Some(mut reader) = Reader::open(&value) else {
                // It may be whole with the next tick; if not, the patience ends. Another giver may
                // be about to begin anew where it is empty.
                *foreign += u64::from(!value.is_empty());
                break;
            };
            if reader.u64() != Some(head.edition) {
                // Another giver has begun.
                break;
            }
            asking.read += 1;
            asking.waited = 0;
            room = room.saturating_sub(read_run(&mut reader, take).unwrap_or(0).max(1));
        }
        if head.done && asking.read >= head.pieces {
            self.asking = None;
        }
    }
}

//! The VMs of one Envoy find each other: each takes a numbered seat in shared data and beats there.
//!
//! What a VM posts at its seat is small and absolute: that it lives, how far its journal goes, and
//! what it has in flight. A seat whose post stays the same for twenty ticks is cleared by whoever
//! sees it first, whatever became of its VM: what it posted counts no more, and a newcomer may take
//! it, so that VMs that come and go leave nothing behind. No clock is involved.

use super::pack::{Reader, Writer};
use super::Store;
use epp_core::picker::load::EndpointLoad;

/// Ticks without a beat after which a seat is empty: a second at 50 ms.
pub const PATIENCE: u32 = 20;

/// Seats looked at: more than workers that any machine gives an Envoy.
const SEATS: u32 = 256;

/// Looks at something torn before it is given up.
pub const TRIES: u32 = 4;

/// A version that no value has: with it a key is set only where it is missing.
const MISSING: Option<u32> = Some(u32::MAX);

/// Endpoints in one post; more than any pool has.
const MOST_LOADS: u32 = 65_536;

/// What a VM posts at its seat.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Post {
    /// Tells prefix blocks of equal cut: journals of VMs that cut otherwise mean nothing here.
    pub cut: u64,
    /// Whether it asks for the others' index.
    pub asks: bool,
    /// Whether it serves requests.
    pub serves: bool,
    /// Segments of its journal written so far.
    pub written: u64,
    /// Requests that it holds and has not decided.
    pub held: u32,
    /// What it has in flight.
    pub loads: Vec<EndpointLoad>,
}

/// What is known of one seat.
#[derive(Debug, Default)]
pub struct Seat {
    /// Who sits there; 0: nobody known.
    pub owner: u64,
    /// What was posted last.
    pub post: Post,
    /// Segments of its journal that were read.
    pub read: u64,
    /// How often in a row the segment that comes next was torn.
    pub stuck: u32,
    version: u32,
    /// Looks for which the post was the same.
    unchanged: u32,
    /// Whether a change was seen between two looks.
    glanced: bool,
    /// Whether it was ever seen to beat.
    beats: bool,
    /// Looks in a row that found something torn or foreign.
    torn: u32,
}

impl Seat {
    /// Whether somebody beats there.
    pub fn is_live(&self) -> bool {
        self.owner != 0 && self.beats && self.unchanged < PATIENCE
    }

    /// Whether who sits there has just beaten: a look or two late at most.
    pub fn is_quick(&self) -> bool {
        self.is_live() && self.unchanged <= 2
    }
}

impl Seat {
    /// Takes in what is posted there now. Whether what is in flight is news to the VM `own`; what
    /// is foreign or torn is counted.
    fn read(&mut self, value: &[u8], own: u64, foreign: &mut u64) -> bool {
        let torn = std::mem::take(&mut self.torn);
        match unpack(value) {
            _ if value == vacant() => {
                let version = self.version;
                *self = Self {
                    version,
                    ..Self::default()
                };
            }
            Some((owner, _, _)) if owner == own => self.owner = owner,
            Some((owner, _, post)) => {
                if self.owner != owner {
                    self.owner = owner;
                    self.read = 0;
                }
                let news = self.post.loads != post.loads;
                self.post = post;
                return news;
            }
            None => {
                *foreign += 1;
                self.torn = torn + 1;
                if self.torn < TRIES {
                    // It is read once more, whether or not it changes.
                    self.version = 0;
                } else {
                    self.owner = 0;
                }
            }
        }
        false
    }
}

/// One VM's view of the seats, and its own.
#[derive(Debug)]
pub struct Seats {
    base: String,
    own: u64,
    seat: Option<u32>,
    beat: u64,
    seats: Vec<Seat>,
    /// Whether the seats were looked at before: one that is new then has just been taken.
    looked: bool,
}

impl Seats {
    /// A view under these keys; `own` tells this VM from the others.
    pub fn new(base: String, own: u64) -> Self {
        Self {
            base,
            own,
            seat: None,
            beat: 0,
            seats: Vec::new(),
            looked: false,
        }
    }

    /// This VM's number.
    pub fn own(&self) -> u64 {
        self.own
    }

    /// This VM's seat, once it has one.
    pub fn seat(&self) -> Option<u32> {
        self.seat
    }

    /// The other seats, with their numbers.
    pub fn others(&mut self) -> impl Iterator<Item = (u32, &mut Seat)> {
        let own = self.seat;
        let seats = (0..).zip(&mut self.seats);
        seats.filter(move |(number, _)| Some(*number) != own)
    }

    /// The others that beat.
    pub fn live(&self) -> impl Iterator<Item = &Seat> {
        let own = self.seat;
        let others = (0..)
            .zip(&self.seats)
            .filter(move |(number, _)| Some(*number) != own);
        others.map(|(_, seat)| seat).filter(|seat| seat.is_live())
    }

    /// Looks at all seats. Returns whether anything changed that somebody else posted; what is
    /// foreign or torn is counted.
    pub fn look(&mut self, host: &mut dyn Store, foreign: &mut u64) -> bool {
        let mut news = false;
        for number in 0..SEATS {
            let key = self.key(number);
            let Some((value, version)) = host.get(&key) else {
                break;
            };
            let fresh = self.seats.len() <= number as usize;
            if fresh {
                self.seats.push(Seat::default());
            }
            let looked = self.looked;
            let Some(seat) = self.seats.get_mut(number as usize) else {
                break;
            };
            let lived = seat.is_live();
            let glanced = std::mem::take(&mut seat.glanced);
            if !fresh && seat.version == version {
                if glanced {
                    continue;
                }
                seat.unchanged = seat.unchanged.saturating_add(1);
                news |= lived != seat.is_live();
                if seat.unchanged == PATIENCE && value != vacant() {
                    host.set(&key, &vacant(), Some(version));
                }
                continue;
            }
            seat.version = version;
            seat.unchanged = 0;
            seat.beats = !fresh || looked;
            news |= seat.read(&value, self.own, foreign) || lived != seat.is_live();
        }
        self.looked = true;
        if let Some(own) = self.seat {
            let sits = self.seats.get(own as usize);
            if sits.is_none_or(|seat| seat.owner != self.own) {
                // This VM was silent for so long that another one took its seat.
                self.seat = None;
            }
        }
        news
    }

    /// Looks between two ticks at the seats that are known. Nobody's silence is counted, since those who
    /// beat do so with their ticks. Returns whether anything changed that somebody else posted.
    pub fn glance(&mut self, host: &mut dyn Store, foreign: &mut u64) -> bool {
        let mut news = false;
        for (number, seat) in (0..).zip(&mut self.seats) {
            let Some((value, version)) = host.get(&key(&self.base, number)) else {
                break;
            };
            if seat.version != version {
                seat.version = version;
                seat.unchanged = 0;
                seat.glanced = true;
                news |= seat.read(&value, self.own, foreign);
            }
        }
        news
    }

    /// Takes a seat, if this VM has none: the first that is empty or missing. Whether it has one.
    pub fn sit(&mut self, host: &mut dyn Store) -> bool {
        if self.seat.is_some() {
            return true;
        }
        let known = self.seats.len() as u32;
        let empty = |seat: &Seat| seat.owner == 0 && seat.torn == 0 && seat.version != 0;
        let number = (0..).zip(&self.seats).find(|(_, seat)| empty(seat));
        let (number, version) = match number {
            Some((number, seat)) => (number, Some(seat.version)),
            None if known < SEATS => (known, MISSING),
            None => return false,
        };
        let value = pack(self.own, self.beat, &Post::default());
        if host.set(&self.key(number), &value, version) {
            if number == known {
                self.seats.push(Seat::default());
            }
            if let (Some(seat), Some((_, version))) = (
                self.seats.get_mut(number as usize),
                host.get(&key(&self.base, number)),
            ) {
                seat.owner = self.own;
                seat.version = version;
                seat.unchanged = 0;
            }
            self.seat = Some(number);
        }
        self.seat.is_some()
    }

    /// Posts at this VM's seat.
    pub fn post(&mut self, post: &Post, host: &mut dyn Store) {
        let Some(number) = self.seat else {
            return;
        };
        self.beat += 1;
        let version = self.seats.get(number as usize).map(|seat| seat.version);
        let value = pack(self.own, self.beat, post);
        if !host.set(&self.key(number), &value, version) {
            self.seat = None;
        }
    }

    fn key(&self, number: u32) -> String {
        key(&self.base, number)
    }
}

/// What is posted at the seats under these keys, to one who has none: number, owner, beat and post.
pub fn posted(base: &str, host: &mut dyn Store) -> Vec<(u32, u64, u64, Post)> {
    let values = (0..SEATS).map_while(|number| Some((number, host.get(&key(base, number))?.0)));
    values
        .filter_map(|(number, value)| {
            let (owner, beat, post) = unpack(&value)?;
            Some((number, owner, beat, post))
        })
        .collect()
}

/// Key of the numbered seat's post.
pub fn key(base: &str, number: u32) -> String {
    format!("{base}/seat/{number}")
}

/// What stands at a seat that was cleared.
fn vacant() -> Vec<u8> {
    Writer::default().seal()
}

fn pack(owner: u64, beat: u64, post: &Post) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.u64(owner);
    writer.u64(beat);
    writer.u64(post.cut);
    writer.u32(u32::from(post.asks) | u32::from(post.serves) << 1);
    writer.u64(post.written);
    writer.u32(post.held);
    writer.u32(post.loads.len() as u32);
    for load in &post.loads {
        writer.u32(load.slot);
        writer.u32(load.tag);
        writer.u32(load.requests);
        writer.u32(load.unseen);
        writer.u32(load.scraped);
        writer.u64(load.tokens);
    }
    writer.seal()
}

/// Who posted, how often so far, and what.
fn unpack(value: &[u8]) -> Option<(u64, u64, Post)> {
    let mut reader = Reader::open(value)?;
    let (owner, beat) = (reader.u64()?, reader.u64()?);
    let mut post = Post {
        cut: reader.u64()?,
        ..Post::default()
    };
    let flags = reader.u32()?;
    post.asks = flags & 1 != 0;
    post.serves = flags & 2 != 0;
    post.written = reader.u64()?;
    post.held = reader.u32()?;
    for _ in 0..reader.u32()?.min(MOST_LOADS) {
        post.loads.push(EndpointLoad {
            slot: reader.u32()?,
            tag: reader.u32()?,
            requests: reader.u32()?,
            unseen: reader.u32()?,
            scraped: reader.u32()?,
            tokens: reader.u64()?,
        });
    }
    Some((owner, beat, post))
}

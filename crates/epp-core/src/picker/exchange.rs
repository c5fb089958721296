//! What the picker knows of one request.

use std::ops::Range;

use super::explain::Explanation;
use super::naming::Naming;
use super::outcome::ResponseState;
use super::{BodyDemand, Rewrite};
use crate::config::Plan;
use crate::plugins::proxy::envoy_proxy::ReadBody;
use crate::prefix::key::Key;
use crate::prefix::walk::Walk;
use crate::request::{readable, Api, BodyReader, TextBuffer, TAIL};
use crate::response::ResponseReader;
use crate::scheduling::{Pool, Slot, TargetRole};

use smallvec::SmallVec;

/// A request's headers, as far as they matter.
#[derive(Debug, Clone, Copy, Default)]
pub struct Head<'a> {
    /// `:path`.
    pub path: &'a [u8],
    /// `:method`.
    pub method: &'a [u8],
    /// `content-type`.
    pub content_type: &'a [u8],
    /// `content-encoding`.
    pub content_encoding: &'a [u8],
    /// Whether it asks for another protocol.
    pub upgrade: bool,
    /// Whether the client asks why the endpoint was picked.
    pub explain: bool,
    /// `content-length`, where the client says it.
    pub content_length: Option<usize>,
    /// The model to ask for instead of the client's.
    pub rewrite: &'a [u8],
    /// The model, where something in front of this filter has read it.
    pub model: &'a [u8],
    /// Whether no body follows.
    pub end: bool,
}

/// What is wanted next of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Nothing, for now.
    Nothing,
    /// These bytes, which follow those that were read.
    Next(Range<usize>),
    /// These of its last bytes.
    Tail(Range<usize>),
    /// Nothing until the body ends or stops coming: it may be left unread until then.
    Later,
    /// What follows those that were read, and the host does not have it any more.
    Lost,
}

/// The least that is taken over of a body in one go, and how much more than the window has room
/// for: keys, roles and escapes stand around the text.
const MIN_READ: usize = 4 << 10;

/// The most: longer windows than this come in pieces, each of which stays in the nearest cache.
const MAX_READ: usize = 64 << 10;

/// Where an exchange stands.
#[derive(Debug, Default)]
pub enum Phase {
    /// It is held while its body is read.
    Reading(Hold),
    /// It was sent to endpoints of the pool.
    Sent(Targets),
    /// No endpoint of the pool has it: it is new, was answered here, or was left to the host's own load
    /// balancing.
    #[default]
    Unsent,
}

/// The endpoints that serve a request, the primary one first: nearly always that alone.
pub type Targets = SmallVec<[Target; 1]>;

/// What becomes of the part of a body that was not read because only the model is missing, which can be
/// read from the body's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// It may be left.
    Allowed,
    /// It was left for this many ticks.
    Left(u8),
    /// The body stopped coming, or its end did not tell the model: everything is read.
    Never,
}

/// A request that the host holds.
#[derive(Debug, Clone, Copy)]
pub struct Hold {
    /// How its body is to be shown.
    pub demand: BodyDemand,
    /// When its headers came, by the picker's own clock ([`super::Picker::elapsed`]).
    pub since: u64,
    /// When its last bytes came, read or not.
    pub last_arrival: u64,
    /// Bytes of its body that have come, read or not.
    pub arrived: usize,
    /// Bytes of its body beyond which it is decided with what is known.
    pub max_bytes: usize,
    /// What becomes of what needs not be read yet.
    pub unread: Unread,
    /// Whether the body was read to its end.
    pub ended: bool,
    /// Whether the model was replaced in the body already.
    pub rewritten: bool,
}

/// Bytes a second that a body brings at least, from its headers on. Slower than any network that
/// carries HTTP (GPRS: 2 to 5 KB), far faster than a client that sends a byte now and then to be
/// waited for.
const MIN_BYTES_PER_SECOND: u64 = 1 << 10;

/// A body is waited for this many times as long as one that has stopped.
const MAX_HOLD_TIMEOUTS: u64 = 6;

impl Hold {
    /// The time up to which it has paid for being held, where one that brings nothing is held for
    /// `timeout`: as far as its bytes reach at [`MIN_BYTES_PER_SECOND`], not beyond the last of them, and
    /// not without end. With `timeout` after that it is due; of all, the one that has paid least goes
    /// first. It only grows, and no request has paid beyond the present: the newcomer is never the
    /// first to go.
    pub fn paid(&self, timeout: u64) -> u64 {
        let bought = (self.arrived as u64).saturating_mul(1_000_000_000 / MIN_BYTES_PER_SECOND);
        let most = timeout.saturating_mul(MAX_HOLD_TIMEOUTS - 1);
        let reached = self.since.saturating_add(bought.min(most));
        reached.min(self.last_arrival)
    }

    /// This many bytes of its body have come by `now`.
    fn record_arrival(&mut self, arrived: usize, now: u64) {
        if arrived > self.arrived {
            self.arrived = arrived;
            self.last_arrival = self.last_arrival.max(now);
        }
    }
}

/// How a body is held, and up to how many bytes.
///
/// One that says that it fits Envoy's limit is held as a whole, to its end where need be. One that
/// is longer, or does not say, is shown in passing, and decided well below the limit: where Envoy
/// stops reading nothing more would come.
fn hold(head: &Head<'_>, plan: &Plan, now: u64) -> Hold {
    let limit = plan.proxy.decide_after_bytes;
    let fits = head.content_length.is_some_and(|length| length <= limit);
    let (demand, max_bytes) = if fits {
        (BodyDemand::Replayable, usize::MAX)
    } else {
        (BodyDemand::Streaming, limit / 4 * 3)
    };
    Hold {
        demand,
        since: now,
        last_arrival: now,
        arrived: 0,
        max_bytes,
        unread: Unread::Allowed,
        ended: false,
        rewritten: false,
    }
}

/// An endpoint that serves a request, and what is counted for it there.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its slot.
    pub slot: Slot,
    /// Which stay of an endpoint in that slot it is.
    pub tenure: u32,
    /// What it does for the request.
    pub role: TargetRole,
    /// The endpoint's scrape count when the request was sent to it.
    pub scrapes: u32,
    /// Whether it still counts as sent and not answered.
    pub unseen: bool,
    /// Tokens that it still costs the endpoint.
    pub tokens: u64,
}

/// One request. The buffers are kept from request to request.
#[derive(Debug, Default)]
pub struct Exchange {
    /// Reads its body.
    pub reader: BodyReader,
    /// Bytes of the body that were read, from its first on.
    pub position: usize,
    /// One walk per prefix producer of the plan.
    pub walks: Vec<Walk>,
    /// How often the reader had restarted the prompt when it was walked last.
    pub restarts: u32,
    /// Whether the indexes learn of it.
    pub updates_indexes: bool,
    /// The bytes of its memory that the VM's budget has counted.
    pub counted: usize,
    /// Under which names its model goes.
    pub naming: Naming,
    /// Where it stands.
    pub phase: Phase,
    /// Its model's name, if that gets statistics of its own once an endpoint answers it well.
    pub candidate: String,
    /// What is known of its answer.
    pub response: ResponseState,
    /// Reads its answer.
    pub usage: ResponseReader,
    /// Whether the client asks why.
    pub explain: bool,
    /// Why, once it was decided.
    pub explanation: Option<Explanation>,
}

impl Exchange {
    /// Begins a request, `now` in nanoseconds since 1970, `elapsed` by the picker's own clock.
    pub fn open(
        &mut self,
        head: &Head<'_>,
        plan: &Plan,
        key: &Key,
        pool: &Pool,
        (now, elapsed): (u64, u64),
    ) {
        self.phase = Phase::Unsent;
        self.response = ResponseState::of(now, !head.end);
        self.explanation = None;
        self.candidate.clear();
        self.restarts = 0;
        self.explain = head.explain && plan.proxy.explain;
        self.walks.resize_with(plan.producers.len(), Walk::default);
        self.walks.iter_mut().for_each(Walk::reset);
        let api = Api::of_path(head.path);
        self.reader.reset(api, plan.read_plan(pool, key));
        self.position = 0;
        self.updates_indexes = true;
        self.naming.reset(head);
        if reads(head, plan, api) {
            self.phase = Phase::Reading(hold(head, plan, elapsed));
        } else {
            self.reader.finish();
        }
    }

    /// Returns how it is held, if it is.
    pub fn hold(&self) -> Option<&Hold> {
        match &self.phase {
            Phase::Reading(hold) => Some(hold),
            Phase::Sent(_) | Phase::Unsent => None,
        }
    }

    /// The same, to change.
    pub fn hold_mut(&mut self) -> Option<&mut Hold> {
        match &mut self.phase {
            Phase::Reading(hold) => Some(hold),
            Phase::Sent(_) | Phase::Unsent => None,
        }
    }

    /// Returns whether it is held.
    pub fn is_held(&self) -> bool {
        self.hold().is_some()
    }

    /// Returns whether it is held by a host that can show all of its body once more.
    fn is_replayable(&self) -> bool {
        let demand = self.hold().map(|hold| hold.demand);
        demand == Some(BodyDemand::Replayable)
    }

    /// Returns the endpoints that serve it.
    pub fn targets(&self) -> &[Target] {
        match &self.phase {
            Phase::Sent(targets) => targets,
            Phase::Reading(_) | Phase::Unsent => &[],
        }
    }

    /// The same, to change.
    pub fn targets_mut(&mut self) -> &mut [Target] {
        match &mut self.phase {
            Phase::Sent(targets) => targets,
            Phase::Reading(_) | Phase::Unsent => &mut [],
        }
    }

    /// Returns the endpoint that it was sent to.
    pub fn primary(&self) -> Option<&Target> {
        self.targets().first()
    }

    /// What is to be replaced in the body for the target.
    pub fn rewrite(&self) -> Option<Rewrite> {
        if self.hold().is_some_and(|hold| hold.rewritten) {
            return None;
        }
        let target = &self.naming.target;
        let range = self.reader.model_span();
        let asked = self.reader.model().known().unwrap_or_default();
        let applies = !target.is_empty() && target != asked && !range.is_empty();
        applies.then(|| Rewrite {
            range,
            text: serde_json::Value::from(target.as_str()).to_string(),
        })
    }

    /// Reads the next bytes of the body, at `now` by the picker's own clock; `last` where they are its last.
    pub fn read(&mut self, bytes: &[u8], last: bool, now: u64, buffer: &mut TextBuffer) {
        self.position = self.position.saturating_add(bytes.len());
        let position = self.position;
        if let Some(hold) = self.hold_mut() {
            hold.record_arrival(position, now);
            hold.ended |= last;
        }
        if self.reader.wants_more() {
            self.reader.push(bytes, buffer);
            if last {
                self.reader.finish();
            }
        }
    }

    /// Reads the last bytes of the body, from its byte `start` on, before what stands between.
    pub fn read_tail(&mut self, start: usize, bytes: &[u8], buffer: &mut TextBuffer) {
        if let Some(hold) = self.hold_mut() {
            hold.unread = Unread::Never;
            hold.ended = true;
        }
        self.reader.push_tail(start, bytes, buffer);
    }

    /// Returns what is wanted next of the body, of which this range is available at `now` by the picker's
    /// own clock; `ended` where that is its end.
    pub fn wanted(&mut self, available: Range<usize>, ended: bool, now: u64) -> Wanted {
        if let Some(hold) = self.hold_mut() {
            // What is left unread has come, too.
            hold.record_arrival(available.end, now);
        }
        let unread = available.end.saturating_sub(self.position);
        if unread == 0 || !self.reader.wants_more() {
            return Wanted::Nothing;
        }
        if self.position < available.start {
            return Wanted::Lost;
        }
        let next = |bytes: usize| Wanted::Next(self.position..self.position + unread.min(bytes));
        if self.may_leave_unread() {
            return match ended {
                // To read little more than its end saves nothing.
                true if unread > 2 * TAIL => Wanted::Tail(available.end - TAIL..available.end),
                true => next(unread),
                false => Wanted::Later,
            };
        }
        let room = self.reader.room();
        let room = room.saturating_add(room / 8).saturating_add(MIN_READ);
        next(room.min(MAX_READ))
    }

    /// Returns whether what comes may be left unread until the body ends or stops coming.
    fn may_leave_unread(&self) -> bool {
        let unread = self.hold().map(|hold| hold.unread);
        self.is_replayable()
            && unread.is_some_and(|unread| unread != Unread::Never)
            && self.reader.wants_only_model()
    }

    /// Returns which part of a held body is to be read once more.
    pub fn wanted_again(&self) -> Option<Range<usize>> {
        if !self.is_replayable() {
            return None;
        }
        self.reader.reread()
    }

    /// The body is not waited for.
    pub fn skip_body(&mut self) {
        self.phase = Phase::Unsent;
        self.reader.finish();
    }

    /// Returns whether its body had not been read to its end when it was decided.
    pub fn is_early(&self) -> bool {
        match self.hold() {
            Some(hold) => !hold.ended,
            None => self.response.bodied,
        }
    }

    /// Returns the bytes of memory that it has allocated, as far as clients size it.
    pub fn allocated(&self) -> usize {
        let walks = self.walks.iter().map(Walk::allocated).sum::<usize>();
        let explanation = self.explanation.as_ref().map(Explanation::allocated);
        let read = self.reader.allocated() + walks + self.naming.allocated();
        read + explanation.unwrap_or_default()
    }

    /// Gives back what was read of it, but for what an answer is still to prove.
    pub fn give_back(&mut self) {
        self.reader.give_back();
        self.walks.iter_mut().for_each(Walk::release_memory);
        self.naming = Naming::default();
    }

    /// Nothing more is learnt of this request.
    pub fn stop_reading(&mut self) {
        self.reader.stop();
        self.updates_indexes = false;
        self.walks.iter_mut().for_each(Walk::reset);
    }
}

fn reads(head: &Head<'_>, plan: &Plan, api: Api) -> bool {
    let rewrites = !head.rewrite.is_empty() || !plan.rewrite.is_empty();
    let needs = plan.needs.model || plan.needs.prompt || rewrites;
    let bodiless = head.end || head.upgrade || head.method == b"CONNECT";
    needs
        && !bodiless
        && plan.proxy.read_body != ReadBody::Never
        && api != Api::PassThrough
        && readable(head.content_type, head.content_encoding)
}

//! What the picker knows of one request.

use std::ops::Range;

use super::explain::Explanation;
use super::naming::Naming;
use super::outcome::Answer;
use super::{BodyDemand, Rewrite};
use crate::config::Plan;
use crate::plugins::proxy::envoy_proxy::ReadBody;
use crate::prefix::key::Key;
use crate::prefix::walk::Walk;
use crate::request::{readable, Api, BodyReader, TAIL};
use crate::response::ResponseReader;
use crate::scheduling::{Pool, Slot};

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
    /// The model to ask for in the stead of the client's.
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
    /// What follows those that were read, and the host does not have it any more.
    Lost,
}

/// The least that is taken over of a body in one go, and how much more than the window has room
/// for: keys, roles and escapes stand around the text.
const LEAST: usize = 4 << 10;

/// The most: longer windows than this come in pieces, each of which stays in the nearest cache.
const MOST: usize = 64 << 10;

/// A request that the host holds.
#[derive(Debug, Clone, Copy)]
pub struct Hold {
    /// How its body is to be shown.
    pub demand: BodyDemand,
    /// When its headers came, by the picker's own clock ([`super::Picker::elapsed`]).
    pub since: u64,
    /// When its last bytes came, read or not.
    pub heard: u64,
    /// Bytes of its body that have come, read or not.
    pub arrived: usize,
    /// Bytes of its body that were read.
    pub bytes: usize,
    /// Bytes at which it is decided with what is known.
    pub most: usize,
}

/// Bytes a second that a body brings at least, from its headers on. Slower than any network that
/// carries HTTP (GPRS: 2 to 5 KB), far faster than a client that sends a byte now and then to be
/// waited for.
const LEAST_A_SECOND: u64 = 1 << 10;

/// A body is waited for this many times as long as one that has stopped.
const LONGEST_HOLD: u64 = 6;

impl Hold {
    /// The time up to which it has paid for being held, where one that brings nothing is held for
    /// `timeout`: as far as its bytes reach at [`LEAST_A_SECOND`], not beyond the last of them, and
    /// not without end. With `timeout` after that it is due; of all, the one that has paid least goes
    /// first. It only grows, and no request has paid beyond the present: the newcomer is never the
    /// first to go.
    pub fn paid(&self, timeout: u64) -> u64 {
        let bought = (self.arrived as u64).saturating_mul(1_000_000_000 / LEAST_A_SECOND);
        let most = timeout.saturating_mul(LONGEST_HOLD - 1);
        let reached = self.since.saturating_add(bought.min(most));
        reached.min(self.heard)
    }

    /// So many bytes of its body have come by `now`.
    fn hear(&mut self, arrived: usize, now: u64) {
        if arrived > self.arrived {
            self.arrived = arrived;
            self.heard = self.heard.max(now);
        }
    }
}

/// A request that was released because Envoy had received a part of its body and not shown it.
#[derive(Debug, Clone, Copy)]
pub struct Withheld {
    /// Bytes that Envoy had received.
    pub bytes: u64,
    /// The tick in which it was released.
    pub tick: u64,
}

/// How a body is held, and up to how many bytes.
///
/// One that says that it fits Envoy's limit is held as a whole, to its end where need be. One that
/// is longer, or does not say, is shown in passing, and decided well below the limit: where Envoy
/// stops reading nothing more would come.
fn hold(head: &Head<'_>, plan: &Plan, now: u64) -> Hold {
    let limit = plan.proxy.decide_after_bytes;
    let fits = head.content_length.is_some_and(|length| length <= limit);
    let (demand, most) = if fits {
        (BodyDemand::Replayable, usize::MAX)
    } else {
        (BodyDemand::Streaming, limit / 4 * 3)
    };
    Hold {
        demand,
        since: now,
        heard: now,
        arrived: 0,
        bytes: 0,
        most,
    }
}

/// The endpoint picked for a request.
#[derive(Debug, Clone, Copy)]
pub struct Pick {
    /// Its slot.
    pub slot: Slot,
    /// Which stay of an endpoint in that slot it is.
    pub tenure: u32,
    /// The endpoint's scrape count when the request was sent to it.
    pub scrapes: u32,
    /// Whether the request has not ended.
    pub open: bool,
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
    /// How often the reader had begun the prompt anew when it was walked last.
    pub restarts: u32,
    /// Whether more of its body is wanted. Once it was decided and no more is, what was read of it is
    /// given back.
    pub reading: bool,
    /// Whether the indexes learn of it.
    pub teaches: bool,
    /// The bytes of its memory that the VM's budget has counted.
    pub counted: usize,
    /// Whether its body has ended.
    pub ended: bool,
    /// Whether what comes is left unread until the body ends or stops coming: only the model is
    /// missing, and that can be read from the body's end.
    pub lazy: bool,
    /// For how many ticks something has been left unread so.
    pub unread_ticks: u8,
    /// Under which names its model goes.
    pub naming: Naming,
    /// Whether it was replaced in the body already.
    pub rewritten: bool,
    /// While it is held.
    pub held: Option<Hold>,
    /// Where Envoy had withheld its body, until it shows it.
    pub withheld: Option<Withheld>,
    /// Once it was decided.
    pub pick: Option<Pick>,
    /// Its model's name, if that gets statistics of its own once an endpoint answers it well.
    pub candidate: String,
    /// What is known of its answer.
    pub answer: Answer,
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
        self.held = None;
        self.withheld = None;
        self.pick = None;
        self.answer = Answer::of(now, !head.end);
        self.explanation = None;
        self.candidate.clear();
        self.restarts = 0;
        self.explain = head.explain && plan.proxy.explain;
        self.walks.resize_with(plan.producers.len(), Walk::default);
        self.walks.iter_mut().for_each(Walk::reset);
        let api = Api::of_path(head.path);
        self.reader.reset(api, plan.read_plan(pool, key));
        self.position = 0;
        self.reading = reads(head, plan, api);
        self.teaches = true;
        self.lazy = true;
        self.ended = head.end;
        self.naming.reset(head);
        self.rewritten = false;
        self.unread_ticks = 0;
        if self.reading {
            self.held = Some(hold(head, plan, elapsed));
        } else {
            self.reader.finish();
        }
    }

    /// What is to be replaced in the body for the target.
    pub fn rewrite(&self) -> Option<Rewrite> {
        let target = &self.naming.target;
        let range = self.reader.model_span();
        let asked = self.reader.model().known().unwrap_or_default();
        let applies = !target.is_empty() && target != asked && !range.is_empty();
        (applies && !self.rewritten).then(|| Rewrite {
            range,
            text: serde_json::Value::from(target.as_str()).to_string(),
        })
    }

    /// Reads the next bytes of the body, at `now` by the picker's own clock; `last` where they are its last.
    pub fn read(&mut self, bytes: &[u8], last: bool, now: u64) {
        self.position = self.position.saturating_add(bytes.len());
        if let Some(hold) = self.held.as_mut() {
            hold.bytes = self.position;
            hold.hear(hold.bytes, now);
        }
        self.ended |= last;
        if self.reading {
            self.reader.push(bytes);
            if last {
                self.reader.finish();
            }
            self.reading = self.reader.needs_more();
        }
    }

    /// Reads the last bytes of the body, from its byte `start` on, before what stands between.
    pub fn read_tail(&mut self, start: usize, bytes: &[u8]) {
        self.lazy = false;
        self.ended = true;
        if self.reader.push_tail(start, bytes) {
            self.reading = self.reader.needs_more();
        }
    }

    /// Returns what is wanted next of the body, of which this range is available at `now` by the picker's
    /// own clock; `ended` where that is its end.
    pub fn wanted(&mut self, available: Range<usize>, ended: bool, now: u64) -> Wanted {
        if let Some(hold) = self.held.as_mut() {
            // What is left unread has come, too.
            hold.hear(available.end, now);
        }
        let unread = available.end.saturating_sub(self.position);
        if unread == 0 || !self.reading {
            return Wanted::Nothing;
        }
        if self.position < available.start {
            return Wanted::Lost;
        }
        let replayable = |hold: Hold| hold.demand == BodyDemand::Replayable;
        if self.held.is_some_and(replayable) && self.lazy && self.reader.wants_only_model() {
            self.unread_ticks = u8::from(!ended);
            return match ended {
                // To read little more than its end saves nothing.
                true if unread > 2 * TAIL => Wanted::Tail(available.end - TAIL..available.end),
                true => Wanted::Next(self.position..available.end),
                false => Wanted::Nothing,
            };
        }
        let room = self.reader.room();
        let room = room.saturating_add(room / 8).saturating_add(LEAST);
        let most = unread.min(room).min(MOST);
        Wanted::Next(self.position..self.position + most)
    }

    /// Returns which part of a held body is to be read once more.
    pub fn wanted_again(&self) -> Option<Range<usize>> {
        self.held
            .filter(|hold| hold.demand == BodyDemand::Replayable)?;
        self.reader.reread()
    }

    /// Reads once more what [`Self::wanted_again`] asked for.
    pub fn read_again(&mut self, start: usize, bytes: &[u8]) {
        self.reader.feed_again(start, bytes);
        self.reading = self.reader.needs_more();
    }

    /// The body is not waited for.
    pub fn let_go(&mut self) {
        self.held = None;
        self.reading = false;
        self.reader.finish();
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
        self.reader = BodyReader::default();
        self.walks.iter_mut().for_each(Walk::give_back);
        self.naming = Naming::default();
    }

    /// Nothing more is learnt of this request.
    pub fn stop_reading(&mut self) {
        self.reading = false;
        self.teaches = false;
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

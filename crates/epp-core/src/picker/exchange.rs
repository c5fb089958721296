//! A request and its response, as the picker records them.

mod table;
mod ticket;

pub use self::table::Exchanges;
use self::ticket::Ticket;

use std::ops::Range;
use std::sync::Arc;

use super::decide::Bounds;
use super::explain::Explanation;
use super::hold::{Hold, Unread};
use super::load_reports::LoadAsked;
use super::naming::Naming;
use super::response::ResponseState;
use super::{BodyDemand, ExchangeId, Head, Rewrite};
use crate::config::settings::ReadBody;
use crate::config::Plan;
use crate::prefix::digest::chain;
use crate::prefix::key::Key;
use crate::prefix::walk::Walk;
use crate::request::{readable, Api, BodyReader, Fact, TextBuffer, TAIL};
use crate::response::ResponseReader;
use crate::scheduling::{ByRole, HeaderValues, Pool, Slot};
use crate::time::Instant;

/// The part of a body that is wanted next.
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
    /// The bytes after those that were read are wanted, and the host does not have them any more.
    Lost,
    /// Nothing more will be read of it, and its request is still held: that is to be decided.
    Decision,
}

/// Bytes of a body that are read in one go at least, and how many more than the window has room for: keys,
/// roles and escapes surround the text.
const MIN_READ_BYTES: usize = 4 << 10;

/// Bytes of a body that are read in one go at most: what longer windows take comes in pieces, each of which stays
/// in the nearest cache.
const MAX_READ_BYTES: usize = 64 << 10;

/// The phase of an exchange. It only moves down this list.
#[derive(Debug, Default)]
enum Phase {
    /// It is held while its body is read.
    Reading(Hold),
    /// It is decided in the event at hand: nothing of its body is waited for.
    #[default]
    Deciding,
    /// It waits in a queue for an endpoint. The host holds it as before; what comes of its body is read on.
    Queued(Hold),
    /// It was decided in a dry run, and left to the host: the address of the endpoint that would have been picked.
    Left(Option<Arc<str>>),
    /// It was sent to endpoints of the pool.
    Sent(ByRole<Target>),
    /// No endpoint of the pool serves it: it has ended, it got a local reply, or it was left to the host's own
    /// load balancing.
    Done,
}

/// An endpoint that serves a request, and what is counted for it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Its slot.
    pub slot: Slot,
    /// The number of the endpoint among those of its slot.
    pub tenure: u32,
    /// The endpoint's scrape count when the request was sent to it.
    pub scrapes: u32,
    /// Whether it still counts as sent without a response.
    pub unseen: bool,
    /// Tokens that it still costs the endpoint, as far as it was read; none once its prompt was computed, where no
    /// output is counted.
    pub tokens: Option<u64>,
}

/// One request. The buffers are kept from request to request.
#[derive(Debug, Default)]
pub struct Exchange {
    /// Its number, which the host has chosen.
    pub id: ExchangeId,
    /// Reads its body.
    pub reader: BodyReader,
    /// Bytes of the body that were read, from its first on.
    pub position: usize,
    /// One walk per prefix producer of the plan.
    pub walks: Vec<Walk>,
    /// How often the reader had restarted the prompt when it was walked last.
    pub restarts: u32,
    /// Whether its blocks are added to the indexes.
    pub updates_indexes: bool,
    /// The bytes of its memory that the budget has counted.
    pub counted_bytes: usize,
    /// The values of the headers that the plan's plugins read.
    pub headers: HeaderValues,
    /// Random bits for its plugins, if the plan needs any.
    pub draw: u64,
    /// The bounds of its prompt at which choices last differed.
    pub(super) differed_at: Option<Bounds>,
    /// How often they were compared.
    #[cfg(test)]
    pub comparisons: usize,
    /// Its model's names.
    pub naming: Naming,
    /// The priority to be written into its body.
    pub priority: Option<i32>,
    /// The port that it was sent to instead of its primary endpoint's own.
    pub port: Option<u16>,
    /// Whether it is decided and left as it is, whatever the plan in force says by then.
    pub is_dry_run: bool,
    /// Its phase.
    phase: Phase,
    /// What flow control has on record of it.
    pub ticket: Ticket,
    /// Its model's name, if that may get statistics of its own once an endpoint has served the request.
    pub proposed_model: String,
    /// The state of its response.
    pub response: ResponseState,
    /// Reads its response.
    pub usage: ResponseReader,
    /// Whether the client has asked for the scores of the decision.
    pub explain: bool,
    /// Those scores, once it was decided.
    pub explanation: Option<Explanation>,
    /// Headers to be set on its response.
    pub response_headers: Vec<(String, String)>,
    /// Who has asked its model server for a load report.
    pub load_asked: LoadAsked,
}

/// The prompt of an exchange, as far as it was read.
pub struct Prompt<'a> {
    /// Those of [`Exchange::walks`].
    pub walks: &'a mut [Walk],
    /// The reader of [`Exchange::reader`].
    pub reader: &'a BodyReader,
}

impl Exchange {
    /// Begins a request at this time.
    pub fn open(
        &mut self,
        id: ExchangeId,
        head: &Head<'_>,
        plan: &Plan,
        (key, pool): (&Key, &Pool),
        now: Instant,
    ) {
        self.id = id;
        self.phase = Phase::Deciding;
        let (api, generates) = Api::look_up(head.path);
        self.response = ResponseState::new(now, !head.end, generates);
        self.explanation = None;
        self.response_headers.clear();
        self.proposed_model.clear();
        self.restarts = 0;
        self.differed_at = None;
        self.port = None;
        self.is_dry_run = plan.settings.dry_run;
        self.ticket.open(head.content_length);
        self.explain = head.explain && plan.settings.explain;
        self.load_asked = LoadAsked::new(head, plan);
        self.walks.resize_with(plan.producers.len(), Walk::default);
        self.walks.iter_mut().for_each(Walk::reset);
        self.reader.reset(api, plan.read_plan(pool, key));
        self.position = 0;
        self.updates_indexes = true;
        self.headers.set(head.headers.iter().copied());
        self.priority = plan.admission.propagated(&self.headers, pool);
        self.naming.reset(head, !plan.reads_bodies());
        if reads(head, plan, api, self.priority.is_some()) {
            let hold = Hold::new(head.content_length, plan.settings.decide_after_bytes, now);
            self.phase = Phase::Reading(match self.is_dry_run {
                true => hold.in_passing(),
                false => hold,
            });
        } else {
            self.reader.finish();
        }
    }

    /// Returns how it is held, if it is.
    pub fn hold(&self) -> Option<&Hold> {
        match &self.phase {
            Phase::Reading(hold) => Some(hold),
            _ => None,
        }
    }

    /// Returns how the host holds it, if it does: while its body is waited for, or in a queue.
    pub fn host_hold(&self) -> Option<&Hold> {
        match &self.phase {
            Phase::Reading(hold) | Phase::Queued(hold) => Some(hold),
            Phase::Deciding | Phase::Left(_) | Phase::Sent(_) | Phase::Done => None,
        }
    }

    /// Returns how the host holds it, if it does, to change.
    pub fn host_hold_mut(&mut self) -> Option<&mut Hold> {
        match &mut self.phase {
            Phase::Reading(hold) | Phase::Queued(hold) => Some(hold),
            Phase::Deciding | Phase::Left(_) | Phase::Sent(_) | Phase::Done => None,
        }
    }

    /// Returns whether it is held for its body.
    pub fn is_held(&self) -> bool {
        self.hold().is_some()
    }

    /// Returns whether it waits in a queue.
    pub fn is_queued(&self) -> bool {
        matches!(self.phase, Phase::Queued(_))
    }

    /// Records that it waits in a queue, and is held like this, unless it was decided before.
    pub fn queue(&mut self, hold: Hold) {
        if self.is_undecided() {
            self.phase = Phase::Queued(hold);
        }
    }

    /// Returns whether it is held by a host that can show all of its body once more.
    fn is_replayable(&self) -> bool {
        let demand = self.host_hold().map(|hold| hold.demand);
        demand == Some(BodyDemand::Replayable)
    }

    /// Returns the endpoints that serve it.
    pub fn targets(&self) -> Option<&ByRole<Target>> {
        match &self.phase {
            Phase::Sent(targets) => Some(targets),
            _ => None,
        }
    }

    /// Returns the endpoints that serve it, to change.
    pub fn targets_mut(&mut self) -> Option<&mut ByRole<Target>> {
        match &mut self.phase {
            Phase::Sent(targets) => Some(targets),
            _ => None,
        }
    }

    /// Returns the endpoints that serve it, to change, with the prompt that was read of it.
    pub fn targets_and_prompt(&mut self) -> Option<(&mut ByRole<Target>, Prompt<'_>)> {
        let Phase::Sent(targets) = &mut self.phase else {
            return None;
        };
        let (walks, reader) = (&mut self.walks, &self.reader);
        Some((targets, Prompt { walks, reader }))
    }

    /// Returns the endpoint that it was sent to.
    pub fn primary(&self) -> Option<&Target> {
        Some(&self.targets()?.primary)
    }

    /// Returns whether it was not decided yet.
    pub fn is_undecided(&self) -> bool {
        matches!(
            self.phase,
            Phase::Reading(_) | Phase::Deciding | Phase::Queued(_)
        )
    }

    /// Records that its body is neither waited for nor read.
    pub fn skip_body(&mut self) {
        if self.is_held() {
            self.phase = Phase::Deciding;
        }
        self.reader.finish();
    }

    /// Records that it is sent to these endpoints, which are given back if it was decided before.
    pub fn send(&mut self, targets: ByRole<Target>) -> Result<(), ByRole<Target>> {
        if !self.is_undecided() {
            return Err(targets);
        }
        self.phase = Phase::Sent(targets);
        Ok(())
    }

    /// Records that a dry run has decided it, for the endpoint at this address if for any.
    pub fn leave_picked(&mut self, picked: Option<Arc<str>>) {
        if self.is_undecided() {
            self.phase = Phase::Left(picked);
        }
    }

    /// Returns what a dry run has decided, until it is known who serves the request.
    pub fn picked(&self) -> Option<Option<&str>> {
        match &self.phase {
            Phase::Left(picked) => Some(picked.as_deref()),
            _ => None,
        }
    }

    /// Records that these endpoints serve it after a dry run; they are given back if none has decided it.
    pub fn serve(&mut self, targets: ByRole<Target>) -> Result<(), ByRole<Target>> {
        if !matches!(self.phase, Phase::Left(_)) {
            return Err(targets);
        }
        self.phase = Phase::Sent(targets);
        Ok(())
    }

    /// Records that no endpoint serves it any more. Returns those that did, each with what it still counts there.
    #[must_use]
    pub fn finish(&mut self) -> Option<ByRole<Target>> {
        match std::mem::replace(&mut self.phase, Phase::Done) {
            Phase::Sent(targets) => Some(targets),
            _ => None,
        }
    }

    /// Returns the replacement in the body for the target, with its priority.
    pub fn rewrite(&self) -> Option<Rewrite> {
        if self.host_hold().is_some_and(|hold| hold.rewritten) {
            return None;
        }
        let range = self.reader.model_span();
        let asked = self.reader.model().known().unwrap_or_default();
        let target = self.naming.target().unwrap_or(asked);
        if range.is_empty() || target == asked && self.priority.is_none() {
            return None;
        }
        let mut text = serde_json::Value::from(target).to_string();
        if let Some(priority) = self.priority {
            text.push_str(",\"priority\":");
            text.push_str(&priority.to_string());
        }
        Some(Rewrite { range, text })
    }

    /// Reads the next bytes of the body, at `now`; `last` where they are its last.
    pub fn read(&mut self, bytes: &[u8], last: bool, now: Instant, buffer: &mut TextBuffer) {
        self.position = self.position.saturating_add(bytes.len());
        let position = self.position;
        if let Some(hold) = self.host_hold_mut() {
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

    /// Returns the model that is requested, as far as it is known.
    pub fn model(&self) -> Fact<&str> {
        self.naming.model(&self.reader)
    }

    /// Returns the hash of the beginning of its prompt, with model and cache salt, if the plan needs it and it was read.
    pub fn anchor(&self) -> Option<u64> {
        let digest = self.reader.anchor()?;
        let model = self.model().known().unwrap_or_default();
        let salt = self.reader.salt().known().unwrap_or_default();
        Some(chain(Key::Plain.seed(model, salt), digest))
    }

    /// Reads the last bytes of the body, from its byte `start` on, before the bytes between.
    pub fn read_tail(&mut self, start: usize, bytes: &[u8], buffer: &mut TextBuffer) {
        if let Some(hold) = self.host_hold_mut() {
            hold.unread = Unread::Never;
            hold.ended = true;
        }
        self.reader.push_tail(start, bytes, buffer);
    }

    /// Returns what is wanted next of the body, of which this range is available at `now`;
    /// `ended` where that is its end.
    pub fn wanted(&mut self, available: Range<usize>, ended: bool, now: Instant) -> Wanted {
        if let Some(hold) = self.host_hold_mut() {
            // What is left unread has come, too.
            hold.record_arrival(available.end, now);
        }
        if !self.reader.wants_more() {
            return match self.is_held() {
                true => Wanted::Decision,
                false => Wanted::Nothing,
            };
        }
        let unread = available.end.saturating_sub(self.position);
        if unread == 0 {
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
        let room = room.saturating_add(room / 8).saturating_add(MIN_READ_BYTES);
        next(room.min(MAX_READ_BYTES))
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

    /// Returns whether its body had not been read to its end when it was decided.
    pub fn is_early(&self) -> bool {
        match self.host_hold() {
            Some(hold) => !hold.ended,
            None => self.response.has_body(),
        }
    }

    /// Returns whether its prompt has added blocks to the indexes that no response has proven.
    pub fn is_doubted(&self) -> bool {
        self.walks.iter().any(Walk::is_unproven)
    }

    /// Returns whether the indexes need its outcome: its prompt has added blocks that no response has proven, or may
    /// still add some.
    pub fn awaits_proof(&self) -> bool {
        self.updates_indexes && self.reader.wants_more() || self.is_doubted()
    }

    /// Returns the bytes of memory that it has allocated, as far as clients size it.
    pub fn allocated(&self) -> usize {
        let walks = self.walks.iter().map(Walk::allocated).sum::<usize>();
        let explanation = self.explanation.as_ref().map(Explanation::allocated);
        let read =
            self.reader.allocated() + walks + self.naming.allocated() + self.headers.allocated();
        read + explanation.unwrap_or_default()
    }

    /// Gives back what was read of it, but for what a response is still to prove.
    pub fn give_back(&mut self) {
        self.reader.give_back();
        self.walks.iter_mut().for_each(Walk::release_memory);
        self.naming = Naming::default();
        self.headers = HeaderValues::default();
    }

    /// Forgets what the indexes hold of it: the blocks that were read are looked up once more.
    pub fn walk_again(&mut self) {
        self.walks.iter_mut().for_each(Walk::reset);
    }

    /// Reads no further, and adds nothing more to the indexes.
    pub fn abandon_prompt(&mut self) {
        self.reader.stop();
        self.updates_indexes = false;
        self.walks.iter_mut().for_each(Walk::reset);
    }
}

fn reads(head: &Head<'_>, plan: &Plan, api: Api, propagates: bool) -> bool {
    let rewrites = !head.rewrite.is_empty() || !plan.rewrite.is_empty() || propagates;
    let needs = plan.needs.model || plan.needs.prompt || rewrites;
    let bodiless = head.end || head.upgrade || head.method == b"CONNECT";
    needs
        && !bodiless
        && plan.settings.read_body != ReadBody::Never
        && api != Api::PassThrough
        && readable(head.content_type, head.content_encoding)
}

//! One request and its response: passes callbacks to the picker, and carries out the picker's effects.

use super::abi::{self, Action, BodyAction, Map, Status};
use super::detached::Detached;
use super::guard::Callback;
use super::headers::Pairs;
use super::pool::Pool;
use super::shown::{PassingBody, Shown};
use epp_core::config::Plan;
use epp_core::picker::{BodyDemand, Effect, ExchangeId, Head, Picker, ResponseOrigin, Rewrite};
use epp_core::time::Timestamp;

/// How far Envoy has passed a request on. The picker's exchange may be gone meanwhile, as after a panic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Passage {
    /// Its headers are shown.
    AtHeaders,
    /// Its headers are kept back, and its body is shown like this.
    Paused(BodyDemand),
    /// It was continued, or got a local reply.
    Over,
}

/// A request and its response on their way through the filter.
pub struct Stream {
    id: ExchangeId,
    /// The place of its pool.
    pub pool: usize,
    passage: Passage,
    /// Bytes that Envoy had buffered when the request was released outside of its own callbacks, until they are sent.
    detached: Option<Detached>,
    /// Whether its body has ended.
    ended: bool,
    shown: Shown,
    /// Bytes of its body that Envoy had received and not shown when it was released for that, and in which
    /// tick, until Envoy shows them.
    withheld: Option<(u64, u64)>,
    /// Whether a part of its response has arrived.
    response_begun: bool,
    /// `content-length`.
    length: Option<usize>,
}

impl Stream {
    /// A request for the pool at this place.
    pub fn new(id: u32, pool: usize) -> Self {
        Self {
            id: ExchangeId(id),
            pool,
            passage: Passage::AtHeaders,
            detached: None,
            ended: false,
            shown: Shown::default(),
            withheld: None,
            response_begun: false,
            length: None,
        }
    }

    /// Returns whether Envoy keeps it back.
    pub fn is_paused(&self) -> bool {
        matches!(self.passage, Passage::Paused(_))
    }

    /// Handles the request's headers. Returns `None` if they cannot be read, for example because no memory is left.
    pub fn request_headers(&mut self, pool: &mut Pool, end: bool) -> Option<()> {
        let packed = abi::header_pairs(Map::Request).ok().flatten()?;
        let (plan, mut values) = (pool.picker.plan(), Vec::new());
        let head = Head::read(plan, Pairs::new(&packed), end, &mut values);
        self.length = head.content_length;
        let spoofed = match plan.settings.dry_run {
            true => Vec::new(),
            false => spoofed(&packed, plan),
        };
        for name in spoofed {
            let _: Result<(), Status> = abi::remove_header(Map::Request, name);
        }
        pool.read_clock();
        pool.hand(|picker, now| picker.request_headers(now, self.id, &head));
        Some(())
    }

    /// Carries out the effects of one of its own callbacks. Returns whether it got a local reply.
    pub fn carry_out(&mut self, effect: &Effect, picker: &mut Picker, now: Timestamp) -> bool {
        match effect {
            Effect::Hold { body, .. } => self.passage = Passage::Paused(*body),
            Effect::ShowBody { .. } => {
                picker.request_body(now, self.id, &mut self.shown.view(false));
            }
            Effect::RewriteBody { rewrite, .. } => self.rewrite(Some(rewrite), picker),
            Effect::SetResponseHeader { name, value, .. } => {
                let _: Result<(), Status> = abi::set_header(Map::Response, name, value.as_bytes());
            }
            Effect::RemoveResponseHeader { name, .. } => {
                let _: Result<(), Status> = abi::remove_header(Map::Response, name);
            }
            Effect::Evict { reply, .. } => {
                super::effects::reply(reply);
            }
            // It went on under the failure mode meanwhile.
            _ if self.passage == Passage::Over => {}
            // Not about requests.
            Effect::Fetch { .. } | Effect::Log { .. } => {}
            Effect::Forward { .. } | Effect::Bypass { .. } | Effect::Reply { .. } => {
                self.rewrite(rewrite_of(effect), picker);
                super::effects::carry_out(effect, picker);
                // Not before: after a panic before this point the request is still held.
                self.passage = Passage::Over;
                return matches!(effect, Effect::Reply { .. });
            }
        }
        false
    }

    /// Carries out the effects outside of its own callbacks. Returns whether Envoy is to resume it now:
    /// if a part of its body is buffered and cannot be set aside, it continues with the next part.
    #[cold]
    pub fn carry_out_late(&mut self, effect: &Effect, picker: &mut Picker, now: Timestamp) -> bool {
        if !effect.is_decision() {
            self.carry_out(effect, picker, now);
            return false;
        }
        match self.passage {
            // It went on under the failure mode meanwhile.
            Passage::AtHeaders | Passage::Over => return false,
            Passage::Paused(BodyDemand::Replayable) => self.rewrite(rewrite_of(effect), picker),
            // What Envoy has shown in passing cannot be changed any more.
            Passage::Paused(BodyDemand::Streaming) => {}
        }
        super::effects::carry_out(effect, picker);
        let replied = matches!(effect, Effect::Reply { .. });
        let buffered = self.let_go();
        !replied && (!buffered || self.detach(picker))
    }

    /// It is not held any more. Returns whether Envoy buffers its body.
    pub fn let_go(&mut self) -> bool {
        let buffered = self.passage == Passage::Paused(BodyDemand::Replayable);
        self.passage = Passage::Over;
        buffered
    }

    /// Sets aside what Envoy has buffered of the body, unless that is all of it. Returns whether the request
    /// can continue at once.
    #[cold]
    pub fn detach(&mut self, picker: &Picker) -> bool {
        if self.shown.size() == 0 || self.ended {
            return true;
        }
        let length = self.length.unwrap_or(0);
        self.detached = Detached::take(self.shown.size(), length, picker.open_account());
        if self.detached.is_some() {
            self.shown.pass();
        }
        self.detached.is_some()
    }

    /// Returns whether the next tick is to call [`Self::reattach`].
    pub fn is_due(&self) -> bool {
        self.detached.as_ref().is_some_and(Detached::is_due)
    }

    /// Gives Envoy back what was set aside of a body that has ended.
    #[cold]
    pub fn reattach(&mut self) {
        if let Some(mut detached) = self.detached.take() {
            detached.give();
        }
    }

    /// Has what was set aside follow, where something was: a part of the body has come, of which Envoy shows
    /// `size` bytes. Returns the action on it.
    pub fn rejoin(&mut self, size: usize, end: bool) -> Option<BodyAction> {
        let detached = self.detached.as_mut()?;
        let action = detached.rejoin(size, end);
        self.drop_empty();
        Some(action)
    }

    /// The body's trailers have come. Returns whether they wait for what was set aside.
    pub fn end_detached(&mut self) -> bool {
        self.detached.as_mut().map(Detached::end).is_some()
    }

    /// A callback about it panicked. Gives Envoy back what was set aside as far as it shows the body now.
    /// Returns whether the request has to wait.
    #[cold]
    pub fn recover(&mut self, callback: Callback) -> bool {
        let waits = match (callback, &mut self.detached) {
            (Callback::RequestBody, Some(detached)) => {
                detached.give_before(self.ended) != BodyAction::Continue
            }
            (Callback::RequestTrailers, _) => self.end_detached(),
            _ => false,
        };
        self.drop_empty();
        waits
    }

    /// Returns whether something is set aside.
    pub fn has_detached(&self) -> bool {
        self.detached.is_some()
    }

    /// Drops the bytes that were set aside once Envoy has them back, without waiting for a tick.
    fn drop_empty(&mut self) {
        self.detached
            .take_if(|detached| detached.is_empty() && !detached.is_due());
    }

    /// Returns whether it is held and no byte of its body was shown.
    pub fn lacks_first_byte(&self) -> bool {
        self.is_paused() && self.shown.is_empty()
    }

    /// It is released because Envoy has received this many bytes of its body and shown none of them.
    pub fn withhold(&mut self, bytes: u64, tick: u64) {
        self.withheld = Some((bytes, tick));
    }

    /// A part of its body has come; `size` is what Envoy shows.
    pub fn request_body(&mut self, pool: &mut Pool, size: usize, end: bool) {
        self.ended = end;
        if let Some((bytes, tick)) = self.withheld.take() {
            // Before any other event: it was there, and only the release has brought it.
            if tick == pool.ticks() && size as u64 >= bytes {
                pool.delivery.withheld(pool.now());
            }
        }
        if self.is_paused() && size > 0 {
            pool.delivery.seen();
        }
        self.shown.show(size);
        #[cfg(test)]
        super::guard::inject("feed");
        let mut view = self.shown.view(end);
        pool.hand(|picker, now| picker.request_body(now, self.id, &mut view));
    }

    /// Returns the action on the part of its body that Envoy shows.
    pub fn pass_body(&mut self, replied: bool) -> BodyAction {
        let action = match self.passage {
            // The request itself goes nowhere.
            _ if replied => BodyAction::Buffer,
            Passage::Paused(BodyDemand::Replayable) => BodyAction::Buffer,
            Passage::Paused(BodyDemand::Streaming) => BodyAction::Watermark,
            Passage::AtHeaders | Passage::Over => BodyAction::Continue,
        };
        if action != BodyAction::Buffer {
            // The shown bytes are forwarded now, or not shown again.
            self.shown.pass();
        }
        action
    }

    /// Handles the request's trailers, which end its body.
    pub fn request_trailers(&mut self, pool: &mut Pool) {
        self.ended = true;
        let mut view = self.shown.view(true);
        pool.hand(|picker, now| picker.request_body(now, self.id, &mut view));
    }

    /// Handles the headers of its response.
    pub fn response_headers(&mut self, pool: &mut Pool) {
        let report = match pool.picker.wants_load_report(self.id) {
            true => super::upstream::load_report(),
            false => None,
        };
        let upstream = pool.picker.wants_upstream(self.id) || report.is_some();
        let upstream = upstream.then(|| {
            let mut upstream = super::upstream::upstream();
            upstream.load_report = report;
            let elsewhere = pool.picker.is_served_elsewhere(self.id, &upstream);
            if elsewhere {
                upstream.attempts = super::upstream::attempts();
            }
            if elsewhere || upstream.origin == ResponseOrigin::NoEndpoint {
                let cluster = abi::property("xds\0cluster_name");
                upstream.cluster = cluster.ok().flatten();
            }
            upstream
        });
        pool.picker
            .response_headers(pool.now(), self.id, upstream.as_ref());
    }

    /// Handles a part of its response.
    pub fn response_body(&mut self, pool: &mut Pool, size: usize) {
        let now = match std::mem::replace(&mut self.response_begun, true) {
            true => pool.now(),
            // The time until a response begins is measured.
            false => pool.read_clock(),
        };
        let mut part = PassingBody { size };
        pool.picker.response_body(now, self.id, &mut part);
    }

    /// Replaces a part of the body that Envoy still holds, and says the new length.
    fn rewrite(&mut self, rewrite: Option<&Rewrite>, picker: &mut Picker) {
        if rewrite.is_some_and(|rewrite| self.replace(rewrite).is_none()) {
            log::warn!("model not rewritten: that part of the body was already forwarded");
            picker.missed_rewrite();
        }
    }

    fn replace(&mut self, rewrite: &Rewrite) -> Option<()> {
        let grown = self.shown.replace(&rewrite.range, &rewrite.text)?;
        if let Some(length) = self.length {
            let length = length.saturating_add_signed(grown);
            self.length = Some(length);
            let length = length.to_string();
            abi::set_header(Map::Request, "content-length", length.as_bytes()).ok()?;
        }
        Some(())
    }
}

fn rewrite_of(effect: &Effect) -> Option<&Rewrite> {
    match effect {
        Effect::Forward { route, .. } => route.rewrite.as_ref(),
        Effect::Bypass { rewrite, .. } => rewrite.as_ref(),
        _ => None,
    }
}

/// Lets a request go on under the failure mode whose headers cannot be read. Returns what becomes of
/// it.
pub fn unreadable(pool: &mut Pool) -> Action {
    if pool.fail() {
        Action::Pause
    } else {
        Action::Continue
    }
}

/// The client's headers that it may not set, each once however often it was sent.
fn spoofed<'a>(packed: &[u8], plan: &'a Plan) -> Vec<&'a str> {
    let mut found: Vec<&'a str> = Vec::new();
    for (name, _) in Pairs::new(packed) {
        let owned = plan.owned_header(name);
        found.extend(owned.filter(|owned| !found.contains(owned)));
    }
    found
}

//! The state of a stream, and what is done with it while the lock of its worker's picker is held.

use super::{guard, Chunks, Filter, Map, Part};
use crate::body::Body;
use crate::guard::Callback;
use crate::seat::Seat;
use epp_core::picker::{BodyDemand, Effect, ExchangeId, Head, LocalReply, Rewrite, Route};
use epp_core::plugins::proxy::envoy_proxy::Requests;
use epp_core::BodyView;

/// The namespace of dynamic metadata from which a cluster with `override_host` takes endpoints.
const METADATA: &str = "envoy.lb";

/// The key of the filter state of a request whose destination header was set by this module; its value is the header's
/// name.
pub const MARK: &str = "epp_wasm_destination";

/// How far a request has been passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Passage {
    /// Its headers are shown.
    #[default]
    AtHeaders,
    /// It is held, and its body with it.
    Held(BodyDemand),
    /// It goes on, or got a local reply.
    Over,
}

/// What becomes of a request once no lock is held.
pub enum Verdict {
    /// Nothing changes.
    Unchanged,
    /// It goes on, if it was held.
    GoesOn,
    /// It gets a local reply.
    Reply(LocalReply),
}

impl Verdict {
    /// Returns what becomes of the request after another verdict.
    pub fn then(self, next: Self) -> Self {
        match next {
            Self::Unchanged => self,
            next => next,
        }
    }
}

/// The state of a stream.
#[derive(Default)]
pub struct State {
    /// Its number in its picker; `None` if it is not the pool's.
    pub id: Option<ExchangeId>,
    pub passage: Passage,
    /// Whether a part of its body is being received.
    pub receives: bool,
    /// Bytes of its body that were passed on.
    pub passed: usize,
    /// Bytes that a replacement has added to those that are held, or removed.
    pub grown: isize,
    /// Whether its body has ended.
    pub ended: bool,
    /// `content-length`.
    pub length: Option<usize>,
    /// Whether it got a local reply of this module: what follows is not the picker's any more.
    pub replied: bool,
}

impl State {
    /// The request's headers have come, and it is the pool's.
    pub fn begin(&mut self, seat: &mut Seat, filter: &mut Filter<'_>, end: bool) -> Verdict {
        self.ended = end;
        let Some(spoofed) = self.read_headers(seat, filter) else {
            return self.fail(seat, filter);
        };
        for name in &spoofed {
            filter.remove_header(Map::Request, name);
        }
        if let (Some(id), true) = (self.id, seat.picker.plan().flow.is_some()) {
            // It may be evicted later.
            seat.open(id, false, || filter.scheduler());
        }
        let verdict = self.settle(seat, filter);
        if self.passage == Passage::AtHeaders {
            // Nothing was asked for: it goes on as it came.
            self.passage = Passage::Over;
        }
        verdict
    }

    /// Hands the headers to the picker. Returns those that a client may not set, each as often as it was sent; `None` if
    /// Envoy does not show any.
    fn read_headers(&mut self, seat: &mut Seat, filter: &Filter<'_>) -> Option<Vec<String>> {
        let headers = filter.headers(Map::Request)?;
        let id = seat.next_id();
        let plan = seat.picker.plan();
        let mut values = Vec::new();
        let head = Head::read(plan, headers.iter(), self.ended, &mut values);
        self.length = head.content_length;
        let owned = headers
            .iter()
            .filter_map(|(name, _)| plan.owned_header(name));
        let spoofed = match plan.settings.dry_run {
            true => Vec::new(),
            false => owned.map(str::to_owned).collect(),
        };
        self.id = Some(id);
        seat.hand(|picker, now| picker.request_headers(now, id, &head));
        Some(spoofed)
    }

    /// Returns what Envoy shows of the request's body.
    fn shown<'a>(&self, filter: &'a Filter<'_>) -> Body<'a> {
        let mut chunks = Chunks::new();
        let held = matches!(self.passage, Passage::Held(_));
        if held {
            filter.chunks(Part::HeldRequest, &mut chunks);
        }
        if self.receives {
            filter.chunks(Part::ReceivedRequest, &mut chunks);
        }
        let start = if held { 0 } else { self.passed };
        Body::new(chunks, start, self.grown, self.ended)
    }

    /// More of the request's body is shown, or its end.
    pub fn read(&mut self, seat: &mut Seat, filter: &mut Filter<'_>) -> Verdict {
        let Some(id) = self.id else {
            return Verdict::Unchanged;
        };
        let mut body = self.shown(filter);
        let end = body.available().end;
        seat.hand(|picker, now| picker.request_body(now, id, &mut body));
        drop(body);
        let verdict = self.settle(seat, filter);
        if !matches!(self.passage, Passage::Held(_)) {
            self.passed = end;
            self.grown = 0;
        }
        verdict
    }

    /// Carries out what follows from an event.
    pub fn settle(&mut self, seat: &mut Seat, filter: &mut Filter<'_>) -> Verdict {
        seat.admit_models();
        let mut verdict = Verdict::Unchanged;
        while let Some(effect) = seat.next_effect(self.id) {
            verdict = verdict.then(self.carry_out(effect, seat, filter));
        }
        verdict
    }

    /// Carries out an effect on this request.
    pub fn carry_out(
        &mut self,
        effect: Effect,
        seat: &mut Seat,
        filter: &mut Filter<'_>,
    ) -> Verdict {
        match effect {
            Effect::Hold { id, body } => {
                self.passage = Passage::Held(body);
                seat.open(id, true, || filter.scheduler());
            }
            Effect::ShowBody { id } => {
                let now = seat.now();
                let mut body = self.shown(filter);
                seat.picker.request_body(now, id, &mut body);
            }
            Effect::RewriteBody { rewrite, .. } => self.rewrite(Some(&rewrite), seat, filter),
            Effect::SetResponseHeader { name, value, .. } => {
                filter.set_header(Map::Response, &name, value.as_bytes());
            }
            Effect::RemoveResponseHeader { name, .. } => filter.remove_header(Map::Response, name),
            Effect::Evict { reply, .. } => return Verdict::Reply(reply),
            // It went on under the failure mode meanwhile.
            _ if self.passage == Passage::Over => {}
            // Not about requests.
            Effect::Fetch { .. } | Effect::Log { .. } => {}
            Effect::Forward { route, .. } => {
                self.rewrite(route.rewrite.as_ref(), seat, filter);
                set_destination(&route, seat, filter);
                return self.go_on(seat, filter);
            }
            Effect::Bypass { rewrite, .. } => {
                self.rewrite(rewrite.as_ref(), seat, filter);
                return self.go_on(seat, filter);
            }
            Effect::Reply { reply, .. } => {
                self.go_on(seat, filter);
                return Verdict::Reply(reply);
            }
        }
        Verdict::Unchanged
    }

    /// The request is held no more.
    fn go_on(&mut self, seat: &mut Seat, filter: &Filter<'_>) -> Verdict {
        self.passed = self.shown(filter).available().end;
        self.passage = Passage::Over;
        if let Some(id) = self.id {
            seat.released(id);
        }
        Verdict::GoesOn
    }

    /// Replaces a part of the body that is held, and says the new length.
    fn rewrite(&mut self, rewrite: Option<&Rewrite>, seat: &mut Seat, filter: &mut Filter<'_>) {
        if rewrite.is_some_and(|rewrite| self.replace(rewrite, filter).is_none()) {
            log::warn!("model not rewritten: that part of the body was already forwarded");
            seat.picker.missed_rewrite();
        }
    }

    fn replace(&mut self, rewrite: &Rewrite, filter: &mut Filter<'_>) -> Option<()> {
        let body = self.shown(filter);
        let start = rewrite.range.start.checked_sub(body.available().start)?;
        let end = rewrite.range.end.checked_sub(body.available().start)?;
        let mut bytes = Vec::with_capacity(body.size() + rewrite.text.len());
        body.append_to(&mut bytes);
        drop(body);
        bytes.get(start..end)?;
        let grown = rewrite.text.len() as isize - (end - start) as isize;
        bytes.splice(start..end, rewrite.text.bytes());
        let replaced = match self.receives {
            true => {
                // There may be none.
                filter.replace_body(Part::HeldRequest, &[]);
                filter.replace_body(Part::ReceivedRequest, &bytes)
            }
            false => filter.replace_body(Part::HeldRequest, &bytes),
        };
        replaced.then_some(())?;
        self.grown += grown;
        if let Some(length) = self.length {
            let length = length.saturating_add_signed(grown);
            self.length = Some(length);
            filter.set_header(
                Map::Request,
                "content-length",
                length.to_string().as_bytes(),
            );
        }
        Some(())
    }

    /// Handles the request, for which nothing can be decided, by the failure mode.
    pub fn fail(&mut self, seat: &mut Seat, filter: &mut Filter<'_>) -> Verdict {
        if !seat.picker.plan().settings.dry_run {
            // They may be the client's own still, or set for a decision that is not carried out.
            for name in seat.picker.plan().owned_headers() {
                filter.remove_header(Map::Request, name);
            }
        }
        guard::catch(|| seat.picker.recovery().count_defect());
        self.go_on(seat, filter);
        match seat.reply_on_defect() {
            Some(reply) => Verdict::Reply(reply.clone()),
            None => Verdict::GoesOn,
        }
    }

    /// A hook panicked.
    pub fn recover(
        &mut self,
        callback: Callback,
        seat: &mut Seat,
        filter: &mut Filter<'_>,
    ) -> Verdict {
        self.receives = false;
        seat.count_panic(callback);
        self.give_up(seat, filter)
    }

    /// The picker forgets the request. One that was not decided is handled by the failure mode.
    pub fn give_up(&mut self, seat: &mut Seat, filter: &mut Filter<'_>) -> Verdict {
        if let Some(id) = self.id.take() {
            seat.close(id);
        }
        if self.passage == Passage::Over {
            return Verdict::Unchanged;
        }
        let failed = guard::catch(|| self.fail(seat, filter));
        self.passage = Passage::Over;
        // Even if that panics, the request does not go on under `FailClose`.
        failed.unwrap_or_else(|| match seat.reply_on_defect() {
            Some(reply) => Verdict::Reply(reply.clone()),
            None => Verdict::GoesOn,
        })
    }
}

/// Sets what names the request's endpoints: the header, and the metadata, which is not passed on to a pod.
fn set_destination(route: &Route, seat: &Seat, filter: &mut Filter<'_>) {
    let plan = seat.picker.plan();
    let header = plan.settings.destination_header.as_str();
    // Three IPv4 addresses with their ports fit.
    let mut value = String::with_capacity(64);
    for address in route.endpoints() {
        if !value.is_empty() {
            value.push(',');
        }
        value.push_str(address);
    }
    filter.set_header(Map::Request, header, value.as_bytes());
    filter.set_metadata(METADATA, header, &value);
    if plan.envoy.requests == Requests::OfCluster {
        // Where all requests are this pool's, no other filter of ours is behind this one.
        filter.set_state(MARK, header.as_bytes());
    }
    for (name, value) in &route.headers {
        filter.set_header(Map::Request, name, value.as_bytes());
    }
}

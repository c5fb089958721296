//! One request and its response: passes hooks to the picker of its worker, and carries out the picker's effects.

use std::cell::RefCell;
use std::sync::Mutex;

use super::abi::{Attribute, Chunks, Filter, Map, Part};
use super::body::Body;
use super::build;
#[cfg(any(test, feature = "fault-injection"))]
use super::fault;
use super::guard::{self, lock, Callback};
use super::pool::{self, Role};
use super::seat::{read_clock, Message, Seat};
use epp_core::picker::{BodyDemand, ExchangeId, ResponseOrigin, Upstream};
use epp_core::plugins::proxy::envoy_proxy::Requests;
use epp_core::protocol::{DROPPED_REASON_HEADER, LOAD_HEADER};
use epp_envoy::origin;

mod state;

use state::{Passage, State, Verdict, MARK};

/// What Envoy does with headers or trailers, or a part of a body.
mod action {
    /// Pass it on, and what was held before it.
    pub const CONTINUE: u32 = 0;
    /// Hold headers or trailers.
    pub const STOP: u32 = 1;
    /// Hold a part of a body. Past its limit Envoy replies with 413.
    pub const BUFFER: u32 = 1;
    /// Hold a part of a body. Past its limit Envoy stops reading.
    pub const WATERMARK: u32 = 2;
    /// Drop a part of a body: the request got a local reply.
    pub const DROP: u32 = 3;
}

/// A request and its response on their way through the filter.
pub struct Stream {
    role: Role,
    worker: usize,
    /// It is not borrowed while Envoy may call another hook of the stream.
    state: RefCell<State>,
}

impl Stream {
    /// Returns a stream of which nothing has come.
    pub fn new(role: Role, worker: u32) -> Self {
        Self {
            role,
            worker: worker as usize,
            state: RefCell::default(),
        }
    }

    /// Handles the request's headers.
    pub fn request_headers(&self, filter: &mut Filter<'_>, end: bool) -> u32 {
        if matches!(self.role, Role::Page) {
            return serve_page(filter);
        }
        let mut elsewhere = None;
        let verdict = self.act(Callback::RequestHeaders, filter, |seat, state, filter| {
            elsewhere = leads_elsewhere(seat, filter);
            if elsewhere.is_none() {
                return state.begin(seat, filter, end);
            }
            state.passage = Passage::Over;
            Verdict::Unchanged
        });
        if let Some(cluster) = elsewhere {
            self.leave_alone(filter, &cluster);
        }
        self.conclude(filter, verdict, action::STOP, action::CONTINUE)
    }

    /// Handles a part of the request's body.
    pub fn request_body(&self, filter: &mut Filter<'_>, end: bool) -> u32 {
        let mut action = action::CONTINUE;
        let verdict = self.act(Callback::RequestBody, filter, |seat, state, filter| {
            state.receives = true;
            state.ended = end;
            let verdict = state.read(seat, filter);
            state.receives = false;
            action = match state.passage {
                Passage::Held(BodyDemand::Replayable) => action::BUFFER,
                Passage::Held(BodyDemand::Streaming) => action::WATERMARK,
                Passage::AtHeaders | Passage::Over => action::CONTINUE,
            };
            verdict
        });
        self.conclude(filter, verdict, action::DROP, action)
    }

    /// Handles the request's trailers, which end its body.
    pub fn request_trailers(&self, filter: &mut Filter<'_>) -> u32 {
        let verdict = self.act(Callback::RequestTrailers, filter, |seat, state, filter| {
            state.ended = true;
            state.read(seat, filter)
        });
        self.conclude(filter, verdict, action::STOP, action::CONTINUE)
    }

    /// Handles the response's headers.
    pub fn response_headers(&self, filter: &mut Filter<'_>) {
        let verdict = self.act(Callback::ResponseHeaders, filter, |seat, state, filter| {
            let Some(id) = state.id else {
                return Verdict::Unchanged;
            };
            let now = seat.read_clock();
            let report = match seat.picker.wants_load_report(id) {
                true => filter
                    .header(Map::Response, LOAD_HEADER)
                    .map(<[u8]>::to_vec),
                false => None,
            };
            let upstream = seat.picker.wants_upstream(id) || report.is_some();
            let mut upstream = upstream.then(|| upstream_of(seat, id, filter));
            if let Some(upstream) = &mut upstream {
                upstream.load_report = report;
            }
            seat.picker.response_headers(now, id, upstream.as_ref());
            state.settle(seat, filter)
        });
        self.conclude(filter, verdict, action::STOP, action::CONTINUE);
    }

    /// Handles a part of the response's body.
    pub fn response_body(&self, filter: &mut Filter<'_>) {
        let verdict = self.act(Callback::ResponseBody, filter, |seat, state, filter| {
            let Some(id) = state.id else {
                return Verdict::Unchanged;
            };
            let now = seat.read_clock();
            let mut chunks = Chunks::new();
            filter.chunks(Part::ReceivedResponse, &mut chunks);
            let mut part = Body::new(chunks, 0, 0, false);
            seat.picker.response_body(now, id, &mut part);
            drop(part);
            state.settle(seat, filter)
        });
        self.conclude(filter, verdict, action::STOP, action::CONTINUE);
    }

    /// Carries out the messages that have come outside of the stream's hooks.
    pub fn scheduled(&self, filter: &mut Filter<'_>) {
        let verdict = self.act(Callback::Tick, filter, |seat, state, filter| {
            let messages = state.id.map(|id| seat.messages(id));
            let mut verdict = Verdict::Unchanged;
            for message in messages.unwrap_or_default() {
                let next = match message {
                    Message::Effect(effect) => state.carry_out(effect, seat, filter),
                    Message::Defect => state.give_up(seat, filter),
                };
                verdict = verdict.then(next);
            }
            verdict.then(state.settle(seat, filter))
        });
        let goes_on = matches!(verdict, Verdict::GoesOn);
        self.conclude(filter, verdict, action::STOP, action::CONTINUE);
        if goes_on {
            filter.resume();
        }
    }

    /// The stream has ended, however.
    pub fn close(&self) {
        let Some(seat) = self.seat() else {
            return;
        };
        let Some(id) = self.state.borrow_mut().id.take() else {
            return;
        };
        let mut seat = lock(seat);
        seat.close(id);
        let settled = guard::catch(|| {
            #[cfg(any(test, feature = "fault-injection"))]
            fault::inject(Callback::Delete.name(), fault::address(self));
            seat.settle();
        });
        if settled.is_none() {
            seat.count_panic(Callback::Delete);
        }
        #[cfg(any(test, feature = "fault-injection"))]
        fault::disarm(fault::address(self));
    }

    /// Injects the fault that the request's header names for this hook, if there is one.
    #[cfg(any(test, feature = "fault-injection"))]
    fn inject(&self, callback: Callback, seat: &Seat, filter: &Filter<'_>) {
        let stream = fault::address(self);
        let asked = filter.header(Map::Request, fault::HEADER);
        if let (Callback::RequestHeaders, Some(value)) = (callback, asked) {
            fault::arm(value, stream, fault::address(seat));
        }
        fault::inject(callback.name(), stream);
    }

    fn seat(&self) -> Option<&Mutex<Seat>> {
        match &self.role {
            Role::Pool(pool, _) => pool.seats.get(self.worker),
            Role::Page | Role::Validated => None,
        }
    }

    /// Runs a hook with the lock of the worker's picker. After a panic the request is handled by the failure mode.
    fn act(
        &self,
        callback: Callback,
        filter: &mut Filter<'_>,
        act: impl FnOnce(&mut Seat, &mut State, &mut Filter<'_>) -> Verdict,
    ) -> Verdict {
        // It is borrowed where this hook runs within another one of the stream.
        let (Some(seat), Ok(mut state)) = (self.seat(), self.state.try_borrow_mut()) else {
            return Verdict::Unchanged;
        };
        if state.replied {
            return Verdict::Unchanged;
        }
        let mut seat = lock(seat);
        let outcome = guard::catch(|| {
            #[cfg(any(test, feature = "fault-injection"))]
            self.inject(callback, &seat, filter);
            act(&mut seat, &mut state, filter)
        });
        let verdict = outcome.unwrap_or_else(|| state.recover(callback, &mut seat, filter));
        state.replied |= matches!(verdict, Verdict::Reply(_));
        verdict
    }

    /// Sends the local reply, if the request gets one. Returns what Envoy does: `replied` after a reply; else it holds
    /// what is held, and does `other` with the rest.
    fn conclude(&self, filter: &mut Filter<'_>, verdict: Verdict, replied: u32, other: u32) -> u32 {
        if let Verdict::Reply(reply) = verdict {
            let reason = reply.reason.map(|reason| (DROPPED_REASON_HEADER, reason));
            filter.respond(reply.status, "epp_wasm", reason.as_slice(), &reply.body);
            return replied;
        }
        let state = self.state.try_borrow();
        let held = state.is_ok_and(|state| matches!(state.passage, Passage::Held(_)));
        match held && other == action::CONTINUE {
            true => action::STOP,
            false => other,
        }
    }

    /// Leaves a request alone that leads to another cluster. What a client says of the destination is removed: that
    /// cluster may obey it all the same, and a route may still change to one that does.
    fn leave_alone(&self, filter: &mut Filter<'_>, cluster: &[u8]) {
        // Another filter of ours takes those.
        let counts = !cluster.is_empty() && !pool::owns(cluster);
        self.act(Callback::RequestHeaders, filter, |seat, _, filter| {
            let settings = &seat.picker.plan().settings;
            let header = settings.destination_header.as_str();
            if !settings.dry_run && filter.state(MARK) != Some(header.as_bytes()) {
                filter.remove_header(Map::Request, header);
            }
            if counts {
                seat.picker.left_alone(cluster);
            }
            Verdict::Unchanged
        });
    }
}

/// Replies to a request of the status page's listener.
fn serve_page(filter: &mut Filter<'_>) -> u32 {
    let Some(headers) = filter.headers(Map::Request) else {
        return action::CONTINUE;
    };
    let request = status_page::Request::read(headers.iter());
    let now = read_clock().as_millis();
    let response = request.respond(&mut pool::store(), now, &build::text());
    drop(headers);
    let (status, headers) = (response.status, response.headers);
    filter.respond(status, "epp_wasm_status", headers, &response.body);
    action::STOP
}

/// Returns the cluster to which the request's route leads, if it is not the pool's and the pool takes no other requests;
/// nothing if it leads to none.
fn leads_elsewhere(seat: &Seat, filter: &Filter<'_>) -> Option<Vec<u8>> {
    let plan = seat.picker.plan();
    if plan.envoy.requests == Requests::All {
        return None;
    }
    let cluster = filter.text(Attribute::ClusterName).unwrap_or_default();
    (cluster != plan.cluster().as_bytes()).then(|| cluster.to_vec())
}

/// Returns where the response comes from, as Envoy reports it.
fn upstream_of(seat: &Seat, id: ExchangeId, filter: &Filter<'_>) -> Upstream {
    let status = filter.header(Map::Response, ":status");
    let status = status.and_then(|status| std::str::from_utf8(status).ok()?.parse().ok());
    let details = || filter.text(Attribute::ResponseDetails);
    let origin = match status {
        Some(500..) => details().map_or(ResponseOrigin::Endpoint, origin::of),
        _ => ResponseOrigin::Endpoint,
    };
    let server = filter.text(Attribute::UpstreamAddress);
    let server = server.filter(|address| !address.is_empty());
    let mut upstream = Upstream {
        server: server.map(<[u8]>::to_vec),
        status,
        origin,
        attempts: None,
        load_report: None,
        cluster: None,
    };
    let elsewhere = seat.picker.is_served_elsewhere(id, &upstream);
    if elsewhere {
        upstream.attempts = filter.number(Attribute::UpstreamAttempts);
    }
    if elsewhere || origin == ResponseOrigin::NoEndpoint {
        upstream.cluster = filter.text(Attribute::ClusterName).map(<[u8]>::to_vec);
    }
    upstream
}

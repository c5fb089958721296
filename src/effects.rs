//! The picker's effects on requests, as calls to Envoy.

use super::abi::{self, Map, Status};
#[cfg(test)]
use super::guard;
use super::host::Shared;
use super::pool::Pool;
use super::stream::Stream;
use epp_core::picker::{ById, Effect, LocalReply, Picker, Route};
use epp_core::plugins::proxy::envoy_proxy::Requests;
use epp_core::protocol::DROPPED_REASON_HEADER;
use epp_envoy::logging;

impl Pool {
    /// Carries out the picker's effects. `current` is the context whose callback runs. Returns whether
    /// that got a local reply.
    pub fn carry_out(&mut self, streams: &mut ById<Stream>, current: u32) -> bool {
        let (mut replied, mut in_effect) = (false, current);
        self.sharing.admit_models(&mut self.picker, &mut Shared);
        while let Some(effect) = self.next_effect(streams, current) {
            if let Effect::Hold { id, .. } = &effect {
                if self.picker.awaits_body(*id) && !self.expects_body(id.0) {
                    self.picker.body_unavailable(self.now, *id);
                    continue;
                }
            }
            // Callouts belong to the root context.
            let context = effect.exchange().map_or(self.root, |id| id.0);
            let reached = context == in_effect || abi::set_effective_context(context).is_ok();
            if !reached {
                continue;
            }
            in_effect = context;
            if let Effect::Fetch { id, fetch, timeout } = effect {
                self.fetch(id, fetch, timeout);
            } else if let Effect::Log { level, text } = effect {
                logging::log(level, &text);
            } else if let Some(stream) = streams.get_mut(&context) {
                if context == current {
                    replied |= stream.carry_out(&effect, &mut self.picker, self.now);
                } else if stream.carry_out_late(&effect, &mut self.picker, self.now) {
                    let _: Result<(), Status> = abi::resume_request();
                }
            }
        }
        if in_effect != current {
            let _: Result<(), Status> = abi::set_effective_context(current);
        }
        replied
    }

    /// Returns the next effect that can be carried out in a callback of this context. In one of a request no other
    /// request can get a local reply: Envoy would stop the one whose callback it is. Such a reply waits for the next
    /// tick, and is dropped if its request has ended by then. There is at most one for each request.
    fn next_effect(&mut self, streams: &ById<Stream>, current: u32) -> Option<Effect> {
        if !self.late_replies.is_empty() && !streams.contains_key(&current) {
            return self.late_replies.pop();
        }
        loop {
            let effect = self.picker.poll_effect()?;
            let replies = matches!(effect, Effect::Reply { .. } | Effect::Evict { .. });
            let other = effect.exchange().is_some_and(|id| id.0 != current);
            if replies && other && streams.contains_key(&current) {
                self.late_replies.push(effect);
            } else {
                return Some(effect);
            }
        }
    }
}

/// The property of a request whose destination header was set by this filter; its value is the
/// header's name.
const MARK: &str = "epp_wasm_destination";

/// Removes a destination header from the current request, which is not for any of our pools: it
/// came from the client, unless a filter of ours earlier in the chain set it, which may run in
/// another VM. Without the header this is one host call that returns no bytes.
pub fn strip(header: &str) {
    if !abi::has_header(Map::Request, header) {
        return;
    }
    let mark = abi::property(MARK).ok().flatten();
    if mark.as_deref() != Some(header.as_bytes()) {
        let _: Result<(), Status> = abi::remove_header(Map::Request, header);
    }
}

/// Applies the decision to the headers of the current request, or sends a local reply.
pub fn carry_out(effect: &Effect, picker: &Picker) {
    #[cfg(test)]
    guard::inject("carry out");
    match effect {
        Effect::Forward { route, .. } => {
            set_destination(&destination(route), picker);
            for (name, value) in &route.headers {
                let _: Result<(), Status> = abi::set_header(Map::Request, name, value.as_bytes());
            }
        }
        Effect::Reply {
            reply: local_reply, ..
        } => {
            reply(local_reply);
        }
        _ => {}
    }
}

/// Sends a local reply to the current request. Returns whether Envoy has accepted it.
pub fn reply(reply: &LocalReply) -> bool {
    let reason = reply.reason.map(|reason| (DROPPED_REASON_HEADER, reason));
    let outcome = abi::respond(reply.status, "epp_wasm", reason.as_slice(), &reply.body);
    if outcome.is_err() {
        log::warn!(
            "failed to send a local reply with status {}: Envoy refused it",
            reply.status
        );
    }
    outcome.is_ok()
}

/// Returns the destination header's value: the endpoints' addresses in order, separated by commas.
fn destination(route: &Route) -> String {
    // Three IPv4 addresses with their ports fit: the pick and the two retry targets of the default.
    let mut value = String::with_capacity(64);
    for address in route.endpoints() {
        if !value.is_empty() {
            value.push(',');
        }
        value.push_str(address);
    }
    value
}

/// Sets the headers that name the current request's endpoints.
fn set_destination(destination: &str, picker: &Picker) {
    let plan = picker.plan();
    let header = plan.settings.destination_header.as_str();
    if let Err(Status(status)) = abi::set_header(Map::Request, header, destination.as_bytes()) {
        log::warn!(
            "failed to set the destination header (status {status}): the request goes to the fallback \
             policy; is allow_on_headers_stop_iteration set?"
        );
    } else if plan.envoy.requests == Requests::OfCluster {
        // Where all requests are this pool's, no other filter of ours is behind this one.
        let _: Result<(), Status> = abi::set_property(MARK, header.as_bytes());
    }
}

//! A host of few lines, for the picker's own tests.

use super::dispatcher::Dispatcher;
use super::exchange::Exchange;
use super::{Effect, ExchangeId, Head, Picker};
use crate::body::SliceBody;
use crate::time::Timestamp;

/// The time of the tests, where it does not matter.
pub const NOW: Timestamp = Timestamp::from_nanos(1_000_000_000_000);

/// Begins a request. Returns its outcome, if it is decided.
pub fn begin(picker: &mut Picker, id: u32, head: &Head<'_>) -> Option<Effect> {
    picker.request_headers(NOW, ExchangeId(id), head);
    decision(picker)
}

/// Shows the bytes of a body so far; `ended` if that is all. Returns the outcome of the request, if that
/// is decided now.
pub fn show(picker: &mut Picker, id: u32, shown: &[u8], ended: bool) -> Option<Effect> {
    pass(picker, id, 0, shown, ended)
}

/// Shows a part of a body that begins at this offset. Returns the outcome of the request, if it is decided now.
pub fn pass(
    picker: &mut Picker,
    id: u32,
    start: usize,
    part: &[u8],
    ended: bool,
) -> Option<Effect> {
    let mut body = SliceBody::passing(part, start, ended);
    picker.request_body(NOW, ExchangeId(id), &mut body);
    decision(picker)
}

/// Returns an exchange under way.
pub fn exchange(picker: &Picker, id: u32) -> &Exchange {
    picker.exchanges.get(ExchangeId(id)).unwrap()
}

/// Does this to an exchange under way.
pub fn change(picker: &mut Picker, id: u32, change: impl FnOnce(&mut Dispatcher, &mut Exchange)) {
    let mut exchange = picker.exchanges.get_mut(ExchangeId(id)).unwrap();
    change(&mut picker.dispatcher, &mut exchange);
}

/// Ends an exchange.
pub fn close(picker: &mut Picker, id: u32) {
    picker.closed(NOW, ExchangeId(id));
}

/// Returns the outcome of a request, if it was decided since the last call.
pub fn decision(picker: &mut Picker) -> Option<Effect> {
    decisions(picker).pop()
}

/// Returns all outcomes since the last call.
pub fn decisions(picker: &mut Picker) -> Vec<Effect> {
    let effects = std::iter::from_fn(|| picker.poll_effect());
    effects.filter(Effect::is_decision).collect()
}

/// Responds with headers of which nothing is known.
pub fn respond(picker: &mut Picker, id: u32) {
    picker.response_headers(NOW, ExchangeId(id), None);
}

/// Responds with a part of a body.
pub fn respond_with_body(picker: &mut Picker, id: u32) {
    picker.response_body(NOW, ExchangeId(id), &mut SliceBody::beginning(b"{"));
}

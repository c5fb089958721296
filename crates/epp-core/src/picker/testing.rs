//! A host of few lines, for the picker's own tests.

use super::{Effect, ExchangeId, Head, Picker};
use crate::body::SliceBody;

/// Begins a request. Returns how it goes on, if that is decided.
pub fn begin(picker: &mut Picker, id: u32, head: &Head<'_>) -> Option<Effect> {
    picker.request_headers(ExchangeId(id), head);
    decision(picker)
}

/// Shows what has come of a body so far; `ended` where that is all. Returns how the request goes on, if that
/// is decided now.
pub fn show(picker: &mut Picker, id: u32, shown: &[u8], ended: bool) -> Option<Effect> {
    pass(picker, id, 0, shown, ended)
}

/// Shows a part of a body that begins at this offset. Returns how the request goes on, if that is decided now.
pub fn pass(
    picker: &mut Picker,
    id: u32,
    start: usize,
    part: &[u8],
    ended: bool,
) -> Option<Effect> {
    let mut body = SliceBody::passing(part, start, ended);
    picker.request_body(ExchangeId(id), &mut body);
    decision(picker)
}

/// Ends an exchange.
pub fn close(picker: &mut Picker, id: u32) {
    picker.close(ExchangeId(id));
}

/// Returns how a request goes on, if that was decided since this was last asked.
pub fn decision(picker: &mut Picker) -> Option<Effect> {
    decisions(picker).pop()
}

/// Returns all that was decided since this was last asked.
pub fn decisions(picker: &mut Picker) -> Vec<Effect> {
    let effects = std::iter::from_fn(|| picker.poll_effect());
    effects.filter(Effect::is_decision).collect()
}

//! One request and its answer: callbacks, handed to the picker, and the picker's verdict,
//! carried out.

use std::ops::Range;

use super::abi::{self, Action, BodyAction, Buffer, Map, Status};
use super::aside::Aside;
use super::guard::Callback;
use super::headers::Pairs;
use super::host::Shared;
use super::pool::Pool;
use epp_core::picker::answer::DROPPED_REASON_HEADER;
use epp_core::picker::{Appetite, Head, Picker, Release, Rewrite, Show, Verdict, EXPLAIN_HEADER};

/// Headers that only a picker may set (reference: what the Endpoint Picker tells proxy and model
/// server); a client's own are removed. The destination header is configurable and comes on top.
///
/// The early mutation lists of the templates name the same headers and those of
/// [`REWRITE_HEADERS`].
pub const OWNED_HEADERS: [&str; 7] = [
    "x-gateway-destination-endpoint-subset",
    "x-gateway-destination-endpoint-served",
    "x-prefiller-host-port",
    "x-encoder-hosts-ports",
    "x-data-parallel-host-port",
    "x-kv-cache-source-host-port",
    DROPPED_REASON_HEADER,
];

/// Headers that name another model to ask for. Obeyed with `rewriteHeader: true` only: a client
/// that passes a check of the body's model must not get another one by a header.
pub const REWRITE_HEADERS: [&str; 2] =
    ["x-llm-d-model-name-rewrite", "x-gateway-model-name-rewrite"];

/// How Envoy holds a request for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    /// It does not.
    No,
    /// It shows the whole body so far: parts of it can be read again.
    Whole,
    /// It shows each part once, and stops reading before its buffers run over.
    Passing,
}

/// A request and its answer on their way through the filter.
pub struct Stream {
    id: u32,
    /// The place of its pool.
    pub pool: usize,
    held: Held,
    /// Whether the clock has let it go. `held` stays as it is until the next part of the body.
    let_go: bool,
    /// What Envoy had buffered when the clock let it go, until Envoy has it back.
    aside: Option<Aside>,
    /// Whether its body has ended.
    ended: bool,
    /// Bytes that were read already of what Envoy will show next.
    read: usize,
    /// Bytes that Envoy has shown already of what it will show next.
    shown: usize,
    /// Bytes before those that Envoy shows.
    passed: usize,
    /// `content-length`.
    length: Option<usize>,
}

impl Stream {
    /// A request for the pool at this place.
    pub fn new(id: u32, pool: usize) -> Self {
        Self {
            id,
            pool,
            held: Held::No,
            let_go: false,
            aside: None,
            ended: false,
            read: 0,
            shown: 0,
            passed: 0,
            length: None,
        }
    }

    /// Whether Envoy holds it for us. That is known here, whatever has become of the picker's record.
    pub fn is_held(&self) -> bool {
        self.held != Held::No && !self.let_go
    }

    /// The clock has let it go.
    pub fn let_go(&mut self) {
        self.let_go = true;
    }

    /// Its headers have come. `None` where they cannot be read, as where no memory is left for them.
    pub fn request_headers(&mut self, picker: &mut Picker, end: bool) -> Option<Action> {
        let packed = abi::header_pairs(Map::Request).ok().flatten()?;
        let head = read_head(&packed, end, picker);
        self.length = head.content_length;
        for name in spoofed(&packed, picker) {
            let _: Result<(), Status> = abi::remove_header(Map::Request, name);
        }
        let verdict = picker.open(self.id, &head);
        Some(match self.carry_out(verdict, picker) {
            BodyAction::Continue => Action::Continue,
            BodyAction::Buffer | BodyAction::Watermark => Action::Pause,
        })
    }

    /// The clock releases it. Returns whether Envoy is to let it go on now: where a part of its body is
    /// buffered and cannot be set aside, it goes on with the next part.
    #[cold]
    pub fn release(&mut self, release: &Release, picker: &mut Picker) -> bool {
        if self.held == Held::Whole {
            // What Envoy shows in passing cannot be changed later.
            self.rewrite(release.rewrite(), picker);
        }
        super::pool::carry_out(release, picker);
        self.let_go();
        !release.is_reply() && self.set_aside(picker)
    }

    /// Sets aside what Envoy has buffered of the body, unless that is all of it. Returns whether the request
    /// can go on at once.
    #[cold]
    pub fn set_aside(&mut self, picker: &Picker) -> bool {
        if self.held != Held::Whole || self.shown == 0 || self.ended {
            return true;
        }
        let length = self.length.unwrap_or(0);
        self.aside = Aside::take(self.shown, length, picker.open_account());
        if self.aside.is_some() {
            self.show_no_more();
        }
        self.aside.is_some()
    }

    /// What Envoy has shown it does not show again.
    fn show_no_more(&mut self) {
        self.passed += self.shown;
        self.read = 0;
        self.shown = 0;
    }

    /// Whether the next tick is to call [`Self::hand_back`].
    pub fn is_due(&self) -> bool {
        self.aside.as_ref().is_some_and(Aside::is_due)
    }

    /// Gives Envoy back what was set aside of a body that has ended.
    #[cold]
    pub fn hand_back(&mut self) {
        if let Some(mut aside) = self.aside.take() {
            aside.give();
        }
    }

    /// Has what was set aside follow, where something was: a part of the body has come, of which Envoy shows
    /// `size` bytes. Returns what is to become of it.
    pub fn rejoin(&mut self, size: usize, end: bool) -> Option<BodyAction> {
        let aside = self.aside.as_mut()?;
        let action = aside.rejoin(size, end);
        self.drop_empty();
        Some(action)
    }

    /// The body's trailers have come. Returns whether they wait for what was set aside.
    pub fn end_aside(&mut self) -> bool {
        self.aside.as_mut().map(Aside::end).is_some()
    }

    /// A callback about it panicked. Gives Envoy back what was set aside as far as it shows the body now.
    /// Returns whether the request has to wait.
    #[cold]
    pub fn recover(&mut self, callback: Callback) -> bool {
        let waits = match (callback, &mut self.aside) {
            (Callback::RequestBody, Some(aside)) => {
                aside.give_before(self.ended) != BodyAction::Continue
            }
            (Callback::RequestTrailers, _) => self.end_aside(),
            _ => false,
        };
        self.drop_empty();
        waits
    }

    /// Whether something is set aside.
    pub fn has_aside(&self) -> bool {
        self.aside.is_some()
    }

    /// Forgets what was set aside once Envoy has it back, and lets go of it without a tick.
    fn drop_empty(&mut self) {
        self.aside
            .take_if(|aside| aside.is_empty() && !aside.is_due());
    }

    /// A part of its body has come; `size` is what Envoy shows.
    pub fn request_body(&mut self, picker: &mut Picker, size: usize, end: bool) -> BodyAction {
        self.ended = end;
        if self.held != Held::No && !picker.holds(self.id) {
            // The clock has let it go.
            self.held = Held::No;
        }
        let verdict = self.feed(picker, size, end);
        let action = match verdict {
            Some(verdict) => self.carry_out(verdict, picker),
            None => {
                if self.held == Held::Passing {
                    let rewrite = picker.rewrite_in_passing(self.id);
                    self.rewrite(rewrite.as_ref(), picker);
                }
                self.as_before()
            }
        };
        if end {
            picker.uploaded(self.id);
        }
        self.shown = size;
        if action != BodyAction::Buffer {
            // What was shown goes on now, or is not shown again.
            self.show_no_more();
        }
        action
    }

    /// Its trailers have come: its body has ended.
    pub fn request_trailers(&mut self, picker: &mut Picker) -> Action {
        self.ended = true;
        picker.uploaded(self.id);
        if self.held != Held::No {
            if let Some(verdict) = self.feed(picker, 0, true) {
                if self.carry_out(verdict, picker) != BodyAction::Continue {
                    return Action::Pause;
                }
            }
        }
        Action::Continue
    }

    /// The headers of its answer have come.
    pub fn response_headers(&mut self, picker: &mut Picker) {
        let seen = picker.asks_for_server(self.id);
        let seen = seen.then(super::pool::seen);
        if let Some(text) = picker.answered(self.id, seen.as_ref(), &mut Shared) {
            let _: Result<(), Status> =
                abi::set_header(Map::Response, EXPLAIN_HEADER, text.as_bytes());
        }
    }

    /// A part of its answer has come.
    pub fn response_body(&mut self, picker: &mut Picker, size: usize) {
        if size > 0 && picker.answering(self.id) {
            let bytes = abi::buffer(Buffer::ResponseBody, 0, size).ok().flatten();
            picker.answer_part(self.id, &bytes.unwrap_or_default());
        }
    }

    /// The body has stopped coming while a part of what Envoy holds was left unread. Whether the
    /// request goes on now.
    pub fn catch_up(&mut self, picker: &mut Picker) -> bool {
        let released = match self.feed(picker, self.shown, false) {
            Some(Verdict::Release(release)) => release,
            Some(Verdict::Hold(_)) | None => return false,
        };
        self.release(&released, picker)
    }

    /// Feeds what Envoy shows and was not read yet.
    fn feed(&mut self, picker: &mut Picker, size: usize, end: bool) -> Option<Verdict> {
        #[cfg(test)]
        super::guard::strike("feed");
        let mut verdict = None;
        loop {
            let unread = size.saturating_sub(self.read);
            let (start, most) = match picker.appetite(self.id, unread, end) {
                Appetite::Nothing => break,
                Appetite::Next(most) => (self.read, most),
                Appetite::Tail(most) => (size.saturating_sub(most), most),
            };
            let Ok(bytes) = abi::buffer(Buffer::RequestBody, start, most) else {
                // There is no memory left for it: what follows would not be read either.
                verdict = verdict.or(picker.cannot_read(self.id));
                break;
            };
            let bytes = bytes.unwrap_or_default();
            if bytes.is_empty() {
                break;
            }
            let step = if start == self.read {
                self.read += bytes.len();
                picker.body(self.id, &bytes, end && self.read >= size)
            } else {
                picker.tail(self.id, start, &bytes)
            };
            verdict = verdict.or(step).or(self.feed_again(picker));
        }
        if end && self.held != Held::No && verdict.is_none() {
            verdict = picker.body(self.id, &[], true);
        }
        verdict
    }

    /// Feeds what must be read a second time.
    fn feed_again(&self, picker: &mut Picker) -> Option<Verdict> {
        let mut verdict = None;
        while let Some(range) = picker.reread(self.id) {
            let span = range.end.saturating_sub(range.start);
            let again = abi::buffer(Buffer::RequestBody, range.start, span);
            let again = again.ok().flatten().unwrap_or_default();
            let step = picker.body_again(self.id, range.start, &again);
            verdict = verdict.or(step);
        }
        verdict
    }

    fn carry_out(&mut self, verdict: Verdict, picker: &mut Picker) -> BodyAction {
        match verdict {
            Verdict::Hold(Show::Whole) => self.held = Held::Whole,
            Verdict::Hold(Show::Passing) => self.held = Held::Passing,
            Verdict::Release(release) => {
                self.rewrite(release.rewrite(), picker);
                super::pool::carry_out(&release, picker);
                // Not before: what a panic strikes until here is still held.
                self.held = Held::No;
                if release.is_reply() {
                    // Envoy answers; the request itself goes nowhere.
                    return BodyAction::Buffer;
                }
            }
        }
        self.as_before()
    }

    /// Replaces a part of the body that Envoy still holds, and says the new length.
    fn rewrite(&mut self, rewrite: Option<&Rewrite>, picker: &mut Picker) {
        let Some(rewrite) = rewrite else {
            return;
        };
        let done = self.replace(&rewrite.range, &rewrite.text);
        if done.is_none() {
            log::warn!("the model could not be rewritten in a body: it has passed already");
            picker.missed_rewrite();
        }
    }

    fn replace(&mut self, range: &Range<usize>, text: &str) -> Option<()> {
        // Where it is in what Envoy shows now.
        let start = range.start.checked_sub(self.passed)?;
        let end = range.end.checked_sub(self.passed)?;
        // Envoy replaces from the first byte on only.
        let mut head = abi::buffer(Buffer::RequestBody, 0, end).ok()??;
        if head.len() != end {
            return None;
        }
        head.truncate(start);
        head.extend_from_slice(text.as_bytes());
        abi::replace_start(Buffer::RequestBody, end, &head).ok()?;
        let grown = head.len() as isize - end as isize;
        self.shown = self.shown.saturating_add_signed(grown);
        self.read = self.read.saturating_add_signed(grown);
        if let Some(length) = self.length {
            let length = length.saturating_add_signed(grown);
            self.length = Some(length);
            let length = length.to_string();
            abi::set_header(Map::Request, "content-length", length.as_bytes()).ok()?;
        }
        Some(())
    }

    fn as_before(&self) -> BodyAction {
        match self.held {
            Held::No => BodyAction::Continue,
            Held::Whole => BodyAction::Buffer,
            Held::Passing => BodyAction::Watermark,
        }
    }
}

/// Lets a request go on under the failure mode whose headers cannot be read. Returns what becomes of
/// it.
pub fn unreadable(pool: &mut Pool) -> Action {
    for name in OWNED_HEADERS.into_iter().chain(REWRITE_HEADERS) {
        let _: Result<(), Status> = abi::remove_header(Map::Request, name);
    }
    if pool.fail() {
        Action::Pause
    } else {
        Action::Continue
    }
}

/// The client's headers that it may not set, each once however often it was sent.
fn spoofed<'a>(packed: &[u8], picker: &'a Picker) -> Vec<&'a str> {
    let destination = picker.destination_header();
    let rewrites: &[&str] = match picker.obeys_rewrite_header() {
        true => &[],
        false => &REWRITE_HEADERS,
    };
    let mut found: Vec<&'a str> = Vec::new();
    for (name, _) in Pairs::new(packed) {
        // All of ours start so; nearly no header of a client does.
        if !name.starts_with(b"x-") && name != destination.as_bytes() {
            continue;
        }
        let owned = OWNED_HEADERS.iter().chain(rewrites).chain([&destination]);
        let owned = owned.copied().find(|owned| owned.as_bytes() == name);
        found.extend(owned.filter(|owned| !found.contains(owned)));
    }
    found
}

fn read_head<'a>(packed: &'a [u8], end: bool, picker: &Picker) -> Head<'a> {
    let model_header = picker.model_header().as_bytes();
    let mut head = Head {
        end,
        ..Head::default()
    };
    for (name, value) in Pairs::new(packed) {
        match name {
            b":path" => head.path = value,
            b":method" => head.method = value,
            b"content-type" => head.content_type = value,
            b"content-encoding" => head.content_encoding = value,
            b"content-length" => head.content_length = number(value),
            b"upgrade" => head.upgrade = true,
            b"x-epp-explain" => head.explain = value == b"1",
            b"x-llm-d-model-name-rewrite" => head.rewrite = value,
            // The former name, which counts where the new one is not there.
            b"x-gateway-model-name-rewrite" if head.rewrite.is_empty() => head.rewrite = value,
            name if name == model_header => head.model = value,
            _ => {}
        }
    }
    if !picker.obeys_rewrite_header() {
        head.rewrite = &[];
    }
    head
}

fn number(value: &[u8]) -> Option<usize> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

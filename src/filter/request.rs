//! One request: its callbacks, handed to the director, and the director's verdict, carried out.

use std::cell::RefCell;
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

use super::abi::{self, Buffer, Map, Status};
use super::headers::Pairs;
use crate::director::answer::DROPPED_REASON_HEADER;
use crate::director::{Director, Head, Verdict, EXPLAIN_HEADER};

/// Headers that only a picker may set (reference: what the Endpoint Picker tells proxy and model
/// server); a client's own are removed. The destination header is configurable and comes on top.
const OWNED_HEADERS: [&str; 7] = [
    "x-gateway-destination-endpoint-subset",
    "x-gateway-destination-endpoint-served",
    "x-prefiller-host-port",
    "x-encoder-hosts-ports",
    "x-data-parallel-host-port",
    "x-kv-cache-source-host-port",
    DROPPED_REASON_HEADER,
];

/// Bytes of a body that are taken over at a time: most prefix windows end within the first piece,
/// and what lies beyond is then never copied.
const PIECE: usize = 64 << 10;

/// A request's context.
pub struct Request {
    id: u32,
    director: Rc<RefCell<Director>>,
    /// Whether the director knows of it.
    ours: bool,
    /// Whether Envoy still holds it for us.
    held: bool,
    /// Bytes of the buffer that Envoy holds that were read already.
    read: usize,
}

impl Request {
    /// A request's context; `director` is the pool's.
    pub fn new(id: u32, director: Rc<RefCell<Director>>) -> Self {
        Self {
            id,
            director,
            ours: false,
            held: false,
            read: 0,
        }
    }

    fn headers(&mut self, end: bool) -> Option<Verdict> {
        let mut director = self.director.try_borrow_mut().ok()?;
        let cluster = abi::property("xds\0cluster_name").ok().flatten()?;
        if !director.owns(&cluster) {
            return None;
        }
        let packed = abi::header_pairs(Map::Request).ok().flatten()?;
        let head = read_head(&packed, end);
        for name in spoofed(&packed, director.destination_header()) {
            let _: Result<(), Status> = abi::remove_header(Map::Request, name);
        }
        self.ours = true;
        Some(director.open(self.id, &head))
    }

    /// Feeds what Envoy holds and was not read yet.
    fn feed(&mut self, size: usize, end: bool) -> Option<Verdict> {
        let mut director = self.director.try_borrow_mut().ok()?;
        let mut verdict = None;
        while self.read < size && director.reads(self.id) {
            let piece = (size - self.read).min(PIECE);
            let Ok(Some(bytes)) = abi::buffer(Buffer::RequestBody, self.read, piece) else {
                break;
            };
            if bytes.is_empty() {
                break;
            }
            self.read += bytes.len();
            let last = end && self.read >= size;
            let step = director.body(self.id, &bytes, last);
            verdict = verdict.or(step);
            while let Some(range) = director.reread(self.id) {
                let span = range.end.saturating_sub(range.start);
                let again = abi::buffer(Buffer::RequestBody, range.start, span);
                let again = again.ok().flatten().unwrap_or_default();
                let step = director.body_again(self.id, range.start, &again);
                verdict = verdict.or(step);
            }
        }
        if end && self.held && verdict.is_none() {
            verdict = director.body(self.id, &[], true);
        }
        verdict
    }

    /// The clock released the request while Envoy held a part of its body. Envoy 1.40 has sent that
    /// part on, but shows it once more, before what came since, and would send it a second time:
    /// it is taken out. Returns the bytes that are left.
    fn forget_sent(&mut self, size: usize) -> usize {
        let sent = std::mem::take(&mut self.read);
        let left = size.saturating_sub(sent);
        if sent > 0 {
            let rest = abi::buffer(Buffer::RequestBody, sent, left);
            let rest = rest.ok().flatten().unwrap_or_default();
            if abi::replace_buffer(Buffer::RequestBody, &rest).is_err() {
                log::warn!(
                    "Envoy did not let a part of a body be taken out that it had sent already"
                );
            }
        }
        left
    }

    fn carry_out(&mut self, verdict: Verdict) -> Action {
        match verdict {
            Verdict::Hold => {
                self.held = true;
                return Action::Pause;
            }
            Verdict::Release(release) => {
                self.held = false;
                super::root::carry_out(&release);
                if release.refusal.is_some() {
                    self.close();
                    return Action::Pause;
                }
            }
        }
        Action::Continue
    }

    fn close(&mut self) {
        if self.ours {
            self.ours = false;
            if let Ok(mut director) = self.director.try_borrow_mut() {
                director.close(self.id);
            }
        }
    }
}

impl Context for Request {
    fn on_done(&mut self) -> bool {
        self.close();
        true
    }
}

impl HttpContext for Request {
    fn on_http_request_headers(&mut self, _: usize, end: bool) -> Action {
        match self.headers(end) {
            Some(verdict) => self.carry_out(verdict),
            None => Action::Continue,
        }
    }

    fn on_http_request_body(&mut self, size: usize, end: bool) -> Action {
        if !self.ours {
            return Action::Continue;
        }
        let size = if self.held && !self.still_held() {
            self.held = false;
            self.forget_sent(size)
        } else {
            size
        };
        let verdict = self.feed(size, end);
        let action = match verdict {
            Some(verdict) => self.carry_out(verdict),
            None if self.held => Action::Pause,
            None => Action::Continue,
        };
        if !self.held {
            // What was held goes on now: the next callback's buffer starts behind it.
            self.read = 0;
        }
        action
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        if self.ours && self.held {
            if let Some(verdict) = self.feed(0, true) {
                return self.carry_out(verdict);
            }
        }
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        if !self.ours {
            return Action::Continue;
        }
        let served = abi::property("upstream\0address").ok().flatten();
        if let Ok(mut director) = self.director.try_borrow_mut() {
            let explanation = director.answered(self.id, served.as_deref());
            if let Some(text) = explanation {
                let _: Result<(), Status> =
                    abi::set_header(Map::Response, EXPLAIN_HEADER, text.as_bytes());
            }
        }
        Action::Continue
    }

    fn on_log(&mut self) {
        self.close();
    }
}

impl Request {
    fn still_held(&self) -> bool {
        let director = self.director.try_borrow();
        director.is_ok_and(|director| director.holds(self.id))
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.close();
    }
}

/// The client's headers that it may not set.
fn spoofed<'a>(packed: &[u8], destination: &'a str) -> Vec<&'a str>
where
    'static: 'a,
{
    let mut found: Vec<&'a str> = Vec::new();
    for (name, _) in Pairs::new(packed) {
        // All of ours start so; nearly no header of a client does.
        if !name.starts_with(b"x-") && name != destination.as_bytes() {
            continue;
        }
        let owned = OWNED_HEADERS.into_iter().chain([destination]);
        found.extend(owned.filter(|owned| owned.as_bytes() == name));
    }
    found
}

fn read_head(packed: &[u8], end: bool) -> Head<'_> {
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
            _ => {}
        }
    }
    head
}

fn number(value: &[u8]) -> Option<usize> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

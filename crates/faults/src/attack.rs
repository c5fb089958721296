//! Hostile clients: bodies that stop or arrive a byte at a time, and requests that are repeated without a pause.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use envoy_harness::traffic::{client, exchange, post, whole, Http};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, SizeHint};
use tokio::runtime::Runtime;
use tokio::time::{sleep, Sleep};

/// Longer than any attack lasts: an attacker does not end a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(24 * 3_600);

/// Streams that an attacker opens on one HTTP/2 connection: RFC 9113 recommends that servers allow no fewer.
pub const STREAMS_PER_CONNECTION: usize = 100;

/// A body that does not end.
#[derive(Clone, Default)]
pub struct Unfinished {
    /// The part that is sent at once.
    pub begin: Bytes,
    /// The time between further bytes; `None` if there are none.
    pub drip: Option<Duration>,
    /// The length that its headers declare, if any.
    pub declared: Option<u64>,
}

/// An attack. Dropping it closes its connections.
pub struct Attack {
    runtime: Runtime,
    port: u16,
    /// Requests whose body has begun.
    begun: Arc<AtomicUsize>,
    /// Requests that got a response or were cut off.
    ended: Arc<AtomicUsize>,
}

impl Attack {
    /// Creates an attack on a port of this machine, without requests yet.
    pub fn new(port: u16) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        Self {
            runtime,
            port,
            begun: Arc::default(),
            ended: Arc::default(),
        }
    }

    /// Opens this many requests with bodies that do not end, over HTTP/2 [`STREAMS_PER_CONNECTION`] on a
    /// connection. Returns when each has sent its beginning.
    pub fn hold(&self, count: usize, http: Http, bodies: &[Unfinished]) {
        /// Between two requests, so that the length of the listener's backlog does not limit their number.
        const CONNECT_INTERVAL: Duration = Duration::from_millis(1);
        let per_client = match http {
            Http::One => count,
            Http::Two => STREAMS_PER_CONNECTION,
        };
        let before = self.begun();
        // The timers of bodies need a runtime.
        let _entered = self.runtime.enter();
        for number in 0..count.div_ceil(per_client) {
            let client = client(http);
            let streams = per_client.min(count - number * per_client);
            for (_, body) in (0..streams).zip(bodies.iter().cycle()) {
                let body = Open::new(body, &self.begun).boxed();
                let request = post(self.port, "/v1/chat/completions", body);
                let (client, ended) = (client.clone(), self.ended.clone());
                self.runtime.spawn(async move {
                    // Whether half a request gets a response or is cut off makes no difference to the attacker.
                    let _ = exchange(&client, request, REQUEST_TIMEOUT).await;
                    ended.fetch_add(1, Ordering::Relaxed);
                });
                std::thread::sleep(CONNECT_INTERVAL);
            }
        }
        envoy_harness::wait_until("all bodies have begun", || self.begun() >= before + count);
    }

    /// Sends these bodies one after the other, over and over, each on a connection of its own.
    pub fn repeat(&self, path: &'static str, bodies: Vec<Bytes>, pause: Duration) {
        let (port, begun, ended) = (self.port, self.begun.clone(), self.ended.clone());
        self.runtime.spawn(async move {
            for body in bodies.iter().cycle() {
                begun.fetch_add(1, Ordering::Relaxed);
                let request = post(port, path, whole(body.clone()));
                let _ = exchange(&client(Http::One), request, REQUEST_TIMEOUT).await;
                ended.fetch_add(1, Ordering::Relaxed);
                sleep(pause).await;
            }
        });
    }

    /// Returns how many requests have begun their body.
    pub fn begun(&self) -> usize {
        self.begun.load(Ordering::Relaxed)
    }

    /// Returns how many requests got a response or were cut off.
    pub fn ended(&self) -> usize {
        self.ended.load(Ordering::Relaxed)
    }
}

/// An [`Unfinished`] body that is being sent.
struct Open {
    begin: Option<Bytes>,
    drip: Option<(Duration, Pin<Box<Sleep>>)>,
    declared: Option<u64>,
    begun: Arc<AtomicUsize>,
}

impl Open {
    fn new(body: &Unfinished, begun: &Arc<AtomicUsize>) -> Self {
        let drip = body.drip.map(|every| (every, Box::pin(sleep(every))));
        Self {
            begin: Some(body.begin.clone()),
            drip,
            declared: body.declared,
            begun: begun.clone(),
        }
    }
}

impl Body for Open {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(begin) = self.begin.take() {
            self.begun.fetch_add(1, Ordering::Relaxed);
            if !begin.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(begin))));
            }
        }
        let Some((every, sleeping)) = &mut self.drip else {
            return Poll::Pending;
        };
        if sleeping.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        let next = tokio::time::Instant::now() + *every;
        sleeping.as_mut().reset(next);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"a")))))
    }

    fn size_hint(&self) -> SizeHint {
        self.declared
            .map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

//! Hostile clients: bodies that stop or drip, and requests that are repeated without a pause.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{HeaderValue, CONTENT_TYPE};
use hyper::Request;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::runtime::Runtime;
use tokio::time::{sleep, Sleep};

use crate::load::uri;

type Http = Client<HttpConnector, BoxBody<Bytes, Infallible>>;

/// Streams that an attacker opens on one HTTP/2 connection: what servers usually allow at least.
pub const STREAMS: usize = 100;

/// How connections are used.
#[derive(Clone, Copy, PartialEq)]
pub enum Over {
    /// One for each request.
    Http1,
    /// One for every [`STREAMS`] requests.
    Http2,
}

/// A body that does not end.
#[derive(Clone, Default)]
pub struct Unfinished {
    /// What comes at once.
    pub begin: Bytes,
    /// One more byte comes every so often; none: nothing does.
    pub drip: Option<Duration>,
    /// The length that its headers declare; none: they declare none.
    pub declared: Option<u64>,
}

/// An attack; it ends with this value, and its connections are closed.
pub struct Attack {
    runtime: Runtime,
    port: u16,
    /// Of requests: how many have begun to send their body, and how many have been answered or cut.
    begun: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
}

impl Attack {
    /// An attack on this port of this machine, by no client yet.
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

    /// Opens so many requests with bodies that do not end; returns when each has sent its beginning.
    pub fn hold(&self, count: usize, over: Over, bodies: &[Unfinished]) {
        /// Between two of them, so that a listener's backlog does not decide how many there are.
        const PAUSE: Duration = Duration::from_millis(1);
        let per_client = if over == Over::Http2 { STREAMS } else { count };
        let before = self.begun();
        // Timers of bodies belong to it.
        let _entered = self.runtime.enter();
        for number in 0..count.div_ceil(per_client) {
            let client = client(over);
            let streams = per_client.min(count - number * per_client);
            for (_, body) in (0..streams).zip(bodies.iter().cycle()) {
                let body = Open::new(body, &self.begun).boxed();
                let request = post(self.port, "/v1/chat/completions", body);
                let (client, ended) = (client.clone(), self.ended.clone());
                self.runtime.spawn(async move {
                    // An answer to half a request, or its end, is all the same to the attacker.
                    if let Ok(answer) = client.request(request).await {
                        let _ = answer.into_body().collect().await;
                    }
                    ended.fetch_add(1, Ordering::Relaxed);
                });
                std::thread::sleep(PAUSE);
            }
        }
        envoy_harness::wait_until("all bodies have begun", || self.begun() >= before + count);
    }

    /// Sends these bodies one after the other, again and again, each on a connection of its own.
    pub fn repeat(&self, path: &'static str, bodies: Vec<Bytes>, pause: Duration) {
        let (port, begun, ended) = (self.port, self.begun.clone(), self.ended.clone());
        self.runtime.spawn(async move {
            for body in bodies.iter().cycle() {
                begun.fetch_add(1, Ordering::Relaxed);
                let request = post(port, path, Full::new(body.clone()).boxed());
                if let Ok(answer) = client(Over::Http1).request(request).await {
                    let _ = answer.into_body().collect().await;
                }
                ended.fetch_add(1, Ordering::Relaxed);
                sleep(pause).await;
            }
        });
    }

    /// Requests that have begun.
    pub fn begun(&self) -> usize {
        self.begun.load(Ordering::Relaxed)
    }

    /// Requests that have been answered or cut.
    pub fn ended(&self) -> usize {
        self.ended.load(Ordering::Relaxed)
    }
}

fn client(over: Over) -> Http {
    Client::builder(TokioExecutor::new())
        .http2_only(over == Over::Http2)
        .build_http()
}

fn post(
    port: u16,
    path: &str,
    body: BoxBody<Bytes, Infallible>,
) -> Request<BoxBody<Bytes, Infallible>> {
    let mut request = Request::new(body);
    *request.method_mut() = hyper::Method::POST;
    *request.uri_mut() = uri(port, path);
    let json = HeaderValue::from_static("application/json");
    request.headers_mut().insert(CONTENT_TYPE, json);
    request
}

/// An [`Unfinished`] body on its way.
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

//! A pod that shows how far each request has come, while it comes.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use xxhash_rust::xxh64::Xxh64;

use crate::stream::{wait, RUNTIME};

/// A metrics page.
const PAGE: &str = "# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting 0\n";

/// The time at which a witness responds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RespondWhen {
    /// 200, when the whole request has come.
    AtTheEnd,
    /// 400, at the request's headers; it still reads what comes.
    AtOnce,
    /// Like [`Self::AtTheEnd`], but with 503 to every second request, starting with the first.
    AfterFailure,
}

/// A POST that came, as far as it has come.
#[derive(Debug, Clone, Default)]
pub struct Arrival {
    /// Bytes of its body.
    pub bytes: usize,
    /// Their XXH64.
    pub hash: u64,
    /// Its trailers' names and values.
    pub trailers: Vec<(String, String)>,
    /// Whether the body was complete when it ended; `None` before its end.
    pub ended: Option<bool>,
}

/// The pod.
pub struct Witness {
    /// The address at which it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    listening: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    arrivals: Mutex<Vec<Arrival>>,
    hides: AtomicBool,
}

impl Witness {
    /// Starts a witness that responds at this time.
    pub fn start(respond_when: RespondWhen) -> Self {
        let listener = wait(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let noted = shared.clone();
        let listening = RUNTIME.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                RUNTIME.spawn(serve(stream, respond_when, noted.clone()));
            }
        });
        Self {
            address,
            shared,
            listening,
        }
    }

    /// From now on its metrics page is not there.
    pub fn hide_metrics(&self) {
        self.shared.hides.store(true, Ordering::Relaxed);
    }

    /// The POSTs so far.
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.shared.arrivals.lock().unwrap().clone()
    }

    /// The POST that came last.
    pub fn last(&self) -> Arrival {
        self.arrivals().pop().unwrap_or_default()
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn serve(stream: TcpStream, respond_when: RespondWhen, shared: Arc<Shared>) {
    let service = service_fn(move |request| respond(request, respond_when, shared.clone()));
    // An error means that the peer has disconnected.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn respond(
    request: Request<Incoming>,
    respond_when: RespondWhen,
    shared: Arc<Shared>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() == "/metrics" && shared.hides.load(Ordering::Relaxed) {
        let nothing = Response::builder().status(404).body(Full::default());
        return Ok(nothing.unwrap());
    }
    if request.method() != Method::POST {
        // A metrics page, which serves as the response to all other requests, too.
        return Ok(Response::new(Full::from(PAGE)));
    }
    let number = {
        let mut arrivals = shared.arrivals.lock().unwrap();
        arrivals.push(Arrival::default());
        arrivals.len() - 1
    };
    let arrival = read(request.into_body(), move |arrival| {
        shared.arrivals.lock().unwrap()[number] = arrival.clone();
    });
    if respond_when == RespondWhen::AtOnce {
        RUNTIME.spawn(arrival);
        let refusal = Response::builder().status(400).body(Full::default());
        return Ok(refusal.unwrap());
    }
    let arrival = arrival.await;
    let fails = respond_when == RespondWhen::AfterFailure && number % 2 == 0;
    let response = Response::builder()
        .status(if fails { 503 } else { 200 })
        .header("x-body-bytes", arrival.bytes)
        .header("x-body-xxh64", arrival.hash);
    Ok(response.body(Full::default()).unwrap())
}

async fn read(mut body: Incoming, note: impl Fn(&Arrival)) -> Arrival {
    let mut arrival = Arrival::default();
    let mut hasher = Xxh64::new(0);
    let ended = loop {
        match body.frame().await {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    hasher.update(data);
                    arrival.bytes += data.len();
                    arrival.hash = hasher.digest();
                }
                let trailers = frame.trailers_ref().into_iter().flatten();
                let text =
                    |(name, value): (&hyper::header::HeaderName, &hyper::header::HeaderValue)| {
                        (name.to_string(), value.to_str().unwrap().to_owned())
                    };
                arrival.trailers.extend(trailers.map(text));
                note(&arrival);
            }
            Some(Err(_)) => break false,
            None => break true,
        }
    };
    arrival.ended = Some(ended);
    note(&arrival);
    arrival
}

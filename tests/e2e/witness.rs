//! A pod that tells how far each request has come, while it comes.

use std::convert::Infallible;
use std::net::SocketAddr;
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

/// When a witness answers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Answers {
    /// 200, when the whole request has come.
    AtTheEnd,
    /// 400, at the request's headers, leaving the body unread.
    AtOnce,
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
    /// Whether it has ended, and whether it ended well.
    pub ended: Option<bool>,
}

/// The pod.
pub struct Witness {
    /// Where it listens.
    pub address: SocketAddr,
    arrivals: Arrivals,
    listening: JoinHandle<()>,
}

type Arrivals = Arc<Mutex<Vec<Arrival>>>;

impl Witness {
    /// One that answers so.
    pub fn start(answers: Answers) -> Self {
        let listener = wait(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let arrivals = Arrivals::default();
        let noted = arrivals.clone();
        let listening = RUNTIME.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                RUNTIME.spawn(serve(stream, answers, noted.clone()));
            }
        });
        Self {
            address,
            arrivals,
            listening,
        }
    }

    /// The POSTs so far.
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.arrivals.lock().unwrap().clone()
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

async fn serve(stream: TcpStream, answers: Answers, arrivals: Arrivals) {
    let service = service_fn(move |request| answer(request, answers, arrivals.clone()));
    // A peer that goes away ends its connection.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(
    request: Request<Incoming>,
    answers: Answers,
    arrivals: Arrivals,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.method() != Method::POST {
        // A metrics page, and as good an answer to anything else.
        let page = Full::from("vllm:num_requests_waiting 0\n");
        return Ok(Response::new(page));
    }
    let number = {
        let mut arrivals = arrivals.lock().unwrap();
        arrivals.push(Arrival::default());
        arrivals.len() - 1
    };
    if answers == Answers::AtOnce {
        let refusal = Response::builder().status(400).body(Full::default());
        return Ok(refusal.unwrap());
    }
    let arrival = read(request.into_body(), |arrival| {
        arrivals.lock().unwrap()[number] = arrival.clone();
    })
    .await;
    let response = Response::builder()
        .header("x-body-bytes", arrival.bytes)
        .header("x-body-xxh64", arrival.hash);
    Ok(response.body(Full::default()).unwrap())
}

async fn read(mut body: Incoming, note: impl Fn(&Arrival)) -> Arrival {
    // A body that breaks off drops this future, and whoever drops it notes that.
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

//! An open loop: requests leave when their time has come, whatever became of those before. A closed
//! loop would stop asking just when things go wrong.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::json;
use tokio::runtime::Runtime;

/// What clients wait for an answer to end: longer than any fault here lasts.
const PATIENCE: Duration = Duration::from_secs(30);

/// Conversations whose turns share a prefix, so that prefix affinity takes part.
const CONVERSATIONS: u64 = 24;

/// What is asked for.
#[derive(Clone, Copy, PartialEq)]
pub enum Asks {
    /// A chat completion.
    Chat,
    /// The list of models: a request without a body.
    Models,
}

/// What is sent.
#[derive(Clone, Copy)]
pub struct Mix {
    /// What is asked for.
    pub asks: Asks,
    /// Requests a second.
    pub rate: u32,
    /// Of ten requests, how many stream.
    pub streams: u64,
    /// Conversations that the prompts belong to.
    pub conversations: u64,
    /// Bytes of a prompt.
    pub prompt: usize,
    /// Tokens of a streamed answer; others have a fifth.
    pub tokens: u32,
    /// HTTP/2 over so many connections; 0: HTTP/1.1 over as many as it takes.
    pub http2: usize,
    /// What clients wait for an answer to end.
    pub patience: Duration,
}

impl Default for Mix {
    fn default() -> Self {
        // 50 tokens of 4 ms: some streams are in the middle of their answer whenever a fault comes.
        Self {
            asks: Asks::Chat,
            rate: 100,
            streams: 3,
            conversations: CONVERSATIONS,
            prompt: 2_000,
            tokens: 50,
            http2: 0,
            patience: PATIENCE,
        }
    }
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// 200 and a whole answer.
    Answered,
    /// Anything else before a first byte of a good answer: a retry could have helped.
    Failed(String),
    /// A good answer that began and did not end well: it cannot be retried.
    Cut(String),
}

/// A request.
#[derive(Debug, Clone)]
pub struct Sent {
    /// When it was due, since the load began.
    pub at: Duration,
    /// From then to its end.
    pub took: Duration,
    /// What became of it.
    pub outcome: Outcome,
}

type Http = Client<HttpConnector, Full<Bytes>>;

/// Load that runs until it is stopped.
pub struct Load {
    runtime: Runtime,
    since: Instant,
    stop: Arc<AtomicBool>,
    sent: Arc<Mutex<Vec<Sent>>>,
    looping: tokio::task::JoinHandle<Vec<tokio::task::JoinHandle<()>>>,
}

impl Load {
    /// Starts at this port of this machine.
    pub fn start(port: u16, mix: Mix) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let (stop, sent) = (Arc::default(), Arc::default());
        let since = Instant::now();
        let looping = runtime.spawn(send_all(
            port,
            mix,
            since,
            Arc::clone(&stop),
            Arc::clone(&sent),
        ));
        Ok(Self {
            runtime,
            since,
            stop,
            sent,
            looping,
        })
    }

    /// Since when it runs.
    pub fn elapsed(&self) -> Duration {
        self.since.elapsed()
    }

    /// Sends nothing more, waits for what is under way, and gives all that was sent, in order.
    pub fn stop(self) -> Vec<Sent> {
        self.stop.store(true, Ordering::Relaxed);
        self.runtime.block_on(async {
            for request in self.looping.await.unwrap_or_default() {
                // Each records its own end.
                let _ = request.await;
            }
        });
        let mut sent = std::mem::take(&mut *lock(&self.sent));
        sent.sort_by_key(|sent| sent.at);
        sent
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

async fn send_all(
    port: u16,
    mix: Mix,
    since: Instant,
    stop: Arc<AtomicBool>,
    sent: Arc<Mutex<Vec<Sent>>>,
) -> Vec<tokio::task::JoinHandle<()>> {
    let mut builder = Client::builder(TokioExecutor::new());
    let clients: Vec<Http> = (0..mix.http2.max(1))
        .map(|_| builder.http2_only(mix.http2 > 0).build_http())
        .collect();
    let mut under_way: Vec<tokio::task::JoinHandle<()>> = Vec::new();
    let pause = Duration::from_secs(1) / mix.rate;
    for number in 0.. {
        let at = pause * number;
        tokio::time::sleep_until((since + at).into()).await;
        if stop.load(Ordering::Relaxed) {
            break;
        }
        // An hour's handles are not kept.
        if number % 1_000 == 0 {
            under_way.retain(|request| !request.is_finished());
        }
        let client = clients[number as usize % clients.len()].clone();
        let sent = sent.clone();
        under_way.push(tokio::spawn(async move {
            let outcome = one(&client, port, mix, u64::from(number)).await;
            let took = (since.elapsed()).saturating_sub(at);
            lock(&sent).push(Sent { at, took, outcome });
        }));
    }
    under_way
}

/// Sends one request and sees it through.
async fn one(client: &Http, port: u16, mix: Mix, number: u64) -> Outcome {
    let streams = mix.asks == Asks::Chat && number % 10 < mix.streams;
    let request = match mix.asks {
        Asks::Chat => request(port, mix, number, streams),
        Asks::Models => models(port),
    };
    let deadline = tokio::time::Instant::now() + mix.patience;
    let answer = tokio::time::timeout_at(deadline, client.request(request)).await;
    let answer = match answer {
        Err(_) => return Outcome::Failed("no answer".to_owned()),
        Ok(Err(error)) => return Outcome::Failed(reasons(&error)),
        Ok(Ok(answer)) => answer,
    };
    let status = answer.status();
    let body = tokio::time::timeout_at(deadline, answer.into_body().collect()).await;
    let body = match body {
        Err(_) => return Outcome::Cut("no end".to_owned()),
        Ok(Err(error)) => return Outcome::Cut(reasons(&error)),
        Ok(Ok(body)) => body.to_bytes(),
    };
    let text = String::from_utf8_lossy(&body);
    let end = match mix.asks {
        Asks::Models => "\"data\"",
        Asks::Chat if streams => "data: [DONE]",
        Asks::Chat => "\"usage\"",
    };
    if status != 200 {
        Outcome::Failed(format!("{} {}", status.as_u16(), text.trim()))
    } else if text.contains(end) {
        Outcome::Answered
    } else {
        Outcome::Cut("an answer without its end".to_owned())
    }
}

fn request(port: u16, mix: Mix, number: u64, streams: bool) -> Request<Full<Bytes>> {
    let conversation = number % mix.conversations;
    let mut prompt = format!("conversation {conversation} goes on. ");
    prompt = prompt.repeat(mix.prompt / prompt.len() + 1);
    prompt += &format!("And now to something else, number {number}.");
    let tokens = if streams { mix.tokens } else { mix.tokens / 5 };
    let body = json!({"model": "demo", "stream": streams, "max_tokens": tokens,
        "messages": [{"role": "user", "content": prompt}]});
    let mut request = Request::new(Full::new(Bytes::from(body.to_string())));
    *request.method_mut() = hyper::Method::POST;
    *request.uri_mut() = uri(port, "/v1/chat/completions");
    let json = hyper::header::HeaderValue::from_static("application/json");
    request
        .headers_mut()
        .insert(hyper::header::CONTENT_TYPE, json);
    request
}

fn models(port: u16) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::default());
    *request.uri_mut() = uri(port, "/v1/models");
    request
}

/// A path of this port of this machine.
pub fn uri(port: u16, path: &str) -> hyper::Uri {
    format!("http://127.0.0.1:{port}{path}").parse().unwrap()
}

/// An error with what caused it: the outermost alone says little.
fn reasons(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text += &format!(": {cause}");
        next = cause.source();
    }
    text
}

//! An open loop: each request is sent when it is due, whatever became of the earlier ones. A closed loop
//! would send less just when something is wrong.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use envoy_harness::traffic::{self, exchange, Body, Client, Failure, Http};
use hyper::header::HeaderValue;
use hyper::Request;
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

/// The longest that a client waits for the end of a response: longer than any fault of the suite lasts.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

/// Conversations whose turns share a prefix, so that prefix affinity takes part.
const CONVERSATIONS: u64 = 24;

/// The kind of request that is sent.
#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    /// A chat completion.
    Chat,
    /// The list of models: a request without a body.
    Models,
}

/// The requests of a load.
#[derive(Clone, Copy)]
pub struct Mix {
    /// The kind of all requests.
    pub kind: Kind,
    /// Requests per second.
    pub rate: u32,
    /// How many of ten requests stream their response.
    pub streams: u64,
    /// Conversations that the prompts belong to.
    pub conversations: u64,
    /// Bytes of a prompt.
    pub prompt: usize,
    /// Tokens of a streamed response; others have a fifth.
    pub tokens: u32,
    /// HTTP/2 connections; 0 for HTTP/1.1, with as many connections as it needs.
    pub http2: usize,
    /// The longest that a client waits for the end of a response.
    pub patience: Duration,
    /// Returns further headers of a request, by its number.
    pub headers: fn(u64) -> &'static [Header],
}

/// A header's name and value.
pub type Header = (&'static str, &'static str);

impl Default for Mix {
    fn default() -> Self {
        // 50 tokens of 4 ms: some responses are in the middle whenever a fault begins.
        Self {
            kind: Kind::Chat,
            rate: 100,
            streams: 3,
            conversations: CONVERSATIONS,
            prompt: 2_000,
            tokens: 50,
            http2: 0,
            patience: RESPONSE_TIMEOUT,
            headers: |_| &[],
        }
    }
}

/// The end of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// A whole response with status 200.
    Succeeded,
    /// Another status, or no response: a retry could have helped.
    Failed(String),
    /// A response that began and did not end well: it cannot be retried.
    Cut(String),
}

/// A request that was sent.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Its number in the load, from 0.
    pub number: u64,
    /// The time at which it was due, since the load began.
    pub at: Duration,
    /// From then to its end.
    pub took: Duration,
    /// The end of the request.
    pub outcome: Outcome,
}

/// A load that runs until it is stopped.
pub struct Load {
    runtime: Runtime,
    since: Instant,
    stop: Arc<AtomicBool>,
    sent: Arc<Mutex<Vec<Sent>>>,
    sender: JoinHandle<Vec<JoinHandle<()>>>,
}

impl Load {
    /// Starts a load on a port of this machine.
    pub fn start(port: u16, mix: Mix) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let (stop, sent) = (Arc::default(), Arc::default());
        let since = Instant::now();
        let sender = send_all(port, mix, since, Arc::clone(&stop), Arc::clone(&sent));
        let sender = runtime.spawn(sender);
        Ok(Self {
            runtime,
            since,
            stop,
            sent,
            sender,
        })
    }

    /// Returns how long the load has been running.
    pub fn elapsed(&self) -> Duration {
        self.since.elapsed()
    }

    /// Stops sending, waits for the requests under way, and returns all requests by the time they were due.
    pub fn stop(self) -> Vec<Sent> {
        self.stop.store(true, Ordering::Relaxed);
        self.runtime.block_on(async {
            for request in self.sender.await.unwrap_or_default() {
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
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends requests until it is to stop. Returns the tasks of those that may be under way.
async fn send_all(
    port: u16,
    mix: Mix,
    since: Instant,
    stop: Arc<AtomicBool>,
    sent: Arc<Mutex<Vec<Sent>>>,
) -> Vec<JoinHandle<()>> {
    let http = if mix.http2 > 0 { Http::Two } else { Http::One };
    let clients = (0..mix.http2.max(1)).map(|_| traffic::client(http));
    let clients: Vec<Client> = clients.collect();
    let mut under_way: Vec<JoinHandle<()>> = Vec::new();
    let pause = Duration::from_secs(1) / mix.rate;
    for number in 0.. {
        let at = pause * number;
        tokio::time::sleep_until((since + at).into()).await;
        if stop.load(Ordering::Relaxed) {
            break;
        }
        // Otherwise a soak of an hour would end with a list of all its tasks.
        if number % 1_000 == 0 {
            under_way.retain(|request| !request.is_finished());
        }
        let client = clients[number as usize % clients.len()].clone();
        let sent = sent.clone();
        under_way.push(tokio::spawn(async move {
            let number = u64::from(number);
            let outcome = send(&client, port, mix, number).await;
            let took = since.elapsed().saturating_sub(at);
            lock(&sent).push(Sent {
                number,
                at,
                took,
                outcome,
            });
        }));
    }
    under_way
}

/// Sends one request. Returns how it ended.
async fn send(client: &Client, port: u16, mix: Mix, number: u64) -> Outcome {
    let streams = mix.kind == Kind::Chat && number % 10 < mix.streams;
    // What only a whole response has.
    let (mut request, end) = match mix.kind {
        Kind::Models => (traffic::get(port, "/v1/models"), "\"data\""),
        Kind::Chat if streams => (chat(port, mix, number, true), "data: [DONE]"),
        Kind::Chat => (chat(port, mix, number, false), "\"usage\""),
    };
    for (name, value) in (mix.headers)(number) {
        let headers = request.headers_mut();
        headers.insert(*name, HeaderValue::from_static(value));
    }
    match exchange(client, request, mix.patience).await {
        Err(Failure::NoResponse(reason)) => Outcome::Failed(reason),
        Err(Failure::Cut(reason)) => Outcome::Cut(reason),
        Ok(response) if response.status != 200 => {
            Outcome::Failed(format!("{} {}", response.status, response.body.trim()))
        }
        Ok(response) if response.body.contains(end) => Outcome::Succeeded,
        Ok(_) => Outcome::Cut("a response without its end".to_owned()),
    }
}

fn chat(port: u16, mix: Mix, number: u64, streams: bool) -> Request<Body> {
    let conversation = number % mix.conversations;
    let mut prompt = format!("conversation {conversation} goes on. ");
    prompt = prompt.repeat(mix.prompt / prompt.len() + 1);
    prompt += &format!("And now to something else, number {number}.");
    let tokens = if streams { mix.tokens } else { mix.tokens / 5 };
    let body = json!({"model": "demo", "stream": streams, "max_tokens": tokens,
        "messages": [{"role": "user", "content": prompt}]});
    let body = traffic::whole(body.to_string());
    traffic::post(port, "/v1/chat/completions", body)
}

//! Clients that come as they please: an open load, so that a slow pool is not asked less.

use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout, Instant};

use super::workload::{Conversation, Workload};
use crate::bootstrap::SESSION_HEADER;

/// Who has no answer after this has gone.
const PATIENCE: Duration = Duration::from_secs(30);

/// Milliseconds in which a user reads an answer before asking on.
const PAUSE: std::ops::Range<u64> = 300..1_500;

/// One request and what became of it.
pub struct Answer {
    /// When it was sent, since the load began.
    pub sent: Duration,
    /// How long the whole answer took.
    pub took: Duration,
    /// What came; none: something other than a whole answer.
    pub taken: Option<Taken>,
}

/// A whole answer.
pub struct Taken {
    /// Time to the first token.
    pub first_token: Duration,
    /// Tokens of the prompt.
    pub prompt: u64,
    /// Of them, tokens that were in the pod's cache.
    pub cached: u64,
}

/// Plays a workload at a listener until `end`: conversations begin at random, as many as make that
/// many requests a second. The same each time, but for how long answers take.
pub async fn play(port: u16, workload: &'static Workload, rate: f64, end: Duration) -> Vec<Answer> {
    let mut rng = Rng::with_seed(1);
    let began = Instant::now();
    let mut users = JoinSet::new();
    let mut due = Duration::ZERO;
    loop {
        // Gaps of a Poisson process; 1 - f64() is never 0.
        let gap = -(1.0 - rng.f64()).ln() * workload.turns as f64 / rate;
        due += Duration::from_secs_f64(gap);
        if due >= end {
            break;
        }
        sleep_until(began + due).await;
        users.spawn(converse(port, workload, rng.fork(), began, end));
    }
    users.join_all().await.into_iter().flatten().collect()
}

/// A user's conversation.
async fn converse(
    port: u16,
    workload: &'static Workload,
    mut rng: Rng,
    began: Instant,
    end: Duration,
) -> Vec<Answer> {
    let session = rng.u64(..).to_string();
    let mut conversation = Conversation::new(workload, &mut rng);
    let mut answers = Vec::new();
    for turn in 0..workload.turns {
        if turn > 0 {
            sleep(Duration::from_millis(rng.u64(PAUSE))).await;
        }
        let body = conversation.ask(&mut rng);
        let sent = began.elapsed();
        if sent >= end {
            break;
        }
        let taken = timeout(PATIENCE, ask(port, &session, body)).await;
        answers.push(Answer {
            sent,
            took: began.elapsed() - sent,
            taken: taken.ok().flatten(),
        });
        conversation.answered(&mut rng);
    }
    answers
}

/// One request over a connection of its own, and so to any worker.
async fn ask(port: u16, session: &str, body: String) -> Option<Taken> {
    let sent = Instant::now();
    let stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    stream.set_nodelay(true).ok()?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    // It ends with the sender and the answer.
    tokio::spawn(connection);
    let request = Request::post("/v1/chat/completions")
        .header("host", "bench")
        .header("content-type", "application/json")
        .header(SESSION_HEADER, session)
        .body(Full::new(Bytes::from(body)))
        .ok()?;
    let mut answer = sender.send_request(request).await.ok()?;
    if answer.status() != StatusCode::OK {
        return None;
    }
    let (mut text, mut first_token) = (Vec::new(), None);
    while let Some(frame) = answer.frame().await {
        if let Some(data) = frame.ok()?.data_ref() {
            first_token.get_or_insert_with(|| sent.elapsed());
            text.extend_from_slice(data);
        }
    }
    let usage = usage(&String::from_utf8_lossy(&text))?;
    let number = |path: &str| usage.pointer(path).and_then(Value::as_u64);
    Some(Taken {
        first_token: first_token?,
        prompt: number("/prompt_tokens")?,
        cached: number("/prompt_tokens_details/cached_tokens").unwrap_or(0),
    })
}

/// The usage, which the last event with one has.
fn usage(events: &str) -> Option<Value> {
    let events = events.lines().rev();
    let mut events = events.filter_map(|line| line.strip_prefix("data: "));
    events.find_map(|event| {
        let mut event: Value = serde_json::from_str(event).ok()?;
        let usage = event.get_mut("usage").map(Value::take)?;
        usage.is_object().then_some(usage)
    })
}

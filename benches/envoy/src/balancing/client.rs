//! Users whose conversations begin at random: an open loop, so that a slow pool does not get less load.

use std::time::Duration;

use envoy_harness::traffic::{self, exchange, Http};
use fastrand::Rng;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, Instant};

use super::workload::{Conversation, Workload};
use crate::bootstrap::SESSION_HEADER;

/// The longest that a user waits for a response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

/// Milliseconds in which a user reads a response before asking on.
const READING_MS: std::ops::Range<u64> = 300..1_500;

/// One request and its response.
pub struct Response {
    /// When the request was sent, since the load began.
    pub sent: Duration,
    /// How long the whole response took.
    pub took: Duration,
    /// The response's figures; `None` if it is not a whole response.
    pub taken: Option<Taken>,
}

/// The figures of a whole response.
pub struct Taken {
    /// Time to the first token.
    pub first_token: Duration,
    /// Tokens of the prompt.
    pub prompt: u64,
    /// Tokens of the prompt that were in the pod's cache.
    pub cached: u64,
}

/// Plays a workload at a listener until `end`: conversations begin at random, at the rate that makes this
/// many requests per second. Every run plays the same conversations; only the response times differ.
pub async fn play(
    port: u16,
    workload: &'static Workload,
    rate: f64,
    end: Duration,
) -> Vec<Response> {
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

/// Plays one user's conversation.
async fn converse(
    port: u16,
    workload: &'static Workload,
    mut rng: Rng,
    began: Instant,
    end: Duration,
) -> Vec<Response> {
    let session = rng.u64(..).to_string();
    let mut conversation = Conversation::new(workload, &mut rng);
    let mut responses = Vec::new();
    for turn in 0..workload.turns {
        if turn > 0 {
            sleep(Duration::from_millis(rng.u64(READING_MS))).await;
        }
        let body = conversation.ask(&mut rng);
        let sent = began.elapsed();
        if sent >= end {
            break;
        }
        let taken = ask(port, &session, body).await;
        responses.push(Response {
            sent,
            took: began.elapsed() - sent,
            taken,
        });
        conversation.add_response(&mut rng);
    }
    responses
}

/// Sends one request over a connection of its own, so that any worker may get it.
async fn ask(port: u16, session: &str, body: String) -> Option<Taken> {
    let mut request = traffic::post(port, "/v1/chat/completions", traffic::whole(body));
    let headers = request.headers_mut();
    headers.insert(SESSION_HEADER, session.parse().ok()?);
    let client = traffic::client(Http::One);
    let response = exchange(&client, request, RESPONSE_TIMEOUT).await.ok()?;
    if response.status != 200 {
        return None;
    }
    let usage = usage(&response.body)?;
    let number = |path: &str| usage.pointer(path).and_then(Value::as_u64);
    Some(Taken {
        first_token: response.first_bytes?,
        prompt: number("/prompt_tokens")?,
        cached: number("/prompt_tokens_details/cached_tokens").unwrap_or(0),
    })
}

/// Returns the usage, which is in the last event that has one.
fn usage(events: &str) -> Option<Value> {
    let events = events.lines().rev();
    let mut events = events.filter_map(|line| line.strip_prefix("data: "));
    events.find_map(|event| {
        let mut event: Value = serde_json::from_str(event).ok()?;
        let usage = event.get_mut("usage").map(Value::take)?;
        usage.is_object().then_some(usage)
    })
}

//! The HTTP interface of a pod.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{combinators::BoxBody, BodyExt, Full};
use hyper::body::{Frame, Incoming};
use hyper::header::{HeaderValue, CONNECTION, CONTENT_TYPE, UPGRADE};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use xxhash_rust::xxh64::{xxh64, Xxh64};

use crate::load_report;
use crate::page::{self, page};
use crate::pod::{Metrics, Pod, ReceivedRequest};
use crate::response::{Api, ApiRequest};
use crate::sidecar;
use crate::stream_body::StreamBody;
use crate::work::Served;

/// The body of a response.
pub type Body = BoxBody<Bytes, Infallible>;

/// Bytes of the longest body that is parsed. Longer ones are hashed and counted only: no simulation needs such
/// a prompt.
const MAX_PARSED_BODY: usize = 8 << 20;

/// The type of responses that come as a whole.
const JSON: &str = "application/json";

/// Serves one request.
pub async fn serve(
    pod: Arc<Pod>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    if request.uri().path() == "/metrics" {
        return Ok(metrics(&pod).await);
    }
    if request.uri().path() == "/v1/loads" {
        return Ok(loads(&pod));
    }
    let faults = pod.faults();
    pod.wait_while_hung().await;
    if request.headers().contains_key(UPGRADE) {
        return Ok(upgrade(&pod, request));
    }
    let (seen, path, body) = receive(request).await;
    let (bytes, hash) = (seen.body_bytes, seen.body_xxh64);
    pod.record(seen.clone());
    let applies = |only: &String| String::from_utf8_lossy(&body).contains(only);
    let broken = faults.only.as_ref().is_none_or(applies);
    let mut response = match faults.status.filter(|_| broken) {
        Some(status) => plain(
            StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            "a fault",
        ),
        None if pod.settings.sidecar => sidecar::serve(pod.clone(), &seen, &path, &body).await,
        None => respond(pod.clone(), &seen.method, &path, &body).await,
    };
    let is_whole = response
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind == JSON);
    let report = load_report::value(&pod, &seen, Api::of_path(&path)).filter(|_| is_whole);
    let headers = response.headers_mut();
    if let Some(Ok(report)) = report.map(HeaderValue::try_from) {
        headers.insert(load_report::NAME, report);
    }
    if let Ok(name) = HeaderValue::from_str(&pod.name) {
        headers.insert("x-served-by", name);
    }
    headers.insert("x-body-bytes", HeaderValue::from(bytes));
    headers.insert("x-body-xxh64", HeaderValue::from(hash));
    Ok(response)
}

async fn receive(request: Request<Incoming>) -> (ReceivedRequest, String, Bytes) {
    let (head, mut incoming) = request.into_parts();
    let mut kept = BytesMut::new();
    let mut hasher = Xxh64::new(0);
    let mut size = 0;
    while let Some(frame) = incoming.frame().await {
        let Ok(frame) = frame else {
            // The client has disconnected: a part of a body is not parsed.
            kept.clear();
            break;
        };
        if let Some(data) = frame.data_ref() {
            hasher.update(data);
            size += data.len();
            if size <= MAX_PARSED_BODY {
                kept.extend_from_slice(data);
            }
        }
    }
    let headers = head.headers.iter();
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let seen = ReceivedRequest {
        method: head.method.to_string(),
        path: head.uri.to_string(),
        headers: headers
            .map(|(name, value)| (name.as_str().to_owned(), text(value)))
            .collect(),
        body_bytes: size,
        body_xxh64: hasher.digest(),
    };
    (seen, head.uri.path().to_owned(), kept.freeze())
}

/// Returns the model server's own response.
pub async fn respond(pod: Arc<Pod>, method: &str, path: &str, body: &[u8]) -> Response<Body> {
    match (path, Api::of_path(path)) {
        ("/health", _) => plain(StatusCode::OK, ""),
        ("/v1/models", _) => json(models(&pod)),
        (_, Some(api)) if method == Method::POST.as_str() => match ApiRequest::read(api, body) {
            Some(request) if pod.faults().strict && !pod.serves(&request.model) => {
                plain(StatusCode::NOT_FOUND, "no such model")
            }
            Some(request) => complete(pod, request).await,
            None => plain(StatusCode::BAD_REQUEST, "the body is not a JSON object"),
        },
        _ => plain(StatusCode::OK, "ok"),
    }
}

/// The time between two counts of a response that is sent as a whole: a page shows that it proceeds.
const COUNT_INTERVAL: Duration = Duration::from_millis(100);

/// Generates these tokens.
async fn generate(pod: &Pod, tokens: usize) {
    let token_time = pod.settings.token_time;
    let at_once = match token_time.is_zero() {
        true => tokens,
        false => (COUNT_INTERVAL.as_nanos() / token_time.as_nanos()).max(1) as usize,
    };
    let mut left = tokens;
    while left > 0 {
        let part = left.min(at_once);
        if !token_time.is_zero() {
            tokio::time::sleep(token_time * part as u32).await;
        }
        pod.wait_while_hung().await;
        pod.count(|work| work.generated_tokens += part);
        left -= part;
    }
}

/// Generates a response.
pub async fn complete(pod: Arc<Pod>, request: ApiRequest) -> Response<Body> {
    let token_time = pod.settings.token_time;
    if request.counts_only() {
        return json(request.whole(Served::uncached(&request.prompt), &pod.name));
    }
    pod.count(|work| work.encoded_media += request.media);
    if !request.stream {
        let (served, running) = pod
            .prefill(&request.model, &request.prompt, request.kv)
            .await;
        generate(&pod, request.tokens()).await;
        drop(running);
        return json(request.whole(served, &pod.name));
    }
    // A few events are buffered, so that a slow client does not stop the pod at once.
    let (sender, body) = StreamBody::<Infallible>::new(16);
    tokio::spawn(async move {
        let (served, running) = pod
            .prefill(&request.model, &request.prompt, request.kv)
            .await;
        let mut events = request.first_events(served);
        for token in 0..request.tokens() {
            // The events before a token are sent with it.
            let event = std::mem::take(&mut events) + &request.event(token);
            pod.wait_while_hung().await;
            if sender.send(Ok(Frame::data(event.into()))).await.is_err() {
                return;
            }
            pod.count(|work| work.generated_tokens += 1);
            if !token_time.is_zero() {
                tokio::time::sleep(token_time).await;
            }
        }
        drop(running);
        events += &request.last_events(served);
        // The client may have disconnected.
        let _ = sender.send(Ok(Frame::data(events.into()))).await;
    });
    let mut response = Response::new(body.boxed());
    let kind = HeaderValue::from_static("text/event-stream; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

async fn metrics(pod: &Pod) -> Response<Body> {
    pod.count_scrape();
    let good = || page(&pod.settings.model, &pod.shown());
    match pod.faults().metrics {
        Metrics::Fine => plain(StatusCode::OK, &good()),
        Metrics::Hang => std::future::pending().await,
        Metrics::Error => plain(StatusCode::INTERNAL_SERVER_ERROR, "a fault"),
        Metrics::Garbage => plain(
            StatusCode::OK,
            "\u{0}\u{1}{{{]]\nvllm:num_requests_waiting 0",
        ),
        Metrics::Huge => {
            let mut text = good();
            while text.len() < 2 << 20 {
                text.push_str("filler_metric{a=\"b\"} 1\n");
            }
            plain(StatusCode::OK, &text)
        }
    }
}

fn loads(pod: &Pod) -> Response<Body> {
    pod.count_loads();
    match pod.faults().no_loads {
        true => plain(StatusCode::NOT_FOUND, "{\"detail\":\"Not Found\"}"),
        false => json(page::loads(&pod.shown())),
    }
}

fn models(pod: &Pod) -> String {
    let names = std::iter::once(&pod.settings.model).chain(&pod.settings.adapters);
    let data: Vec<_> = names
        .map(|name| serde_json::json!({"id": name, "object": "model"}))
        .collect();
    serde_json::json!({"object": "list", "data": data}).to_string()
}

/// Switches protocols and echoes all bytes.
fn upgrade(pod: &Pod, mut request: Request<Incoming>) -> Response<Body> {
    let protocol = request.headers().get(UPGRADE).cloned();
    let pending = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = pending.await else {
            return;
        };
        let mut stream = TokioIo::new(upgraded);
        let mut buffer = [0; 1024];
        while let Ok(size @ 1..) = stream.read(&mut buffer).await {
            if stream
                .write_all(buffer.get(..size).unwrap_or_default())
                .await
                .is_err()
            {
                return;
            }
        }
    });
    let mut response = plain(StatusCode::SWITCHING_PROTOCOLS, "");
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    if let Some(protocol) = protocol {
        headers.insert(UPGRADE, protocol);
    }
    if let Ok(name) = HeaderValue::from_str(&pod.name) {
        headers.insert("x-served-by", name);
    }
    response
}

/// Returns a response with a text.
pub fn plain(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(text.as_bytes())).boxed());
    *response.status_mut() = status;
    response
}

fn json(text: String) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(text)).boxed());
    let kind = HeaderValue::from_static(JSON);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// Returns the hash of a body, as in the header `x-body-xxh64` of responses.
pub fn body_hash(bytes: &[u8]) -> u64 {
    xxh64(bytes, 0)
}

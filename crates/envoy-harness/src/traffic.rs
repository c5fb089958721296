//! Requests from asynchronous programs, read to the end of their response and timed: the loads and
//! attacks of the fault suite, and the users of `bench balancing`.

use std::convert::Infallible;
use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::header::{HeaderValue, CONTENT_TYPE};
use hyper::{Method, Request};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::time::{timeout_at, Instant};

/// A request's body, whole or in pieces.
pub type Body = BoxBody<Bytes, Infallible>;

/// A client that keeps its connections.
pub type Client = legacy::Client<HttpConnector, Body>;

/// A version of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Http {
    /// HTTP/1.1: a connection for each request under way.
    One,
    /// HTTP/2: one connection for all requests of a client.
    Two,
}

/// Creates a client without connections.
pub fn client(http: Http) -> Client {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    legacy::Client::builder(TokioExecutor::new())
        .http2_only(http == Http::Two)
        .build(connector)
}

/// A body that is sent as a whole.
pub fn whole(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).boxed()
}

/// A POST of JSON to a port of this machine.
pub fn post(port: u16, path: &str, body: Body) -> Request<Body> {
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri(port, path);
    let json = HeaderValue::from_static("application/json");
    request.headers_mut().insert(CONTENT_TYPE, json);
    request
}

/// A GET of a path on a port of this machine.
pub fn get(port: u16, path: &str) -> Request<Body> {
    let mut request = Request::new(whole(""));
    *request.uri_mut() = uri(port, path);
    request
}

fn uri(port: u16, path: &str) -> hyper::Uri {
    format!("http://127.0.0.1:{port}{path}").parse().unwrap()
}

/// A whole response.
#[derive(Debug)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// The time from the request to the body's first bytes; `None` if the body is empty.
    pub first_bytes: Option<Duration>,
    /// The body, as text.
    pub body: String,
}

/// Why there is no whole response.
#[derive(Debug)]
pub enum Failure {
    /// No response began. A retry could have helped.
    NoResponse(String),
    /// A response began and did not end.
    Cut(String),
}

/// Sends a request and reads the response to its end, which has to come within `patience`.
pub async fn exchange(
    client: &Client,
    request: Request<Body>,
    patience: Duration,
) -> Result<Response, Failure> {
    let sent = Instant::now();
    let deadline = sent + patience;
    let mut response = match timeout_at(deadline, client.request(request)).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => return Err(Failure::NoResponse(causes(&error))),
        Err(_) => return Err(Failure::NoResponse("no response".to_owned())),
    };
    let status = response.status().as_u16();
    let (mut body, mut first_bytes) = (Vec::new(), None);
    loop {
        let frame = match timeout_at(deadline, response.frame()).await {
            Ok(None) => break,
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => return Err(Failure::Cut(causes(&error))),
            Err(_) => return Err(Failure::Cut("no end".to_owned())),
        };
        if let Some(bytes) = frame.data_ref() {
            first_bytes.get_or_insert_with(|| sent.elapsed());
            body.extend_from_slice(bytes);
        }
    }
    Ok(Response {
        status,
        first_bytes,
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}

/// Returns an error's text with its causes': the outermost alone says little.
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text += &format!(": {cause}");
        next = cause.source();
    }
    text
}

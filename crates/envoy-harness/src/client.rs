//! A small blocking HTTP client, which returns responses of any status.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{json, Value};
use ureq::http::{HeaderMap, HeaderValue};

/// A response.
#[derive(Debug)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// The body as text.
    pub body: String,
    headers: Vec<(String, String)>,
}

impl Response {
    /// Creates a response from its parts.
    pub fn new(status: u16, headers: &HeaderMap, body: String) -> Self {
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers = headers.iter();
        Self {
            status,
            headers: headers
                .map(|(name, value)| (name.to_string(), text(value)))
                .collect(),
            body,
        }
    }

    /// Returns the value of a header, empty if it is missing.
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map_or("", |(_, value)| value)
    }

    /// Returns the candidates' scores from the explanation, best first.
    pub fn scores(&self) -> Vec<f64> {
        let explanation = self.header("x-epp-explain");
        let score = |candidate: &str| {
            let after = candidate.split_once('=')?.1;
            after.split_once('(')?.0.parse().ok()
        };
        let candidates = explanation.split("; ").map(score);
        let scores: Option<Vec<f64>> = candidates.collect();
        scores.unwrap_or_else(|| panic!("no explanation: {explanation:?}"))
    }

    /// Returns the name of the pod that served it.
    pub fn pod(&self) -> &str {
        self.header("x-served-by")
    }
}

/// The longest time of a request: no response takes this long unless it hangs.
pub const TIMEOUT: Duration = Duration::from_secs(15);

/// Returns a client that keeps its connections, for many requests with [`send_by`].
pub fn agent() -> ureq::Agent {
    agent_within(TIMEOUT)
}

/// Returns a client whose requests may take this long.
pub fn agent_within(timeout: Duration) -> ureq::Agent {
    let config = ureq::Agent::config_builder();
    config
        .http_status_as_error(false)
        .timeout_global(Some(timeout))
        .build()
        .into()
}

/// Sends a request on a connection of its own.
pub fn send(
    port: u16,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<Response, ureq::Error> {
    send_by(&agent(), port, method, path, headers, body)
}

/// Sends a request with a client.
pub fn send_by(
    agent: &ureq::Agent,
    port: u16,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<Response, ureq::Error> {
    let mut request = ureq::http::Request::builder()
        .method(method)
        .uri(format!("http://127.0.0.1:{port}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut response = agent.run(request.body(body).unwrap())?;
    let body = response.body_mut().read_to_string()?;
    let status = response.status().as_u16();
    Ok(Response::new(status, response.headers(), body))
}

/// Sends a GET.
pub fn get(port: u16, path: &str) -> Result<Response, ureq::Error> {
    send(port, "GET", path, &[], b"")
}

/// Sends a POST of JSON.
pub fn post(port: u16, path: &str, body: &Value, headers: &[(&str, &str)]) -> Response {
    let mut all = vec![("content-type", "application/json")];
    all.extend_from_slice(headers);
    send(port, "POST", path, &all, body.to_string().as_bytes()).unwrap()
}

/// Requests a completion of a prompt.
pub fn complete(port: u16, model: &str, prompt: &str) -> Response {
    complete_with(port, model, prompt, &[])
}

/// Requests a completion, with an explanation of the decision.
pub fn explain(port: u16, model: &str, prompt: &str) -> Response {
    complete_with(port, model, prompt, &[("x-epp-explain", "1")])
}

fn complete_with(port: u16, model: &str, prompt: &str, headers: &[(&str, &str)]) -> Response {
    let body = json!({"model": model, "prompt": prompt, "max_tokens": 1});
    post(port, "/v1/completions", &body, headers)
}

/// Writes bytes in parts, and reads until `enough` returns true or the connection ends.
pub fn raw(port: u16, parts: &[&[u8]], pause: Duration, enough: impl Fn(&str) -> bool) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    for part in parts {
        stream.write_all(part).unwrap();
        stream.flush().unwrap();
        std::thread::sleep(pause);
    }
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !enough(&text) {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(size) => text.push_str(&String::from_utf8_lossy(&buffer[..size])),
        }
    }
    text
}

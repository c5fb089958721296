//! A client whose requests go out piece by piece, over HTTP/1.1 and HTTP/2.

use std::future::Future;
use std::io;
use std::sync::LazyLock;

use bytes::Bytes;
use fake_model_server::{FrameSender, StreamBody};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::client::{self, TIMEOUT};

/// The runtime of all tests' connections.
pub static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().unwrap()
});

/// A version of HTTP.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Http {
    /// HTTP/1.1.
    One,
    /// HTTP/2 from the first byte, without TLS.
    Two,
}

type Body = StreamBody<io::Error>;

/// A connection to Envoy. It is cut when this is dropped.
pub struct Connection {
    requests: Requests,
    running: JoinHandle<()>,
}

enum Requests {
    One(http1::SendRequest<Body>),
    Two(http2::SendRequest<Body>),
}

impl Connection {
    /// A new one.
    pub fn open(port: u16, http: Http) -> Self {
        wait(async {
            let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let stream = TokioIo::new(stream);
            let (requests, running) = match http {
                Http::One => {
                    let (requests, connection) = http1::handshake(stream).await.unwrap();
                    (Requests::One(requests), RUNTIME.spawn(finish(connection)))
                }
                Http::Two => {
                    let builder = http2::Builder::new(TokioExecutor::new());
                    let (requests, connection) = builder.handshake(stream).await.unwrap();
                    (Requests::Two(requests), RUNTIME.spawn(finish(connection)))
                }
            };
            Self { requests, running }
        })
    }

    /// Begins a POST of JSON; of what length, its headers may say.
    pub fn post(&mut self, path: &str, headers: &[(&str, &str)]) -> Upload {
        let (sender, body) = StreamBody::new(1);
        let mut request = Request::post(format!("http://e2e{path}"))
            .header("host", "e2e")
            .header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body).unwrap();
        let response = match &mut self.requests {
            Requests::One(requests) => RUNTIME.spawn(requests.send_request(request)),
            Requests::Two(requests) => RUNTIME.spawn(requests.send_request(request)),
        };
        Upload {
            sender: Some(sender),
            response,
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// A request under way. It breaks off when this is dropped: over HTTP/2 its stream is reset, over
/// HTTP/1.1 its connection is closed.
pub struct Upload {
    sender: Option<FrameSender<io::Error>>,
    response: JoinHandle<hyper::Result<Response<Incoming>>>,
}

impl Upload {
    /// Sends more of the body; whether the other side still takes it.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        if bytes.is_empty() {
            return true;
        }
        let sender = self.sender.as_ref().expect("a body that has not ended");
        let frame = Frame::data(Bytes::copy_from_slice(bytes));
        wait(sender.send(Ok(frame))).is_ok()
    }

    /// Ends the body with a trailer. Returns whether the connection still accepts it.
    pub fn trailer(&mut self, name: &'static str, value: &'static str) -> bool {
        let sender = self.sender.take().expect("a body that has not ended");
        let mut trailers = HeaderMap::new();
        trailers.insert(name, value.parse().unwrap());
        wait(sender.send(Ok(Frame::trailers(trailers)))).is_ok()
    }

    /// Ends the body.
    pub fn end(&mut self) {
        self.sender = None;
    }

    /// Ends the body, if it has not ended yet, and waits for the whole response.
    pub fn response(mut self) -> client::Response {
        self.end();
        let response = self.head();
        let (head, body) = response.into_parts();
        let body = wait(body.collect()).unwrap().to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        client::Response::new(head.status.as_u16(), &head.headers, body)
    }

    /// Waits for the response's headers.
    pub fn head(&mut self) -> Response<Incoming> {
        wait(&mut self.response).unwrap().unwrap()
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(sender) = self.sender.take() {
            // Queued behind frames that were not sent yet.
            RUNTIME.spawn(async move { sender.send(Err(io::ErrorKind::BrokenPipe.into())).await });
        }
        self.response.abort();
    }
}

/// Waits for a future that completes soon unless something hangs.
pub fn wait<F: Future>(future: F) -> F::Output {
    let limited = async { tokio::time::timeout(TIMEOUT, future).await };
    RUNTIME.block_on(limited).expect("an end of the wait")
}

async fn finish(connection: impl Future<Output = hyper::Result<()>>) {
    // An error of the connection shows in its requests.
    let _ = connection.await;
}

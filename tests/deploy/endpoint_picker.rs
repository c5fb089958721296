//! An Endpoint Picker as far as Envoy sees one: an external processor that names the same endpoint for every request.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use hyper::body::{Body, Frame, Incoming};
use hyper::header::HeaderValue;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{HeaderMap, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// One that runs until it is dropped.
pub struct EndpointPicker {
    /// Where it listens.
    pub address: SocketAddr,
    asked: Arc<AtomicUsize>,
    _runtime: Runtime,
}

impl EndpointPicker {
    /// Starts one that picks this endpoint.
    pub fn start(endpoint: SocketAddr) -> Self {
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let counted = counted.clone();
                let service = service_fn(move |request: hyper::Request<Incoming>| {
                    counted.fetch_add(1, Ordering::Relaxed);
                    let answers = Answers {
                        messages: request.into_body(),
                        buffer: BytesMut::new(),
                        endpoint: endpoint.to_string(),
                        ended: false,
                    };
                    let response = Response::builder().header("content-type", "application/grpc");
                    async move { response.body(answers) }
                });
                let connection = http2::Builder::new(TokioExecutor::new());
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
            }
        });
        Self {
            address,
            asked,
            _runtime: runtime,
        }
    }

    /// Returns how many requests it was asked for.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

/// A ProcessingResponse for each ProcessingRequest, as gRPC frames them, and gRPC's trailers.
struct Answers {
    messages: Incoming,
    buffer: BytesMut,
    endpoint: String,
    ended: bool,
}

impl Body for Answers {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        loop {
            if let Some(message) = self.message() {
                let answer = answer(&message, &self.endpoint);
                let mut framed = vec![0];
                framed.extend(u32::try_from(answer.len()).unwrap().to_be_bytes());
                framed.extend(answer);
                return Poll::Ready(Some(Ok(Frame::data(framed.into()))));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            match Pin::new(&mut self.messages).poll_frame(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Poll::Ready(_) => {
                    self.ended = true;
                    let mut trailers = HeaderMap::new();
                    trailers.insert("grpc-status", HeaderValue::from_static("0"));
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
            }
        }
    }
}

impl Answers {
    /// Takes the next whole message.
    fn message(&mut self) -> Option<Bytes> {
        let length = self.buffer.get(1..5)?.try_into().unwrap();
        let length = u32::from_be_bytes(length) as usize;
        if self.buffer.len() < 5 + length {
            return None;
        }
        self.buffer.advance(5);
        Some(self.buffer.split_to(length).freeze())
    }
}

/// Returns the answer to a message: the endpoint for a request's headers, anything else as it came.
fn answer(message: &[u8], endpoint: &str) -> Vec<u8> {
    // request_headers, response_headers, request_body, response_body, request_trailers, response_trailers
    let (kind, content) = fields(message)
        .into_iter()
        .find(|(number, _)| (2..=7).contains(number))
        .unwrap();
    let changed = match kind {
        2 => {
            let key = field(1, b"x-gateway-destination-endpoint");
            let header = [key, field(3, endpoint.as_bytes())].concat();
            // response.header_mutation.set_headers.header
            field(1, &field(2, &field(1, &field(1, &header))))
        }
        // response.body_mutation.streamed_response
        4 | 5 => field(1, &field(3, &field(3, &content))),
        _ => Vec::new(),
    };
    // The answers are numbered in the same order, from 1 on.
    field(kind - 1, &changed)
}

/// Returns a field of bytes.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut encoded = vec![number << 3 | 2];
    let mut length = content.len();
    while length >= 0x80 {
        encoded.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    encoded.push(u8::try_from(length).unwrap());
    encoded.extend(content);
    encoded
}

/// Returns the fields of bytes of a message, by number; numbers and flags are left out.
fn fields(mut message: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut found = Vec::new();
    while message.has_remaining() {
        let tag = varint(&mut message);
        let value = varint(&mut message);
        if tag & 7 == 2 {
            let content = message.copy_to_bytes(value);
            found.push((u8::try_from(tag >> 3).unwrap(), content.to_vec()));
        }
    }
    found
}

fn varint(message: &mut &[u8]) -> usize {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let byte = message.get_u8();
        value |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    value
}

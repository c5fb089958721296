//! Model servers that cost almost nothing: they read a request and respond at once, and serve a page of a
//! real vLLM at `/metrics`. `fake-model-server` parses and simulates, which takes a core of its own.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::BoxError;

/// A page captured from vLLM 0.32.
const PAGE: &str = include_str!("../../../tests/fixtures/vllm-0.32/metrics_busy.txt");

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 90\r\n\r\n\
    {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1,\"total_tokens\":2,\"x\":1234}}";

/// Bytes of a page.
pub const PAGE_BYTES: usize = PAGE.len();

static PAGES: AtomicU64 = AtomicU64::new(0);

/// Pages served so far.
pub fn pages() -> u64 {
    PAGES.load(Ordering::Relaxed)
}

/// Opens that many servers and returns their ports.
pub async fn listen(count: usize) -> Result<Vec<u16>, BoxError> {
    let mut ports = Vec::new();
    for _ in 0..count {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        ports.push(listener.local_addr()?.port());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
    }
    Ok(ports)
}

/// Serves one connection until it ends.
async fn serve(mut stream: TcpStream) {
    let mut buffer = vec![0; 64 << 10];
    let mut head = Vec::new();
    let mut body_left = 0_usize;
    while let Ok(size @ 1..) = stream.read(&mut buffer).await {
        let mut bytes = buffer.get(..size).unwrap_or_default();
        if body_left > 0 {
            let taken = body_left.min(bytes.len());
            body_left -= taken;
            bytes = bytes.get(taken..).unwrap_or_default();
            if body_left == 0 && respond(&mut stream, &head).await.is_err() {
                return;
            }
            if body_left > 0 {
                continue;
            }
            head.clear();
        }
        head.extend_from_slice(bytes);
        let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") else {
            continue;
        };
        let expected = content_length(head.get(..end).unwrap_or_default());
        body_left = expected.saturating_sub(head.len() - end - 4);
        if body_left == 0 {
            if respond(&mut stream, &head).await.is_err() {
                return;
            }
            head.clear();
        }
    }
}

async fn respond(stream: &mut TcpStream, head: &[u8]) -> std::io::Result<()> {
    if head.starts_with(b"GET /metrics") {
        PAGES.fetch_add(1, Ordering::Relaxed);
        let length = PAGE.len();
        let start = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all(start.as_bytes()).await?;
        return stream.write_all(PAGE.as_bytes()).await;
    }
    stream.write_all(RESPONSE).await
}

fn content_length(head: &[u8]) -> usize {
    let head = String::from_utf8_lossy(head);
    let line = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    line.and_then(|value| value.trim().parse().ok())
        .unwrap_or(0)
}

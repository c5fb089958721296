//! The control endpoint: inspects and changes pods over HTTP.
//!
//! - `GET /pods` returns the metrics of each pod, its number of requests and its [work](crate::Work);
//! - `PUT /pods/N/pin` with [`Pinned`] as JSON sets values of its metrics page;
//! - `PUT /pods/N/faults` with [`Faults`] as JSON sets its faults.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::pod::{Faults, Pinned, Pod};

/// Serves the control endpoint of these pods until the future is dropped.
pub async fn serve(address: SocketAddr, pods: Vec<Arc<Pod>>) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let pods = pods.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| respond(pods.clone(), request));
            // An error means that the client has disconnected.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn respond(
    pods: Vec<Arc<Pod>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    // A body that is cut off is read as an empty one, which does not parse.
    let body = request
        .into_body()
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    let (status, text) = match act(&pods, &method, &path, &body) {
        Ok(text) => (StatusCode::OK, text),
        Err(text) => (StatusCode::BAD_REQUEST, text),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    Ok(response)
}

fn act(pods: &[Arc<Pod>], method: &Method, path: &str, body: &[u8]) -> Result<String, String> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match (method, parts.as_slice()) {
        (&Method::GET, ["pods"]) => Ok(list(pods)),
        (&Method::PUT, ["pods", number, what]) => {
            let number: usize = number
                .parse()
                .map_err(|_| format!("{number}: expected a number from 0"))?;
            let pod = pods
                .get(number)
                .ok_or_else(|| format!("there are pods 0 to {}", pods.len() - 1))?;
            let wrong = |error: serde_json::Error| error.to_string();
            match *what {
                "pin" => pod.pin(serde_json::from_slice::<Pinned>(body).map_err(wrong)?),
                "faults" => pod.set_faults(serde_json::from_slice::<Faults>(body).map_err(wrong)?),
                other => return Err(format!("{other}: expected pin or faults")),
            }
            Ok("ok\n".to_owned())
        }
        _ => Err("expected GET /pods, PUT /pods/N/pin or PUT /pods/N/faults\n".to_owned()),
    }
}

fn list(pods: &[Arc<Pod>]) -> String {
    let rows = pods.iter().map(|pod| {
        let shown = pod.shown();
        serde_json::json!({
            "name": pod.name,
            "waiting": shown.waiting,
            "running": shown.running,
            "kv_usage": shown.kv_usage,
            "active_adapters": shown.active,
            "requests": shown.received,
            "work": pod.work(),
            "scrapes": pod.scrapes(),
            "faults": pod.faults(),
        })
    });
    let rows: Vec<_> = rows.collect();
    serde_json::to_string_pretty(&rows).unwrap_or_default()
}

//! The routing sidecar before a decoding model server, as llm-d has it with `--kv-connector nixlv2`.
//!
//! - `x-prefiller-host-port` names the pod that computes the prompt. It gets the request with one token to
//!   generate, not streamed, and returns where its KV cache is (`kv_transfer_params`), which the model server
//!   gets with the client's own request. The first value counts; without one, the model server does all.
//! - `x-encoder-hosts-ports` names the pods that encode images and other media of a chat: each distinct one is
//!   a request of its own, to one pod after the other.
//!
//! A failure of a prefill is the client's response. As with the original, the response reports the cached
//! tokens of the pod that computed the prompt.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{json, Value};
use tokio::net::TcpStream;

use crate::http::{self, Body};
use crate::pod::{Pod, ReceivedRequest};
use crate::response::{media, with, Api, ApiRequest};

/// The pod that computes the prompt.
const PREFILLER: &str = "x-prefiller-host-port";

/// The pods that encode media.
const ENCODERS: &str = "x-encoder-hosts-ports";

/// A response that goes to the client instead of one of the model server.
type Failure = Response<Body>;

/// Serves a request with the help of other pods, as its headers say.
pub async fn serve(
    pod: Arc<Pod>,
    seen: &ReceivedRequest,
    path: &str,
    body: &[u8],
) -> Response<Body> {
    let prefiller = values(seen, PREFILLER).next();
    let encoders: Vec<&str> = values(seen, ENCODERS).collect();
    let api =
        Api::of_path(path).filter(|api| api.generates() && seen.method == Method::POST.as_str());
    let read = || serde_json::from_slice::<Value>(body).ok();
    let (Some(api), Some(body_read @ Value::Object(_))) = (api, read()) else {
        return http::respond(pod, &seen.method, path, body).await;
    };
    let id = seen.header("x-request-id").unwrap_or("sidecar");
    let helped = Helped { path, id, api };
    match helped.prepare(body_read, prefiller, &encoders).await {
        Ok(request) => http::complete(pod, request).await,
        Err(failure) => failure,
    }
}

/// Returns the values of a header that may be repeated or be a list.
fn values<'s>(seen: &'s ReceivedRequest, name: &'s str) -> impl Iterator<Item = &'s str> {
    let headers = seen.headers.iter().filter(move |(key, _)| key == name);
    let values = headers.flat_map(|(_, value)| value.split(','));
    values.map(str::trim).filter(|value| !value.is_empty())
}

/// A request that other pods help with.
struct Helped<'r> {
    path: &'r str,
    id: &'r str,
    api: Api,
}

impl Helped<'_> {
    /// Has media encoded and the prompt computed. Returns the request for the model server.
    async fn prepare(
        &self,
        mut body: Value,
        prefiller: Option<&str>,
        encoders: &[&str],
    ) -> Result<ApiRequest, Failure> {
        if self.api == Api::Chat && !encoders.is_empty() {
            body = self.encode(body, encoders).await?;
        }
        let mut cached = None;
        if let Some(prefiller) = prefiller {
            let response = self.prefill(&body, prefiller).await?;
            cached = Some(cached_tokens(&response));
            let transfer = response.get("kv_transfer_params").cloned();
            body = with(body, "kv_transfer_params", transfer);
        }
        let request = ApiRequest::of(self.api, &body);
        let mut request =
            request.ok_or_else(|| http::plain(StatusCode::BAD_REQUEST, "no request"))?;
        request.cached_elsewhere = cached;
        Ok(request)
    }

    /// Returns the request once its media are encoded.
    async fn encode(&self, body: Value, encoders: &[&str]) -> Result<Value, Failure> {
        let mut items: Vec<&Value> = Vec::new();
        for item in media(&body) {
            if !items.contains(&item) {
                items.push(item);
            }
        }
        for (item, encoder) in items.iter().zip(encoders.iter().cycle()) {
            let messages = json!([{"role": "user", "content": [item]}]);
            let request = with(body.clone(), "messages", messages);
            self.call(encoder, one_token(request, self.api)).await?;
        }
        Ok(match items.is_empty() {
            true => body,
            // Says that the pods that follow need not encode.
            false => with(body, "ec_transfer_params", json!({})),
        })
    }

    async fn prefill(&self, body: &Value, prefiller: &str) -> Result<Value, Failure> {
        let transfer = json!({
            "do_remote_decode": true, "do_remote_prefill": false, "remote_engine_id": null,
            "remote_block_ids": null, "remote_host": null, "remote_port": null});
        let request = with(body.clone(), "kv_transfer_params", transfer);
        self.call(prefiller, one_token(request, self.api)).await
    }

    /// Sends a request to another pod. Any response but a 2xx is a failure, and so is none.
    async fn call(&self, pod: &str, body: Value) -> Result<Value, Failure> {
        let response = post(pod, self.path, self.id, body.to_string()).await;
        let gone = |error| http::plain(StatusCode::BAD_GATEWAY, &format!("{pod}: {error}"));
        let (status, body) = response.map_err(gone)?;
        if !status.is_success() {
            return Err(http::plain(status, &String::from_utf8_lossy(&body)));
        }
        serde_json::from_slice(&body)
            .map_err(|error| http::plain(StatusCode::BAD_GATEWAY, &error.to_string()))
    }
}

/// Returns a request limited to one token, in one piece.
fn one_token(mut request: Value, api: Api) -> Value {
    let limits: &[&str] = match api {
        Api::Responses => &["max_output_tokens"],
        Api::Chat => &["max_tokens", "max_completion_tokens"],
        _ => &["max_tokens"],
    };
    for limit in limits {
        request = with(request, limit, 1);
    }
    if let Some(fields) = request.as_object_mut() {
        fields.remove("stream_options");
    }
    with(request, "stream", false)
}

/// Returns how many tokens of the prompt the pod of this response had cached, in the form of any API.
fn cached_tokens(response: &Value) -> usize {
    let places = [
        "/usage/prompt_tokens_details/cached_tokens",
        "/usage/input_tokens_details/cached_tokens",
        "/usage/cache_read_input_tokens",
    ];
    let mut counts = places
        .iter()
        .filter_map(|place| response.pointer(place)?.as_u64());
    let count = counts.next().unwrap_or(0);
    usize::try_from(count).unwrap_or(usize::MAX)
}

async fn post(
    address: &str,
    path: &str,
    id: &str,
    body: String,
) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::post(path)
        .header("host", address)
        .header(CONTENT_TYPE, "application/json")
        .header("x-request-id", id)
        .body(Full::new(Bytes::from(body)))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    Ok((status, response.into_body().collect().await?.to_bytes()))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use serde_json::{json, Value};

    use super::{ENCODERS, PREFILLER};
    use crate::{Faults, Settings, Sim};

    /// A pod that computes prompts, one that encodes, and one that decodes behind a sidecar.
    fn pods() -> Sim {
        let mut sim = Sim::start(2, &Settings::default()).unwrap();
        let decode = Settings {
            sidecar: true,
            ..Settings::default()
        };
        sim.add(0, decode).unwrap();
        sim
    }

    fn ask(at: SocketAddr, headers: &[(&str, String)], body: &Value) -> (u16, Value) {
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        let agent: ureq::Agent = config.build().into();
        let mut request = agent.post(format!("http://{at}/v1/chat/completions"));
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let mut response = request.send(body.to_string()).unwrap();
        let body = response.body_mut().read_to_string().unwrap();
        let read = serde_json::from_str(&body).unwrap_or(Value::String(body));
        (response.status().as_u16(), read)
    }

    fn chat(text: &str) -> Value {
        let content = json!([{"type": "text", "text": text}]);
        json!({"model": "demo", "max_tokens": 5, "messages": [{"role": "user", "content": content}]})
    }

    #[test]
    fn the_first_prefiller_computes_and_the_pod_decodes() {
        let sim = pods();
        let at = sim.addresses();
        let prefiller = [(PREFILLER, format!("{}, {}", at[0], at[1]))];
        let body = chat(&"a question ".repeat(100));
        let (status, response) = ask(at[2], &prefiller, &body);
        assert_eq!(status, 200);
        assert_eq!(response["usage"]["completion_tokens"], 5);
        assert!(response.get("kv_transfer_params").is_none());
        let (prefill, decode) = (sim.pod(0).work(), sim.pod(2).work());
        assert!(prefill.computed_tokens > 250, "{prefill:?}");
        assert_eq!((prefill.handed_over, prefill.generated_tokens), (1, 1));
        assert_eq!(decode.fetched_tokens, prefill.computed_tokens);
        assert_eq!((decode.computed_tokens, decode.generated_tokens), (0, 5));
        assert_eq!(sim.pod(1).seen().len(), 0);
        // The cached tokens are those of the prefiller.
        let (_, again) = ask(at[2], &prefiller, &body);
        let cached = &again["usage"]["prompt_tokens_details"]["cached_tokens"];
        assert_eq!(*cached, sim.pod(0).work().cached_tokens);
        // Streamed to the client, not from the prefiller.
        let mut streamed = body;
        streamed["stream"] = json!(true);
        let (_, events) = ask(at[2], &prefiller, &streamed);
        assert!(events.as_str().unwrap().ends_with("data: [DONE]\n\n"));
        assert_eq!(sim.pod(0).work().handed_over, 3);
    }

    #[test]
    fn without_a_prefiller_the_pod_does_all() {
        let sim = pods();
        for headers in [vec![], vec![(PREFILLER, " ".to_owned())]] {
            assert_eq!(ask(sim.addresses()[2], &headers, &chat("x")).0, 200);
        }
        let work = sim.pod(2).work();
        assert!(work.computed_tokens > 0 && work.fetched_tokens == 0);
    }

    #[test]
    fn a_failed_prefill_is_the_response() {
        let mut sim = pods();
        let at = sim.addresses();
        let status = |status| Faults {
            status,
            ..Faults::default()
        };
        sim.pod(0).set_faults(status(Some(429)));
        let prefiller = [(PREFILLER, at[0].to_string())];
        let (failed, body) = ask(at[2], &prefiller, &chat("x"));
        assert_eq!((failed, body), (429, json!("a fault")));
        sim.stop(0);
        assert_eq!(ask(at[2], &prefiller, &chat("x")).0, 502);
        assert_eq!(sim.pod(2).work(), crate::Work::default());
    }

    #[test]
    fn each_image_is_encoded_once() {
        let sim = pods();
        let at = sim.addresses();
        let image = |url| json!({"type": "image_url", "image_url": {"url": url}});
        let mut body = chat("which differs?");
        body["messages"][0]["content"] = json!([image("a"), image("b"), image("a")]);
        let encoders = (ENCODERS, format!("{},{}", at[0], at[1]));
        assert_eq!(ask(at[2], &[encoders], &body).0, 200);
        let encoded: Vec<usize> = sim.pods().map(|pod| pod.work().encoded_media).collect();
        assert_eq!(encoded, [1, 1, 0]);
    }
}

//! The demo of prefill/decode disaggregation: a few requests, and which pod computed what for each.

use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{json, Value};

use crate::show::{wait_for_endpoints, MANUAL, REQUEST_INTERVAL};
use crate::DemoError;

/// A request: what it is, its prompt, and whether that goes on from the one before.
struct Request {
    what: &'static str,
    manuals: usize,
    says: &'static str,
}

/// The load: 600 tokens and more are computed elsewhere, unless they are cached (512 in envoy/disaggregated.yaml).
const LOAD: [Request; 5] = [
    Request {
        what: "a short question",
        manuals: 1,
        says: "Can I bring a bicycle?",
    },
    Request {
        what: "a long prompt",
        manuals: 16,
        says: "When does the next train leave for Lyon?",
    },
    Request {
        what: "the same conversation, next turn",
        manuals: 16,
        says: "When does the next train leave for Lyon? And the one after that?",
    },
    Request {
        what: "another long prompt",
        manuals: 20,
        says: "My train was cancelled, what now?",
    },
    Request {
        what: "the first conversation again",
        manuals: 16,
        says: "When does the next train leave for Lyon? And the one after that? Which platform?",
    },
];

/// Sends the load and prints who computed and who generated, and why. `bootstrap` is the file to name as Envoy's.
pub fn traffic(listener: u16, admin: u16, pods: &[u16], bootstrap: &str) -> Result<(), DemoError> {
    wait_for_endpoints(admin, pods.len())?;
    // A first request goes through all that the others need.
    ask(listener, "ready?")?;
    println!("\n  pod-1 and pod-2 compute prompts, pod-3 and pod-4 generate responses.\n");
    println!(
        "  {:<34} {:>6} {:<10} {:<26} {:>6}",
        "request", "tokens", "responds", "computes", "ms"
    );
    for request in &LOAD {
        let start = format!("[{}] ", request.manuals);
        let prompt = start + &MANUAL.repeat(request.manuals) + request.says;
        let answer = ask(listener, &prompt)?;
        println!(
            "  {:<34} {:>6} {:<10} {:<26} {:>6}",
            request.what,
            answer.tokens,
            answer.endpoint,
            answer.computes(pods),
            answer.took.as_millis()
        );
        if let Some(reason) = answer.reason() {
            println!("  {:<41} {reason}", "");
        }
        sleep(REQUEST_INTERVAL);
    }
    hints(listener, admin, bootstrap);
    Ok(())
}

struct Answer {
    endpoint: String,
    tokens: u64,
    explanation: String,
    took: Duration,
}

impl Answer {
    /// Returns what the explanation says of the prefill.
    fn prefill(&self) -> Option<&str> {
        let mut parts = self.explanation.split("; ");
        parts.find_map(|part| part.strip_prefix("prefill: "))
    }

    /// Returns the pod that computed the prompt.
    fn computes(&self, pods: &[u16]) -> String {
        let port = self.prefill().and_then(|said| said.rsplit(':').next());
        let port = port.and_then(|port| port.parse::<u16>().ok());
        let number = pods.iter().position(|own| Some(*own) == port);
        match number {
            Some(number) => format!("pod-{}", number + 1),
            None => self.endpoint.clone(),
        }
    }

    /// Returns why the prompt was not computed elsewhere.
    fn reason(&self) -> Option<&str> {
        self.prefill().filter(|said| said.contains(' '))
    }
}

fn ask(listener: u16, prompt: &str) -> Result<Answer, DemoError> {
    let url = format!("http://127.0.0.1:{listener}/v1/completions");
    let body = json!({"model": "demo", "prompt": prompt, "max_tokens": 8});
    let began = Instant::now();
    let mut response = ureq::post(url)
        .header("x-epp-explain", "1")
        .send_json(&body)
        .map_err(|error| format!("a request failed: {error}; see target/demo/envoy.log"))?;
    let took = began.elapsed();
    let header = |name: &str| {
        let value = response.headers().get(name);
        let value = value.and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let (endpoint, explanation) = (header("x-served-by"), header("x-epp-explain"));
    let body: Value = response
        .body_mut()
        .read_json()
        .map_err(|error| format!("a response was not JSON: {error}"))?;
    let tokens = body.pointer("/usage/prompt_tokens").and_then(Value::as_u64);
    Ok(Answer {
        endpoint,
        tokens: tokens.unwrap_or(0),
        explanation,
        took,
    })
}

fn hints(listener: u16, admin: u16, bootstrap: &str) {
    println!(
        r#"
Try it yourself, in another terminal; the headers say which pod responded, and what became of the prefill:

  curl -si http://127.0.0.1:{listener}/v1/completions -H 'content-type: application/json' \
       -H 'x-epp-explain: 1' \
       -d '{{"model": "demo", "prompt": "'"$(seq 1 900 | tr '\n' ' ')"'"}}' | grep -E 'x-served-by|x-epp'

Decisions by their kind:

  curl -s http://127.0.0.1:{admin}/stats/prometheus | grep disagg_decision

The configuration is examples/disaggregated.yaml, inside {bootstrap}.
docs/disaggregation.md says what else it needs."#
    );
}

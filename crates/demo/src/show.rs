//! The demo's load and the table that it prints.

use std::collections::HashMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{json, Value};

use crate::DemoError;

/// The system prompt, long enough to fill some dozens of prefix blocks.
pub const MANUAL: &str =
    "You are the support assistant of a railway. Answer from the timetable, name \
    the platform, warn of construction work, and never promise a place without a reservation. ";

/// The time between requests. Users do not type faster, and Envoy's workers, any of which may get the next
/// request, exchange placements within two ticks of 50 ms.
pub const REQUEST_INTERVAL: Duration = Duration::from_millis(200);

/// One request of the load.
struct Turn {
    who: &'static str,
    says: &'static str,
}

/// Three conversations, with interleaved turns.
const LOAD: [Turn; 9] = [
    Turn {
        who: "Ann",
        says: "When does the next train leave for Lyon?",
    },
    Turn {
        who: "Ben",
        says: "My train was cancelled, what now?",
    },
    Turn {
        who: "Cho",
        says: "Can I bring a bicycle on board?",
    },
    Turn {
        who: "Ann",
        says: "And the one after that?",
    },
    Turn {
        who: "Cho",
        says: "How much is it?",
    },
    Turn {
        who: "Ben",
        says: "I would rather have my money back.",
    },
    Turn {
        who: "Ann",
        says: "Which platform?",
    },
    Turn {
        who: "Ben",
        says: "How long will it take?",
    },
    Turn {
        who: "Cho",
        says: "Thank you!",
    },
];

/// The response to a request.
struct Response {
    endpoint: String,
    prompt: u64,
    cached: u64,
    text: String,
}

/// Sends the load and prints which endpoint got each request and why, then some commands to try. `bootstrap` is the file to name as
/// Envoy's.
pub fn traffic(listener: u16, admin: u16, pods: usize, bootstrap: &str) -> Result<(), DemoError> {
    let url = format!("http://127.0.0.1:{listener}/v1/completions");
    wait_for_endpoints(admin, pods)?;
    println!(
        "\n  {:<4} {:<42} {:<10} {:>14}  why",
        "who", "says", "endpoint", "cached tokens"
    );
    let mut talks: HashMap<&str, (String, String)> = HashMap::new();
    for turn in &LOAD {
        let (prompt, before) = talks.entry(turn.who).or_insert_with(|| {
            let start = format!("{} is our guest. {}", turn.who, MANUAL.repeat(6));
            (start, String::new())
        });
        prompt.push_str(turn.says);
        let response = ask(&url, prompt)?;
        let why = match before.as_str() {
            "" => "a new conversation: no endpoint holds its prompt",
            endpoint if endpoint == response.endpoint => "holds the conversation so far",
            _ => "got to a worker that did not know the last placement yet",
        };
        println!(
            "  {:<4} {:<42} {:<10} {:>6} of {:>4}  {why}",
            turn.who, turn.says, response.endpoint, response.cached, response.prompt
        );
        prompt.push_str(&response.text);
        *before = response.endpoint;
        sleep(REQUEST_INTERVAL);
    }
    hints(listener, admin, bootstrap);
    Ok(())
}

fn ask(url: &str, prompt: &str) -> Result<Response, DemoError> {
    let body = json!({"model": "demo", "prompt": prompt, "max_tokens": 8});
    let mut response = ureq::post(url)
        .send_json(&body)
        .map_err(|error| format!("a request failed: {error}; see target/demo/envoy.log"))?;
    let endpoint = response.headers().get("x-served-by");
    let endpoint = endpoint
        .and_then(|value| value.to_str().ok())
        .unwrap_or("?")
        .to_owned();
    let body: Value = response
        .body_mut()
        .read_json()
        .map_err(|error| format!("a response was not JSON: {error}"))?;
    let number = |pointer: &str| body.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    let text = body.pointer("/choices/0/text").and_then(Value::as_str);
    Ok(Response {
        endpoint,
        prompt: number("/usage/prompt_tokens"),
        cached: number("/usage/prompt_tokens_details/cached_tokens"),
        text: text.unwrap_or_default().to_owned(),
    })
}

/// Waits until the filter has discovered this many endpoints. Until then, Envoy's own policy chooses, and the filter does
/// not learn who has which prompt.
pub fn wait_for_endpoints(admin: u16, pods: usize) -> Result<(), DemoError> {
    let url = format!("http://127.0.0.1:{admin}/stats/prometheus");
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let page = ureq::get(&url).call().ok();
        let page = page.and_then(|mut page| page.body_mut().read_to_string().ok());
        let page = page.unwrap_or_default();
        let mut ready = page
            .lines()
            .filter(|line| line.starts_with("llm_d_epp_ready_endpoints"));
        if ready.any(|line| line.ends_with(&format!(" {pods}"))) {
            // The workers read them at their next tick.
            sleep(REQUEST_INTERVAL);
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!(
                "not {pods} endpoints after 10 s; see target/demo/envoy.log"
            ));
        }
        sleep(Duration::from_millis(50));
    }
}

fn hints(listener: u16, admin: u16, bootstrap: &str) {
    println!(
        r#"
Try it yourself, in another terminal; the header says which model server responded:

  curl -si http://127.0.0.1:{listener}/v1/completions -H 'content-type: application/json' \
       -d '{{"model": "demo", "prompt": "'"$(seq 1 300 | tr '\n' ' ')"'"}}' | grep x-served-by

The filter's metrics, and Envoy's log:

  curl -s http://127.0.0.1:{admin}/stats/prometheus | grep epp_
  cat target/demo/envoy.log

The configuration is examples/gie.yaml, inside {bootstrap}."#
    );
}

/// Prints the pages to open in a browser.
pub fn links(status: u16, admin: u16) {
    println!("\nIn a browser:\n");
    for (port, path, page) in [
        (
            status,
            "",
            "the status page: endpoints, workers, latest decisions with their scores",
        ),
        (admin, "/clusters", "the model servers' state in Envoy"),
        (
            admin,
            "/stats/prometheus",
            "the metrics for Prometheus; envoy/dashboards has a dashboard",
        ),
    ] {
        let url = format!("http://127.0.0.1:{port}{path}");
        println!("  {url:<41} {page}");
    }
}

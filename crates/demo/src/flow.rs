//! Flow control under twice the load that two model servers take, beside none.

use std::sync::mpsc::{self, Sender};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use serde_json::json;

/// Model servers, as examples/flow-control.yaml lists them.
pub const SERVERS: usize = 2;

/// How many requests each runs at once.
pub const RUNNING: usize = 16;

/// Tokens of a response: at a millisecond each, a request takes a second.
const TOKENS: u32 = 1_000;

/// The time between two requests: 64 per second, where the servers complete 32.
const INTERVAL: Duration = Duration::from_micros(15_625);

/// The objective that every fourth request names: priority 10 in the example.
pub const HIGH: &str = "interactive";

/// What the others are called. They name no objective and so have priority 0: without flow control, requests of a lower
/// priority would be dropped while the pool is full.
pub const OTHERS: &str = "others";

/// Stack of a client's thread.
const STACK: usize = 256 << 10;

/// Returns the demo's bootstrap with the document of examples/flow-control.yaml for these servers, with flow control or
/// without it; `None` where a text is not as expected.
pub fn bootstrap(bootstrap: &str, document: &str, flow_control: bool) -> Option<String> {
    let limit = format!("maxConcurrency: {RUNNING}");
    let document = document.replace("maxConcurrency: 128", &limit);
    // So that a client can ask how its request was decided.
    let explain =
        "plugins:\n- {type: envoy-proxy, parameters: {readBody: always, explain: true}}\n";
    let document = document.replacen("plugins:\n", explain, 1);
    let document = match flow_control {
        true => document,
        false => document.replace("featureGates: [flowControl]\n", ""),
    };
    let indented = document
        .lines()
        .map(|line| format!("                    {line}\n"));
    let (before, rest) = bootstrap.split_once("                  value: |\n")?;
    let (_, after) = rest.split_once("          - name: envoy.filters.http.router\n")?;
    let document: String = indented.collect();
    // The document lists the first of the demo's model servers, and this Envoy has no others.
    let others = ["port_value: 8003}", "port_value: 8004}"];
    let after = after
        .lines()
        .filter(|line| others.iter().all(|port| !line.contains(port)));
    let after = after.fold(String::new(), |text, line| text + line + "\n");
    Some(format!(
        "{before}                  value: |\n{document}          - name: envoy.filters.http.router\n{after}"
    ))
}

/// A request that has ended.
struct Ended {
    class: &'static str,
    status: u16,
    took: Duration,
}

/// What became of the requests of one class.
#[derive(Debug)]
pub struct Class {
    /// [`HIGH`] or [`OTHERS`].
    pub name: &'static str,
    /// Requests that were answered by a model server.
    pub answered: usize,
    /// Requests that were not.
    pub dropped: usize,
    /// The median of the time that those took that were answered.
    pub median: Duration,
    /// The 95th percentile.
    pub p95: Duration,
}

impl Class {
    fn of(name: &'static str, ended: &[Ended]) -> Self {
        let own = ended.iter().filter(|one| one.class == name);
        let (answered, dropped): (Vec<&Ended>, Vec<&Ended>) =
            own.partition(|one| one.status == 200);
        let mut took: Vec<Duration> = answered.iter().map(|one| one.took).collect();
        took.sort_unstable();
        let at = |percent: usize| {
            let place = (took.len() * percent / 100).min(took.len().saturating_sub(1));
            took.get(place).copied().unwrap_or_default()
        };
        Self {
            name,
            answered: answered.len(),
            dropped: dropped.len(),
            median: at(50),
            p95: at(95),
        }
    }
}

/// Sends the load to the Envoy at this port until `over` says so, and returns what became of it once all requests have
/// ended.
pub fn overload(port: u16, mut over: impl FnMut(Duration) -> bool) -> [Class; 2] {
    let (sender, receiver) = mpsc::channel();
    let begun = Instant::now();
    for number in 0.. {
        let due = INTERVAL * number;
        sleep(due.saturating_sub(begun.elapsed()));
        if over(begun.elapsed()) {
            break;
        }
        let sender = sender.clone();
        let client = thread::Builder::new().stack_size(STACK);
        // Where no thread can be had, one request is not sent.
        let _ = client.spawn(move || ask(port, number, &sender));
    }
    drop(sender);
    let ended: Vec<Ended> = receiver.iter().collect();
    [HIGH, OTHERS].map(|class| Class::of(class, &ended))
}

/// Sends a request and waits for its response.
fn ask(port: u16, number: u32, ended: &Sender<Ended>) {
    let begun = Instant::now();
    let config = ureq::Agent::config_builder().http_status_as_error(false);
    let agent: ureq::Agent = config.build().into();
    let body =
        json!({"model": "demo", "prompt": format!("Request {number}."), "max_tokens": TOKENS});
    let team = format!("team-{}", number % 3);
    let mut request = agent
        .post(format!("http://127.0.0.1:{port}/v1/completions"))
        .header("x-llm-d-inference-fairness-id", team);
    let class = if number % 4 == 0 { HIGH } else { OTHERS };
    if class == HIGH {
        request = request.header("x-llm-d-inference-objective", class);
    }
    let status = request.send_json(&body).and_then(|mut response| {
        response.body_mut().read_to_string()?;
        Ok(response.status().as_u16())
    });
    // The receiver is gone during the shutdown.
    let _ = ended.send(Ended {
        class,
        status: status.unwrap_or(0),
        took: begun.elapsed(),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documents_of_the_repository_fit_into_each_other() {
        let envoy = include_str!("../../../envoy/envoy.yaml");
        let document = include_str!("../../../examples/flow-control.yaml");
        let with = bootstrap(envoy, document, true).unwrap();
        let without = bootstrap(envoy, document, false).unwrap();
        let gate = "                    featureGates: [flowControl]\n";
        assert_eq!(with.replace(gate, ""), without);
        assert_ne!(with, without);
        for part in ["maxConcurrency: 16}", "explain: true", "port_value: 10001"] {
            assert!(with.contains(part), "{part}");
        }
        assert!(!with.contains("hashBlockSize") && !with.contains("8003"));
        assert_eq!(with.matches("port_value: 800").count(), SERVERS);
    }

    #[test]
    fn requests_that_were_not_answered_are_counted_apart() {
        let ended = |status, millis| Ended {
            class: OTHERS,
            status,
            took: Duration::from_millis(millis),
        };
        let all = [
            ended(200, 30),
            ended(429, 1),
            ended(200, 10),
            ended(200, 20),
            ended(0, 5),
        ];
        let class = Class::of(OTHERS, &all);
        assert_eq!((class.answered, class.dropped), (3, 2));
        assert_eq!(class.median, Duration::from_millis(20));
        assert_eq!(class.p95, Duration::from_millis(30));
        assert_eq!(Class::of(HIGH, &all).answered, 0);
    }
}

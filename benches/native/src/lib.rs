//! The inputs of the native benchmarks: bodies, plans, pools.
//!
//! The package measures `epp-core` and `epp-sync` without Envoy; `make bench` measures the module inside
//! Envoy. It uses the clock, and no network.
//!
//! - `cargo bench -p native-benches` times the parts of a decision. `--bench reading` selects a file, and
//!   `-- 220` after it the benchmarks whose names contain that.
//! - `instructions` sends whole requests, whose instructions `scripts/instructions` counts.
//! - `sharing` measures the cost of sharing between the workers of an Envoy.

use epp_core::config::{self, Plan};
use epp_core::scheduling::{Endpoint, Freshness, Health, Metrics, Pool, Slot};

/// The sizes of bodies, in KB.
pub const SIZES: [usize; 4] = [4, 64, 220, 500];

/// The sizes of pools.
pub const POOLS: [usize; 3] = [10, 100, 1_000];

/// The order of the keys of a body.
#[derive(Debug, Clone, Copy)]
pub enum Order {
    /// The model, then the messages.
    ModelFirst,
    /// The messages, then the model.
    MessagesFirst,
}

impl Order {
    /// Both orders, with their names.
    pub const ALL: [(&'static str, Self); 2] = [
        ("model first", Self::ModelFirst),
        ("messages first", Self::MessagesFirst),
    ];
}

/// Returns a chat completion of about this many bytes, with two messages and an escape every ten words.
pub fn chat(bytes: usize, order: Order) -> String {
    let mut text = String::with_capacity(bytes + 16);
    for number in 0.. {
        if text.len() >= bytes {
            break;
        }
        text += &format!("word {number}");
        text += if number % 10 == 9 { "\\n" } else { " " };
    }
    let messages = format!(
        r#""messages":[{{"role":"system","content":"Be brief."}},{{"role":"user","content":"{text}"}}]"#
    );
    match order {
        Order::ModelFirst => format!(r#"{{"model":"bench",{messages},"max_tokens":8}}"#),
        Order::MessagesFirst => format!(r#"{{{messages},"model":"bench","max_tokens":8}}"#),
    }
}

/// Returns a plan with all scorers and this many endpoints; `None` if the document is invalid.
pub fn plan(endpoints: usize) -> Option<Plan> {
    let listed = (0..endpoints).map(|number| {
        let address = address(number);
        format!("{{name: p{number}, address: {address}, port: \"8000\"}}")
    });
    let document = format!(
        "apiVersion: inference.networking.x-k8s.io/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: prefix-cache-scorer
  parameters: {{hashBlockSize: 64, maxPrefixBlocksToMatch: 256, lruCapacityPerServer: 31250}}
- type: queue-scorer
- type: kv-cache-utilization-scorer
- type: lora-affinity-scorer
- {{type: static-discovery, parameters: {{endpoints: [{}]}}}}
schedulingProfiles:
- name: default
  plugins:
  - {{pluginRef: prefix-cache-scorer, weight: 3}}
  - {{pluginRef: queue-scorer, weight: 2}}
  - {{pluginRef: kv-cache-utilization-scorer, weight: 2}}
  - {{pluginRef: lora-affinity-scorer}}
dataLayer: {{discovery: {{pluginRef: static-discovery}}}}
",
        listed.collect::<Vec<_>>().join(", ")
    );
    Some(config::load(&document).ok()?.plan)
}

fn address(number: usize) -> String {
    format!("10.0.{}.{}", number / 250, number % 250 + 1)
}

/// Returns a pool of endpoints with different fresh metrics.
pub fn pool(endpoints: usize) -> Pool {
    let mut pool = Pool::default();
    for number in 0..endpoints {
        let endpoint = Endpoint {
            name: format!("p{number}"),
            address: format!("{}:8000", address(number)).into(),
            health: Health::Healthy,
            freshness: Freshness::Fresh,
            metrics: metrics(number),
            ..Endpoint::default()
        };
        pool.set(Slot(number as u32), endpoint);
    }
    pool
}

/// Returns the metrics of an endpoint of the pool.
pub fn metrics(number: usize) -> Metrics {
    Metrics {
        waiting: Some((number % 17) as f64),
        running: Some((number % 31) as f64),
        kv_usage: Some((number % 97) as f64 / 100.0),
        ..Metrics::default()
    }
}

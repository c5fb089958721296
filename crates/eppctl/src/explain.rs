//! `eppctl explain`: one decision with all that led to it, by the filter's own director.

use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use epp_wasm::config::Plan;
use epp_wasm::datalayer::clusters::members;
use epp_wasm::datalayer::store::Member;
use epp_wasm::director::meter::Unmetered;

use epp_wasm::director::{Director, Head, Verdict as Outcome};
use epp_wasm::plugins::discovery::inline::StaticDiscovery;
use epp_wasm::plugins::Discovery;
use epp_wasm::scheduling::{Freshness, Lora, Metrics, Slot};
use epp_wasm::worker::Local;
use serde::Deserialize;

use crate::explained::explained;
use crate::input::{load_plan, read};
use crate::output::{Misuse, Output, Verdict};

/// Show a decision: candidates, what filters removed, scores, ties, picks, how much was read.
#[derive(Args)]
#[command(after_help = "Examples:
  eppctl explain examples/full.yaml --endpoints pool.yaml --request body.json
  eppctl explain examples/full.yaml --pod 10.0.0.1:8000 --pod 10.0.0.2:8000 --request body.json
  eppctl explain examples/full.yaml --envoy http://127.0.0.1:9901 --request body.json
  # as if pod-a had served this conversation before:
  eppctl explain examples/full.yaml --endpoints pool.yaml --warm pod-a=earlier.json --request body.json

A snapshot (--endpoints), YAML or JSON; what is left out was never seen on the endpoint's page:
  endpoints:
  - name: pod-a
    address: 10.0.0.1:8000
    available: true          # false: unhealthy, ejected, draining or avoided
    freshness: fresh         # fresh, stale or unknown
    waiting: 3               # requests
    running: 2
    kvUsage: 0.4             # 0 to 1
    lora: {active: [a], waiting: [], max: 4}
    blockSize: 16            # tokens
    numBlocks: 20000
    labels: {llm-d.ai/engine-type: vllm}

Exit codes: 0 an endpoint was picked, 1 none, 2 misuse.")]
pub struct Explain {
    /// The EndpointPickerConfig.
    config: String,
    /// The request's body; - is standard input.
    #[arg(long, value_name = "FILE")]
    request: String,
    /// The request's path, which tells how the body is read.
    #[arg(long, default_value = "/v1/chat/completions")]
    path: String,
    #[command(flatten)]
    source: Source,
    /// Have an endpoint serve another body first: NAME=FILE.
    #[arg(long, value_name = "NAME=FILE")]
    warm: Vec<String>,
    /// Ties are drawn from this.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Where the endpoints come from.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct Source {
    /// A snapshot of endpoints with their metrics.
    #[arg(long, value_name = "FILE")]
    endpoints: Option<String>,
    /// Live pods, whose metrics pages are read now.
    #[arg(long, value_name = "HOST:PORT")]
    pod: Vec<String>,
    /// A running Envoy's admin interface: its members and health, and their pages, are read now.
    #[arg(long, value_name = "URL")]
    envoy: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Snapshot {
    endpoints: Vec<Seen>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Seen {
    name: String,
    address: String,
    #[serde(default = "yes")]
    available: bool,
    #[serde(default)]
    freshness: Trust,
    waiting: Option<f64>,
    running: Option<f64>,
    kv_usage: Option<f64>,
    lora: Option<Adapters>,
    block_size: Option<u32>,
    num_blocks: Option<u32>,
    #[serde(default)]
    labels: std::collections::BTreeMap<String, String>,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "lowercase")]
enum Trust {
    #[default]
    Fresh,
    Stale,
    Unknown,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Adapters {
    #[serde(default)]
    active: Vec<String>,
    #[serde(default)]
    waiting: Vec<String>,
    #[serde(default)]
    max: u32,
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as u64)
}

impl Explain {
    /// Decides and tells.
    pub fn run(&self, output: &mut Output) -> Result<Verdict, Misuse> {
        let plan = load_plan(&self.config)?;
        let body = read(&self.request)?;
        let mut director = self.director(plan)?;
        for warm in &self.warm {
            self.warm(&mut director, warm)?;
        }
        let (needed, outcome) = self.decide(&mut director, EXPLAINED, &body);
        let explained = explained(&director, EXPLAINED, (needed, body.len()), outcome);
        output.print(&explained)?;
        Ok(match explained.destination {
            Some(_) => Verdict::Fine,
            None => Verdict::Findings,
        })
    }

    /// A director that knows the endpoints.
    fn director(&self, mut plan: Plan) -> Result<Director, Misuse> {
        let snapshot = match &self.source.endpoints {
            Some(file) => snapshot(file)?.endpoints,
            None => Vec::new(),
        };
        let found = self.members(&plan, &snapshot)?;
        let count = found.len();
        plan.proxy.explain = true;
        plan.discovery = Discovery::Static(StaticDiscovery { members: found });
        let mut director =
            Director::new("eppctl", plan.clone(), self.seed, Box::new(Unmetered), now);
        director.install(plan.clone(), 1);
        // The first elects who polls, the second joins the endpoints.
        director.tick(1, &mut Local::default());
        director.tick(1, &mut Local::default());
        for slot in (0..count as u32).map(Slot) {
            match snapshot.get(slot.index()) {
                Some(seen) => apply(&mut director, slot, seen),
                None => scrape(&mut director, &plan, slot),
            }
        }
        Ok(director)
    }

    fn members(&self, plan: &Plan, snapshot: &[Seen]) -> Result<Vec<Member>, Misuse> {
        if let Some(url) = &self.source.envoy {
            let page = get(&format!("{}/clusters", url.trim_end_matches('/')))?;
            let cluster = plan.cluster().to_owned();
            return members(&page, std::slice::from_ref(&cluster)).ok_or_else(|| {
                Misuse::new(format!("{url}: Envoy has no cluster {cluster}; name it in the document (envoy-cluster-discovery)"))
            });
        }
        let pods = self.source.pod.iter().map(|pod| Member {
            name: pod.clone(),
            address: pod.clone(),
            labels: Vec::new(),
            available: true,
        });
        let seen = snapshot.iter().map(|seen| Member {
            name: seen.name.clone(),
            address: seen.address.clone(),
            labels: seen.labels.clone().into_iter().collect(),
            available: seen.available,
        });
        Ok(pods.chain(seen).collect())
    }

    /// Has an endpoint serve a body.
    fn warm(&self, director: &mut Director, warm: &str) -> Result<(), Misuse> {
        let (name, file) = warm
            .split_once('=')
            .ok_or_else(|| Misuse::new(format!("--warm {warm}: write NAME=FILE")))?;
        let body = read(file)?;
        let pool = director.pool_mut();
        let slots: Vec<(Slot, bool)> = pool
            .iter()
            .map(|(slot, endpoint)| (slot, endpoint.name == name || endpoint.address == name))
            .collect();
        if !slots.iter().any(|(_, wanted)| *wanted) {
            return Err(Misuse::new(format!(
                "--warm {warm}: no endpoint is named {name}"
            )));
        }
        let mut before = Vec::new();
        for (slot, wanted) in slots {
            if let Some(endpoint) = pool.get_mut(slot) {
                before.push((slot, endpoint.available, endpoint.unseen));
                endpoint.available = wanted;
            }
        }
        self.decide(director, WARMING, &body);
        director.close(WARMING);
        for (slot, available, unseen) in before {
            if let Some(endpoint) = director.pool_mut().get_mut(slot) {
                endpoint.available = available;
                endpoint.unseen = unseen;
            }
        }
        Ok(())
    }

    /// Feeds a body byte by byte until it is decided: the bytes that it took, and the outcome.
    fn decide(&self, director: &mut Director, id: u32, body: &[u8]) -> (usize, Outcome) {
        let head = Head {
            path: self.path.as_bytes(),
            method: b"POST",
            content_type: b"application/json",
            explain: true,
            content_length: Some(body.len()),
            end: body.is_empty(),
            ..Head::default()
        };
        let mut outcome = director.open(id, &head);
        let mut needed = 0;
        for (index, byte) in body.iter().enumerate() {
            let held = matches!(outcome, Outcome::Hold(_));
            let last = index + 1 == body.len();
            let mut next = director.body(id, std::slice::from_ref(byte), last);
            while let (None, Some(range)) = (&next, director.reread(id)) {
                let part = body.get(range.clone()).unwrap_or_default();
                next = director.body_again(id, range.start, part);
            }
            if held {
                needed = index + 1;
                outcome = next.unwrap_or(outcome);
            }
        }
        (needed, outcome)
    }
}

/// The id of requests that came before.
const WARMING: u32 = 1;
/// The id of the request that is explained.
const EXPLAINED: u32 = 2;

fn snapshot(file: &str) -> Result<Snapshot, Misuse> {
    serde_yaml::from_slice(&read(file)?).map_err(|error| {
        Misuse::new(format!(
            "{file}: no snapshot of endpoints: {error}; `eppctl explain --help` shows one"
        ))
    })
}

fn apply(director: &mut Director, slot: Slot, seen: &Seen) {
    let Some(endpoint) = director.pool_mut().get_mut(slot) else {
        return;
    };
    endpoint.freshness = match seen.freshness {
        Trust::Fresh => Freshness::Fresh,
        Trust::Stale => Freshness::Stale,
        Trust::Unknown => Freshness::Unknown,
    };
    let lora = seen.lora.as_ref().map(|lora| Lora {
        active: lora.active.clone(),
        waiting: lora.waiting.clone(),
        max: lora.max,
    });
    endpoint.metrics = Metrics {
        waiting: seen.waiting,
        running: seen.running,
        kv_usage: seen.kv_usage,
        lora: lora.unwrap_or_default(),
        block_size: seen.block_size,
        num_blocks: seen.num_blocks,
    };
}

/// Reads a pod's metrics page; one that has none stays without fresh metrics, and the table says so.
fn scrape(director: &mut Director, plan: &Plan, slot: Slot) {
    let Some(endpoint) = director.pool().get(slot) else {
        return;
    };
    let address = plan.metrics_address(&endpoint.address);
    match get(&format!("http://{address}{}", plan.source.path)) {
        Ok(page) => {
            director.read_page(slot, &page);
            if let Some(endpoint) = director.pool_mut().get_mut(slot) {
                endpoint.freshness = Freshness::Fresh;
            }
        }
        Err(misuse) => misuse.print(),
    }
}

fn get(url: &str) -> Result<Vec<u8>, Misuse> {
    let answer = ureq::get(url).call();
    let page = answer.and_then(|mut answer| answer.body_mut().read_to_vec());
    page.map_err(|error| Misuse::new(format!("{url}: {error}")))
}

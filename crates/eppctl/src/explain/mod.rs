//! `eppctl explain`: explains one decision, made by the filter's own picker.

mod envoy;
mod live;
mod report;
mod source;

use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use epp_core::body::SliceBody;
use epp_core::config::Plan;
use epp_core::picker::{Effect, ExchangeId, Head, Picker};
use epp_core::plugins::discovery::inline::StaticDiscovery;
use epp_core::plugins::Discovery;
use epp_core::scheduling::{DecisionMode, Health, InFlight, Slot};
use epp_core::time::Timestamp;

use crate::input::{load_plan, read};
use crate::output::{Error, ExitStatus, Output};
use live::read_live;
use report::explained;
use source::{PoolState, Source};

/// Show a decision: candidates, filtered endpoints, scores, ties, picks, bytes read.
#[derive(Args)]
#[command(after_help = "Examples:
  eppctl explain examples/full.yaml --endpoints pool.yaml --request body.json
  eppctl explain examples/full.yaml --request body.json \\
    --pod 10.0.0.1:8000 --pod 10.0.0.2:8000
  eppctl explain examples/full.yaml --request body.json \\
    --envoy http://127.0.0.1:9901
  # as if pod-a had served this conversation before:
  eppctl explain examples/full.yaml --endpoints pool.yaml --request body.json \\
    --warm pod-a=earlier.json

A snapshot (--endpoints) is YAML or JSON; values that are omitted are not on the endpoint's page:
  endpoints:
  - name: pod-a
    address: 10.0.0.1:8000
    available: true          # false: unhealthy, ejected or draining
    ejected: false           # true: picked only if there is no other candidate
    freshness: fresh         # fresh, stale or unknown
    waiting: 3               # requests
    running: 2
    kvUsage: 0.4             # 0 to 1
    lora: {active: [a], waiting: [], max: 4}
    blockSize: 16            # tokens
    numBlocks: 20000
    inFlight: 0              # requests in flight from this Envoy
    labels: {llm-d.ai/engine-type: vllm}
    attributes: {temperature: 61.5}  # customMetrics

Exit status: 0 an endpoint was picked, 1 none, 2 error.")]
pub struct Explain {
    /// The EndpointPickerConfig.
    config: String,
    /// The request's body; - is standard input.
    #[arg(long, value_name = "FILE")]
    request: String,
    /// The request's path, which selects the API of its body.
    #[arg(long, default_value = "/v1/chat/completions")]
    path: String,
    /// A request header, where a plugin or the proxy's settings read one; may be repeated.
    #[arg(long, value_name = "NAME: VALUE", value_parser = header)]
    header: Vec<(String, String)>,
    #[command(flatten)]
    source: Source,
    /// Let an endpoint serve another body first: NAME=FILE.
    #[arg(long, value_name = "NAME=FILE")]
    warm: Vec<String>,
    /// Seed of the random number generator, which breaks ties under `ties: draw`.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Reads a header as curl takes it. Returns its name in lower case, as HTTP/2 has it, and its value.
fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("expected NAME: VALUE")?;
    Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Timestamp::from_nanos(since.map_or(0, |since| since.as_nanos() as u64))
}

impl Explain {
    /// Decides and prints the explanation.
    pub fn run(&self, output: &mut Output) -> Result<ExitStatus, Error> {
        let plan = load_plan(&self.config)?;
        let body = read(&self.request)?;
        let mut state = self.source.read(&plan)?;
        if let Err(error) = serde_json::from_slice::<serde_json::Map<_, serde_json::Value>>(&body) {
            let request = &self.request;
            state.notes.push(format!(
                "{request}: not a JSON object: {error}; its model and prompt may be unknown"
            ));
        }
        let mut picker = self.picker(plan, &state);
        read_live(&mut picker, &mut state);
        set_endpoints(&mut picker, &state);
        for warm in &self.warm {
            self.warm(&mut picker, warm)?;
            set_endpoints(&mut picker, &state);
        }
        let (needed, outcome) = self.decide(&mut picker, EXPLAINED, &body);
        let body = (needed, body.len());
        let explained = explained(&picker, EXPLAINED, body, outcome, state);
        output.print(&explained)?;
        Ok(match explained.destination {
            Some(_) => ExitStatus::Ok,
            None => ExitStatus::Findings,
        })
    }

    /// Creates a picker with the endpoints.
    fn picker(&self, mut plan: Plan, state: &PoolState) -> Picker {
        let endpoints = state.endpoints.iter();
        let members = endpoints.map(|known| known.member.clone()).collect();
        plan.settings.explain = true;
        plan.discovery = Discovery::Static(StaticDiscovery { members });
        let mut picker = Picker::new(plan.clone(), self.seed);
        picker.install(plan);
        // The first tick adds the endpoints.
        picker.tick(now());
        picker
    }

    /// Lets an endpoint serve a body.
    fn warm(&self, picker: &mut Picker, warm: &str) -> Result<(), Error> {
        let (name, file) = warm
            .split_once('=')
            .ok_or_else(|| Error::new(format!("--warm {warm}: expected NAME=FILE")))?;
        let body = read(file)?;
        let pool = picker.fixture().pool();
        let slots: Vec<(Slot, bool)> = pool
            .iter()
            .map(|(slot, endpoint)| (slot, endpoint.name == name || *endpoint.address == *name))
            .collect();
        if !slots.iter().any(|(_, wanted)| *wanted) {
            return Err(Error::new(format!(
                "--warm {warm}: no endpoint has the name {name}"
            )));
        }
        for (slot, wanted) in slots {
            if let Some(endpoint) = pool.get_mut(slot) {
                endpoint.health = match wanted {
                    true => Health::Healthy,
                    false => Health::Unhealthy,
                };
                endpoint.ejected = false;
            }
        }
        self.decide(picker, WARMING, &body);
        // The index only keeps prompts of requests with a response.
        picker.response_headers(now(), WARMING, None);
        picker.closed(now(), WARMING);
        Ok(())
    }

    /// Feeds a body to the picker byte by byte. Returns the number of bytes after which the request was
    /// decided, and the decision.
    fn decide(&self, picker: &mut Picker, id: ExchangeId, body: &[u8]) -> (usize, Option<Effect>) {
        let headers = self.header.iter();
        let headers = headers.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let (plan, mut values) = (picker.plan().clone(), Vec::new());
        let head = Head {
            path: self.path.as_bytes(),
            method: b"POST",
            content_type: b"application/json",
            explain: true,
            content_length: Some(body.len()),
            ..Head::read(&plan, headers, body.is_empty(), &mut values)
        };
        picker.request_headers(now(), id, &head);
        let (mut needed, mut decision) = (0, decision(picker));
        for shown in 1..=body.len() {
            let part = body.get(..shown).unwrap_or_default();
            let mut view = match shown == body.len() {
                true => SliceBody::whole(part),
                false => SliceBody::beginning(part),
            };
            picker.request_body(now(), id, &mut view);
            if decision.is_none() {
                needed = shown;
                decision = self::decision(picker);
            }
        }
        (needed, decision)
    }
}

/// Returns the decision, if it is made.
fn decision(picker: &mut Picker) -> Option<Effect> {
    let effects = std::iter::from_fn(|| picker.poll_effect());
    effects.filter(Effect::is_decision).last()
}

/// The id of warm-up requests.
const WARMING: ExchangeId = ExchangeId(1);
/// The id of the request that is explained.
const EXPLAINED: ExchangeId = ExchangeId(2);

/// Sets the state of the picker's endpoints.
fn set_endpoints(picker: &mut Picker, state: &PoolState) {
    for (slot, known) in (0..).map(Slot).zip(&state.endpoints) {
        if let Some(endpoint) = picker.fixture().pool().get_mut(slot) {
            endpoint.health = known.member.health;
            endpoint.ejected = known.ejected;
            endpoint.metrics = known.metrics.clone();
            endpoint.freshness = known.freshness;
        }
        let load = InFlight {
            requests: known.requests,
            ..InFlight::default()
        };
        picker.fixture().pool().set_load(slot, load);
    }
    picker.fixture().pool().mode = state.decision_mode.unwrap_or(DecisionMode::Metrics);
    if state.decision_mode.is_none() {
        picker.fixture().choose_mode();
    }
}

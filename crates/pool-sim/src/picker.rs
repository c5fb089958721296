//! The policy that is the picker itself: it gets bodies and metrics pages as bytes, as in Envoy.

use std::collections::{HashMap, VecDeque};

use epp_core::body::SliceBody;
use epp_core::config;
use epp_core::config::settings::ReadBody;
use epp_core::endpoints::engine::EngineConfig;
use epp_core::endpoints::store::Member;
use epp_core::picker::{Effect, ExchangeId, Fetch, Fetched, Head, Picker};
use epp_core::plugins::discovery::inline::StaticDiscovery;
use epp_core::plugins::Discovery;
use epp_core::protocol::{FAIRNESS_ID_HEADERS, OBJECTIVE_HEADERS, PREFILL_HEADER};
use epp_core::scheduling::Health;
use epp_core::time::Timestamp;

use crate::pod::{Pod, Usage};
use crate::policy::{Decision, Picked, Policy, Refusal, Servers};
use crate::trace::{Request, Trace};

/// The time between two ticks of the filter, in nanoseconds.
const TICK: u64 = 50_000_000;

/// The time since 1970 at which the simulation begins: the picker expects a plausible wall clock.
const CLOCK_START: u64 = 365 * 86_400 * crate::SECOND;

/// Converts a time of the simulation to the picker's.
fn at(now: u64) -> Timestamp {
    Timestamp::from_nanos(CLOCK_START + now)
}

/// A picker over simulated servers.
pub struct PickerPolicy {
    picker: Picker,
    slots: HashMap<String, usize>,
    /// The engine of endpoints without labels, such as these.
    engine: EngineConfig,
    block_tokens: u32,
    /// The objectives of the trace, and whether it has tenants.
    objectives: Vec<String>,
    has_tenants: bool,
    /// The headers that the picker reads.
    headers: Vec<String>,
    decided: VecDeque<(usize, Decision)>,
    body: Vec<u8>,
    page: String,
}

/// Why a request that waited got a local reply.
const EXPIRED: &str = "rejected-ttl-expired";

impl PickerPolicy {
    /// Creates a picker with this configuration over these servers.
    pub fn new(config: &str, servers: Servers, trace: &Trace, seed: u64) -> Result<Self, String> {
        let loaded = config::load(config).map_err(|rejected| {
            let errors: Vec<String> = rejected.errors.iter().map(ToString::to_string).collect();
            errors.join("; ")
        })?;
        let mut plan = loaded.plan;
        let member = |pod: usize| Member {
            name: format!("pod-{pod}"),
            address: format!("10.{}.{}.{}:8000", pod >> 16, (pod >> 8) & 255, pod & 255),
            labels: labels(servers, pod),
            health: Health::Healthy,
        };
        let members: Vec<Member> = (0..servers.all).map(member).collect();
        let slots = members.iter().enumerate();
        let slots = slots
            .map(|(pod, member)| (member.address.clone(), pod))
            .collect();
        plan.discovery = Discovery::Static(StaticDiscovery { members });
        // The simulation delivers all bodies, and each metrics page at the address of its server.
        plan.settings.read_body = ReadBody::Always;
        plan.source.port = None;
        plan.source.sglang_loads = false;
        let mut engines = plan.extractor.engines.iter();
        let default = &plan.extractor.default_engine;
        let engine = engines.find(|engine| engine.name == *default);
        let engine = engine.cloned().unwrap_or_default();
        let headers = plan.headers.clone();
        let mut picker = Picker::new(plan.clone(), seed);
        picker.install(plan);
        Ok(Self {
            picker,
            slots,
            engine,
            block_tokens: trace.block_tokens,
            objectives: trace.objectives.clone(),
            has_tenants: trace.tenants > 0,
            headers,
            decided: VecDeque::new(),
            body: Vec::new(),
            page: String::new(),
        })
    }

    /// Keeps what an effect decides.
    fn note(&mut self, effect: Effect) {
        let (id, decision) = match effect {
            Effect::Forward { id, route } => {
                let pod = |address: &str| self.slots.get(address).copied();
                let mut headers = route.headers.iter();
                let prefiller = headers.find(|(name, _)| *name == PREFILL_HEADER);
                let picked = route.endpoints().next().and_then(pod).map(|server| Picked {
                    server,
                    prefiller: prefiller.and_then(|(_, address)| pod(address)),
                });
                let refused = Decision::Refuse(Refusal::Shed);
                (id, picked.map_or(refused, Decision::Send))
            }
            Effect::Reply { id, reply } if reply.reason == Some(EXPIRED) => {
                (id, Decision::Refuse(Refusal::Expired))
            }
            Effect::Reply { id, .. } | Effect::Bypass { id, .. } => {
                (id, Decision::Refuse(Refusal::Shed))
            }
            Effect::Evict { id, .. } => (id, Decision::Evict),
            // The simulation shows each body as a whole, and has the metrics pages fetched in ticks.
            Effect::Hold { .. }
            | Effect::ShowBody { .. }
            | Effect::RewriteBody { .. }
            | Effect::Log { .. }
            | Effect::Fetch { .. }
            | Effect::SetResponseHeader { .. }
            | Effect::RemoveResponseHeader { .. } => return,
        };
        self.decided.push_back((id.0 as usize, decision));
    }
}

/// Returns the labels of a server.
fn labels(servers: Servers, pod: usize) -> Vec<(String, String)> {
    let role = match pod < servers.prefill {
        true => "prefill",
        false => "decode",
    };
    let labels = (servers.prefill > 0).then(|| ("llm-d.ai/role".to_owned(), role.to_owned()));
    labels.into_iter().collect()
}

impl Policy for PickerPolicy {
    fn tick_interval(&self) -> Option<u64> {
        Some(TICK)
    }

    fn tick(&mut self, now: u64, pods: &[Pod]) {
        self.picker.tick(at(now));
        while let Some(effect) = self.picker.poll_effect() {
            let Effect::Fetch { id, fetch, .. } = effect else {
                self.note(effect);
                continue;
            };
            let pod = match fetch {
                Fetch::Metrics { address } => self.slots.get(&address),
                Fetch::Members | Fetch::Survey { .. } | Fetch::Loads { .. } => None,
            };
            if let Some(pod) = pod.and_then(|pod| pods.get(*pod)) {
                pod.page(&self.engine, &mut self.page);
                let mut page = SliceBody::whole(self.page.as_bytes());
                self.picker
                    .fetched(at(now), id, Ok(Fetched::Page(&mut page)));
            }
        }
    }

    fn pick(&mut self, now: u64, number: usize, request: &Request, _: &[Pod]) -> Option<Picked> {
        let id = ExchangeId(number as u32);
        let mut body = std::mem::take(&mut self.body);
        let path = request.write(number, self.block_tokens, &mut body);
        self.body = body;
        let objective = self.objectives.get(request.objective).map(String::as_bytes);
        let tenant = self
            .has_tenants
            .then(|| format!("tenant-{}", request.tenant));
        let tenant = tenant.as_deref().map(str::as_bytes);
        let value = |name: &String| match name.as_str() {
            name if OBJECTIVE_HEADERS.contains(&name) => objective,
            name if FAIRNESS_ID_HEADERS.contains(&name) => tenant,
            _ => None,
        };
        let headers: Vec<Option<&[u8]>> = self.headers.iter().map(value).collect();
        let head = Head {
            headers: &headers,
            ..Head::post_json(path, Some(self.body.len()))
        };
        self.picker.request_headers(at(now), id, &head);
        self.picker
            .request_body(at(now), id, &mut SliceBody::whole(&self.body));
        None
    }

    fn decided(&mut self) -> Option<(usize, Decision)> {
        while let Some(effect) = self.picker.poll_effect() {
            self.note(effect);
        }
        self.decided.pop_front()
    }

    fn first_token(&mut self, now: u64, number: usize, usage: Option<Usage>) {
        let id = ExchangeId(number as u32);
        self.picker.response_headers(at(now), id, None);
        let Some(usage) = usage else {
            return;
        };
        let Usage {
            prompt_tokens: prompt,
            cached_tokens: cached,
            output_tokens: output,
        } = usage;
        let body = format!(
            r#"{{"usage":{{"prompt_tokens":{prompt},"completion_tokens":{output},"prompt_tokens_details":{{"cached_tokens":{cached}}}}}}}"#
        );
        self.picker
            .response_body(at(now), id, &mut SliceBody::whole(body.as_bytes()));
    }

    fn ended(&mut self, now: u64, number: usize) {
        self.picker.closed(at(now), ExchangeId(number as u32));
    }
}

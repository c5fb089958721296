//! The policy that is the picker itself: it gets bodies and metrics pages as bytes, as in Envoy.

use epp_core::scheduling::Health;
use std::collections::HashMap;

use epp_core::body::SliceBody;
use epp_core::config;
use epp_core::config::settings::ReadBody;
use epp_core::endpoints::engine::EngineConfig;
use epp_core::endpoints::store::Member;
use epp_core::picker::{Effect, ExchangeId, Fetch, Fetched, Head, Picker};
use epp_core::plugins::discovery::inline::StaticDiscovery;
use epp_core::plugins::Discovery;
use epp_core::protocol::PREFILL_HEADER;
use epp_core::time::Timestamp;

use crate::pod::{Pod, Usage};
use crate::policy::{Picked, Policy, Servers};
use crate::trace::Request;

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
    body: Vec<u8>,
    page: String,
}

impl PickerPolicy {
    /// Creates a picker with this configuration over these servers.
    pub fn new(
        config: &str,
        servers: Servers,
        block_tokens: u32,
        seed: u64,
    ) -> Result<Self, String> {
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
        let mut engines = plan.extractor.engines.iter();
        let default = &plan.extractor.default_engine;
        let engine = engines.find(|engine| engine.name == *default);
        let engine = engine.cloned().unwrap_or_default();
        let mut picker = Picker::new(plan.clone(), seed);
        picker.install(plan);
        Ok(Self {
            picker,
            slots,
            engine,
            block_tokens,
            body: Vec::new(),
            page: String::new(),
        })
    }

    /// Returns the pods of the request, once it is decided.
    fn picked(&mut self) -> Option<Picked> {
        let mut picked = None;
        while let Some(effect) = self.picker.poll_effect() {
            if let Effect::Forward { route, .. } = effect {
                let pod = |address: &str| self.slots.get(address).copied();
                let mut headers = route.headers.iter();
                let prefiller = headers.find(|(name, _)| *name == PREFILL_HEADER);
                picked = route.endpoints().next().and_then(pod).map(|server| Picked {
                    server,
                    prefiller: prefiller.and_then(|(_, address)| pod(address)),
                });
            }
        }
        picked
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
                continue;
            };
            let pod = match fetch {
                Fetch::Metrics { address } => self.slots.get(&address),
                Fetch::Members | Fetch::Survey { .. } => None,
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
        let head = Head::post_json(path, Some(self.body.len()));
        self.picker.request_headers(at(now), id, &head);
        self.picker
            .request_body(at(now), id, &mut SliceBody::whole(&self.body));
        self.picked()
    }

    fn first_token(&mut self, now: u64, number: usize, usage: Option<Usage>) {
        let id = ExchangeId(number as u32);
        self.picker.response_headers(at(now), id, None);
        let Some(usage) = usage else {
            return;
        };
        let (prompt, cached) = (usage.prompt_tokens, usage.cached_tokens);
        let body = format!(
            r#"{{"usage":{{"prompt_tokens":{prompt},"prompt_tokens_details":{{"cached_tokens":{cached}}}}}}}"#
        );
        self.picker
            .response_body(at(now), id, &mut SliceBody::whole(body.as_bytes()));
    }

    fn ended(&mut self, now: u64, number: usize) {
        self.picker.closed(at(now), ExchangeId(number as u32));
    }
}

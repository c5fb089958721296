//! The picker itself as a policy: bodies and metrics pages go in as bytes, as in Envoy.

use std::cell::Cell;
use std::collections::HashMap;

use epp_core::body::SliceBody;
use epp_core::config;
use epp_core::endpoints::store::Member;
use epp_core::picker::meter::Unmetered;
use epp_core::picker::{Effect, ExchangeId, Head, Picker};
use epp_core::plugins::discovery::inline::StaticDiscovery;
use epp_core::plugins::proxy::envoy_proxy::ReadBody;
use epp_core::plugins::Discovery;

use crate::pod::Pod;
use crate::policy::Policy;
use crate::trace::Request;

/// The filter's tick.
const TICK: u64 = 50_000_000;

/// The only root context.

/// The picker takes nanoseconds since 1970, where 0 is never: the simulation begins a year later.
const BEGIN: u64 = 365 * 86_400 * crate::SECOND;

thread_local! {
    static NOW: Cell<u64> = const { Cell::new(BEGIN) };
}

fn now() -> u64 {
    NOW.get()
}

/// A picker over simulated servers.
pub struct PickerPolicy {
    picker: Picker,
    slots: HashMap<String, usize>,
    block_tokens: u32,
    body: Vec<u8>,
    page: String,
    tokens: u32,
}

impl PickerPolicy {
    /// A picker with this configuration over so many servers.
    pub fn new(config: &str, pods: usize, block_tokens: u32, seed: u64) -> Result<Self, String> {
        let loaded = config::load(config).map_err(|rejected| {
            let errors: Vec<String> = rejected.errors.iter().map(ToString::to_string).collect();
            errors.join("; ")
        })?;
        let mut plan = loaded.plan;
        let member = |pod: usize| Member {
            name: format!("pod-{pod}"),
            address: format!("10.{}.{}.{}:8000", pod >> 16, (pod >> 8) & 255, pod & 255),
            labels: Vec::new(),
            available: true,
        };
        let members: Vec<Member> = (0..pods).map(member).collect();
        let slots = members.iter().enumerate();
        let slots = slots
            .map(|(pod, member)| (member.address.clone(), pod))
            .collect();
        plan.discovery = Discovery::Static(StaticDiscovery { members });
        // There is no Envoy here that could keep bodies to itself, and pages are where pods are.
        plan.proxy.read_body = ReadBody::Always;
        plan.source.port = None;
        NOW.set(BEGIN);
        let mut picker = Picker::new(plan.clone(), seed, Box::new(Unmetered), now);
        picker.install(plan);
        Ok(Self {
            picker,
            slots,
            block_tokens,
            body: Vec::new(),
            page: String::new(),
            tokens: 0,
        })
    }

    /// Returns the pod to which the request goes, once it is decided.
    fn pod(&mut self) -> Option<usize> {
        let mut pod = None;
        while let Some(effect) = self.picker.poll_effect() {
            if let Effect::Forward { route, .. } = effect {
                let first = route.endpoints().next();
                pod = first.and_then(|first| self.slots.get(first).copied());
            }
        }
        pod
    }
}

impl Policy for PickerPolicy {
    fn ticks_each(&self) -> Option<u64> {
        Some(TICK)
    }

    fn tick(&mut self, now: u64, pods: &[Pod]) {
        NOW.set(BEGIN + now);
        let tick = self.picker.tick();
        for call in &tick.calls {
            self.tokens = self.tokens.wrapping_add(1);
            self.picker.called(call, Some(self.tokens));
            let pod = self.slots.get(&call.address).and_then(|pod| pods.get(*pod));
            if let Some(pod) = pod {
                pod.page(&mut self.page);
                self.picker
                    .called_back(self.tokens, b"200", &mut self.page.as_bytes());
            }
        }
    }

    fn pick(&mut self, now: u64, number: usize, request: &Request, _: &[Pod]) -> Option<usize> {
        NOW.set(BEGIN + now);
        let id = ExchangeId(number as u32);
        let mut body = std::mem::take(&mut self.body);
        let path = request.write(number, self.block_tokens, &mut body);
        self.body = body;
        let head = Head {
            path: path.as_bytes(),
            method: b"POST",
            content_type: b"application/json",
            content_length: Some(self.body.len()),
            ..Head::default()
        };
        self.picker.request_headers(id, &head);
        self.picker
            .request_body(id, &mut SliceBody::whole(&self.body));
        self.pod()
    }

    fn first_token(&mut self, now: u64, number: usize) {
        NOW.set(BEGIN + now);
        self.picker.answered(ExchangeId(number as u32), None);
    }

    fn ended(&mut self, now: u64, number: usize) {
        NOW.set(BEGIN + now);
        self.picker.close(ExchangeId(number as u32));
    }
}

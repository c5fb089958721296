//! The picker itself as a policy: bodies and metrics pages go in as bytes, as in Envoy.

use std::cell::Cell;
use std::collections::HashMap;

use epp_core::config;
use epp_core::endpoints::store::Member;
use epp_core::picker::meter::Unmetered;
use epp_core::picker::{Appetite, Head, Picker, Release, Verdict};
use epp_core::plugins::discovery::inline::StaticDiscovery;
use epp_core::plugins::proxy::envoy_proxy::ReadBody;
use epp_core::plugins::Discovery;
use epp_core::worker::Local;

use crate::pod::Pod;
use crate::policy::Policy;
use crate::trace::Request;

/// The filter's tick.
const TICK: u64 = 50_000_000;

/// The only root context.
const ROOT: u32 = 1;

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
    shared: Local,
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
        let mut picker = Picker::new("simulator", plan.clone(), seed, Box::new(Unmetered), now);
        picker.install(plan, ROOT);
        Ok(Self {
            picker,
            shared: Local::default(),
            slots,
            block_tokens,
            body: Vec::new(),
            page: String::new(),
            tokens: 0,
        })
    }

    /// Feeds the body as far as it is wanted, as the filter does.
    fn feed(&mut self, id: u32) -> Option<Verdict> {
        let mut read = 0;
        let mut verdict = None;
        loop {
            let unread = self.body.len() - read;
            let (start, most) = match self.picker.appetite(id, unread, true) {
                Appetite::Nothing => break,
                Appetite::Next(most) => (read, most),
                Appetite::Tail(most) => (self.body.len().saturating_sub(most), most),
            };
            let end = start.saturating_add(most).min(self.body.len());
            let bytes = self.body.get(start..end).unwrap_or_default();
            if bytes.is_empty() {
                break;
            }
            let step = if start == read {
                read = end;
                self.picker.body(id, bytes, end == self.body.len())
            } else {
                self.picker.tail(id, start, bytes)
            };
            verdict = verdict.or(step);
            while let Some(range) = self.picker.reread(id) {
                let again = self.body.get(range.clone()).unwrap_or_default();
                let step = self.picker.body_again(id, range.start, again);
                verdict = verdict.or(step);
            }
        }
        verdict.or_else(|| self.picker.body(id, &[], true))
    }

    fn place(&self, release: &Release) -> Option<usize> {
        let first = release.destination()?.split(',').next()?;
        self.slots.get(first).copied()
    }
}

impl Policy for PickerPolicy {
    fn ticks_each(&self) -> Option<u64> {
        Some(TICK)
    }

    fn tick(&mut self, now: u64, pods: &[Pod]) {
        NOW.set(BEGIN + now);
        let tick = self.picker.tick(ROOT, &mut self.shared);
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
        let id = number as u32;
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
        let opened = self.picker.open(id, &head);
        let read = self.feed(id);
        match (opened, read) {
            (Verdict::Release(release), _) | (_, Some(Verdict::Release(release))) => {
                self.place(&release)
            }
            _ => None,
        }
    }

    fn first_token(&mut self, now: u64, number: usize) {
        NOW.set(BEGIN + now);
        self.picker.answered(number as u32, None, &mut self.shared);
    }

    fn ended(&mut self, now: u64, number: usize) {
        NOW.set(BEGIN + now);
        self.picker.close(number as u32);
    }
}

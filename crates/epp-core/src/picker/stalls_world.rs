//! A pool whose responses and pages come at given times; one picker.

use super::super::super::testing::NOW;
use super::super::super::{
    Effect, ExchangeId, Fetch, Fetched, Head, Picker, ResponseOrigin, Upstream,
};
use super::super::*;
use crate::body::SliceBody;
use crate::config;
use crate::time::Timestamp;

/// Milliseconds between two ticks, and between two pages of an endpoint.
pub(super) const TICK: u64 = 50;
pub(super) const PAGE: u64 = 200;

/// An endpoint of the tests.
#[derive(Clone, Copy)]
pub(super) struct Server {
    /// Milliseconds that a response takes; `None`: it does not come.
    pub(super) response: Option<u64>,
    /// Milliseconds between two steps of the engine; `None`: it stands still.
    pub(super) step: Option<u64>,
    /// The status of its responses.
    pub(super) status: u16,
    /// Whether their headers come at once.
    pub(super) streams: bool,
}

pub(super) const FINE: Server = Server {
    response: Some(20),
    step: Some(20),
    status: 200,
    streams: false,
};

pub(super) const HUNG: Server = Server {
    response: None,
    step: None,
    ..FINE
};

/// A request under way.
#[derive(Clone, Copy)]
pub(super) struct UnderWay {
    pub(super) id: u32,
    pub(super) server: usize,
    pub(super) status: u16,
    /// Whether the headers of its response have come.
    pub(super) begun: bool,
    /// When its response comes.
    pub(super) due: u64,
}

pub(super) struct World {
    pub(super) picker: Picker,
    pub(super) servers: Vec<Server>,
    /// Whether pages have the counter of generated tokens.
    pub(super) counts: bool,
    /// Whether pages come only when they are fetched.
    pub(super) fetches: bool,
    /// Whether every other page lacks it.
    pub(super) flickers: bool,
    /// Milliseconds between two requests.
    pub(super) interval: u64,
    pub(super) path: &'static str,
    pub(super) now: u64,
    pub(super) generated: Vec<u64>,
    pub(super) under_way: Vec<UnderWay>,
    pub(super) next: u32,
}

impl World {
    pub(super) fn new(servers: &[Server]) -> Self {
        Self::with(servers, "queue-scorer")
    }

    /// Returns one whose plan reads pages for this scorer.
    pub(super) fn with(servers: &[Server], scorer: &str) -> Self {
        let listed =
            (1..=servers.len()).map(|n| format!("{{name: p{n}, address: 10.0.0.{n}, port: 80}}"));
        let listed: Vec<String> = listed.collect();
        let text = format!(
            "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{{type: random-picker}}, {{type: {scorer}}},
  {{name: pods, type: static-discovery, parameters: {{endpoints: [{}]}}}}]
schedulingProfiles: [{{name: default, plugins: [{{pluginRef: {scorer}, weight: 0}}, {{pluginRef: random-picker}}]}}]
dataLayer: {{discovery: {{pluginRef: pods}}}}
",
            listed.join(", ")
        );
        let plan = config::load(&text).unwrap().plan;
        let mut world = Self {
            picker: Picker::new(plan, 1),
            servers: servers.to_vec(),
            counts: true,
            fetches: false,
            flickers: false,
            interval: 20,
            path: "/v1/completions",
            now: 0,
            generated: vec![0; servers.len()],
            under_way: Vec::new(),
            next: 0,
        };
        world.picker.tick(NOW);
        world
    }

    pub(super) fn at(&self) -> Timestamp {
        NOW.after(Duration::from_millis(self.now))
    }

    /// Lets milliseconds pass. Returns how many requests each server got.
    pub(super) fn run(&mut self, millis: u64) -> Vec<usize> {
        let mut sent = vec![0; self.servers.len()];
        for _ in 0..millis / 10 {
            self.now += 10;
            self.respond();
            if self.now % self.interval == 0 {
                if let Some(server) = self.send() {
                    sent[server] += 1;
                }
            }
            if self.now % PAGE == 0 {
                self.work();
                if !self.fetches {
                    self.read_pages();
                }
            }
            if self.now % TICK == 0 {
                let now = self.at();
                self.picker.tick(now);
                let effects: Vec<_> = std::iter::from_fn(|| self.picker.poll_effect()).collect();
                if self.fetches {
                    effects.into_iter().for_each(|effect| self.fetch(effect));
                }
            }
        }
        sent
    }

    /// The engines compute.
    fn work(&mut self) {
        for (server, generated) in self.servers.iter().zip(&mut self.generated) {
            *generated += server.step.map_or(0, |step| PAGE.div_ceil(step));
        }
    }

    fn page(&self, index: usize) -> String {
        // The engine's gauges stand still as well.
        let (waiting, generated) = (1, self.generated[index]);
        let usage = generated % 7;
        let mut page = format!(
            "vllm:num_requests_waiting {waiting}\nvllm:kv_cache_usage_perc 0.{usage}\nvllm:cache_config_info{{block_size=\"32\"}} 1\n"
        );
        if self.counts && !(self.flickers && self.now % (2 * PAGE) == 0) {
            page += &format!("vllm:generation_tokens_total {generated}\n");
        }
        page
    }

    /// A page is fetched at once.
    fn fetch(&mut self, effect: Effect) {
        let Effect::Fetch {
            id,
            fetch: Fetch::Metrics { address },
            ..
        } = effect
        else {
            return;
        };
        let page = self.page(number(&address).unwrap());
        let (now, mut page) = (self.at(), SliceBody::whole(page.as_bytes()));
        self.picker.fetched(now, id, Ok(Fetched::Page(&mut page)));
    }

    pub(super) fn read_pages(&mut self) {
        for index in 0..self.servers.len() {
            let page = self.page(index);
            let now = self.at();
            assert!(self
                .picker
                .fixture()
                .read_page(now, Slot(index as u32), page.as_bytes()));
        }
    }

    pub(super) fn send(&mut self) -> Option<usize> {
        let (id, now) = (self.next, self.at());
        self.next += 1;
        let head = Head::post_json(self.path, None);
        self.picker.request_headers(now, ExchangeId(id), &head);
        self.picker
            .request_body(now, ExchangeId(id), &mut SliceBody::whole(b"{}"));
        let mut server = None;
        while let Some(effect) = self.picker.poll_effect() {
            if let Effect::Forward { route, .. } = effect {
                let address = route.endpoints().next()?;
                server = number(address);
            }
        }
        let due = self.servers[server?]
            .response
            .map_or(u64::MAX, |it| self.now + it);
        let begun = self.servers[server?].streams;
        let request = UnderWay {
            id,
            server: server?,
            status: self.servers[server?].status,
            begun,
            due,
        };
        if begun {
            self.begin(&request);
        }
        self.under_way.push(request);
        server
    }

    /// The headers of a response come.
    pub(super) fn begin(&mut self, request: &UnderWay) {
        let (now, id) = (self.at(), ExchangeId(request.id));
        let upstream = Upstream {
            server: Some(format!("10.0.0.{}:80", request.server + 1).into_bytes()),
            status: Some(request.status),
            origin: ResponseOrigin::Endpoint,
            attempts: Some(1),
            ..Upstream::default()
        };
        let wanted = self.picker.wants_upstream(id);
        self.picker
            .response_headers(now, id, wanted.then_some(&upstream));
    }

    pub(super) fn respond(&mut self) {
        let now = self.at();
        let under_way = std::mem::take(&mut self.under_way);
        let (due, rest): (Vec<_>, Vec<_>) =
            under_way.into_iter().partition(|it| it.due <= self.now);
        self.under_way = rest;
        for request in due {
            let id = ExchangeId(request.id);
            if !request.begun {
                self.begin(&request);
            }
            let mut body = SliceBody::whole(b"{}");
            self.picker.response_body(now, id, &mut body);
            self.picker.closed(now, id);
        }
    }

    /// Returns which endpoints are ejected for standing still.
    pub(super) fn hung(&self) -> Vec<bool> {
        let outliers = &self.picker.dispatcher.endpoints.monitor.outliers;
        let reason = |slot| outliers.reason(Slot(slot));
        (0..self.servers.len() as u32)
            .map(|slot| reason(slot) == Some(Reason::Hung))
            .collect()
    }

    /// Lets the requests under way at a server end now.
    pub(super) fn finish(&mut self, server: usize) {
        for request in self.under_way.iter_mut().filter(|it| it.server == server) {
            request.due = self.now;
        }
    }
}

/// Returns which server has this address.
fn number(address: &str) -> Option<usize> {
    let number = address.strip_prefix("10.0.0.")?.strip_suffix(":80")?;
    number.parse::<usize>().ok().map(|number| number - 1)
}

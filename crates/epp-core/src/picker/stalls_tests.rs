//! A pool whose responses and pages come at given times; one picker.

use super::super::testing::NOW;
use super::super::{Effect, ExchangeId, Head, Picker, ResponseOrigin, Upstream};
use super::*;
use crate::body::SliceBody;
use crate::config;
use crate::time::Timestamp;

/// Milliseconds between two ticks, and between two pages of an endpoint.
const TICK: u64 = 50;
const PAGE: u64 = 200;

/// An endpoint of the tests.
#[derive(Clone, Copy)]
struct Server {
    /// Milliseconds that a response takes; `None`: it does not come.
    response: Option<u64>,
    /// Milliseconds between two steps of the engine; `None`: it stands still.
    step: Option<u64>,
    /// The status of its responses.
    status: u16,
    /// Whether their headers come at once.
    streams: bool,
}

const FINE: Server = Server {
    response: Some(20),
    step: Some(20),
    status: 200,
    streams: false,
};

const HUNG: Server = Server {
    response: None,
    step: None,
    ..FINE
};

/// A request under way.
#[derive(Clone, Copy)]
struct UnderWay {
    id: u32,
    server: usize,
    status: u16,
    /// Whether the headers of its response have come.
    begun: bool,
    /// When its response comes.
    due: u64,
}

struct World {
    picker: Picker,
    servers: Vec<Server>,
    /// Whether pages have the counter of generated tokens.
    counts: bool,
    /// Whether every other page lacks it.
    flickers: bool,
    /// Milliseconds between two requests.
    interval: u64,
    path: &'static str,
    now: u64,
    generated: Vec<u64>,
    under_way: Vec<UnderWay>,
    next: u32,
}

impl World {
    fn new(servers: &[Server]) -> Self {
        let listed =
            (1..=servers.len()).map(|n| format!("{{name: p{n}, address: 10.0.0.{n}, port: 80}}"));
        let listed: Vec<String> = listed.collect();
        let text = format!(
            "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{{type: random-picker}}, {{type: queue-scorer}},
  {{name: pods, type: static-discovery, parameters: {{endpoints: [{}]}}}}]
schedulingProfiles: [{{name: default, plugins: [{{pluginRef: queue-scorer, weight: 0}}, {{pluginRef: random-picker}}]}}]
dataLayer: {{discovery: {{pluginRef: pods}}}}
",
            listed.join(", ")
        );
        let plan = config::load(&text).unwrap().plan;
        let mut world = Self {
            picker: Picker::new(plan, 1),
            servers: servers.to_vec(),
            counts: true,
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

    fn at(&self) -> Timestamp {
        NOW.after(Duration::from_millis(self.now))
    }

    /// Lets milliseconds pass. Returns how many requests each server got.
    fn run(&mut self, millis: u64) -> Vec<usize> {
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
                self.read_pages();
            }
            if self.now % TICK == 0 {
                let now = self.at();
                self.picker.tick(now);
                while self.picker.poll_effect().is_some() {}
            }
        }
        sent
    }

    fn read_pages(&mut self) {
        for (index, server) in self.servers.clone().into_iter().enumerate() {
            self.generated[index] += server.step.map_or(0, |step| PAGE.div_ceil(step));
            // The engine's gauges stand still as well.
            let (waiting, generated) = (1, self.generated[index]);
            let usage = generated % 7;
            let mut page = format!(
                "vllm:num_requests_waiting {waiting}\nvllm:kv_cache_usage_perc 0.{usage}\n"
            );
            if self.counts && !(self.flickers && self.now % (2 * PAGE) == 0) {
                page += &format!("vllm:generation_tokens_total {generated}\n");
            }
            let now = self.at();
            assert!(self
                .picker
                .fixture()
                .read_page(now, Slot(index as u32), page.as_bytes()));
        }
    }

    fn send(&mut self) -> Option<usize> {
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
                let number = address.strip_prefix("10.0.0.")?.strip_suffix(":80")?;
                server = number.parse::<usize>().ok().map(|number| number - 1);
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
    fn begin(&mut self, request: &UnderWay) {
        let (now, id) = (self.at(), ExchangeId(request.id));
        let upstream = Upstream {
            server: Some(format!("10.0.0.{}:80", request.server + 1).into_bytes()),
            status: Some(request.status),
            origin: ResponseOrigin::Endpoint,
            attempts: Some(1),
        };
        let wanted = self.picker.wants_upstream(id);
        self.picker
            .response_headers(now, id, wanted.then_some(&upstream));
    }

    fn respond(&mut self) {
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
    fn hung(&self) -> Vec<bool> {
        let outliers = &self.picker.dispatcher.endpoints.monitor.outliers;
        let reason = |slot| outliers.reason(Slot(slot));
        (0..self.servers.len() as u32)
            .map(|slot| reason(slot) == Some(Reason::Hung))
            .collect()
    }

    /// Lets the requests under way at a server end now.
    fn finish(&mut self, server: usize) {
        for request in self.under_way.iter_mut().filter(|it| it.server == server) {
            request.due = self.now;
        }
    }
}

#[test]
fn an_engine_that_stands_still_gets_nothing_until_it_works_again() {
    let mut world = World::new(&[FINE; 4]);
    world.run(3_000);
    world.servers[0] = HUNG;
    world.run(2_500);
    assert_eq!(world.hung(), [true, false, false, false]);
    // Nothing, not even a probe, while nothing moves.
    assert_eq!(world.run(20_000)[0], 0);
    world.servers[0] = FINE;
    // The page shows work: a probe.
    assert!(world.run(3_000)[0] > 10);
    assert_eq!(world.hung(), [false; 4]);
}

#[test]
fn a_response_to_a_request_that_was_stuck_ends_the_ejection() {
    let mut world = World::new(&[FINE; 4]);
    world.run(3_000);
    world.servers[0] = HUNG;
    world.run(2_500);
    world.servers[0].response = FINE.response;
    world.finish(0);
    world.run(100);
    assert_eq!(world.hung(), [false; 4]);
}

#[test]
fn a_page_that_moves_without_responses_gets_single_probes() {
    let mut world = World::new(&[FINE; 4]);
    world.run(3_000);
    world.servers[0] = HUNG;
    world.run(2_500);
    assert!(world.hung()[0]);
    // One page moves, and nothing more: a probe is sent and gets no response.
    world.generated[0] += 1;
    assert_eq!(world.run(10_000)[0], 1);
    assert!(world.hung()[0]);
    assert_eq!(world.run(40_000)[0], 0);
}

#[test]
fn an_engine_that_works_is_not_ejected_however_long_its_responses_take() {
    let mut world = World::new(&[FINE; 4]);
    world.run(3_000);
    // Whole responses that take two minutes.
    world.servers[0].response = Some(120_000);
    for _ in 0..120 {
        world.run(1_000);
        assert_eq!(world.hung(), [false; 4]);
    }
}

#[test]
fn an_endpoint_that_responds_is_not_ejected_whatever_its_page_shows() {
    let mut world = World::new(&[FINE; 4]);
    world.run(3_000);
    // A relay repeats an old page.
    world.servers[0].step = None;
    world.run(60_000);
    assert_eq!(world.hung(), [false; 4]);
}

#[test]
fn rejected_requests_do_not_hide_an_engine_that_stands_still() {
    let mut world = World::new(&[FINE; 4]);
    world.run(3_000);
    world.servers[0] = HUNG;
    world.run(1_500);
    // Every second request from now on is rejected at once.
    for turn in 0..100 {
        world.servers[0] = match turn % 2 {
            0 => HUNG,
            _ => Server {
                response: Some(10),
                status: 400,
                ..HUNG
            },
        };
        world.run(20);
    }
    assert!(world.hung()[0]);
}

/// FastAPI responds with the headers of a stream before it asks the engine.
#[test]
fn headers_of_streams_do_not_hide_an_engine_that_stands_still() {
    let streams = |server| Server {
        streams: true,
        ..server
    };
    let mut world = World::new(&[streams(FINE); 4]);
    world.run(3_000);
    assert_eq!(world.hung(), [false; 4]);
    world.servers[0] = streams(HUNG);
    world.run(2_500);
    assert_eq!(world.hung(), [true, false, false, false]);
    // The headers of a probe prove nothing.
    world.generated[0] += 1;
    assert_eq!(world.run(10_000)[0], 1);
    assert!(world.hung()[0]);
    world.servers[0] = streams(FINE);
    world.finish(0);
    world.run(3_000);
    assert_eq!(world.hung(), [false; 4]);
}

/// Returns whether an engine is found to stand still, while every second request has this path and gets this status.
fn is_found_behind(path: &'static str, status: u16) -> bool {
    let mut world = World::new(&[FINE; 4]);
    world.interval = 10;
    world.run(3_000);
    for turn in 0..300 {
        (world.path, world.servers[0]) = match turn % 2 {
            0 => ("/v1/completions", HUNG),
            _ => (
                path,
                Server {
                    response: Some(10),
                    status,
                    ..HUNG
                },
            ),
        };
        world.run(10);
    }
    let found = world.hung()[0];
    // Nor does such a probe end the ejection.
    world.generated[0] += 1;
    world.path = path;
    world.servers[0] = Server {
        response: Some(10),
        status,
        ..HUNG
    };
    world.run(3_000);
    assert_eq!(world.hung()[0], found);
    found
}

#[test]
fn what_takes_no_engine_does_not_hide_one_that_stands_still() {
    for path in [
        "/tokenize",
        "/v1/messages/count_tokens",
        "/v1/chat/completions/render",
        "/v1/conversations",
    ] {
        assert!(is_found_behind(path, 200), "{path}");
    }
    assert!(is_found_behind("/v1/completions", 404));
    assert!(!is_found_behind("/v1/completions", 200));
    assert!(!is_found_behind("/v1/rerank", 200));
}

#[test]
fn one_or_two_requests_that_wait_for_something_else_eject_nothing() {
    let mut world = World::new(&[FINE; 2]);
    world.run(3_000);
    // The images of these two do not come, and the engine is idle.
    world.servers[0] = HUNG;
    while world
        .under_way
        .iter()
        .filter(|it| it.due == u64::MAX)
        .count()
        < 2
    {
        world.send();
    }
    world.interval = u64::MAX;
    for _ in 0..100 {
        // The peer serves.
        world.servers[0].response = None;
        let server = world.send().unwrap();
        if server == 0 {
            let last = world.under_way.pop().unwrap();
            let now = world.at();
            world.picker.closed(now, ExchangeId(last.id));
        }
        world.run(200);
        assert_eq!(world.hung(), [false; 2]);
    }
    assert!(world.under_way.len() >= 2);
    // A third one waits.
    while world
        .under_way
        .iter()
        .filter(|it| it.due == u64::MAX)
        .count()
        < 3
    {
        world.send();
    }
    world.run(1_500);
    while world.send() != Some(1) {}
    world.run(1_500);
    assert_eq!(world.hung(), [true, false]);
}

/// Images that do not come end with an error, and the engine is idle: its page shows no work.
#[test]
fn an_endpoint_is_probed_once_the_requests_have_ended_that_it_was_ejected_for() {
    let mut world = World::new(&[FINE; 4]);
    world.run(3_000);
    world.servers[0] = Server {
        status: 400,
        ..HUNG
    };
    world.run(2_500);
    assert!(world.hung()[0]);
    world.servers[0] = Server { step: None, ..FINE };
    assert_eq!(world.run(10_000)[0], 0);
    world.finish(0);
    assert!(world.run(1_000)[0] > 3);
    assert_eq!(world.hung(), [false; 4]);
}

#[test]
fn nothing_is_ejected_where_no_peer_serves() {
    let mut world = World::new(&[FINE; 4]);
    world.run(3_000);
    world.servers = vec![HUNG; 4];
    world.run(60_000);
    assert_eq!(world.hung(), [false; 4]);
    world.servers = vec![FINE, HUNG, HUNG, HUNG];
    world.finish(0);
    world.run(10_000);
    assert_eq!(
        world.hung(),
        [false; 4],
        "three of four: something behind them"
    );
}

#[test]
fn a_pool_whose_engines_are_silent_for_long_is_given_more_time() {
    // Steps of two and a half seconds, as with long prompts that are computed in one.
    let slow = Server {
        response: Some(2_600),
        ..FINE
    };
    let mut world = World::new(&[slow; 4]);
    let stand = |world: &mut World, millis: u64| {
        world.servers[0].step = None;
        world.servers[0].response = None;
        let at_once = world.under_way.iter_mut().filter(|it| it.server == 0);
        at_once.for_each(|it| it.due = u64::MAX);
        world.run(millis);
        let hung = world.hung()[0];
        world.servers[0] = slow;
        world.finish(0);
        hung
    };
    world.run(5_000);
    // Each time a little longer than the time before.
    for millis in [1_800, 3_000, 5_000] {
        assert!(!stand(&mut world, millis), "{millis}");
        world.run(3_000);
    }
    assert!(stand(&mut world, 20_000));
    // Half an hour later all of it is forgotten.
    world.run(1_300_000);
    assert!(stand(&mut world, 3_000));
}

#[test]
fn without_the_counter_of_tokens_more_time_is_given() {
    let mut world = World::new(&[FINE; 4]);
    world.counts = false;
    world.run(3_000);
    world.servers[0] = HUNG;
    world.run(10_000);
    assert_eq!(world.hung(), [false; 4]);
    world.run(6_000);
    assert_eq!(world.hung(), [true, false, false, false]);
}

#[test]
fn a_value_that_only_some_pages_have_is_no_work() {
    let mut world = World::new(&[FINE; 4]);
    world.run(3_000);
    world.servers[0] = HUNG;
    world.flickers = true;
    world.run(3_000);
    assert_eq!(world.hung(), [true, false, false, false]);
}

#[test]
fn an_endpoint_without_history_is_given_more_time() {
    let mut world = World::new(&[HUNG, FINE, FINE, FINE]);
    world.run(14_000);
    assert_eq!(world.hung(), [false; 4]);
    world.run(3_000);
    assert_eq!(world.hung(), [true, false, false, false]);
}

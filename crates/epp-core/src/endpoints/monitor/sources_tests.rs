//! Which of its two sources an SGLang server is asked for, and what is taken from each.

use crate::config;
use crate::endpoints::fetch_error::FetchError;
use crate::endpoints::load_report::LoadReport;
use crate::endpoints::monitor::{Monitor, Query, Scrape};
use crate::scheduling::{Endpoint, Freshness, Slot};
use crate::time::{Clock, Timestamp};

#[path = "sources_relabel_tests.rs"]
mod relabel;

/// The text of a plan for one SGLang server, with these scorer and custom metrics.
fn document(scorer: &str, custom: &str) -> String {
    format!(
        "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {{type: {scorer}}}
- {{type: prefix-cache-scorer}}
- {{name: pods, type: static-discovery, parameters: {{endpoints: [{{name: a, address: 10.0.0.1, port: 80}}]}}}}
- {{type: metrics-data-source, parameters: {{sglangLoads: true}}}}
- type: core-metrics-extractor
  parameters:
    defaultEngine: sglang
    {custom}
schedulingProfiles: [{{name: default, plugins: [{{pluginRef: {scorer}}}, {{pluginRef: prefix-cache-scorer}}]}}]
dataLayer: {{discovery: {{pluginRef: pods}}}}
"
    )
}

/// What the server answers: `None` if it has no such page.
#[derive(Clone, Default)]
struct Server {
    page: Option<String>,
    loads: Option<String>,
}

fn page(waiting: u32, blocks: u32) -> Option<String> {
    Some(format!(
        "sglang:num_queue_reqs{{model_name=\"m\"}} {waiting}\nsglang:num_running_reqs 9\nsglang:token_usage 0.9\n\
         sglang:cache_config_info{{page_size=\"16\",num_pages=\"{blocks}\"}} 1\n"
    ))
}

fn loads(waiting: u32) -> Option<String> {
    Some(format!(
        r#"{{"loads":[{{"num_running_reqs":1,"num_waiting_reqs":{waiting},"token_usage":0.5}}]}}"#
    ))
}

struct World {
    monitor: Monitor,
    server: Server,
    now: u64,
    /// Whether decisions need its load.
    is_needed: bool,
    /// Requests so far for the page, and for loads.
    asked: [u32; 2],
    scrapes: Vec<Scrape>,
}

impl World {
    fn new(document: &str, server: Server) -> Self {
        let plan = config::load(document).unwrap().plan;
        Self {
            monitor: Monitor::new(&plan, fastrand::Rng::with_seed(1)),
            server,
            now: 10_000,
            is_needed: true,
            asked: [0, 0],
            scrapes: Vec::new(),
        }
    }

    /// Ticks every 50 ms for so long.
    fn run(&mut self, seconds: u64) {
        (0..seconds * 20).for_each(|_| self.tick());
    }

    /// Ticks, 50 ms after the last time. Each query is answered at once.
    fn tick(&mut self) {
        self.now += 50;
        let clock = Clock::starting_at(Timestamp::from_millis(self.now));
        let is_needed = self.is_needed;
        let (_, queries) = self.monitor.tick(false, &clock, &|_, _, _| is_needed);
        queries.iter().for_each(|query| self.answer(query, &clock));
    }

    fn answer(&mut self, query: &Query, clock: &Clock) {
        let Server { page, loads } = self.server.clone();
        let missing = FetchError::Status(404);
        let scrape = match query {
            Query::Metrics(slot, address) => {
                self.asked[0] += 1;
                let page = page.unwrap_or_default();
                let mut page = page.as_bytes();
                let found = Some(&mut page).filter(|page| !page.is_empty());
                let found = found.map(|page| page as _).ok_or(missing);
                self.monitor.on_page(*slot, address, found, clock)
            }
            Query::Loads(slot, address) => {
                self.asked[1] += 1;
                let loads = loads.unwrap_or_default();
                let mut loads = loads.as_bytes();
                let found = Some(&mut loads).filter(|loads| !loads.is_empty());
                let found = found.map(|loads| loads as _).ok_or(missing);
                self.monitor.on_loads(*slot, address, found, clock)
            }
            _ => return,
        };
        self.scrapes.push(scrape);
    }

    fn endpoint(&self) -> &Endpoint {
        self.monitor.store.pool.get(Slot(0)).unwrap()
    }

    /// Returns the waiting and running requests, the utilization and the blocks that are known.
    fn known(&self) -> (Option<f64>, Option<f64>, Option<f64>, Option<u32>) {
        let it = &self.endpoint().metrics;
        (it.waiting, it.running, it.kv_usage, it.num_blocks)
    }

    fn failures(&self) -> usize {
        let failed = |scrape: &&Scrape| matches!(scrape, Scrape::Failed(_));
        self.scrapes.iter().filter(failed).count()
    }
}

fn queue() -> String {
    document("queue-scorer", "engineConfigs: []")
}

#[test]
fn loads_are_asked_for_at_each_interval_and_the_page_once_a_minute() {
    let server = Server {
        page: page(7, 100),
        loads: loads(2),
    };
    let mut world = World::new(&queue(), server);
    world.run(1);
    assert_eq!(world.asked[0], 1, "the page comes first");
    let of_both = (Some(2.0), Some(1.0), Some(0.5), Some(100));
    assert_eq!(world.known(), of_both);
    assert_eq!(world.endpoint().metrics.model.as_deref(), Some("m"));
    world.run(49);
    assert_eq!(world.asked[0], 1);
    assert!((180..=260).contains(&world.asked[1]), "{:?}", world.asked);
    // The server restarts with a larger cache; its page's gauges are still not those that count.
    world.server.page = page(8, 200);
    let worked = world.monitor.store.worked_at(Slot(0));
    world.run(20);
    assert_eq!(world.asked[0], 2);
    assert_eq!(world.known(), (Some(2.0), Some(1.0), Some(0.5), Some(200)));
    assert_eq!(world.monitor.store.worked_at(Slot(0)), worked);
    assert_eq!(world.failures(), 0);
}

#[test]
fn the_page_that_comes_once_a_minute_does_not_end_a_rest() {
    let server = Server {
        page: page(7, 100),
        loads: loads(2),
    };
    let mut world = World::new(&queue(), server);
    world.is_needed = false;
    world.run(10);
    let rest = world.monitor.store.condition(Slot(0)).rest;
    assert_eq!(rest, 1_800);
    world.asked = [0, 0];
    for _ in 0..120 {
        world.run(1);
        assert_eq!(world.monitor.store.condition(Slot(0)).rest, rest);
        assert_eq!(world.endpoint().freshness, Freshness::Fresh);
    }
    assert_eq!(world.asked[0], 2);
    assert!((60..=80).contains(&world.asked[1]), "{:?}", world.asked);
    // Traffic of another gateway is seen, and requests that come end the rest.
    world.server.loads = loads(3);
    world.run(3);
    assert_eq!(world.known().0, Some(3.0));
    world.is_needed = true;
    world.asked = [0, 0];
    world.run(10);
    assert!((40..=60).contains(&world.asked[1]), "{:?}", world.asked);
}

#[test]
fn a_change_of_the_source_is_no_sign_of_work() {
    let mut world = World::new(&queue(), both());
    let read = |world: &World| (world.known().1, world.endpoint().metrics.from_loads);
    let worked_at = |world: &World| world.monitor.store.worked_at(Slot(0));
    // From 9 running requests to 1.
    world.run(2);
    assert_eq!(read(&world), (Some(1.0), true));
    world.server.page = page(1, 100);
    world.server.loads = None;
    world.run(2);
    assert_eq!(read(&world), (Some(9.0), false));
    world.server.loads = loads(2);
    world.run(62);
    assert_eq!(read(&world), (Some(1.0), true));
    world.monitor.set_polling(false);
    world.monitor.set_polling(true);
    world.run(2);
    assert_eq!(worked_at(&world), None);
    world.server.loads = loads(1);
    world.run(1);
    assert!(worked_at(&world).is_some());
}

#[test]
fn a_change_of_the_source_ends_no_rest() {
    let mut world = World::new(&queue(), both());
    world.is_needed = false;
    world.run(10);
    let mut other = None;
    for from_loads in [false, true, false] {
        std::mem::swap(&mut world.server.loads, &mut other);
        for _ in 0..20 * 70 {
            world.tick();
            assert_eq!(world.monitor.store.condition(Slot(0)).rest, 1_800);
        }
        assert_eq!(world.endpoint().metrics.from_loads, from_loads);
    }
    assert_eq!(world.monitor.poller.walks, 0);
    // Traffic does.
    world.server.page = page(8, 100);
    world.run(3);
    assert_eq!(world.monitor.poller.walks, 1);
}

#[test]
fn the_page_that_comes_once_a_minute_does_not_make_a_reported_load_the_page_s() {
    let server = Server {
        page: page(7, 100),
        loads: loads(2),
    };
    let mut world = World::new(&queue(), server);
    world.run(50);
    let worked = world.monitor.store.worked_at(Slot(0));
    let report = b"TEXT named_metrics.num_requests_waiting=1";
    for _ in 0..20 * 20 {
        let now = Timestamp::from_millis(world.now);
        let report = LoadReport::read(report).unwrap();
        let store = &mut world.monitor.store;
        assert_eq!(store.set_report(Slot(0), report, now).0, Some(1.0));
        world.tick();
    }
    assert_eq!(world.asked[0], 2);
    assert_eq!(world.monitor.store.worked_at(Slot(0)), worked);
}

#[test]
fn a_server_without_loads_is_asked_for_its_page_and_once_a_minute_for_loads() {
    let mut world = World::new(
        &queue(),
        Server {
            page: page(7, 100),
            loads: None,
        },
    );
    world.run(50);
    assert_eq!(world.asked[1], 1);
    assert!((180..=260).contains(&world.asked[0]), "{:?}", world.asked);
    assert_eq!(world.known(), (Some(7.0), Some(9.0), Some(0.9), Some(100)));
    assert_eq!(world.endpoint().freshness, Freshness::Fresh);
    assert_eq!(world.failures(), 1);
    // Another image.
    world.server.loads = loads(3);
    world.run(15);
    assert_eq!(world.known().0, Some(3.0));
    let pages = world.asked[0];
    world.run(30);
    assert_eq!(world.asked[0], pages);
}

#[test]
fn the_page_is_asked_for_with_the_next_tick_after_loads_that_are_not_understood() {
    let huge = " ".repeat(1 << 20);
    for bad in ["{}", "not JSON", "{\"loads\":[]}", &huge] {
        let server = Server {
            page: page(7, 100),
            loads: loads(2),
        };
        let mut world = World::new(&queue(), server);
        world.run(2);
        assert_eq!(world.known().0, Some(2.0));
        world.server.loads = Some(bad.to_owned());
        let [pages, asked] = world.asked;
        for _ in 0..10 {
            if world.asked[1] == asked {
                world.tick();
            }
        }
        world.tick();
        assert_eq!(world.asked, [pages + 1, asked + 1], "{}", &bad[..2]);
        assert_eq!(world.known().0, Some(7.0), "{}", &bad[..2]);
        assert_eq!(world.failures(), 1);
    }
}

#[test]
fn a_server_without_a_page_is_known_by_its_loads() {
    let server = Server {
        page: None,
        loads: loads(2),
    };
    let mut world = World::new(&queue(), server);
    world.run(130);
    assert_eq!(world.known(), (Some(2.0), Some(1.0), Some(0.5), None));
    assert_eq!(world.asked[0], 3);
    assert_eq!(world.failures(), 3);
    assert_eq!(world.monitor.store.condition(Slot(0)).failures, 0);
    assert_eq!(world.endpoint().freshness, Freshness::Fresh);
    // When it is gone, its metrics are stale as soon as those of a page.
    world.server.loads = None;
    world.run(4);
    assert_eq!(world.endpoint().freshness, Freshness::Stale);
}

/// Returns the warnings about the parameter. A plan with one has it off.
fn told(text: &str) -> Vec<String> {
    let loaded = config::load(text).unwrap();
    let warnings = loaded.warnings.iter().map(ToString::to_string);
    let told = warnings.filter(|it| it.contains("plugins[3].parameters.sglangLoads"));
    let told: Vec<String> = told.collect();
    assert_eq!(loaded.plan.source.sglang_loads, told.is_empty());
    told
}

#[test]
fn loads_without_effect_are_warned_of() {
    let none = "has no effect: no plugin needs the load of endpoints";
    // The queues' producer needs nothing of a page; the prefix index needs only the size of the cache.
    let text = queue().replace("{type: queue-scorer}", "{type: active-request-scorer}");
    let text = text.replace(
        "{pluginRef: queue-scorer}",
        "{pluginRef: active-request-scorer}",
    );
    let warnings = told(&text);
    assert!(
        warnings.len() == 1 && warnings[0].ends_with(none),
        "{warnings:?}"
    );
    assert_eq!(told(&queue()), Vec::<String>::new());
}

#[test]
fn loads_are_not_asked_for_where_the_page_has_more_that_is_needed_or_the_engine_is_another() {
    let custom = "engineConfigs: [{name: sglang, queuedRequestsSpec: \"sglang:num_queue_reqs\", \
                  customMetrics: [{attributeKey: t, metricSpec: t}]}]";
    let attribute = document("endpoint-attribute-scorer", custom).replace(
        "{type: endpoint-attribute-scorer}",
        "{type: endpoint-attribute-scorer, parameters: {attributeKey: t, algorithm: {type: linear_lower_is_better}}}",
    );
    assert_eq!(told(&attribute).len(), 1);
    let vllm = queue().replace("defaultEngine: sglang", "defaultEngine: vllm");
    let off = queue().replace("sglangLoads: true", "sglangLoads: false");
    for text in [&attribute, &vllm, &off] {
        let mut world = World::new(
            text,
            Server {
                page: page(7, 100).map(|page| page + "vllm:num_requests_waiting 7\nt 1\n"),
                loads: loads(2),
            },
        );
        world.run(10);
        assert_eq!(world.asked[1], 0, "{text}");
        assert!((40..=60).contains(&world.asked[0]), "{text}");
    }
}

#[test]
fn a_picker_that_begins_to_poll_asks_for_the_page_first() {
    let server = Server {
        page: page(7, 100),
        loads: loads(2),
    };
    let mut world = World::new(&queue(), server);
    world.run(5);
    world.monitor.set_polling(false);
    world.monitor.set_polling(true);
    let pages = world.asked[0];
    world.run(5);
    assert_eq!(world.asked[0], pages + 1);
}

fn both() -> Server {
    Server {
        page: page(7, 100),
        loads: loads(2),
    }
}

impl World {
    fn clock(&self) -> Clock {
        Clock::starting_at(Timestamp::from_millis(self.now))
    }

    /// Ticks until `/v1/loads` is asked for, and does not answer.
    fn ask_for_loads(&mut self) -> Query {
        for _ in 0..20 {
            self.now += 50;
            let clock = self.clock();
            let (_, queries) = self.monitor.tick(false, &clock, &|_, _, _| true);
            for query in queries {
                match query {
                    Query::Loads(..) => return query,
                    query => self.answer(&query, &clock),
                }
            }
        }
        panic!("not within a second");
    }
}

#[test]
fn loads_that_come_after_another_plan_do_not_freeze_what_is_known() {
    let mut world = World::new(&queue(), both());
    world.run(2);
    let query = world.ask_for_loads();
    let off = queue().replace("sglangLoads: true", "sglangLoads: false");
    let plan = config::load(&off).unwrap().plan;
    let now = world.clock().now();
    world.monitor.install(&plan, now);
    world.now += 5;
    let clock = world.clock();
    world.answer(&query, &clock);
    world.server.page = page(3, 200);
    world.asked = [0, 0];
    world.run(130);
    assert!(world.asked[0] > 400, "{:?}", world.asked);
    assert_eq!(world.known(), (Some(3.0), Some(9.0), Some(0.9), Some(200)));
}

#[test]
fn a_page_whose_load_does_not_count_makes_no_load_newer() {
    let mut world = World::new(&queue(), both());
    world.run(5);
    let (pages, loads) = (world.asked[0], world.asked[1]);
    let mut read_at = None;
    let ticks = (0..20 * 60).find(|_| {
        read_at = world.monitor.store.condition(Slot(0)).scraped;
        world.tick();
        world.asked[0] > pages
    });
    assert!(ticks.is_some());
    // Nor do other pickers take it for newer.
    assert_eq!(world.monitor.store.condition(Slot(0)).scraped, read_at);
    assert!(world.asked[1] > loads);
    // Requests that were sent since the last loads would count as seen.
    assert_ne!(world.scrapes.last(), Some(&Scrape::Fresh));
}

//! Members that a picker adopts from the one that polls.

use super::*;
use crate::config;
use crate::endpoints::poller::Cadence;
use crate::scheduling::{Freshness, Health};
use crate::time::Timestamp;

fn monitor() -> Monitor {
    let text = "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: queue-scorer}, {name: pods, type: static-discovery, parameters: {endpoints: []}}]
schedulingProfiles: [{name: default, plugins: [{pluginRef: queue-scorer}]}]
dataLayer: {discovery: {pluginRef: pods}}
";
    let plan = config::load(text).unwrap().plan;
    Monitor::new(&plan, fastrand::Rng::with_seed(1))
}

/// The member of this number, in the slot of that number.
fn member(number: u32) -> (Slot, Member) {
    let member = Member {
        name: number.to_string(),
        address: format!("10.0.0.{number}:80"),
        health: Health::Healthy,
        ..Member::default()
    };
    (Slot(number), member)
}

#[test]
fn members_that_are_no_longer_listed_leave() {
    let mut monitor = monitor();
    let changes = monitor.adopt_members([0, 1, 3].map(member).into());
    assert_eq!(changes.joined, [Slot(0), Slot(1), Slot(3)]);
    let changes = monitor.adopt_members([3, 5].map(member).into());
    assert_eq!(
        (changes.joined, changes.left),
        (vec![Slot(5)], vec![Slot(0), Slot(1)])
    );
}

#[test]
fn a_list_that_comes_once_another_picker_polls_is_left() {
    let mut monitor = monitor();
    monitor.discovery = Discovery::EnvoyCluster(Default::default());
    let listing = |numbers: [u32; 2]| Listing {
        members: numbers.map(|number| member(number).1).into(),
        missing: 0,
    };
    let changes = monitor.on_members(Ok(listing([1, 2])), Instant::default());
    assert_eq!(changes.joined.len(), 2);
    monitor.set_polling(false);
    let changes = monitor.on_members(Ok(listing([1, 3])), Instant::default());
    assert_eq!(changes, Changes::default());
}

/// The members are as many as shared data may list, in the order in which finding one takes longest.
#[test]
fn members_of_the_greatest_number_are_adopted_in_moderate_cpu_time() {
    let begun = cpu_time::ThreadTime::now();
    let mut monitor = monitor();
    let listed: Vec<_> = (0..65_536).rev().map(member).collect();
    monitor.adopt_members(listed.clone());
    assert_eq!(monitor.adopt_members(listed), Changes::default());
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
}

/// A server of the test: what its page says, and when requests that it has were sent.
#[derive(Debug, Default)]
struct Server {
    waiting: u32,
    sent: Vec<u64>,
    /// Since when it has had one.
    busy_since: Option<u64>,
}

/// A pool whose pages come a while after they are asked for, under random load.
struct World {
    monitor: Monitor,
    servers: Vec<Server>,
    /// When a page comes, and whose.
    pages: Vec<(u64, Slot, String)>,
    now: u64,
    asked: usize,
    /// Whether requests wait for what any page says.
    waits: bool,
    rng: fastrand::Rng,
}

/// Milliseconds from one tick to the next, and until a page comes at most.
const TICK: u64 = 50;
const FETCH: u64 = 30;

impl World {
    fn new(servers: u32, seed: u64) -> Self {
        let mut monitor = monitor();
        let members: Vec<Member> = (0..servers).map(|number| member(number).1).collect();
        monitor.discovery =
            Discovery::Static(crate::plugins::discovery::inline::StaticDiscovery { members });
        Self {
            monitor,
            servers: (0..servers).map(|_| Server::default()).collect(),
            pages: Vec::new(),
            now: 10_000,
            asked: 0,
            waits: false,
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    fn clock(&self) -> Clock {
        Clock::starting_at(Timestamp::from_millis(self.now))
    }

    /// A tick; before it, the pages come that are due, and requests of this proxy (and of others) come and end.
    fn tick(&mut self, arrivals: f64, foreign: f64) {
        self.now += TICK;
        let clock = self.clock();
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.pages)
            .into_iter()
            .partition(|page| page.0 <= self.now);
        self.pages = later;
        for (_, slot, address) in due {
            let page = format!(
                "vllm:num_requests_waiting {}\n",
                self.servers[slot.index()].waiting
            );
            self.monitor
                .on_page(slot, &address, Ok(&mut page.as_bytes()), &clock);
        }
        for server in &mut self.servers {
            if self.rng.f64() < foreign {
                server.waiting = self.rng.u32(0..5);
            }
            if self.rng.f64() < arrivals {
                server.sent.push(self.now);
                server.waiting += 1;
            }
            let now = self.now;
            server.sent.retain(|sent| now - sent < 700);
            server.busy_since = match server.sent.is_empty() {
                true => None,
                false => server.busy_since.or(Some(now)),
            };
        }
        let servers = &self.servers;
        let needed = |slot: Slot, _: &_, _| !servers[slot.index()].sent.is_empty();
        let (_, queries) = self.monitor.tick(self.waits, &clock, &needed);
        for query in queries {
            if let Query::Metrics(slot, address) = query {
                self.asked += 1;
                self.pages
                    .push((self.now + self.rng.u64(1..=FETCH), slot, address));
            }
        }
    }

    /// Returns how old the page of a server is.
    fn age(&self, slot: u32) -> u64 {
        let scraped = self.monitor.store.condition(Slot(slot)).scraped;
        scraped.map_or(u64::MAX, |scraped| self.now - scraped.as_millis())
    }
}

/// Milliseconds between two pages of an endpoint that does not rest, give or take a tenth.
const INTERVAL: u64 = 200;

/// A page that is due is fetched with the next tick, and taken in with the next but one.
const OLDEST: u64 = INTERVAL * 11 / 10 + 2 * TICK + FETCH;

#[test]
fn a_page_is_never_older_than_the_interval_where_something_has_been_in_flight_for_as_long() {
    for seed in 0..20 {
        let mut world = World::new(30, seed);
        for step in 0..1_200 {
            // Idle phases, so that endpoints rest, and busy ones.
            let arrivals = [0.0, 0.001, 0.02, 0.2][step / 100 % 4];
            world.waits = step / 7 % 10 == 0;
            world.tick(arrivals, 0.0);
            for (slot, server) in (0..).zip(&world.servers) {
                let busy_for = server.busy_since.map_or(0, |since| world.now - since);
                let age = world.age(slot);
                assert!(busy_for <= OLDEST || age <= OLDEST, "{slot}, {seed}: {age}");
                let endpoint = world.monitor.store.pool.get(Slot(slot)).unwrap();
                assert!(
                    step < 10 || endpoint.freshness == Freshness::Fresh,
                    "{slot}, {seed}"
                );
            }
        }
    }
}

#[test]
fn an_idle_pool_is_polled_a_tenth_as_often_and_foreign_traffic_ends_the_rest() {
    let mut world = World::new(100, 1);
    (0..200).for_each(|_| world.tick(0.0, 0.0));
    world.asked = 0;
    (0..400).for_each(|_| world.tick(0.0, 0.0));
    assert!((1_000..1_300).contains(&world.asked), "{}", world.asked);
    // One page shows traffic of another gateway: two intervals later all others have been fetched.
    world.servers[7].waiting += 1;
    let came = (0..(REST + FETCH) / TICK + 2).find(|_| {
        world.tick(0.0, 0.0);
        world.age(7) == 0
    });
    assert!(came.is_some());
    world.asked = 0;
    (0..2 * INTERVAL / TICK + 1).for_each(|_| world.tick(0.0, 0.0));
    assert!(world.asked >= 99, "{}", world.asked);
    assert!((0..100).all(|slot| world.age(slot) <= 2 * INTERVAL + TICK));
    // While it goes on everywhere, no endpoint rests.
    (0..40).for_each(|_| world.tick(0.0, 0.5));
    world.asked = 0;
    (0..400).for_each(|_| world.tick(0.0, 0.9));
    assert!(world.asked > 7_000, "{}", world.asked);
}

#[test]
fn a_request_that_waits_has_a_thousand_endpoints_at_rest_asked_in_turns() {
    let mut world = World::new(1_000, 1);
    (0..200).for_each(|_| world.tick(0.0, 0.0));
    world.waits = true;
    let begun = world.now;
    for tick in 0..100 {
        world.asked = 0;
        world.tick(0.0, 0.0);
        // A quarter of the endpoints, as there are four ticks in an interval, give or take what chance does.
        assert!(world.asked <= 320, "{tick}: {}", world.asked);
        let oldest = (0..1_000).map(|slot| world.age(slot)).max();
        // Those that had just been asked have a second interval.
        let since = world.now - begun;
        assert!(
            since <= OLDEST + 200 || oldest <= Some(OLDEST),
            "{tick}: {oldest:?}"
        );
    }
    // They rest again.
    world.waits = false;
    (0..200).for_each(|_| world.tick(0.0, 0.0));
    world.asked = 0;
    (0..40).for_each(|_| world.tick(0.0, 0.0));
    assert!(world.asked < 1_300, "{}", world.asked);
}

/// Milliseconds between two pages of an endpoint at rest, and the most for which one that says the same is kept back.
const REST: u64 = 2_000;
const KEPT_BACK: u64 = 600;

#[test]
fn pages_of_endpoints_at_rest_are_published_together_and_a_change_at_once() {
    let mut world = World::new(100, 1);
    (0..400).for_each(|_| world.tick(0.0, 0.0));
    let published = world.monitor.revisions().metrics;
    for _ in 0..400 {
        world.tick(0.0, 0.0);
        for slot in 0..100 {
            let age = world.age(slot);
            assert!(age <= REST + KEPT_BACK + 2 * TICK + FETCH, "{slot}: {age}");
        }
    }
    let published = world.monitor.revisions().metrics - published;
    assert!((30..=34).contains(&published), "{published}");
    world.servers[7].waiting += 1;
    let waiting = Some(f64::from(world.servers[7].waiting));
    let mut published = world.monitor.revisions().metrics;
    let shows = |world: &World| {
        world
            .monitor
            .store
            .pool
            .get(Slot(7))
            .unwrap()
            .metrics
            .waiting
            == waiting
    };
    while !shows(&world) {
        published = world.monitor.revisions().metrics;
        world.tick(0.0, 0.0);
    }
    assert!(world.monitor.revisions().metrics > published);
    assert!(world.age(7) <= FETCH + TICK);
}

/// However little a page may be late.
#[test]
fn no_endpoint_at_rest_is_stale_because_its_page_says_the_same() {
    for staleness in [500, 800, 2_000, 10_000] {
        let mut world = World::new(30, 2);
        world.monitor.settings.staleness = Duration::from_millis(staleness);
        for step in 0..1_200 {
            world.tick(0.0, 0.0);
            let mut pool = world.monitor.store.pool.iter();
            let fresh = pool.all(|(_, one)| one.freshness == Freshness::Fresh);
            assert!(step < 10 || fresh, "{staleness}");
        }
    }
}

#[test]
fn an_endpoint_that_rests_and_fails_becomes_stale() {
    let mut world = World::new(1, 1);
    (0..200).for_each(|_| world.tick(0.0, 0.0));
    let fails_at = world.now;
    let freshness = |world: &World| world.monitor.store.pool.get(Slot(0)).unwrap().freshness;
    while freshness(&world) == Freshness::Fresh {
        world.now += TICK;
        let clock = world.clock();
        let (_, queries) = world.monitor.tick(false, &clock, &|_, _, _| false);
        for query in queries {
            if let Query::Metrics(slot, address) = query {
                let failed = Err(FetchError::Unreachable);
                world.monitor.on_page(slot, &address, failed, &clock);
            }
        }
    }
    let after = world.now - fails_at;
    assert!((2_000..=4_100).contains(&after), "{after}");
}

/// Although its page was to be kept for ten minutes.
#[test]
fn an_endpoint_that_fails_early_in_a_long_rest_becomes_stale_as_soon_as_others() {
    let mut world = World::new(1, 1);
    let cadence = Cadence {
        interval: Duration::from_millis(200),
        longest: Duration::from_secs(600),
    };
    world.monitor.poller.set_cadence(cadence);
    while world.monitor.store.condition(Slot(0)).rest < 100_000 {
        world.tick(0.0, 0.0);
    }
    // Its page is needed, and does not come.
    let fails_at = world.now;
    let address = world
        .monitor
        .store
        .pool
        .get(Slot(0))
        .unwrap()
        .address
        .to_string();
    let freshness = |world: &World| world.monitor.store.pool.get(Slot(0)).unwrap().freshness;
    while freshness(&world) == Freshness::Fresh {
        world.now += TICK;
        let clock = world.clock();
        world.monitor.tick(false, &clock, &|_, _, _| false);
        let failed = Err(FetchError::Unreachable);
        world.monitor.on_page(Slot(0), &address, failed, &clock);
    }
    let after = world.now - fails_at;
    assert!((1_900..=2_300).contains(&after), "{after}");
}

/// All in the same ticks, as where each endpoint's page shows a request of another gateway.
#[test]
fn pages_that_end_rests_have_all_turns_walked_once_per_tick() {
    let mut world = World::new(500, 1);
    (0..200).for_each(|_| world.tick(0.0, 0.0));
    assert_eq!(world.monitor.poller.walks, 0);
    world.servers.iter_mut().for_each(|it| it.waiting += 1);
    world.asked = 0;
    (0..60).for_each(|_| world.tick(0.0, 0.0));
    assert!(world.asked > 500, "{}", world.asked);
    let walks = world.monitor.poller.walks;
    assert!((1..=60).contains(&walks), "{walks}");
}

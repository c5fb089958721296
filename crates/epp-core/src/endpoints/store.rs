//! The endpoint store: the pool's members, the values of their latest metrics pages, and the age of these.

use std::time::Duration;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::trust::Trust;
use crate::scheduling::{DecisionMode, Endpoint, Freshness, Health, Metrics, Pool, Slot};
use crate::time::{Clock, Instant, Timestamp};

/// Two pickers poll for a moment when ticks come late, and what one has published may be older than what the other
/// has found: by a page's timeout and a tick or two. A page that is earlier by more is not older: the clock was set
/// back.
const MAX_POLLERS_OVERLAP: Duration = Duration::from_secs(2);

/// A member as discovery reports it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Member {
    /// `namespace/name`, or the address where discovery knows no names.
    pub name: String,
    /// `ip:port`, IPv6 in brackets.
    pub address: String,
    /// Labels, as discovery knows them.
    pub labels: Vec<(String, String)>,
    /// Its health.
    pub health: Health,
}

impl Member {
    /// Returns what makes it the same member as before: its name and its address.
    fn identity(&self) -> (&str, &str) {
        (&self.name, &self.address)
    }
}

/// The state of the scraping of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Condition {
    /// When the endpoint's page was last read, in whole milliseconds, as pickers publish it; `None`: never.
    pub scraped: Option<Timestamp>,
    /// Failed scrapes since then.
    pub failures: u32,
    /// How many milliseconds beyond the interval the page is kept: the endpoint is at rest.
    pub rest: u64,
}

/// The endpoints that joined, and those that left.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Slots of new members.
    pub joined: Vec<Slot>,
    /// Slots of former members, to be forgotten everywhere.
    pub left: Vec<Slot>,
}

/// The pool and the conditions of its endpoints, by slot.
#[derive(Debug, Default)]
pub struct EndpointStore {
    /// The pool, as the scheduler sees it.
    pub pool: Pool,
    conditions: Vec<Condition>,
    trust: Vec<Trust>,
}

impl EndpointStore {
    /// Replaces the members. Those that stay keep their slots, metrics and conditions.
    pub fn set_members(&mut self, members: &[Member]) -> Changes {
        let mut changes = Changes::default();
        // By their names and addresses: a pool of thousands, each compared with each, would take a tick's time.
        let mut numbers = HashMap::with_capacity(members.len());
        for (number, member) in members.iter().enumerate() {
            numbers.entry(member.identity()).or_insert(number);
        }
        let mut slots = vec![None; members.len()];
        for (slot, endpoint) in self.pool.iter() {
            let number = numbers.get(&(endpoint.name.as_str(), &*endpoint.address));
            match number.and_then(|number| slots.get_mut(*number)) {
                Some(known) => *known = known.or(Some(slot)),
                None => changes.left.push(slot),
            }
        }
        let mut vacant = Slot(0);
        for member in members {
            let number = numbers.get(&member.identity());
            let Some(known) = number.and_then(|number| slots.get_mut(*number)) else {
                continue;
            };
            let slot = *known.get_or_insert_with(|| {
                while self.pool.get(vacant).is_some() {
                    vacant.0 += 1;
                }
                changes.joined.push(vacant);
                vacant
            });
            self.set_member(slot, member);
        }
        // Only now: a slot that falls vacant is not given to another member in the same step, so
        // that everything that refers to it sees it leave before it is used again.
        changes.left.iter().for_each(|slot| self.remove(*slot));
        changes
    }

    /// Takes over the members that another picker found, in its slots.
    pub fn adopt_members(&mut self, members: Vec<(Slot, Member)>) -> Changes {
        let mut changes = Changes::default();
        let mut listed = vec![false; self.pool.width()];
        for (slot, _) in &members {
            if let Some(listed) = listed.get_mut(slot.index()) {
                *listed = true;
            }
        }
        for (index, listed) in listed.into_iter().enumerate() {
            let slot = Slot(index as u32);
            if !listed && self.pool.get(slot).is_some() {
                self.remove(slot);
                changes.left.push(slot);
            }
        }
        for (slot, member) in members {
            let known = self.pool.get(slot);
            let same = known.is_some_and(|known| {
                known.name == member.name && *known.address == *member.address
            });
            if !same {
                if known.is_some() {
                    changes.left.push(slot);
                }
                changes.joined.push(slot);
            }
            self.set_member(slot, &member);
        }
        changes
    }

    /// Puts a member into a slot. If the member was there before, its metrics and condition stay.
    pub fn set_member(&mut self, slot: Slot, member: &Member) {
        match self.pool.get(slot) {
            Some(endpoint) if same(member, endpoint) => {
                self.pool
                    .note(slot, |endpoint| &mut endpoint.health, member.health);
                self.pool.set_labels(slot, &member.labels);
            }
            _ => {
                let endpoint = Endpoint {
                    name: member.name.clone(),
                    address: member.address.as_str().into(),
                    labels: member.labels.clone(),
                    health: member.health,
                    ..Endpoint::default()
                };
                self.pool.set(slot, endpoint);
                self.set_condition(slot, Condition::default());
                self.forget_trust(slot);
            }
        }
    }

    /// Empties a slot.
    pub fn remove(&mut self, slot: Slot) {
        self.pool.remove(slot);
        self.set_condition(slot, Condition::default());
        self.forget_trust(slot);
    }

    /// Returns how the scraping of an endpoint goes.
    pub fn condition(&self, slot: Slot) -> Condition {
        self.conditions
            .get(slot.index())
            .copied()
            .unwrap_or_default()
    }

    /// Sets how the scraping of an endpoint goes.
    pub fn set_condition(&mut self, slot: Slot, condition: Condition) {
        if self.conditions.len() <= slot.index() {
            self.conditions
                .resize(slot.index() + 1, Condition::default());
        }
        if let Some(place) = self.conditions.get_mut(slot.index()) {
            *place = condition;
        }
    }

    /// Records a page that was read. LoRA adapters stay if the page has none, as in the Endpoint Picker.
    pub fn set_metrics(&mut self, slot: Slot, metrics: Metrics, lora_seen: bool, now: Timestamp) {
        let Some(endpoint) = self.pool.get_mut(slot) else {
            return;
        };
        let works = metrics.shows_work_since(&endpoint.metrics);
        let lora = std::mem::take(&mut endpoint.metrics.lora);
        endpoint.metrics = metrics;
        if !lora_seen {
            endpoint.metrics.lora = lora;
        }
        self.mark_work(slot, works);
        self.set_condition(
            slot,
            Condition {
                scraped: Some(now.floor_millis()),
                ..Condition::default()
            },
        );
    }

    /// Sets how many milliseconds longer than the interval the next page of an endpoint may take.
    pub fn set_rest(&mut self, slot: Slot, rest: u64) {
        if let Some(condition) = self.conditions.get_mut(slot.index()) {
            condition.rest = rest;
        }
    }

    /// Adopts what another picker read on the endpoints' pages. Returns the slots of those whose page is newer
    /// than the one known here.
    pub fn adopt_metrics(&mut self, pages: Vec<(Slot, Condition, Metrics)>) -> Vec<Slot> {
        let newer = pages.into_iter().filter_map(|(slot, condition, metrics)| {
            self.adopt_page(slot, condition, metrics).then_some(slot)
        });
        newer.collect()
    }

    fn adopt_page(&mut self, slot: Slot, condition: Condition, metrics: Metrics) -> bool {
        let known = self.condition(slot).scraped;
        let is_older = known.is_some_and(|known| {
            let scraped = condition.scraped;
            scraped.is_none_or(|it| it < known && known.is_near(it, MAX_POLLERS_OVERLAP))
        });
        if is_older {
            // The poller has just begun, and this picker polled before it, or meanwhile.
            return false;
        }
        let Some(endpoint) = self.pool.get_mut(slot) else {
            return false;
        };
        let works = metrics.shows_work_since(&endpoint.metrics);
        endpoint.metrics = metrics;
        self.mark_work(slot, works);
        self.set_condition(slot, condition);
        known != condition.scraped
    }

    fn mark_work(&mut self, slot: Slot, works: bool) {
        // Where there is no record yet, the page is the first: it shows nothing.
        if let Some(trust) = self.trust.get_mut(slot.index()) {
            trust.works |= works;
        }
    }

    /// Returns when a page of the endpoint last showed that its engine works, if one ever did.
    pub fn worked_at(&self, slot: Slot) -> Option<Instant> {
        self.trust.get(slot.index())?.worked_at
    }

    /// Returns when the page was read that preceded the first one to show the latest work.
    pub fn read_before_work(&self, slot: Slot) -> Option<Instant> {
        self.trust.get(slot.index())?.read_before_work
    }

    /// Returns when the endpoint's page was read that was the last one when freshness was updated. A step of the wall
    /// clock does not change it.
    pub fn read_at(&self, slot: Slot) -> Option<Instant> {
        self.trust.get(slot.index())?.read_at()
    }

    /// Records that a page could not be read.
    pub fn record_failure(&mut self, slot: Slot) {
        let mut condition = self.condition(slot);
        condition.failures = condition.failures.saturating_add(1);
        self.set_condition(slot, condition);
    }

    /// Updates each endpoint's freshness. Metrics become stale when they are older than the threshold and
    /// [`Condition::rest`] together, and fresh again after two good pages. Setting the wall clock makes nothing stale,
    /// and keeps nothing fresh.
    pub fn refresh(&mut self, clock: &Clock, staleness: Duration) {
        self.trust.resize(self.pool.width(), Trust::default());
        for index in 0..self.pool.width() {
            let slot = Slot(index as u32);
            let Condition { scraped, rest, .. } = self.condition(slot);
            let Some(trust) = self.trust.get_mut(index) else {
                continue;
            };
            let freshness = scraped.map_or(Freshness::Unknown, |scraped| {
                let rest = Duration::from_millis(rest);
                trust.update(scraped, clock, staleness.saturating_add(rest))
            });
            self.pool
                .note(slot, |endpoint| &mut endpoint.freshness, freshness);
        }
    }

    /// Returns the age of the page that was the last one when freshness was updated.
    pub fn page_age(&self, slot: Slot, now: Instant) -> Option<Duration> {
        self.read_at(slot).map(|at| now.since(at))
    }

    /// Chooses the decision mode: metrics are not used once fewer than a quarter of the available endpoints have
    /// fresh ones, and then not before half of them have.
    pub fn choose_mode(&mut self) {
        let available = self
            .pool
            .iter()
            .filter(|(_, endpoint)| endpoint.is_available());
        let (mut all, mut fresh) = (0, 0);
        for (_, endpoint) in available {
            all += 1;
            fresh += u32::from(endpoint.freshness == Freshness::Fresh);
        }
        self.pool.mode = match self.pool.mode {
            DecisionMode::Metrics if fresh * 4 < all => DecisionMode::LocalOnly,
            DecisionMode::LocalOnly if fresh * 2 >= all => DecisionMode::Metrics,
            mode => mode,
        };
    }

    fn forget_trust(&mut self, slot: Slot) {
        if let Some(trust) = self.trust.get_mut(slot.index()) {
            *trust = Trust::default();
        }
    }
}

fn same(member: &Member, endpoint: &Endpoint) -> bool {
    member.identity() == (endpoint.name.as_str(), &*endpoint.address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    /// A clock that was never set.
    fn clock(millis: u64) -> Clock {
        Clock::starting_at(at(millis))
    }

    /// A store of this many endpoints, none of which was scraped yet.
    fn store(endpoints: usize) -> EndpointStore {
        let mut store = EndpointStore::default();
        store.set_members(&(0..endpoints).map(member).collect::<Vec<_>>());
        store
    }

    fn page(store: &mut EndpointStore, slot: u32, now: u64) {
        store.set_metrics(Slot(slot), Metrics::default(), true, at(now));
    }

    fn freshness(store: &mut EndpointStore, now: u64) -> Freshness {
        store.refresh(&clock(now), Duration::from_millis(2_000));
        store.pool.get(Slot(0)).unwrap().freshness
    }

    fn member(number: usize) -> Member {
        Member {
            name: number.to_string(),
            address: format!("10.0.0.{number}:80"),
            health: Health::Healthy,
            ..Member::default()
        }
    }

    #[test]
    fn members_keep_their_slots_and_new_ones_take_those_that_were_free() {
        let mut store = store(4);
        store.remove(Slot(1));
        let listed = [2, 7, 0, 7, 8].map(member);
        let changes = store.set_members(&listed);
        assert_eq!(
            changes.joined,
            [Slot(1), Slot(4)],
            "listed twice, it joins once"
        );
        assert_eq!(changes.left, [Slot(3)]);
        let names = store.pool.iter().map(|(slot, one)| (slot.0, &*one.name));
        let expected = [(0, "0"), (1, "7"), (2, "2"), (4, "8")];
        assert_eq!(names.collect::<Vec<_>>(), expected);
        assert_eq!(store.set_members(&listed), Changes::default());
    }

    /// The pool is as large as shared data may list: comparing each endpoint with each would take minutes.
    #[test]
    fn a_pool_of_the_greatest_size_is_taken_over_in_moderate_time() {
        let begun = std::time::Instant::now();
        let listed: Vec<Member> = (0..65_536).map(member).collect();
        let mut store = EndpointStore::default();
        assert_eq!(store.set_members(&listed).joined.len(), listed.len());
        assert_eq!(store.set_members(&listed), Changes::default());
        assert_eq!(store.set_members(&[]).left.len(), listed.len());
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "{:?}",
            begun.elapsed()
        );
    }

    #[test]
    fn the_first_page_is_trusted_and_after_silence_the_second_one() {
        let mut store = store(1);
        assert_eq!(freshness(&mut store, 1_000), Freshness::Unknown);
        page(&mut store, 0, 1_000);
        assert_eq!(freshness(&mut store, 1_000), Freshness::Fresh);
        assert_eq!(freshness(&mut store, 3_000), Freshness::Fresh);
        assert_eq!(freshness(&mut store, 3_001), Freshness::Stale);
        page(&mut store, 0, 3_050);
        for now in [3_050, 3_100, 3_200] {
            assert_eq!(freshness(&mut store, now), Freshness::Stale, "{now}");
        }
        page(&mut store, 0, 3_250);
        assert_eq!(freshness(&mut store, 3_250), Freshness::Fresh);
    }

    /// While pages come, and while they do not.
    #[test]
    fn a_wall_clock_that_is_set_changes_no_freshness() {
        for wall in [1_000, 100_000_000] {
            let mut store = store(1);
            let mut clock = clock(10_000_000);
            let mut freshness = |scraped: Option<u64>, now: u64| {
                if let Some(scraped) = scraped {
                    page(&mut store, 0, scraped);
                }
                clock.advance(at(now));
                store.refresh(&clock, Duration::from_millis(2_000));
                store.pool.get(Slot(0)).unwrap().freshness
            };
            assert_eq!(freshness(Some(10_000_000), 10_000_000), Freshness::Fresh);
            // This one was read just before the clock was set.
            assert_eq!(freshness(Some(10_000_200), wall), Freshness::Fresh);
            assert_eq!(freshness(Some(wall + 200), wall + 200), Freshness::Fresh);
            assert_eq!(freshness(None, wall + 1_100), Freshness::Fresh);
            assert_eq!(freshness(None, wall + 2_000), Freshness::Fresh);
            assert_eq!(freshness(None, wall + 2_900), Freshness::Stale);
        }
    }

    #[test]
    fn the_snapshot_is_rebuilt_only_after_a_change() {
        let mut store = store(2);
        page(&mut store, 0, 1_000);
        store.refresh(&clock(1_000), Duration::from_millis(2_000));
        let id = store.pool.snapshot().id.clone();
        let member = |health| Member {
            name: "1".to_owned(),
            address: "10.0.0.1:80".to_owned(),
            health,
            ..Member::default()
        };
        store.refresh(&clock(1_050), Duration::from_millis(2_000));
        store.set_member(Slot(1), &member(Health::Healthy));
        assert_eq!(store.pool.snapshot().id, id);
        store.set_member(Slot(1), &member(Health::Draining));
        let fewer = store.pool.snapshot();
        assert_eq!(fewer.candidates, [Slot(0)]);
        let id = fewer.id.clone();
        store.refresh(&clock(3_001), Duration::from_millis(2_000));
        assert_ne!(store.pool.snapshot().id, id);
    }

    #[test]
    fn a_new_endpoint_in_a_slot_starts_without_history() {
        let mut store = store(1);
        page(&mut store, 0, 1_000);
        assert_eq!(freshness(&mut store, 9_000), Freshness::Stale);
        store.remove(Slot(0));
        let member = Member {
            name: "new".to_owned(),
            health: Health::Healthy,
            ..Member::default()
        };
        store.set_member(Slot(0), &member);
        page(&mut store, 0, 9_100);
        assert_eq!(freshness(&mut store, 9_100), Freshness::Fresh);
    }

    #[test]
    fn the_decision_mode_is_left_and_entered_at_different_shares() {
        let mut store = store(8);
        let mut with = |fresh: u32, now: u64| {
            for slot in 0..fresh {
                page(&mut store, slot, now - 1);
                store.refresh(&clock(now - 1), Duration::from_millis(500));
                page(&mut store, slot, now);
            }
            store.refresh(&clock(now), Duration::from_millis(500));
            store.choose_mode();
            store.pool.mode
        };
        // No endpoint was scraped yet.
        assert_eq!(with(0, 1_000), DecisionMode::LocalOnly);
        assert_eq!(with(3, 2_000), DecisionMode::LocalOnly);
        assert_eq!(with(4, 3_000), DecisionMode::Metrics);
        assert_eq!(with(2, 4_000), DecisionMode::Metrics);
        assert_eq!(with(1, 5_000), DecisionMode::LocalOnly);
        assert_eq!(with(3, 6_000), DecisionMode::LocalOnly);
        assert_eq!(with(8, 7_000), DecisionMode::Metrics);
    }
}

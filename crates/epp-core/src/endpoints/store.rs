//! The endpoint store: the pool's members, the values of their latest metrics pages, and the age of these.

use std::borrow::Cow;
use std::time::Duration;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::load_report::LoadReport;
use super::trust::{Reported, Trust};
use crate::scheduling::{DecisionMode, Endpoint, Freshness, Health, Metrics, Pool, Slot};
use crate::time::{Clock, Instant, Timestamp};

/// Two pickers poll for a moment when ticks come late, and what one has published may be older than what the other
/// has found: by a page's timeout of a second at most, and two ticks. A page that is earlier by more is not older: the
/// clock was set back. For as long as this, older pages are ignored, so it must stay well below the default
/// `stalenessThreshold`.
const MAX_POLLERS_OVERLAP: Duration = Duration::from_millis(1_100);

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

impl From<&Endpoint> for Member {
    fn from(endpoint: &Endpoint) -> Self {
        Self {
            name: endpoint.name.clone(),
            address: endpoint.address.to_string(),
            labels: endpoint.labels.clone(),
            health: endpoint.health,
        }
    }
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
                self.forget_history(slot);
            }
        }
    }

    /// Empties a slot.
    pub fn remove(&mut self, slot: Slot) {
        self.pool.remove(slot);
        self.forget_history(slot);
    }

    fn forget_history(&mut self, slot: Slot) {
        self.set_condition(slot, Condition::default());
        if let Some(trust) = self.trust.get_mut(slot.index()) {
            *trust = Trust::default();
        }
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

    /// Returns what the last page of the endpoint in this slot said, whatever was reported since.
    pub fn page(&self, slot: Slot) -> Option<Cow<'_, Metrics>> {
        let metrics = &self.pool.get(slot)?.metrics;
        let Some(reported) = self.report(slot) else {
            return Some(Cow::Borrowed(metrics));
        };
        let mut page = metrics.clone();
        (page.waiting, page.kv_usage) = (reported.waiting, reported.kv_usage);
        Some(Cow::Owned(page))
    }

    /// Returns the load report that has come since the last page of the endpoint in this slot, if one has.
    pub fn report(&self, slot: Slot) -> Option<&Reported> {
        self.trust.get(slot.index())?.report.as_ref()
    }

    /// Records a page that was read. LoRA adapters stay if the page has none, as in the Endpoint Picker.
    pub fn set_metrics(&mut self, slot: Slot, metrics: Metrics, lora_seen: bool, now: Timestamp) {
        self.compare_pages(slot, &metrics);
        let Some(endpoint) = self.pool.get_mut(slot) else {
            return;
        };
        let lora = std::mem::take(&mut endpoint.metrics.lora);
        endpoint.metrics = metrics;
        if !lora_seen {
            endpoint.metrics.lora = lora;
        }
        if let Some(trust) = self.trust.get_mut(slot.index()) {
            trust.report = None;
        }
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

    /// Records what a response has said of the load of the endpoint in this slot. It stands until a later page comes, and makes
    /// none fresher. Returns the waiting requests and the KV-cache utilization that are the report's now.
    pub fn set_report(
        &mut self,
        slot: Slot,
        report: LoadReport,
        now: Timestamp,
    ) -> (Option<f64>, Option<f64>) {
        let (Some(endpoint), Some(trust)) = (self.pool.get(slot), self.trust.get_mut(slot.index()))
        else {
            return (None, None);
        };
        let metrics = &endpoint.metrics;
        let (waiting, kv_usage) = report.values(metrics);
        let known = (metrics.waiting, metrics.kv_usage);
        let before = trust.report.as_ref();
        let page = before.map_or(known, |before| (before.waiting, before.kv_usage));
        trust.report = Some(Reported {
            report,
            at: now,
            waiting: page.0,
            kv_usage: page.1,
        });
        self.pool.note(
            slot,
            |endpoint| &mut endpoint.metrics.waiting,
            waiting.or(known.0),
        );
        self.pool.note(
            slot,
            |endpoint| &mut endpoint.metrics.kv_usage,
            kv_usage.or(known.1),
        );
        (waiting, kv_usage)
    }

    /// Keeps a report that is newer than a page of its endpoint, and forgets an older one.
    fn keep_report(&mut self, slot: Slot, condition: &Condition, metrics: &mut Metrics) {
        let is_same = self.condition(slot).scraped == condition.scraped;
        let Some(trust) = self.trust.get_mut(slot.index()) else {
            return;
        };
        // One that is later by far came before the clock was set back.
        let is_older = |scraped: Timestamp, at: Timestamp| {
            scraped < at && at.is_near(scraped, MAX_POLLERS_OVERLAP)
        };
        let stays = |at| is_same || condition.scraped.is_some_and(|it| is_older(it, at));
        trust.report = trust.report.filter(|reported| stays(reported.at));
        if let Some(reported) = &mut trust.report {
            let (waiting, kv_usage) = reported.report.values(metrics);
            (reported.waiting, reported.kv_usage) = (metrics.waiting, metrics.kv_usage);
            metrics.waiting = waiting.or(metrics.waiting);
            metrics.kv_usage = kv_usage.or(metrics.kv_usage);
        }
    }

    fn adopt_page(&mut self, slot: Slot, condition: Condition, mut metrics: Metrics) -> bool {
        let known = self.condition(slot).scraped;
        let is_older = known.is_some_and(|known| {
            let scraped = condition.scraped;
            scraped.is_none_or(|it| it < known && known.is_near(it, MAX_POLLERS_OVERLAP))
        });
        if is_older {
            // The poller has just begun, and this picker polled before it, or meanwhile.
            return false;
        }
        self.compare_pages(slot, &metrics);
        self.keep_report(slot, &condition, &mut metrics);
        let Some(endpoint) = self.pool.get_mut(slot) else {
            return false;
        };
        endpoint.metrics = metrics;
        self.set_condition(slot, condition);
        // A page of an endpoint at rest may have been read long before: it shows nothing that was sent since the last one.
        known != condition.scraped && condition.rest == 0
    }

    /// Notes whether a page shows that the engine has worked since the page before.
    fn compare_pages(&mut self, slot: Slot, later: &Metrics) {
        let page = self.page(slot);
        let works = page.is_some_and(|page| later.shows_work_since(&page));
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
}

fn same(member: &Member, endpoint: &Endpoint) -> bool {
    member.identity() == (endpoint.name.as_str(), &*endpoint.address)
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;

//! The pool as it is known now: who is a member, what each one's metrics page said last, and how
//! long ago that was.

use crate::scheduling::{Endpoint, Freshness, Metrics, Pool, Slot};

/// A member as discovery reports it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Member {
    /// `namespace/name`, or the address where discovery knows no names.
    pub name: String,
    /// `ip:port`, IPv6 in brackets.
    pub address: String,
    /// Labels.
    pub labels: Vec<(String, String)>,
    /// False while it may not be picked.
    pub available: bool,
}

/// How the scraping of one endpoint goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Condition {
    /// When its page was read last, in milliseconds since 1970; 0: never.
    pub scraped: u64,
    /// Failed scrapes since then.
    pub failures: u32,
}

/// Who came and who went.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Slots of new members.
    pub joined: Vec<Slot>,
    /// Slots of former members, to be forgotten everywhere.
    pub left: Vec<Slot>,
}

/// The pool and the conditions of its endpoints, by slot.
#[derive(Debug, Default)]
pub struct Store {
    /// The pool, as the scheduler sees it.
    pub pool: Pool,
    conditions: Vec<Condition>,
}

impl Store {
    /// Takes over the members. Who stays keeps its slot, metrics and condition.
    pub fn set_members(&mut self, members: &[Member]) -> Changes {
        let mut changes = Changes::default();
        let gone: Vec<Slot> = self
            .pool
            .iter()
            .filter(|(_, endpoint)| !members.iter().any(|member| same(member, endpoint)))
            .map(|(slot, _)| slot)
            .collect();
        for member in members {
            let place = |endpoint: &Endpoint| same(member, endpoint);
            let known = self.pool.iter().find(|(_, endpoint)| place(endpoint));
            let known = known.map(|(slot, _)| slot);
            let slot = known.unwrap_or_else(|| self.pool.vacant());
            self.set_member(slot, member);
            if known.is_none() {
                changes.joined.push(slot);
            }
        }
        // Only now: a slot that falls vacant is not given to another member in the same breath, so
        // that whoever remembers it hears of its end before it begins anew.
        for slot in gone {
            self.remove(slot);
            changes.left.push(slot);
        }
        changes
    }

    /// Puts a member into a slot; what is known of it stays if it was there.
    pub fn set_member(&mut self, slot: Slot, member: &Member) {
        match self.pool.get_mut(slot) {
            Some(endpoint) if same(member, endpoint) => {
                endpoint.available = member.available;
                endpoint.labels.clone_from(&member.labels);
            }
            _ => {
                let endpoint = Endpoint {
                    name: member.name.clone(),
                    address: member.address.clone(),
                    labels: member.labels.clone(),
                    available: member.available,
                    ..Endpoint::default()
                };
                self.pool.set(slot, endpoint);
                self.set_condition(slot, Condition::default());
            }
        }
    }

    /// Empties a slot.
    pub fn remove(&mut self, slot: Slot) {
        self.pool.remove(slot);
        self.set_condition(slot, Condition::default());
    }

    /// How an endpoint's scraping goes.
    pub fn condition(&self, slot: Slot) -> Condition {
        self.conditions
            .get(slot.index())
            .copied()
            .unwrap_or_default()
    }

    /// Notes how an endpoint's scraping goes.
    pub fn set_condition(&mut self, slot: Slot, condition: Condition) {
        if self.conditions.len() <= slot.index() {
            self.conditions
                .resize(slot.index() + 1, Condition::default());
        }
        if let Some(place) = self.conditions.get_mut(slot.index()) {
            *place = condition;
        }
    }

    /// A page was read. Its values are the truth now; LoRA adapters stay where the page had none,
    /// as the Endpoint Picker keeps them.
    pub fn set_metrics(&mut self, slot: Slot, metrics: Metrics, lora_seen: bool, now: u64) {
        let Some(endpoint) = self.pool.get_mut(slot) else {
            return;
        };
        let lora = std::mem::take(&mut endpoint.metrics.lora);
        endpoint.metrics = metrics;
        if !lora_seen {
            endpoint.metrics.lora = lora;
        }
        let scraped = now.max(1);
        self.set_condition(
            slot,
            Condition {
                scraped,
                failures: 0,
            },
        );
    }

    /// A page could not be read.
    pub fn note_failure(&mut self, slot: Slot) {
        let mut condition = self.condition(slot);
        condition.failures = condition.failures.saturating_add(1);
        self.set_condition(slot, condition);
    }

    /// Says of each endpoint whether its metrics can be trusted at `now`. A clock that was set back
    /// makes nothing stale.
    pub fn refresh(&mut self, now: u64, threshold: u64) {
        for index in 0..self.pool.width() {
            let slot = Slot(index as u32);
            let scraped = self.condition(slot).scraped;
            if let Some(endpoint) = self.pool.get_mut(slot) {
                endpoint.freshness = match scraped {
                    0 => Freshness::Unknown,
                    scraped if now.saturating_sub(scraped) <= threshold => Freshness::Fresh,
                    _ => Freshness::Stale,
                };
            }
        }
    }
}

fn same(member: &Member, endpoint: &Endpoint) -> bool {
    member.name == endpoint.name && member.address == endpoint.address
}

//! How the pickers of one proxy share a pool under flow control: what each publishes of its queues, and what part of the
//! places in the pool is its own.
//!
//! Where a fairness policy chooses among flows, a picker's share is that of its flows: each flow counts 1, divided
//! among the pickers in which requests of it wait. Within a picker a flow that waits in several has its turn
//! accordingly less often. So the flows of one band get equal parts of the pool, wherever their requests wait. Where
//! flows do not matter, the share is that of the requests.

use std::cmp::Reverse;

use serde::{Deserialize, Serialize};

use crate::flow::{Queues, MAX_FLOWS_OF_BAND};

/// Bands that a picker publishes: the highest ones in which requests wait.
pub const MAX_WAITING_BANDS: usize = 16;

/// Hashes of flows that a picker publishes: the smallest ones, so that all pickers publish those of the same flows.
pub const MAX_SAMPLED_FLOWS: usize = 64;

/// The requests of one band that wait in one picker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WaitingBand {
    /// The band's priority.
    pub priority: i32,
    /// How many wait.
    pub requests: u32,
    /// The bytes of their bodies.
    pub bytes: u64,
}

impl From<(i32, usize, u64)> for WaitingBand {
    fn from((priority, requests, bytes): (i32, usize, u64)) -> Self {
        let requests = u32::try_from(requests).unwrap_or(u32::MAX);
        Self {
            priority,
            requests,
            bytes,
        }
    }
}

/// What waits in one picker.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Backlog {
    /// By band, the highest first.
    pub bands: Vec<WaitingBand>,
    /// The flows of the highest band with requests that wait; 0 where its fairness policy ignores flows.
    pub flows: u32,
    /// Keyed hashes of these flows, at most [`MAX_SAMPLED_FLOWS`], in order.
    pub sample: Vec<u32>,
}

impl Backlog {
    /// Returns what waits in these queues.
    pub fn of(queues: &Queues) -> Self {
        let bands = queues.waiting().map(WaitingBand::from);
        let (flows, sample) = queues.sample_flows(MAX_SAMPLED_FLOWS);
        Self {
            bands: bands.take(MAX_WAITING_BANDS).collect(),
            flows: flows as u32,
            sample,
        }
    }

    /// Returns whether a picker can have this much, in this order.
    pub fn is_sound(&self) -> bool {
        self.bands.len() <= MAX_WAITING_BANDS
            && self
                .bands
                .is_sorted_by(|one, next| one.priority > next.priority)
            && self.bands.iter().all(|band| band.requests > 0)
            && self.flows as usize <= MAX_FLOWS_OF_BAND
            && self.sample.is_sorted_by(|one, next| one < next)
            && self.sample.len() <= MAX_SAMPLED_FLOWS.min(self.flows as usize)
    }

    /// Returns the priority of the highest band in which a request waits.
    fn highest(&self) -> Option<i32> {
        self.bands.first().map(|band| band.priority)
    }

    /// Returns its part of the places; `samples` are those of all pickers.
    fn claim(&self, samples: &Samples) -> f64 {
        let Some(band) = self.bands.first().filter(|_| self.flows == 0) else {
            let parts = self.sample.iter();
            let parts = parts.map(|hash| 1.0 / f64::from(samples.count(*hash).max(1)));
            // Those that are not in the sample wait in as many pickers as those that are, on average.
            return f64::from(self.flows) * parts.sum::<f64>() / self.sample.len().max(1) as f64;
        };
        f64::from(band.requests)
    }
}

/// The sampled flows of all pickers: one that waits in several occurs as often.
#[derive(Debug, Default)]
struct Samples(Vec<u32>);

impl Samples {
    fn of<'a>(backlogs: impl Iterator<Item = &'a Backlog>) -> Self {
        let mut hashes: Vec<u32> = backlogs.flat_map(|one| &one.sample).copied().collect();
        hashes.sort_unstable();
        Self(hashes)
    }

    fn count(&self, hash: u32) -> u32 {
        let begin = self.0.partition_point(|known| *known < hash);
        let end = self.0.partition_point(|known| *known <= hash);
        (end - begin) as u32
    }
}

/// What waits in the other pickers, and what part of the places is whose.
#[derive(Debug, Default)]
pub struct Others {
    /// What waits in all of them together, the highest band first.
    pub bands: Vec<WaitingBand>,
    /// Whether the parts are those of flows, rather than of requests.
    by_flows: bool,
    /// This picker's part in their highest band, at its last look at them; 0 where nothing waited in that band.
    own: f64,
    /// Their part in it.
    others: f64,
}

impl Others {
    /// Takes over what the others have published. Tells the queues in how many pickers each flow waits.
    pub fn look(&mut self, published: &mut dyn Iterator<Item = &Backlog>, queues: &mut Queues) {
        self.bands.clear();
        let published: Vec<&Backlog> = published.filter(|one| !one.bands.is_empty()).collect();
        self.add(published.iter().flat_map(|one| &one.bands));
        let Some(highest) = self.priority() else {
            return queues.share_flows(None);
        };
        let own = Backlog::of(queues);
        let all = published.into_iter().chain([&own]);
        let claiming = all.filter(|one| one.highest() == Some(highest));
        let samples = Samples::of(claiming.clone());
        self.by_flows = claiming.clone().any(|one| one.flows > 0);
        let all: f64 = claiming.map(|one| one.claim(&samples)).sum();
        self.own = match own.highest() == Some(highest) {
            true => own.claim(&samples),
            false => 0.0,
        };
        self.others = (all - self.own).max(0.0);
        let sampled = own.sample.last().copied().unwrap_or_default();
        let mean = (f64::from(own.flows) / self.own).round() as u32;
        let pickers = |hash| match hash <= sampled {
            true => samples.count(hash),
            false => mean,
        };
        let is_shared = self.own > 0.0 && self.by_flows;
        queues.share_flows(is_shared.then_some(&pickers));
    }

    fn add<'a>(&mut self, bands: impl Iterator<Item = &'a WaitingBand>) {
        self.bands.extend(bands.filter(|band| band.requests > 0));
        self.bands
            .sort_unstable_by_key(|band| Reverse(band.priority));
        self.bands.dedup_by(|band, known| {
            let same = band.priority == known.priority;
            if same {
                known.requests = known.requests.saturating_add(band.requests);
                known.bytes = known.bytes.saturating_add(band.bytes);
            }
            same
        });
    }

    /// Returns the highest priority of a request that waits in another picker.
    pub fn priority(&self) -> Option<i32> {
        self.bands.first().map(|band| band.priority)
    }

    /// Returns this picker's part and that of the others, where requests wait in both of the band that is highest in
    /// either.
    pub fn parts(&self, queues: &Queues) -> Option<(f64, f64)> {
        let (priority, requests, _) = queues.waiting().next()?;
        if self.priority() != Some(priority) {
            return None;
        }
        let own = match self.by_flows {
            // What has come since is of one flow at least.
            true if self.own > 0.0 => self.own,
            true => 1.0,
            false => self.own.max(requests as f64),
        };
        Some((own, self.others))
    }

    /// Returns this picker's share of the places in the pool, where `own` requests of it are in flight, of `all`.
    pub fn share(&self, queues: &Queues, (own, all): (f64, f64)) -> Option<f64> {
        let (part, others) = self.parts(queues)?;
        Some(match self.by_flows {
            true => part / (part + others),
            // Each request counts, whether it waits or is in flight.
            false => (own + part) / (all + part + others),
        })
    }
}

#[cfg(test)]
#[path = "shares_tests.rs"]
mod tests;

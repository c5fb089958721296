//! The request and the endpoints of a case.

use std::collections::BTreeMap;

use epp_core::config::Plan;
use epp_core::scheduling::{
    Cost, Cycle, Endpoint, Freshness, HeaderValues, Health, InFlight, Pool, PrefixMatch,
    RequestView, Slot,
};
use serde::Deserialize;

use super::metrics;
use crate::scenario::Exported;

/// A request over endpoints.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Setting {
    endpoints: Vec<Exported>,
    /// The labels of each endpoint.
    labels: Vec<BTreeMap<String, String>>,
    model: String,
    /// Further headers, in lower case.
    headers: BTreeMap<String, String>,
    /// The matched blocks of each endpoint, the number of blocks, and the tokens per block.
    prefix: Option<(Vec<u32>, f64, u32)>,
    /// Requests and tokens in flight at each endpoint.
    in_flight: Vec<(u32, u64)>,
    /// The tokens of the prompt.
    prompt: f64,
    /// The numbers of endpoints whose metrics are old.
    stale: Vec<usize>,
    /// Whether the prompt holds images or other media.
    media: bool,
}

impl Setting {
    /// Returns the number of endpoints.
    pub fn len(&self) -> usize {
        self.endpoints.len().max(self.labels.len())
    }

    /// Runs something with the state that one decision sees.
    pub fn run<T>(&self, plan: &Plan, run: impl FnOnce(&Cycle<'_>) -> T) -> T {
        let pool = self.pool();
        let matched = self.prefix.as_ref();
        let matched = matched.map(|(matched, total, block_tokens)| PrefixMatch {
            matched,
            total: *total,
            block_tokens: Some(*block_tokens).filter(|tokens| *tokens > 0),
        });
        let mut headers = HeaderValues::default();
        let values = plan.headers.iter().map(|name| self.headers.get(name));
        headers.set(values.map(|value| value.map(String::as_bytes)));
        let request = RequestView {
            headers: &headers,
            model: &self.model,
            prefix: matched.as_slice(),
            cost: Cost {
                prompt: self.prompt,
                ..Cost::default()
            },
            media: self.media,
            ..RequestView::default()
        };
        run(&Cycle::new(&pool, request))
    }

    fn pool(&self) -> Pool {
        let mut pool = Pool::default();
        for (number, slot) in (0..self.len()).zip((0..).map(Slot)) {
            let labels = self.labels.get(number).cloned().unwrap_or_default();
            let endpoint = Endpoint {
                name: format!("default/p{number}"),
                address: format!("10.0.0.{number}:8000").into(),
                health: Health::Healthy,
                freshness: match self.stale.contains(&number) {
                    true => Freshness::Stale,
                    false => Freshness::Fresh,
                },
                labels: labels.into_iter().collect(),
                metrics: self.endpoints.get(number).map(metrics).unwrap_or_default(),
                ..Endpoint::default()
            };
            pool.set(slot, endpoint);
            if let Some((requests, tokens)) = self.in_flight.get(number) {
                let load = InFlight {
                    requests: *requests,
                    tokens: *tokens,
                    ..InFlight::default()
                };
                pool.set_load(slot, load);
            }
        }
        pool
    }
}

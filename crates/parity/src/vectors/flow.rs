//! Flow control: ceilings of bands, the order in which requests leave the queues, and whether a request is admitted.

use std::collections::BTreeMap;
use std::time::Duration;

use epp_core::config::{self, Plan};
use epp_core::flow::{Arrival, FlowControl, Queues};
use epp_core::time::Instant;
use epp_core::ExchangeId;
use serde::Deserialize;
use serde_json::{json, Value};

use super::{close, same};
use crate::replay::{Made, Replay};
use crate::scenario::{Expected, Exported, Refused, Scenario, Sent};

/// The saturation at which each band stops.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ceilings {
    policy: Value,
    saturation: f64,
    /// The priorities of the bands, the highest first.
    bands: Vec<i32>,
    ceilings: Vec<f64>,
}

impl Ceilings {
    /// Runs the case.
    pub fn run(&self) -> Result<(), String> {
        let kind = self.policy.get("type").cloned().unwrap_or_default();
        let section = json!({"usageLimitPolicyPluginRef": kind});
        let control = flow_control(std::slice::from_ref(&self.policy), &section)?;
        let ends = self.bands.first().zip(self.bands.last());
        let (highest, lowest) = ends.ok_or("no bands")?;
        let bands = self.bands.iter().zip(0..);
        let ceilings = bands.map(|(priority, rank)| {
            let bands = self.bands.len();
            let limit = &control.usage_limit;
            limit.ceiling(
                self.saturation,
                (*priority, rank),
                bands,
                (*highest, *lowest),
            )
        });
        close(&ceilings.collect::<Vec<f64>>(), &self.ceilings)
    }
}

/// Requests that are queued, and what becomes of them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Queue {
    #[serde(default)]
    plugins: Vec<Value>,
    /// The section `flowControl`.
    #[serde(default)]
    section: Value,
    requests: Vec<Queued>,
    /// The time at which they go, in milliseconds; by default that of the last request.
    until: Option<u64>,
    /// Whether the pool has no endpoints by then.
    #[serde(default)]
    empty_pool: bool,
    #[serde(default)]
    saturation: f64,
    /// The places of those that do not fit.
    #[serde(default)]
    refused: Vec<u32>,
    /// The places of those that have waited as long as they may by then.
    #[serde(default)]
    expired: Vec<u32>,
    /// The places of those that go, in their order.
    order: Vec<u32>,
}

/// A request. Times are in milliseconds.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Queued {
    at: u64,
    priority: i32,
    flow: String,
    bytes: u64,
    ttl: Option<u64>,
    slo: Option<u64>,
}

impl Queue {
    /// Runs the case.
    pub fn run(&self) -> Result<(), String> {
        let section = match &self.section {
            Value::Null => json!({}),
            section => section.clone(),
        };
        let control = flow_control(&self.plugins, &section)?;
        let mut queues = Queues::default();
        let at = |millis| Instant::default().after(Duration::from_millis(1_000_000 + millis));
        let mut refused = Vec::new();
        for (id, request) in (0..).zip(&self.requests) {
            let arrival = Arrival {
                id: ExchangeId(id),
                priority: request.priority,
                fairness_id: &request.flow,
                bytes: request.bytes,
                received: at(request.at),
                slo_ttft: request.slo.map(Duration::from_millis),
                ttl: request.ttl.map(Duration::from_millis),
            };
            if queues.enqueue(&control, &arrival, at(request.at)).is_err() {
                refused.push(id);
            }
        }
        same(&refused, &self.refused)?;
        let last = self.requests.last().map_or(0, |request| request.at);
        if self.empty_pool {
            // It has been since the last one came.
            queues.expired(&control, true, at(last));
        }
        let now = at(self.until.unwrap_or(last));
        let expired = std::iter::from_fn(|| queues.expired(&control, self.empty_pool, now));
        let mut expired: Vec<u32> = expired.map(|(gone, _)| gone.id.0).collect();
        expired.sort_unstable();
        same(&expired, &self.expired)?;
        let order = std::iter::from_fn(|| queues.dispatch(&control, self.saturation, now));
        let order: Vec<u32> = order.map(|gone| gone.id.0).collect();
        same(&order, &self.order)
    }
}

/// A request to a pool, and whether it is admitted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admit {
    config: Value,
    /// The endpoints. One without metrics was never scraped.
    endpoints: Vec<Exported>,
    /// Headers of the request, in lower case.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// The status of its local reply; none if it is sent.
    status: Option<u32>,
    reason: Option<String>,
    body: Option<String>,
}

impl Admit {
    /// Runs the case.
    pub fn run(&self) -> Result<(), String> {
        let places = self.endpoints.iter().enumerate().map(
            |(place, _)| json!({"name": format!("{place}"), "address": format!("10.0.0.{place}"), "port": "80"}),
        );
        let scenario = json!({
            "name": "", "family": "", "config": self.config, "steps": [],
            "endpoints": places.collect::<Vec<Value>>(),
        });
        let scenario: Scenario =
            serde_json::from_value(scenario).map_err(|error| error.to_string())?;
        let mut replay = Replay::new(&scenario)?;
        let pages = self.endpoints.iter().enumerate();
        let pages = pages.filter(|(_, page)| **page != Exported::default());
        let pages = pages.map(|(place, page)| (place.to_string(), page.clone()));
        replay.set_metrics(&pages.collect())?;
        let request = Sent {
            path: "/v1/completions".to_owned(),
            body: json!({"model": "m", "prompt": "p"}).to_string(),
            headers: self.headers.clone(),
        };
        // Nothing was recorded, so that nothing is drawn as recorded.
        let expect = Expected::Refused(Refused::default());
        let made = replay.decide(&request, &expect)?.made;
        match (made, self.status) {
            (Made::Routed(_), None) => Ok(()),
            (Made::Refused(reply), Some(status)) => {
                same(&reply.status, &status)?;
                same(&reply.reason, &self.reason)?;
                let body = self.body.as_ref();
                body.map_or(Ok(()), |body| same(&reply.body, body))
            }
            (made, status) => Err(format!("{made:?}, expected {status:?}")),
        }
    }
}

/// Returns the flow control of a document with these plugins and this section.
fn flow_control(plugins: &[Value], section: &Value) -> Result<FlowControl, String> {
    let document = json!({
        "apiVersion": "llm-d.ai/v1alpha1", "kind": "EndpointPickerConfig", "plugins": plugins,
        "featureGates": ["flowControl"], "flowControl": section,
    });
    let loaded = config::load(&document.to_string()).map_err(|rejected| {
        let error = rejected.errors.first();
        error.map(ToString::to_string).unwrap_or_default()
    })?;
    let plan: Plan = loaded.plan;
    plan.flow.ok_or_else(|| "no flow control".to_owned())
}

//! The sources of `eppctl explain`'s endpoints: a snapshot, live pods, or a running Envoy.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use epp_core::config::Plan;
use epp_core::endpoints::store::Member;
use epp_core::scheduling::{AttributeId, DecisionMode, Freshness, Health, Lora, Metrics};
use serde::Deserialize;

use super::envoy::from_envoy;
use crate::admin::Admin;
use crate::input::read;
use crate::output::Error;

/// The source of the endpoints.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub struct Source {
    /// A snapshot of endpoints with their metrics.
    #[arg(long, value_name = "FILE")]
    endpoints: Option<String>,
    /// Live pods; their metrics pages are read now, and SGLang's /v1/loads where the document has sglangLoads.
    #[arg(long, value_name = "HOST:PORT", value_parser = pod)]
    pod: Vec<String>,
    /// A running Envoy's admin interface (URL or socket): its members, their health, and the metrics
    /// that the filter exports. LoRA adapters and the prefix index are not exported.
    #[arg(long, value_name = "ADMIN-URL")]
    envoy: Option<Admin>,
}

fn pod(text: &str) -> Result<String, String> {
    let port = text.rsplit_once(':').and_then(|(host, port)| {
        let plain = !host.is_empty() && !host.contains('/');
        port.parse::<u16>().ok().filter(|_| plain)
    });
    match port {
        Some(_) => Ok(text.to_owned()),
        None => Err("expected HOST:PORT, such as 10.0.0.1:8000".to_owned()),
    }
}

/// The state of the endpoints.
#[derive(Default)]
pub struct PoolState {
    /// Each endpoint.
    pub endpoints: Vec<EndpointState>,
    /// The decision mode; if unknown, it follows from the metrics.
    pub decision_mode: Option<DecisionMode>,
    /// Notes on missing information and its effect.
    pub notes: Vec<String>,
}

/// The state of an endpoint.
pub struct EndpointState {
    /// Its name, address and labels.
    pub member: Member,
    /// Whether it is a live pod, whose metrics are yet to be read.
    pub is_live: bool,
    /// Its metrics.
    pub metrics: Metrics,
    /// The freshness of its metrics.
    pub freshness: Freshness,
    /// The age of its metrics, if an Envoy exports it.
    pub age: Option<Duration>,
    /// Its requests in flight from this Envoy.
    pub requests: u32,
    /// Whether it is ejected because its requests fail.
    pub ejected: bool,
}

impl EndpointState {
    /// Creates the state of a member of which nothing else is known.
    pub fn of(member: Member) -> Self {
        Self {
            member,
            is_live: false,
            metrics: Metrics::default(),
            freshness: Freshness::Unknown,
            age: None,
            requests: 0,
            ejected: false,
        }
    }
}

impl Source {
    /// Reads the endpoints.
    pub fn read(&self, plan: &Plan) -> Result<PoolState, Error> {
        match (&self.endpoints, &self.envoy) {
            (Some(file), _) => snapshot(file),
            (None, Some(admin)) => from_envoy(admin, plan),
            (None, None) => Ok(from_pods(&self.pod)),
        }
    }
}

fn from_pods(pods: &[String]) -> PoolState {
    let endpoints = pods.iter().map(|pod| EndpointState {
        is_live: true,
        ..EndpointState::of(Member {
            name: pod.clone(),
            address: pod.clone(),
            labels: Vec::new(),
            health: Health::Healthy,
        })
    });
    PoolState {
        endpoints: endpoints.collect(),
        ..PoolState::default()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Snapshot {
    endpoints: Vec<SnapshotEndpoint>,
}

/// An endpoint in a snapshot.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct SnapshotEndpoint {
    name: String,
    address: String,
    #[serde(default = "yes")]
    available: bool,
    #[serde(default)]
    ejected: bool,
    #[serde(default)]
    freshness: Trust,
    waiting: Option<f64>,
    running: Option<f64>,
    kv_usage: Option<f64>,
    lora: Option<Adapters>,
    block_size: Option<u32>,
    num_blocks: Option<u32>,
    #[serde(default)]
    in_flight: u32,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// Custom attributes.
    #[serde(default)]
    attributes: BTreeMap<String, f64>,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "lowercase")]
enum Trust {
    #[default]
    Fresh,
    Stale,
    Unknown,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Adapters {
    #[serde(default)]
    active: Vec<String>,
    #[serde(default)]
    waiting: Vec<String>,
    #[serde(default)]
    max: u32,
}

fn snapshot(file: &str) -> Result<PoolState, Error> {
    let snapshot: Snapshot = serde_yaml::from_slice(&read(file)?).map_err(|error| {
        Error::new(format!(
            "{file}: not a snapshot of endpoints: {error}; `eppctl explain --help` shows one"
        ))
    })?;
    Ok(PoolState {
        endpoints: snapshot.endpoints.into_iter().map(endpoint_of).collect(),
        ..PoolState::default()
    })
}

fn endpoint_of(given: SnapshotEndpoint) -> EndpointState {
    let lora = given.lora.map(|lora| Lora {
        active: lora.active,
        waiting: lora.waiting,
        max: lora.max,
    });
    let attributes = given.attributes.iter();
    let attributes = attributes.map(|(name, value)| (AttributeId::of(name), *value));
    EndpointState {
        member: Member {
            name: given.name,
            address: given.address,
            labels: given.labels.into_iter().collect(),
            health: match given.available {
                true => Health::Healthy,
                false => Health::Unhealthy,
            },
        },
        is_live: false,
        metrics: Metrics {
            model: None,
            waiting: given.waiting,
            several_series: false,
            from_loads: false,
            running: given.running,
            kv_usage: given.kv_usage,
            generated: None,
            lora: lora.unwrap_or_default(),
            block_size: given.block_size,
            num_blocks: given.num_blocks,
            attributes: attributes.collect(),
        },
        freshness: match given.freshness {
            Trust::Fresh => Freshness::Fresh,
            Trust::Stale => Freshness::Stale,
            Trust::Unknown => Freshness::Unknown,
        },
        age: None,
        requests: given.in_flight,
        ejected: given.ejected,
    }
}

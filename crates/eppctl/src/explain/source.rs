//! The sources of `eppctl explain`'s endpoints: a snapshot, live pods, or a running Envoy.

use std::collections::BTreeMap;

use clap::Args;
use epp_core::config::Plan;
use epp_core::endpoints::store::Member;
use epp_core::plugins::Discovery;
use epp_core::scheduling::{AttributeId, DecisionMode, Freshness, Health, Lora, Metrics};
use epp_envoy::clusters::members;
use serde::Deserialize;

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
    /// Its requests in flight from this Envoy.
    pub requests: u32,
    /// Whether it is ejected because its requests fail.
    pub ejected: bool,
}

impl EndpointState {
    fn of(member: Member) -> Self {
        Self {
            member,
            is_live: false,
            metrics: Metrics::default(),
            freshness: Freshness::Unknown,
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

fn from_envoy(admin: &Admin, plan: &Plan) -> Result<PoolState, Error> {
    let statistics = admin.statistics()?;
    // The filter replaces these two characters in a metric's labels, where they are separators.
    let pool = plan.cluster().replace([';', '='], "_");
    let Some(counts) = statistics.pools.get(&pool) else {
        let pools: Vec<&str> = statistics.pools.keys().map(String::as_str).collect();
        return Err(Error::new(format!(
            "the filters in this Envoy pick for {}, the document for {pool}; give the document that is \
             in force there, or name the cluster in this one (envoy-cluster-discovery, clusters)",
            pools.join(", ")
        )));
    };
    let members = members_of(admin, plan)?;
    let mut state = PoolState {
        decision_mode: counts.decision_mode.map(|mode| match mode >= 2.0 {
            true => DecisionMode::Metrics,
            false => DecisionMode::LocalOnly,
        }),
        notes: unexported(plan),
        ..PoolState::default()
    };
    for member in members {
        let values = statistics
            .endpoints
            .get(&(pool.clone(), member.address.clone()));
        let get = |name| values.and_then(|values| values.get(name).copied());
        if get("fresh").is_none() {
            let address = &member.address;
            state
                .notes
                .push(format!("{address}: the filter does not know it yet"));
        }
        let mut known = EndpointState::of(member);
        known.freshness = match get("fresh") {
            Some(fresh) if fresh >= 2.0 => Freshness::Fresh,
            Some(fresh) if fresh >= 1.0 => Freshness::Stale,
            _ => Freshness::Unknown,
        };
        known.metrics = Metrics {
            waiting: get("queue"),
            running: get("running"),
            kv_usage: get("kv").map(|millionths| millionths / 1e6),
            ..Metrics::default()
        };
        known.requests = get("in_flight").unwrap_or(0.0) as u32;
        known.ejected = get("ejected").is_some_and(|ejected| ejected > 0.0);
        state.endpoints.push(known);
    }
    Ok(state)
}

/// Returns the plan's members, as listed or as Envoy knows them.
fn members_of(admin: &Admin, plan: &Plan) -> Result<Vec<Member>, Error> {
    let discovery = match &plan.discovery {
        Discovery::Static(discovery) => return Ok(discovery.members.clone()),
        Discovery::EnvoyCluster(discovery) => discovery,
    };
    let page = admin.get("/clusters")?;
    let listing = members(&page, discovery, plan.needs.labels);
    listing.map(|listing| listing.members).map_err(|_| {
        let clusters = discovery.listed();
        Error::new(format!(
            "Envoy has no cluster {clusters}; name the one with the model servers in the document \
             (envoy-cluster-discovery, clusters)"
        ))
    })
}

/// Returns notes on inputs of the plan that the filter does not export.
fn unexported(plan: &Plan) -> Vec<String> {
    let mut notes = Vec::new();
    if plan.needs.lora {
        notes.push(
            "the filter does not export LoRA adapters: assuming that no endpoint has any (--pod reads them)"
                .to_owned(),
        );
    }
    if !plan.producers.is_empty() {
        notes.push(
            "the filter does not export its prefix index: assuming that no endpoint has the prompt, except with \
             --warm; explain: true on envoy-proxy returns the scores of a real request"
                .to_owned(),
        );
    }
    notes
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
        requests: given.in_flight,
        ejected: given.ejected,
    }
}

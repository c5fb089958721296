//! The state of a running Envoy's pool, as its admin interface has it.

use std::collections::BTreeMap;
use std::time::Duration;

use epp_core::config::Plan;
use epp_core::endpoints::store::Member;
use epp_core::plugins::Discovery;
use epp_core::scheduling::{DecisionMode, Freshness, Metrics};
use epp_envoy::clusters::members;

use super::source::{EndpointState, PoolState};
use crate::admin::statistics::Sample;
use crate::admin::Admin;
use crate::output::Error;

/// Reads the members of a plan's pool from Envoy, with what its filter exports of them.
pub fn from_envoy(admin: &Admin, plan: &Plan) -> Result<PoolState, Error> {
    let statistics = admin.statistics()?;
    // The filter replaces these two characters in a metric's labels, where they are separators.
    let pool = plan.cluster().replace([';', '='], "_");
    if !statistics.pools.contains_key(&pool) {
        let pools: Vec<&str> = statistics.pools.keys().map(String::as_str).collect();
        return Err(Error::new(format!(
            "the filters in this Envoy pick for {}, the document for {pool}; give the document that is \
             in force there, or name the cluster in this one (envoy-cluster-discovery, clusters)",
            pools.join(", ")
        )));
    }
    exported(&statistics, &pool, members_of(admin, plan)?, plan)
}

/// Returns the state of these members that the filter exports.
fn exported(
    statistics: &Sample,
    pool: &str,
    members: Vec<Member>,
    plan: &Plan,
) -> Result<PoolState, Error> {
    let counts = statistics.pools.get(pool);
    let mut state = PoolState {
        decision_mode: counts.and_then(|counts| counts.decision_mode).map(|mode| {
            match mode >= 2.0 {
                true => DecisionMode::Metrics,
                false => DecisionMode::LocalOnly,
            }
        }),
        notes: unexported(plan),
        ..PoolState::default()
    };
    let is_listed = matches!(plan.discovery, Discovery::Static(_));
    let unknown = match is_listed {
        true => "not a member of this Envoy's pool",
        false => "the filter does not know it yet",
    };
    let of = |member: &Member| {
        let key = (pool.to_owned(), member.address.clone());
        statistics.endpoints.get(&key)
    };
    if is_listed && !members.iter().any(|member| of(member).is_some()) {
        return Err(Error::new(format!(
            "static-discovery: none of the endpoints is a member of {pool} in this Envoy; give the document \
             that is in force there"
        )));
    }
    for member in members {
        let values = of(&member);
        if values.is_none_or(|values| !values.contains_key("fresh")) {
            let note = format!("{}: {unknown}", member.address);
            state.notes.push(note);
        }
        state.endpoints.push(endpoint_of(member, values));
    }
    state.notes.extend(note_on_age(plan, &state.endpoints));
    Ok(state)
}

/// Returns the state of a member with these values.
fn endpoint_of(member: Member, values: Option<&BTreeMap<&'static str, f64>>) -> EndpointState {
    let get = |name| values.and_then(|values| values.get(name).copied());
    EndpointState {
        freshness: match get("fresh") {
            Some(fresh) if fresh >= 2.0 => Freshness::Fresh,
            Some(fresh) if fresh >= 1.0 => Freshness::Stale,
            _ => Freshness::Unknown,
        },
        age: get("age").map(|age| Duration::from_millis(age as u64)),
        metrics: Metrics {
            waiting: get("queue"),
            running: get("running"),
            kv_usage: get("kv").map(|millionths| millionths / 1e6),
            ..Metrics::default()
        },
        requests: get("in_flight").unwrap_or(0.0) as u32,
        ejected: get("ejected").is_some_and(|ejected| ejected > 0.0),
        ..EndpointState::of(member)
    }
}

/// Returns a note if metrics count as fresh in Envoy that this plan would not trust.
fn note_on_age(plan: &Plan, endpoints: &[EndpointState]) -> Option<String> {
    if !plan.needs.any_metric() || plan.needs.only_constants() {
        return None;
    }
    let fresh = endpoints.iter();
    let fresh = fresh.filter(|known| known.freshness == Freshness::Fresh);
    let oldest = fresh.filter_map(|known| known.age).max()?;
    // The page of an endpoint at rest may be this old.
    let trusted = plan.source.staleness + plan.source.max_interval;
    (oldest > trusted).then(|| {
        format!(
            "metrics up to {:.1} s old count as fresh in this Envoy, whose document reads pages less often than this \
             one or trusts them longer; --pod reads them now",
            oldest.as_secs_f64()
        )
    })
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

#[cfg(test)]
#[path = "envoy_tests.rs"]
mod tests;

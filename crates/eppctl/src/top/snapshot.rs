//! A snapshot of the filter, computed from two samples of Envoy's statistics.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Column;
use crate::admin::statistics::{Counts, Sample};

/// An endpoint as the filter sees it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Row {
    /// The pool's cluster.
    pub pool: String,
    /// Its address.
    pub endpoint: String,
    /// 2 fresh, 1 stale, 0 never scraped.
    pub fresh: Option<f64>,
    /// Age of its metrics in milliseconds.
    pub age: Option<f64>,
    /// Waiting requests.
    pub queue: Option<f64>,
    /// Running requests.
    pub running: Option<f64>,
    /// KV-cache utilization, 0 to 1.
    pub kv: Option<f64>,
    /// Requests in flight.
    pub in_flight: Option<f64>,
    /// Picks per second.
    pub picks: f64,
}

/// A pool.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Pool {
    /// Its cluster.
    pub pool: String,
    /// Endpoints that may be picked.
    pub ready: f64,
    /// Picks per second.
    pub picks: f64,
    /// Share of the prompts' blocks that the picked endpoints' caches are expected to hold: since the last sample, or over
    /// all time if nothing was picked since.
    pub hit_ratio: Option<f64>,
    /// Upper bound on the median decision time, in microseconds.
    pub decision_p50_us: Option<f64>,
    /// Upper bound on the 99th percentile of the decision time, in microseconds.
    pub decision_p99_us: Option<f64>,
    /// Its flow control, if it has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flow: Option<Flow>,
}

/// The flow control of a pool.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Flow {
    /// How full the pool is: 1 where the gate shuts by default.
    pub saturation: f64,
    /// Requests that wait, by priority.
    pub waiting: BTreeMap<i32, f64>,
    /// Requests sent per second.
    pub sent: f64,
    /// Requests per second that were rejected because a queue was at its capacity.
    pub rejected: f64,
    /// Requests expired per second.
    pub expired: f64,
}

impl Flow {
    /// Returns the flow control of a pool from two samples.
    fn between(former: &Counts, now: &Counts, per_second: impl Fn(f64) -> f64) -> Option<Self> {
        let rate = |outcomes: &[&str]| {
            let sum = |counts: &Counts| {
                let counted = outcomes
                    .iter()
                    .filter_map(|name| counts.outcomes.get(*name));
                counted.fold(0.0, |sum, count| sum + count)
            };
            per_second(sum(now) - sum(former))
        };
        let waiting = now.waiting.iter().filter(|(_, requests)| **requests > 0.0);
        Some(Self {
            saturation: now.saturation?,
            waiting: waiting.map(|(band, requests)| (*band, *requests)).collect(),
            sent: rate(&["Dispatched"]),
            rejected: rate(&["RejectedCapacity", "RejectedNoEndpoints"]),
            expired: rate(&["EvictedTTL", "EvictedNoEndpoints"]),
        })
    }
}

/// A snapshot.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Snapshot {
    /// The pools.
    pub pools: Vec<Pool>,
    /// Their endpoints.
    pub endpoints: Vec<Row>,
    /// Why the last refresh failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Snapshot {
    /// Computes a snapshot from two samples.
    pub fn between(before: &Sample, now: &Sample) -> Self {
        let passed = now.at.saturating_duration_since(before.at).as_secs_f64();
        let per_second = |more: f64| {
            if passed > 0.0 {
                more.max(0.0) / passed
            } else {
                0.0
            }
        };
        let mut snapshot = Self::default();
        for ((pool, endpoint), values) in &now.endpoints {
            let get = |name| values.get(name).copied();
            let former = before.endpoints.get(&(pool.clone(), endpoint.clone()));
            let former = former.and_then(|values| values.get("picks").copied());
            snapshot.endpoints.push(Row {
                pool: pool.clone(),
                endpoint: endpoint.clone(),
                fresh: get("fresh"),
                age: get("age"),
                queue: get("queue"),
                running: get("running"),
                kv: get("kv").map(|millionths| millionths / 1e6),
                in_flight: get("in_flight"),
                picks: per_second(get("picks").unwrap_or(0.0) - former.unwrap_or(0.0)),
            });
        }
        for (pool, counts) in &now.pools {
            let former = before.pools.get(pool).cloned().unwrap_or_default();
            let own = snapshot.endpoints.iter().filter(|row| row.pool == *pool);
            // An empty sum of floats is -0.
            let picks = own.fold(0.0, |sum, row| sum + row.picks);
            let more = (counts.hits - former.hits, counts.queried - former.queried);
            let (hits, of) = match more.1 > 0.0 {
                true => more,
                false => (counts.hits, counts.queried),
            };
            snapshot.pools.push(Pool {
                pool: pool.clone(),
                ready: counts.ready,
                picks,
                hit_ratio: (of > 0.0).then_some((hits / of).clamp(0.0, 1.0)),
                decision_p50_us: counts.decision(0.5),
                decision_p99_us: counts.decision(0.99),
                flow: Flow::between(&former, counts, per_second),
            });
        }
        snapshot
    }

    /// Sorts the endpoints: values in descending, addresses in ascending order.
    pub fn sort(&mut self, by: Column, reverse: bool) {
        let value = |row: &Row| match by {
            Column::Endpoint => None,
            Column::Fresh => row.fresh.map(|fresh| -fresh),
            Column::Age => row.age,
            Column::Queue => row.queue,
            Column::Running => row.running,
            Column::Kv => row.kv,
            Column::InFlight => row.in_flight,
            Column::Picks => Some(row.picks),
        };
        self.endpoints.sort_by(|a, b| {
            let [left, right] = [a, b].map(|row| value(row).unwrap_or(f64::NEG_INFINITY));
            let addresses = || (&a.pool, &a.endpoint).cmp(&(&b.pool, &b.endpoint));
            right.total_cmp(&left).then_with(addresses)
        });
        if reverse {
            self.endpoints.reverse();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    const FIRST: &str = "# TYPE llm_d_epp_ready_endpoints gauge
llm_d_epp_ready_endpoints{pool=\"p\"} 2
envoy_cluster_x{envoy_cluster_name=\"p\"} 7
llm_d_epp_scheduler_attempts_total{pool=\"p\",endpoint_name=\"10.0.0.1:80\",status=\"success\"} 10
epp_wasm_endpoint_freshness{pool=\"p\",endpoint_name=\"10.0.0.1:80\"} 2
epp_wasm_per_endpoint_kv_cache_utilization_ppm{pool=\"p\",endpoint_name=\"10.0.0.1:80\"} 250000
llm_d_epp_per_endpoint_queue_size{pool=\"p\",endpoint_name=\"10.0.0.2:80\"} 9
epp_wasm_prefix_indexer_hit_blocks_total{pool=\"p\"} 5
epp_wasm_prefix_indexer_queried_blocks_total{pool=\"p\"} 10
llm_d_epp_scheduler_e2e_duration_seconds_bucket{pool=\"p\",le=\"+Inf\"} 10
llm_d_epp_scheduler_e2e_duration_seconds_bucket{pool=\"p\",le=\"0.00001\"} 9
llm_d_epp_scheduler_e2e_duration_seconds_bucket{pool=\"p\",le=\"0.00002\"} 10
";

    #[test]
    fn two_samples_give_rates_and_shares() {
        let now = Instant::now();
        let first = Sample::parse(FIRST, now);
        let later = FIRST
            .replace("status=\"success\"} 10", "status=\"success\"} 30")
            .replace(
                "hit_blocks_total{pool=\"p\"} 5",
                "hit_blocks_total{pool=\"p\"} 20",
            )
            .replace(
                "queried_blocks_total{pool=\"p\"} 10",
                "queried_blocks_total{pool=\"p\"} 30",
            );
        let second = Sample::parse(&later, now + Duration::from_secs(2));
        let mut snapshot = Snapshot::between(&first, &second);
        assert_eq!(snapshot.pools.len(), 1);
        let pool = &snapshot.pools[0];
        assert_eq!(
            (pool.ready, pool.picks, pool.hit_ratio),
            (2.0, 10.0, Some(0.75))
        );
        assert!((pool.decision_p50_us.unwrap() - 10.0).abs() < 1e-9);
        assert!((pool.decision_p99_us.unwrap() - 20.0).abs() < 1e-9);
        assert_eq!(snapshot.endpoints[0].kv, Some(0.25));
        assert_eq!(snapshot.endpoints[0].picks, 10.0);
        snapshot.sort(Column::Queue, false);
        assert_eq!(snapshot.endpoints[0].endpoint, "10.0.0.2:80");
        snapshot.sort(Column::Queue, true);
        assert_eq!(snapshot.endpoints[0].endpoint, "10.0.0.1:80");
    }

    #[test]
    fn flow_control_has_what_waits_and_its_rates() {
        let page = "epp_wasm_flow_control_pool_saturation_ppm{pool=\"p\",stage=\"decode\"} 1250000
epp_wasm_flow_control_pool_saturation_ppm{pool=\"p\",stage=\"effective\"} 1250000
llm_d_epp_flow_control_queue_size{pool=\"p\",priority=\"10\"} 0
llm_d_epp_flow_control_queue_size{pool=\"p\",priority=\"-1\"} 7
llm_d_epp_flow_control_requests_total{pool=\"p\",priority=\"0\",outcome=\"Dispatched\"} 10
llm_d_epp_flow_control_requests_total{pool=\"p\",priority=\"-1\",outcome=\"Dispatched\"} 10
";
        let now = Instant::now();
        let first = Sample::parse(page, now);
        let more = page.replace("Dispatched\"} 10", "Dispatched\"} 14")
            + "llm_d_epp_flow_control_requests_total{pool=\"p\",priority=\"0\",outcome=\"EvictedTTL\"} 3\n";
        let second = Sample::parse(&more, now + Duration::from_secs(2));
        let flow = Snapshot::between(&first, &second).pools[0].flow.clone();
        let expected = Flow {
            saturation: 1.25,
            waiting: BTreeMap::from([(-1, 7.0)]),
            sent: 4.0,
            rejected: 0.0,
            expired: 1.5,
        };
        assert_eq!(flow, Some(expected));
        let without = Sample::parse(FIRST, now);
        assert_eq!(Snapshot::between(&without, &without).pools[0].flow, None);
    }

    #[test]
    fn a_pool_without_endpoints_has_no_negative_rate() {
        let page = "llm_d_epp_ready_endpoints{pool=\"p\"} 0\n";
        let sample = Sample::parse(page, Instant::now());
        let picks = Snapshot::between(&sample, &sample).pools[0].picks;
        assert!(picks.is_sign_positive());
    }

    #[test]
    fn an_envoy_without_the_filter_has_nothing() {
        let page = "envoy_cluster_x{envoy_cluster_name=\"p\"} 7\nenvoy_y{} 1\n";
        assert!(Sample::parse(page, Instant::now()).is_empty());
    }
}

//! The problems of a pool, each with what to do about it: the list at the top of its section, empty if there are none.

use epp_core::picker::status::DecisionBasis;
use epp_core::scheduling::{Freshness, Slot};

use super::Pool;

/// One thing that is wrong.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    /// The problem, in a sentence.
    pub what: String,
    /// What to check or to do, in a sentence.
    pub remedy: &'static str,
}

/// Returns what needs attention in a pool, the worst first.
pub fn findings(pool: &Pool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |applies: bool, what: String, remedy| {
        if applies {
            findings.push(Finding { what, remedy });
        }
    };
    let endpoints: Vec<_> = pool.store.pool.iter().collect();
    let all = endpoints.len();
    find(
        all == 0,
        "The pool has no endpoints.".to_owned(),
        "Compare `clusters` of the discovery plugin with the clusters on Envoy's admin page /clusters.",
    );
    let healthy = endpoints
        .iter()
        .filter(|(_, endpoint)| endpoint.available)
        .count();
    find(
        healthy < all,
        format!("{} not healthy in Envoy's cluster: no requests go there.", of(all - healthy, all, "endpoint")),
        "The health flags on Envoy's admin page /clusters say why: a failed health check, Envoy's outlier detection, draining.",
    );
    let totals = pool.totals();
    let is_ejected = |slot: Slot| {
        totals
            .get(slot.index())
            .is_some_and(|of| of.ejected.is_some())
    };
    let ejected = endpoints
        .iter()
        .filter(|(slot, _)| is_ejected(*slot))
        .count();
    find(
        ejected > 0,
        format!("{} ejected because requests failed there.", of(ejected, all, "endpoint")),
        "Look at the model server's log; the column “ejected” says how requests fail. An endpoint is used again once a probe request succeeds.",
    );
    let unscraped = endpoints
        .iter()
        .filter(|(_, endpoint)| endpoint.freshness != Freshness::Fresh)
        .count();
    // A configuration that needs no metrics decides by all that it needs and scrapes nothing.
    let needed = unscraped < all
        || pool
            .statuses()
            .any(|report| report.decision_basis < DecisionBasis::Metrics);
    find(
        unscraped > 0 && needed,
        format!("{} without fresh metrics: metric scorers assume the average of the others.", of(unscraped, all, "endpoint")),
        "Check that Envoy can fetch the metrics page, by the path, port and TLS settings of metrics-data-source; llm_d_epp_datalayer_poll_errors_total counts failures by endpoint.",
    );
    workers(pool, &mut find);
    findings
}

fn workers(pool: &Pool, find: &mut impl FnMut(bool, String, &'static str)) {
    let all = pool.statuses().count();
    let polls = pool.statuses().filter(|report| report.polls).count();
    find(
        polls == 0,
        "No worker polls the endpoints' metrics.".to_owned(),
        "Another worker takes over within a second; if this stays, look for errors in Envoy's log.",
    );
    let different = pool.different_configurations();
    find(
        different > 0,
        format!(
            "{} on a different configuration.",
            of(different, all, "worker")
        ),
        "An update is being rolled out, or was rejected: Envoy's log has the reason.",
    );
    let unread = pool
        .statuses()
        .filter(|report| !report.reads_bodies)
        .count();
    find(
        unread > 0,
        format!(
            "{} routing without request bodies: prompts and models make no difference.",
            of(unread, all, "worker")
        ),
        "Set allow_on_headers_stop_iteration on the filter, unless `readBody: never` is intended.",
    );
    let replies: i64 = pool.statuses().map(|report| report.counts.refused).sum();
    find(
        replies > 0,
        format!("{} rejected because no endpoint could be picked.", requests(replies)),
        "Latest decisions have the reason if it still happens; llm_d_epp_request_error_total counts by error code. The count starts again with the worker.",
    );
    let fallbacks: i64 = pool.statuses().map(|report| report.counts.fallbacks).sum();
    find(
        fallbacks > 0,
        format!("{} left to Envoy's load balancing because no endpoint could be picked.", requests(fallbacks)),
        "Latest decisions have the reason if it still happens; epp_wasm_fallback_total counts by error code. The count starts again with the worker.",
    );
}

/// Returns how many of all these things are something.
fn of(count: usize, all: usize, thing: &str) -> String {
    let are = if count == 1 { "is" } else { "are" };
    format!("{count} of {all} {thing}s {are}")
}

fn requests(count: i64) -> String {
    match count {
        1 => "1 request was".to_owned(),
        count => format!("{count} requests were"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use epp_core::picker::status::{Counts, Status};
    use epp_core::time::{Clock, Timestamp};
    use epp_sync::report::{PlanReport, Report};

    use crate::Vm;

    fn pool(plan: u64, status: Status) -> Pool {
        let report = Report {
            plan,
            status,
            ..Report::default()
        };
        Pool {
            vms: vec![Vm {
                report: Some(report),
                ..Vm::default()
            }],
            ..Pool::default()
        }
    }

    fn first_words(pool: &Pool) -> Vec<String> {
        let findings = findings(pool).into_iter();
        let words = |what: String| what.split(' ').take(4).collect::<Vec<_>>().join(" ");
        findings.map(|finding| words(finding.what)).collect()
    }

    #[test]
    fn every_problem_is_listed_with_its_cause() {
        let well = Status {
            polls: true,
            reads_bodies: true,
            decision_basis: DecisionBasis::Metrics,
            ..Status::default()
        };
        let mut healthy = pool(0, well.clone());
        let member = epp_core::endpoints::store::Member {
            name: "p".to_owned(),
            address: "p:80".to_owned(),
            available: true,
            ..Default::default()
        };
        let slot = Slot(0);
        healthy.store.set_member(slot, &member);
        healthy.store.set_metrics(
            slot,
            Default::default(),
            false,
            Timestamp::from_millis(1_000),
        );
        let clock = Clock::starting_at(Timestamp::from_millis(1_000));
        healthy.store.refresh(&clock, Duration::from_millis(2_000));
        healthy.plan = Some(PlanReport::default());
        assert_eq!(first_words(&healthy), Vec::<String>::new());

        let broken = Status {
            counts: Counts {
                refused: 2,
                fallbacks: 3,
                ..Counts::default()
            },
            ..Status::default()
        };
        healthy.vms = pool(1, broken).vms;
        let clock = Clock::starting_at(Timestamp::from_millis(9_000));
        healthy.store.refresh(&clock, Duration::from_millis(2_000));
        assert_eq!(
            first_words(&healthy),
            [
                "1 of 1 endpoints",
                "No worker polls the",
                "1 of 1 workers",
                "1 of 1 workers",
                "2 requests were rejected",
                "3 requests were left",
            ]
        );
        assert_eq!(first_words(&pool(0, well))[0], "The pool has no");
    }
}

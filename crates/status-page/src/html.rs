//! The page's HTML: no script, nothing loaded from elsewhere, light or dark as the browser is set.

use maud::{html, Markup, PreEscaped, DOCTYPE};

use super::columns::{head, legend, DECISIONS, ENDPOINTS, TOTALS, WORKERS};
use super::{verdict, Decided, Pool, Totals, Vm, REFRESH};
use epp_core::endpoints::store;
use epp_core::findings::{Condition, Severity};
use epp_core::picker::shown as rounded;
use epp_core::picker::status::{Candidate, DecisionBasis, PlanSummary, RecentDecision};
use epp_core::picker::HIGH_MEMORY;
use epp_core::scheduling::{Endpoint, Freshness, Slot};

const STYLE: &str = include_str!("style.css");

/// Endpoints of a worker's requests in flight that are listed one by one; a pool may have a thousand.
const LISTED_ENDPOINTS: usize = 4;

/// Returns the page as of `now`, in milliseconds since 1970.
///
/// `build` is that of the module which serves the page, `other` that of the pickers if it is another one.
pub fn page(pools: &[Pool], now: u64, build: &str, other: Option<&str>) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            meta charset="utf-8";
            meta http-equiv="refresh" content=(REFRESH);
            title { "epp-wasm: endpoint picker" }
            style { (PreEscaped(STYLE)) }
            h1 { "epp-wasm" }
            p { "The endpoint picker of this Envoy: which model server each request goes to, and why." }
            p #asof { "Updated " (clock(now)) " UTC. Refreshes every " (REFRESH) " s." }
            @if let Some(other) = other {
                p #build.bad {
                    "The pickers run " (other) ", and this listener " (build) ": give it the same module. Versions that do not "
                    "share their data leave this page empty."
                }
            }
            @if pools.is_empty() {
                p #waiting {
                    "Collecting data: workers report every 500 ms while this page is open. If it stays empty, no picker runs in "
                    "this Envoy, or the pickers have another " code { "vm_id" } " than this listener."
                }
            }
            @for pool in pools { (pool_of(pool, now)) }
        }
    };
    page.into_string()
}

fn pool_of(pool: &Pool, now: u64) -> Markup {
    html! {
        section {
            h2 { "Pool " (pool.cluster) }
            (verdict_on(pool, now))
            p { "Filter " code { (pool.plugin) } @if let Some(plan) = &pool.plan { ", configuration " code { (format!("{:016x}", plan.id)) } ": " (plan.summary.summary) } }
            h3 { "Endpoints" }
            (endpoints(pool, now))
            (flow(pool))
            h3 { "Workers" }
            (workers(pool, now))
            h3 { "Requests since each worker started" }
            (totals(pool))
            h3 { "Latest decisions" }
            (decisions(pool, now))
            h3 { "Configuration in use" }
            @match &pool.plan {
                Some(plan) => (plan_of(&plan.summary)),
                None => p { "Not reported yet: the worker that polls reports it." },
            }
        }
    }
}

/// Returns whether the pool is healthy, and what is wrong, each with its cause and what to do about it.
fn verdict_on(pool: &Pool, now: u64) -> Markup {
    let findings = verdict::findings(pool);
    let serious = |one: &Condition| one.finding.severity() < Severity::Note;
    html! {
        p.verdict.bad[findings.iter().any(serious)] { (verdict::summary(&findings)) }
        ul.findings {
            @for one in &findings {
                li {
                    span.bad[serious(one)] { (one.finding.severity().name()) ": " (one.finding.cause()) }
                    " [" (one.detail) "] " (one.finding.remedy()) " " code { (one.finding.id()) }
                    @if one.since > 0 { " for " (ago(now, one.since)) }
                }
            }
        }
    }
}

fn endpoints(pool: &Pool, now: u64) -> Markup {
    if pool.store.pool.iter().next().is_none() {
        return html! { p { "No endpoints are known." } };
    }
    let totals = pool.totals();
    html! {
        p {
            "The model servers of this pool. Waiting and running requests, KV cache and LoRA adapters are what they "
            "report for all clients; requests and tokens in flight, and picks, are this Envoy's."
        }
        table.endpoints {
            (head(ENDPOINTS))
            tbody {
                @for (slot, endpoint) in pool.store.pool.iter() {
                    (endpoint_of(pool, slot, endpoint, totals.get(slot.index()).copied().unwrap_or_default(), now))
                }
            }
        }
        (legend(ENDPOINTS))
    }
}

fn endpoint_of(
    pool: &Pool,
    slot: Slot,
    endpoint: &Endpoint,
    totals: Totals<'_>,
    now: u64,
) -> Markup {
    let store::Condition {
        scraped,
        failures,
        rest,
    } = pool.store.condition(slot);
    let rests = endpoint.freshness == Freshness::Fresh && failures == 0 && rest > 0;
    let fresh = match endpoint.freshness {
        Freshness::Fresh => "fresh",
        Freshness::Stale => "stale",
        Freshness::Unknown => "never scraped",
    };
    let metrics = &endpoint.metrics;
    let lora = &metrics.lora;
    let Totals {
        requests,
        tokens,
        picks,
        obstacle,
        poll_error,
    } = totals;
    html! {
        tr {
            td.l { (endpoint.address) @if *endpoint.name != *endpoint.address { br; code { (endpoint.name) } } }
            td.picked.bad[!endpoint.is_available() || obstacle.is_some()] {
                @match (obstacle, endpoint.is_available()) {
                    (Some(reason), _) => { "no: " (reason) }
                    (None, false) => { "no: " (endpoint.health.name()) }
                    (None, true) => "yes",
                }
            }
            td.bad[fresh != "fresh"] { (fresh) @if metrics.from_loads { ", /v1/loads" } @if rests { ", at rest" } @if failures > 0 { ", " (failures) " failed" @if let Some(reason) = poll_error { ": " (reason) } } }
            td { @if let Some(scraped) = scraped { (now.saturating_sub(scraped.as_millis())) " ms" } @else { "–" } }
            td { (whole(metrics.waiting)) }
            td { (whole(metrics.running)) }
            td { (percent(metrics.kv_usage)) }
            td { @if lora.max > 0 { (lora.active.len()) " active, " (lora.waiting.len()) " waiting, at most " (lora.max) } @else { "–" } }
            td.in-flight { (requests) }
            td { (tokens) }
            td { (picks) }
        }
    }
}

/// Returns what waits under flow control and why; nothing without it.
fn flow(pool: &Pool) -> Markup {
    let reports = pool.vms.iter().filter_map(|vm| {
        let (state, bands) = vm.report.as_ref()?.status.flow.split_first()?;
        Some((vm.worker, state, bands))
    });
    html! {
        @for (place, (worker, state, bands)) in reports.enumerate() {
            @if place == 0 { h3 { "Flow control" } }
            p.flow { "Worker " (worker) ": " (state) @for band in bands { br; (band) } }
        }
    }
}

fn workers(pool: &Pool, now: u64) -> Markup {
    html! {
        p {
            "A worker is one of Envoy's worker threads, or its main thread: each has a picker of its own, and one of them "
            "polls the endpoints' metrics for all. Held requests wait for more of their body. The prefix index says which prompts "
            "each endpoint has probably cached."
        }
        table.workers {
            (head(WORKERS))
            tbody { @for vm in &pool.vms { (worker(pool, vm, now)) } }
        }
        (legend(WORKERS))
    }
}

fn worker(pool: &Pool, vm: &Vm, now: u64) -> Markup {
    let Some(report) = &vm.report else {
        return html! {
            tr {
                td.worker { (vm.worker) } td.l { "–" } td.l { "–" } td.heartbeats { (vm.record.heartbeat) }
                td.l colspan="10" { "no report yet" }
            }
        };
    };
    let status = &report.status;
    let index = &status.index;
    let (under_way, held) = status.under_way;
    html! {
        tr {
            td.worker { (vm.worker) }
            td.l.traffic { @if status.serves { "requests" } @else { "none yet" } }
            td.l.polls { @if status.polls { "yes" } @else { "no" } }
            td.heartbeats { (vm.record.heartbeat) }
            td { (ago(now, report.at)) " ago" }
            td.l.bad[status.decision_basis < DecisionBasis::Metrics] {
                @match status.decision_basis {
                    DecisionBasis::Metrics => "metrics",
                    DecisionBasis::OwnCounts => "its own counts",
                    DecisionBasis::Nothing => "nothing yet",
                }
            }
            td.bad[!status.reads_bodies] { @if status.reads_bodies { "read" } @else { "not read" } }
            td { (under_way) }
            td { (held) }
            td.w { (in_flight(pool, vm)) }
            td.entries { (index.entries) }
            td { (percent(Some(index.bytes as f64 / index.bound.max(1) as f64))) }
            td { (index.evictions) }
            td.bad[status.memory > HIGH_MEMORY] { (megabytes(status.memory)) }
        }
    }
}

/// Returns the table of each worker's counters.
fn totals(pool: &Pool) -> Markup {
    let reported = pool
        .vms
        .iter()
        .filter_map(|vm| Some((vm.worker, &vm.report.as_ref()?.status.counts)));
    html! {
        p {
            "A decision made early did not wait for the end of the request's body. Requests for which no endpoint could be picked were "
            "rejected, or left to the load balancing of Envoy's cluster, as failureMode says. A retry went to another endpoint than the picked one."
        }
        table.totals {
            (head(TOTALS))
            tbody {
                @for (worker, counts) in reported {
                    tr {
                        td { (worker) }
                        td { (counts.decided) }
                        td { (counts.early) }
                        td.bad[counts.refused > 0] { (counts.refused) }
                        td.bad[counts.fallbacks > 0] { (counts.fallbacks) }
                        td { (counts.elsewhere) }
                        td { (counts.left_alone) }
                    }
                }
            }
        }
        (legend(TOTALS))
    }
}

fn in_flight(pool: &Pool, vm: &Vm) -> Markup {
    let loads = &vm.record.presence.loads;
    html! {
        @if loads.is_empty() { "–" }
        @for (position, load) in loads.iter().take(LISTED_ENDPOINTS).enumerate() {
            @if position > 0 { ", " }
            (pool.address(load.slot).filter(|_| pool.is_there(load)).unwrap_or("(gone)")) ": " (load.requests)
        }
        @if loads.len() > LISTED_ENDPOINTS { " and " (loads.len() - LISTED_ENDPOINTS) " more endpoints" }
    }
}

/// Returns a column for each scorer of the decisions shown. Decisions of one configuration have the same.
fn scorers(decisions: &[Decided<'_>]) -> Vec<(String, f64)> {
    let mut columns: Vec<(String, f64)> = Vec::new();
    for scorer in decisions
        .iter()
        .filter_map(|decided| decided.legend)
        .flat_map(|legend| &legend.scorers)
    {
        if !columns.contains(scorer) {
            columns.push(scorer.clone());
        }
    }
    columns
}

fn decisions(pool: &Pool, now: u64) -> Markup {
    let decisions = pool.decisions();
    let scorers = scorers(&decisions);
    html! {
        @if decisions.is_empty() {
            p { "No decisions recorded since this page was opened." }
        } @else {
            p {
                "The best candidates of each decision; the picked endpoint is highlighted. The weighted sum adds up each scorer's score, "
                "from 0 to 1, times the weight in its title. Workers record at most 50 decisions every 500 ms."
            }
            table.decisions {
                thead { tr {
                    @for (class, name, meaning) in DECISIONS { th class=(class) { abbr title=(meaning) { (name) } } }
                    @for (name, weight) in &scorers { th { (name) " × " (weight) } }
                } }
                @for decided in &decisions { (decision(pool, decided, &scorers, now)) }
            }
            (legend(DECISIONS))
        }
    }
}

fn decision(pool: &Pool, decided: &Decided<'_>, scorers: &[(String, f64)], now: u64) -> Markup {
    let shown = decided.shown;
    let rows = shown.best.len().max(1);
    html! {
        tbody.one {
            @if shown.best.is_empty() {
                tr {
                    (facts(decided, rows, now))
                    td.l.bad colspan=(2 + scorers.len()) { (shown.error.as_deref().unwrap_or("no endpoint left")) }
                }
            }
            @for (position, candidate) in shown.best.iter().enumerate() {
                tr.pick[position < shown.picks] {
                    @if position == 0 { (facts(decided, rows, now)) }
                    td.l { (pool.named(candidate)) }
                    td { (format!("{:.3}", rounded(candidate.sum.into(), 1e-3))) }
                    @for scorer in scorers { td { (given(decided, candidate, scorer)) } }
                }
            }
        }
    }
}

fn facts(decided: &Decided<'_>, rows: usize, now: u64) -> Markup {
    let shown = decided.shown;
    html! {
        td rowspan=(rows) { (ago(now, shown.at)) " ago" }
        td rowspan=(rows) { (decided.worker) }
        td.l rowspan=(rows) { @if shown.model.is_empty() { "–" } @else { (shown.model) } }
        td rowspan=(rows) { (shown.tokens) }
        td rowspan=(rows) { (percent(shown.cached_share.map(f64::from))) }
        td rowspan=(rows) {
            @if shown.early { "early" } @else { "at the body's end" }
            @for part in &shown.parts { br; (part) }
        }
        td.l rowspan=(rows) { (filtered(decided, shown)) }
        td rowspan=(rows) { (shown.candidates) }
    }
}

fn filtered(decided: &Decided<'_>, shown: &RecentDecision) -> Markup {
    let names = decided.legend.map(|legend| legend.filters.as_slice());
    html! {
        @if shown.removed.is_empty() { "–" }
        @for (position, (name, removed)) in names.unwrap_or_default().iter().zip(&shown.removed).enumerate() {
            @if position > 0 { br; }
            (name) ": " (removed)
        }
    }
}

/// Returns the score that a scorer gave a candidate.
fn given(decided: &Decided<'_>, candidate: &Candidate, scorer: &(String, f64)) -> String {
    let legend = decided.legend.map(|legend| legend.scorers.iter());
    let place = legend.and_then(|mut scorers| scorers.position(|known| known == scorer));
    let score = place.and_then(|place| candidate.scores.get(place));
    score.map_or("–".to_owned(), |score| format!("{score:.3}"))
}

fn plan_of(plan: &PlanSummary) -> Markup {
    html! {
        @if !plan.approximations.is_empty() {
            p { "Decisions may differ from the Endpoint Picker's:" }
            ul.approximations { @for one in &plan.approximations { li { (one) } } }
        }
        table.plan {
            thead { tr { th.l { "profile" } th.l { "plugin" } th.l { "type" } th { "weight" } th.w { "parameters" } } }
            tbody {
                @for part in &plan.plugins {
                    tr {
                        td.l { @if part.profile.is_empty() { "–" } @else { (part.profile) } }
                        td.l { (part.name) }
                        td.l { (part.kind) }
                        td { @match part.weight { Some(weight) => (weight), None => "–" } }
                        td.w { code { (part.parameters) } }
                    }
                }
            }
        }
    }
}

fn whole(value: Option<f64>) -> String {
    value.map_or("–".to_owned(), |value| format!("{value:.0}"))
}

fn percent(share: Option<f64>) -> String {
    share.map_or("–".to_owned(), |share| format!("{:.1} %", share * 100.0))
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn ago(now: u64, then: u64) -> String {
    format!("{:.1} s", now.saturating_sub(then) as f64 / 1_000.0)
}

fn clock(now: u64) -> String {
    let seconds = now / 1_000;
    let (hours, minutes) = (seconds / 3_600 % 24, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}", seconds % 60)
}

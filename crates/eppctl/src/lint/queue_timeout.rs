//! A timeout of Envoy ends requests while they wait in a queue of flow control.

use std::time::Duration;

use epp_core::config::value::duration::parse_duration;
use epp_core::config::value::{Node, Path};
use epp_core::config::Plan;
use epp_core::flow::FlowControl;

use super::original_dst_open::leads_to;
use super::site::{below, path_below, Site};
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "queue-timeout",
    finds: "a timeout of Envoy that is shorter than requests may wait under flow control",
    why: "a request that waits in a queue is idle for Envoy, which ends it with 408 or 504 before its TTL; a route's timeout and per_try_timeout begin only when it is sent",
    fix: "raise the timeout (production templates: stream_idle_timeout: 3600s), or lower defaultRequestTTL and noEndpointRequestTTL",
    check: |site| {
        let mut faults = Vec::new();
        for (picker, plan) in site.loaded() {
            let Some(control) = &plan.flow else { continue };
            let longest = longest(control);
            faults.extend(of_connections(site, &picker.path, longest));
            faults.extend(of_routes(site, plan, longest));
        }
        faults
    },
};

/// Envoy's `stream_idle_timeout` where none is set.
const IDLE: Duration = Duration::from_secs(300);

/// Returns the longest time that a request may wait; `None` without a limit.
fn longest(control: &FlowControl) -> Option<Duration> {
    let defaults = [&control.default_band, &control.negative_band];
    let bands = control.bands.iter().chain(defaults);
    let limits = bands.map(|band| band.ttl.unwrap_or(control.ttl));
    let mut limits = limits.chain([control.empty_pool_ttl]);
    limits.try_fold(Duration::ZERO, |longest, limit| Some(longest.max(limit?)))
}

/// Returns what is wrong with a timeout.
fn wrong(timeout: Duration, longest: Option<Duration>) -> Option<String> {
    let too_short = !timeout.is_zero() && longest.is_none_or(|longest| timeout < longest);
    let longest = longest.map_or("without limit".to_owned(), |longest| {
        format!("for {} s", longest.as_secs_f64())
    });
    let timeout = timeout.as_secs_f64();
    too_short.then(|| format!("{timeout} s, while requests may wait {longest}"))
}

/// Checks the timeout at these keys below a place; without it, its default.
fn at(
    (path, map): (&Path, &Node),
    keys: &[&str],
    default: Option<Duration>,
    longest: Option<Duration>,
) -> Option<Fault> {
    match below(map, keys) {
        Some(Node::String(given)) => {
            let what = wrong(parse_duration(given)?, longest)?;
            Some(Fault::at(&path_below(path, keys), what))
        }
        Some(_) => None,
        None => {
            let what = wrong(default?, longest)?;
            Some(Fault::at(
                path,
                format!("no {}: Envoy's default is {what}", keys.join(".")),
            ))
        }
    }
}

/// Checks the connection manager that has this filter.
fn of_connections(site: &Site<'_>, filter: &Path, longest: Option<Duration>) -> Vec<Fault> {
    let managers = site.maps.iter().filter(|(path, map)| {
        filter.steps().starts_with(path.steps()) && map.get("http_filters").is_some()
    });
    let timeouts: [(&[&str], Option<Duration>); 3] = [
        (&["stream_idle_timeout"], Some(IDLE)),
        (&["request_timeout"], None),
        (
            &["common_http_protocol_options", "max_stream_duration"],
            None,
        ),
    ];
    let mut faults = Vec::new();
    for (path, manager) in managers {
        let found = timeouts
            .iter()
            .filter_map(|(keys, default)| at((path, manager), keys, *default, longest));
        faults.extend(found);
    }
    faults
}

/// Checks the routes to the pool.
fn of_routes(site: &Site<'_>, plan: &Plan, longest: Option<Duration>) -> Vec<Fault> {
    let timeouts: [&[&str]; 2] = [
        &["route", "idle_timeout"],
        &["route", "max_stream_duration", "max_stream_duration"],
    ];
    let routes = site
        .maps
        .iter()
        .filter(|(_, map)| map.get("route").is_some() && leads_to(map, plan.cluster()));
    let mut faults = Vec::new();
    for (path, route) in routes {
        faults.extend(
            timeouts
                .iter()
                .filter_map(|keys| at((path, route), keys, None, longest)),
        );
    }
    faults
}

#[cfg(test)]
mod tests {
    use crate::lint::found;

    const MINUTE: &str = "defaultRequestTTL: 60s";

    /// The demo's bootstrap with flow control, and these settings in its connection manager and its route.
    fn with(flow: &str, manager: &str, route: &str) -> Vec<String> {
        let bootstrap = include_str!("../../../../envoy/envoy.yaml");
        let parts = [
            ("kind: EndpointPickerConfig\n", format!("kind: EndpointPickerConfig\n                    featureGates: [flowControl]\n                    flowControl: {{{flow}}}\n")),
            ("stat_prefix: llm\n", format!("stat_prefix: llm\n          {manager}\n")),
            ("  timeout: 0s\n", format!("  timeout: 0s\n                  {route}\n")),
        ];
        let faulty = parts.iter().fold(bootstrap.to_owned(), |text, (at, with)| {
            assert_eq!(text.matches(at).count(), 1, "{at}");
            text.replace(at, with)
        });
        found(&super::RULE, &faulty)
    }

    #[test]
    fn finds_timeouts_that_end_requests_in_the_queue() {
        assert_eq!(with(MINUTE, "", ""), Vec::<String>::new());
        assert_eq!(with("defaultRequestTTL: 5m", "", ""), Vec::<String>::new());
        for (manager, route, field) in [
            ("stream_idle_timeout: 30s", "", "stream_idle_timeout"),
            ("request_timeout: 30s", "", "request_timeout"),
            (
                "common_http_protocol_options: {max_stream_duration: 30s}",
                "",
                "max_stream_duration",
            ),
            ("", "idle_timeout: 30s", "idle_timeout"),
            (
                "",
                "max_stream_duration: {max_stream_duration: 30s}",
                "max_stream_duration",
            ),
        ] {
            let found = with(MINUTE, manager, route);
            let what = format!("{field}: 30 s, while requests may wait for 60 s");
            assert!(
                found.len() == 1 && found[0].ends_with(&what),
                "{manager}{route}: {found:?}"
            );
            assert_eq!(
                with("defaultRequestTTL: 30s", manager, route),
                Vec::<String>::new()
            );
            let off = [manager, route].map(|text| text.replace("30s", "0s"));
            assert_eq!(with(MINUTE, &off[0], &off[1]), Vec::<String>::new());
        }
    }

    #[test]
    fn envoys_default_ends_what_waits_without_limit_or_longer() {
        for (flow, may) in [
            ("defaultRequestTTL: 0s", "without limit"),
            (
                "defaultRequestTTL: 60s, noEndpointRequestTTL: 10m",
                "for 600 s",
            ),
            (
                "defaultRequestTTL: 60s, priorityBands: [{priority: 3, defaultRequestTTL: 10m}]",
                "for 600 s",
            ),
            (
                "defaultRequestTTL: 60s, defaultNegativePriorityBand: {defaultRequestTTL: 10m}",
                "for 600 s",
            ),
        ] {
            let found = with(flow, "", "");
            let what = format!(
                "no stream_idle_timeout: Envoy's default is 300 s, while requests may wait {may}"
            );
            assert!(
                found.len() == 1 && found[0].ends_with(&what),
                "{flow}: {found:?}"
            );
            assert_eq!(
                with(flow, "stream_idle_timeout: 0s", ""),
                Vec::<String>::new()
            );
        }
    }
}

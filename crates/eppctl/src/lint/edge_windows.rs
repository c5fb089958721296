//! Over HTTP/2, Envoy gives up on a request before the picker has read enough.

use epp_core::config::value::{Node, Path};

use super::body_unread::{delivers, Delivers};
use super::edge_buffers::{holding, is_buffered_by_route, is_elsewhere, most};
use super::quantity::bytes;
use super::site::{below, number, path_below, Site};
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "edge-windows",
    finds: "an HTTP/2 window of streams below `decideAfterBytes`, in the listener or in Envoy Gateway's policy, where 64 KiB is the default",
    why: "the window of a stream is the buffer of an HTTP/2 request: Envoy replies with 413 to a held body that fills it, or resets the stream, whatever the listener's buffer",
    fix: "raise initial_stream_window_size of http2_protocol_options (Envoy Gateway: http2.initialStreamWindowSize of a ClientTrafficPolicy, as in envoy/gateway/traffic.yaml), or lower decideAfterBytes on the envoy-proxy plugin to match",
    check: |site| {
        let holding = holding(site);
        if is_buffered_by_route(site, most(holding.iter())) {
            return Vec::new();
        }
        let mut faults = managers(site, most(holding.iter()));
        // What Envoy Gateway delivers bodies to.
        let own = holding.iter().filter(|holding| {
            holding.picker.is_envoy_gateways(site) && delivers(site, holding.picker) == Delivers::Yes
        });
        let own: Vec<_> = own.collect();
        for (path, policy) in site.objects("ClientTrafficPolicy") {
            let here = own.iter().filter(|holding| !is_elsewhere(site, policy, holding.picker));
            faults.extend(of_policy(path, policy, most(here.copied())));
        }
        faults
    },
};

/// Checks the connection managers of Envoy's own configuration that set a window. Envoy's default is large enough.
fn managers(site: &Site<'_>, needed: f64) -> Vec<Fault> {
    let keys = ["http2_protocol_options", "initial_stream_window_size"];
    let managers = site
        .maps
        .iter()
        .filter(|(_, map)| map.get("http_filters").is_some());
    let windows = managers.filter_map(|(path, map)| {
        let window = number(below(map, &keys)?)?;
        low(&path_below(path, &keys), window, needed)
    });
    windows.collect()
}

/// The window that Envoy Gateway sets unless a policy changes it.
const GATEWAYS_OWN: f64 = 65_536.0;

fn of_policy(path: &Path, policy: &Node, needed: f64) -> Option<Fault> {
    let keys = ["spec", "http2", "initial_stream_window_size"];
    match below(policy, &keys) {
        Some(window) => low(&path_below(path, &keys), bytes(window)?, needed),
        None => low(&path.key("spec"), GATEWAYS_OWN, needed),
    }
}

fn low(path: &Path, window: f64, needed: f64) -> Option<Fault> {
    let what =
        format!("a window of {window} bytes for HTTP/2 streams, below decideAfterBytes ({needed})");
    (window < needed).then(|| Fault::at(path, what))
}

#[cfg(test)]
mod tests {
    use crate::lint::found;

    const PATCH: &str = include_str!("../../../../envoy/gateway/patch.yaml");
    const FILTER: &str = include_str!("../../../../envoy/gateway/filter.yaml");
    const TRAFFIC: &str = include_str!("../../../../envoy/gateway/traffic.yaml");

    #[test]
    fn finds_the_window_of_envoy_gateways_policy() {
        let window = "    initialStreamWindowSize: 2Mi\n";
        let with = |wrong: &str, patch: &str| {
            assert!(TRAFFIC.contains(window));
            let traffic = TRAFFIC.replace(window, wrong);
            found(&super::RULE, &format!("{FILTER}---\n{patch}---\n{traffic}"))
        };
        assert!(with(window, PATCH).is_empty());
        let low = with("    initialStreamWindowSize: 128Ki\n", PATCH);
        let place = "spec.http2.initialStreamWindowSize: a window of 131072 bytes";
        assert!(low.len() == 1 && low[0].starts_with(place), "{low:?}");
        let default = with("", PATCH);
        assert!(
            default.len() == 1 && default[0].starts_with("spec: a window of 65536 bytes"),
            "{default:?}"
        );
        // Bodies are not held.
        assert!(with("", "{}\n").is_empty());
        let buffered = format!(
            "{PATCH}---\nkind: BackendTrafficPolicy\nspec: {{requestBuffer: {{limit: 4Mi}}}}\n"
        );
        assert!(with("", &buffered).is_empty());
    }

    #[test]
    fn finds_the_window_of_a_listener() {
        let dump = include_str!("../../../../tests/deploy/gateway/full.xds.yaml");
        assert!(found(&super::RULE, dump).is_empty());
        let window = "initial_stream_window_size: 2097152";
        assert!(dump.contains(window));
        let low = found(
            &super::RULE,
            &dump.replace(window, "initial_stream_window_size: 65536"),
        );
        assert!(
            low.len() == 1 && low[0].contains("a window of 65536"),
            "{low:?}"
        );
    }
}

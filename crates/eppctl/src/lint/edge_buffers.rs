//! Envoy replies with 413 before the picker has read enough.

use epp_core::config::settings::ReadBody;
use epp_core::config::value::{Node, Path};

use super::body_unread::{delivers, Delivers};
use super::patches::{apart, operations, patches, Patch};
use super::picker::{Home, Picker};
use super::quantity::bytes;
use super::site::{below, entries, number, path_below, text, text_below, Site};
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "edge-buffers",
    finds: "a listener buffer below `decideAfterBytes`, in the listener, a patch or a policy",
    why: "Envoy replies with 413 when a held body fills the listener's buffer; 32 KiB, as edge guides recommend and Envoy Gateway sets, is less than a typical prompt",
    fix: "raise the listener's per_connection_buffer_limit_bytes (Istio: a LISTENER patch; Envoy Gateway: connection.bufferLimit of a ClientTrafficPolicy, and for HTTP/2 also http2.initialStreamWindowSize), or lower decideAfterBytes on the envoy-proxy plugin to match",
    check: |site| {
        let holding = holding(site);
        let mut faults = listeners(site, &holding);
        faults.extend(patched(site, &holding));
        faults.extend(of_envoy_gateway(site, &holding));
        faults
    },
};

const LIMIT: &str = "per_connection_buffer_limit_bytes";

/// The limit that Envoy Gateway sets unless a policy changes it.
const GATEWAYS_OWN: f64 = 32_768.0;

/// A picker that holds bodies until it has read `needed` bytes.
pub struct Holding<'s> {
    /// The picker.
    pub picker: &'s Picker<'s>,
    /// What Envoy must be able to hold of a request.
    pub needed: f64,
}

/// Returns the pickers that hold bodies.
pub fn holding<'s>(site: &'s Site<'_>) -> Vec<Holding<'s>> {
    let holding = site.loaded().filter_map(|(picker, plan)| {
        // Bodies that are not delivered are not held.
        let holds = plan.settings.read_body != ReadBody::Never
            && !matches!(picker.home, Home::WasmPlugin | Home::HigressPlugin);
        let needed = plan.settings.decide_after_bytes as f64;
        holds.then_some(Holding { picker, needed })
    });
    holding.collect()
}

/// Returns whether a route has a buffer of its own for so much, which counts instead of the listener's and of windows.
pub fn is_buffered_by_route(site: &Site<'_>, needed: f64) -> bool {
    let operations = operations(site);
    let set = operations.iter().filter_map(|operation| {
        number(
            operation
                .sets("RouteConfiguration", "request_body_buffer_limit")?
                .1,
        )
    });
    let policies = site.objects("BackendTrafficPolicy");
    let policies = policies
        .filter_map(|(_, policy)| bytes(below(policy, &["spec", "request_buffer", "limit"])?));
    set.chain(policies).any(|limit| limit >= needed)
}

/// Returns the most that one of them needs.
pub fn most<'s>(holding: impl Iterator<Item = &'s Holding<'s>>) -> f64 {
    holding.map(|holding| holding.needed).fold(0.0, f64::max)
}

fn low(path: &Path, limit: f64, needed: f64) -> Option<Fault> {
    let what = format!("{limit} bytes, below decideAfterBytes ({needed})");
    (limit < needed).then(|| Fault::at(path, what))
}

/// Checks listeners of Envoy's own configuration, with the patches in these files applied.
fn listeners(site: &Site<'_>, holding: &[Holding<'_>]) -> Vec<Fault> {
    let needed = most(holding.iter());
    let patches = patches(site);
    let mut faults = Vec::new();
    for (path, map) in &site.maps {
        let limit = map.get(LIMIT).and_then(number);
        let chains = ["filter_chains", "default_filter_chain"];
        let is_listener = chains.iter().any(|key| map.get(key).is_some());
        let Some(limit) = limit.filter(|_| is_listener) else {
            continue;
        };
        let last = patches
            .iter()
            .rfind(|patch| limit_of(patch).is_some() && is_for(patch, map));
        let raised = last
            .and_then(limit_of)
            .is_some_and(|(_, limit)| limit >= needed);
        if !raised {
            faults.extend(low(&path.key(LIMIT), limit, needed));
        }
    }
    faults
}

/// Returns the limit that an Istio patch sets on listeners.
fn limit_of(patch: &Patch<'_>) -> Option<(Path, f64)> {
    if patch.target() != "LISTENER" || patch.operation() == "REMOVE" {
        return None;
    }
    let value = patch.value()?;
    // A whole listener is checked as one.
    if value.get("filter_chains").is_some() {
        return None;
    }
    Some((patch.place(&[LIMIT]), value.get(LIMIT).and_then(number)?))
}

/// Returns whether a patch may apply to this listener.
fn is_for(patch: &Patch<'_>, listener: &Node) -> bool {
    let wanted = text_below(patch.entry, &["match", "listener", "name"]);
    let port = below(patch.entry, &["match", "listener", "port_number"]).and_then(number);
    let own = below(listener, &["address", "socket_address", "port_value"]).and_then(number);
    (wanted.is_empty() || wanted == text(listener, "name")) && (port.is_none() || port == own)
}

/// Checks Istio patches of listeners that no later patch overrides.
fn patched(site: &Site<'_>, holding: &[Holding<'_>]) -> Vec<Fault> {
    let patches = patches(site);
    let limits: Vec<_> = patches
        .iter()
        .filter_map(|patch| Some((patch, limit_of(patch)?)))
        .collect();
    let mut faults = Vec::new();
    for (index, (patch, (path, limit))) in limits.iter().enumerate() {
        let concerned = holding
            .iter()
            .filter(|holding| shares(patch, holding.picker, &patches));
        let needed = most(concerned);
        let after = limits.iter().skip(index + 1);
        let mut raised = after.filter(|(later, (_, limit))| {
            let wanted = |patch: &Patch<'_>| below(patch.entry, &["match", "listener"]).cloned();
            let covers = wanted(later).is_none() || wanted(later) == wanted(patch);
            *limit >= needed && covers && patch.meets(later)
        });
        if raised.next().is_none() {
            faults.extend(low(path, *limit, needed));
        }
    }
    faults
}

/// Returns whether a patch may apply to the proxies that a picker runs in.
fn shares(patch: &Patch<'_>, picker: &Picker<'_>, patches: &[Patch<'_>]) -> bool {
    let own = patches
        .iter()
        .find(|own| picker.path.steps().starts_with(own.path.steps()));
    own.is_none_or(|own| patch.meets_context(own) && patch.shares_proxies(own.filter))
}

/// Checks Envoy Gateway's listeners: its ClientTrafficPolicies, and patches of generated listeners.
fn of_envoy_gateway(site: &Site<'_>, holding: &[Holding<'_>]) -> Vec<Fault> {
    let needed = most(holding.iter());
    let operations = operations(site);
    let set = operations
        .iter()
        .filter_map(|operation| operation.sets("Listener", LIMIT));
    let mut limits: Vec<(Path, f64)> = set
        .filter_map(|(path, node)| Some((path, number(node)?)))
        .collect();
    // A whole listener that a patch adds is checked as one.
    limits.retain(|(path, _)| {
        let whole = |(place, map): &(Path, &Node)| {
            place.key(LIMIT) == *path && map.get("filter_chains").is_some()
        };
        !site.maps.iter().any(whole)
    });
    let keys = ["spec", "connection", "buffer_limit"];
    for (path, policy) in site.objects("ClientTrafficPolicy") {
        if holding
            .iter()
            .all(|holding| is_elsewhere(site, policy, holding.picker))
        {
            continue;
        }
        let limit = below(policy, &keys).and_then(bytes);
        limits.extend(limit.map(|limit| (path_below(path, &keys), limit)));
    }
    if is_buffered_by_route(site, needed) {
        return Vec::new();
    }
    let mut faults: Vec<Fault> = Vec::new();
    let own = |holding: &&Holding<'_>| holding.picker.is_envoy_gateways(site);
    if limits.is_empty() {
        let small = holding.iter().filter(own).filter(|holding| {
            holding.needed > GATEWAYS_OWN && delivers(site, holding.picker) != Delivers::No
        });
        faults.extend(small.map(|holding| {
            let what = format!(
                "a ClientTrafficPolicy with connection.bufferLimit: Envoy Gateway's listeners have {GATEWAYS_OWN} bytes, below decideAfterBytes ({})",
                holding.needed
            );
            Fault::not_seen(&holding.picker.document, what)
        }));
    }
    faults.extend(
        limits
            .iter()
            .filter_map(|(path, limit)| low(path, *limit, needed)),
    );
    faults
}

/// Returns whether a policy is for other gateways than a picker is in, as far as the files show it.
pub fn is_elsewhere(site: &Site<'_>, policy: &Node, picker: &Picker<'_>) -> bool {
    let mut objects = ["EnvoyExtensionPolicy", "EnvoyPatchPolicy"]
        .into_iter()
        .flat_map(|kind| site.objects(kind));
    let own = objects.find(|(path, _)| picker.path.steps().starts_with(path.steps()));
    let is_gateways = |object: &Node| {
        let one = below(object, &["spec", "target_ref"]);
        let mut targets = entries(object, &["spec", "target_refs"]).iter().chain(one);
        targets.all(|target| text(target, "kind") == "Gateway")
    };
    // What is attached to a route is at gateways that only the route names.
    own.is_some_and(|(_, own)| is_gateways(own) && is_gateways(policy) && apart(own, policy))
}

#[cfg(test)]
mod tests {
    use crate::lint::{finds, found};

    const FILTER: &str = include_str!("../../../../envoy/istio/filter.yaml");

    #[test]
    fn finds_the_edges_advice() {
        let right = "  - name: llm\n    address";
        let wrong = "  - name: llm\n    per_connection_buffer_limit_bytes: 32768\n    address";
        finds(&super::RULE, right, wrong);
        // The listener of a dump of Envoy Gateway.
        let dump = include_str!("../../../../tests/deploy/gateway/full.xds.yaml");
        assert!(found(&super::RULE, dump).is_empty());
        let limit = "  per_connection_buffer_limit_bytes: ";
        let low = dump.replace(&format!("{limit}2097152"), &format!("{limit}32768"));
        let low = found(&super::RULE, &low);
        assert!(
            low.len() == 1 && low[0].starts_with("listeners[1]."),
            "{low:?}"
        );
    }

    /// A patch of listeners with this limit, match and label of the gateway.
    fn patch(limit: &str, matched: &str, gateway: &str) -> String {
        format!("---\nkind: EnvoyFilter\nmetadata: {{namespace: llm}}\nspec:\n  workloadSelector: {{labels: {{gateway.networking.k8s.io/gateway-name: {gateway}}}}}\n  configPatches:\n  - applyTo: LISTENER\n    match: {matched}\n    patch: {{operation: MERGE, value: {{perConnectionBufferLimitBytes: {limit}}}}}\n")
    }

    #[test]
    fn finds_a_listener_patch_in_another_document() {
        let count = |patches: &[String]| {
            found(&super::RULE, &format!("{FILTER}{}", patches.concat())).len()
        };
        let (one, any) = ("{context: GATEWAY, listener: {name: a}}", "{}");
        assert_eq!(count(&[]), 0);
        assert_eq!(count(&[patch("32768", any, "llm")]), 1);
        assert_eq!(count(&[patch("'32768'", one, "llm")]), 1);
        assert_eq!(count(&[patch("2097152", any, "llm")]), 0);
        // The last one counts, where it is for the same listeners.
        assert_eq!(
            count(&[patch("32768", one, "llm"), patch("2097152", any, "llm")]),
            0
        );
        assert_eq!(
            count(&[patch("2097152", any, "llm"), patch("32768", any, "llm")]),
            1
        );
        assert_eq!(
            count(&[patch("32768", any, "llm"), patch("2097152", one, "llm")]),
            1
        );
        // Other proxies.
        assert_eq!(count(&[patch("32768", any, "other")]), 0);
        assert_eq!(
            count(&[patch("32768", "{context: SIDECAR_INBOUND}", "llm")]),
            0
        );
    }

    #[test]
    fn a_patch_raises_the_limit_of_a_listener() {
        let right = "  - name: llm\n    address";
        let wrong = "  - name: llm\n    per_connection_buffer_limit_bytes: 32768\n    address";
        let low = include_str!("../../../../envoy/envoy.yaml").replace(right, wrong);
        let with = |matched: &str| {
            let patch = patch("2097152", matched, "llm");
            found(&super::RULE, &format!("{low}{patch}")).len()
        };
        assert_eq!(with("{listener: {name: llm}}"), 0);
        assert_eq!(with("{listener: {portNumber: 10000}}"), 0);
        assert_eq!(with("{listener: {name: other}}"), 1);
    }

    #[test]
    fn finds_envoy_gateways_limits() {
        let policy = crate::lint::body_unread::tests::POLICY;
        let with = |more: &str| found(&super::RULE, &format!("{policy}---\n{more}"));
        let alone = with("{}");
        assert!(
            alone.len() == 1 && alone[0].starts_with("not seen: "),
            "{alone:?}"
        );
        let limit = |limit: &str| {
            with(&format!(
                "kind: ClientTrafficPolicy\nspec: {{connection: {{bufferLimit: {limit}}}}}\n"
            ))
        };
        let low = limit("32Ki");
        assert!(
            low.len() == 1 && low[0].contains("32768 bytes, below"),
            "{low:?}"
        );
        assert!(limit("2Mi").is_empty());
        let at = |gateway: &str| {
            let own = policy.replace("kind: HTTPRoute, name: vllm", "kind: Gateway, name: llm");
            let client = format!("kind: ClientTrafficPolicy\nspec: {{targetRefs: [{{kind: Gateway, name: {gateway}}}], connection: {{bufferLimit: 32Ki}}}}\n");
            let found = found(&super::RULE, &format!("{own}---\n{client}"));
            found
                .iter()
                .filter(|found| !found.starts_with("not seen"))
                .count()
        };
        assert_eq!(at("llm"), 1);
        assert_eq!(at("other"), 0);
        let patch = |value: &str| {
            with(&format!("kind: EnvoyPatchPolicy\nspec: {{jsonPatches: [{{type: x/envoy.config.listener.v3.Listener, operation: {{op: add, path: /per_connection_buffer_limit_bytes, value: {value}}}}}]}}\n"))
        };
        assert_eq!(patch("32768").len(), 1);
        assert!(patch("2097152").is_empty());
        let buffered = "kind: BackendTrafficPolicy\nspec: {requestBuffer: {limit: 4Mi}}\n";
        assert!(with(buffered).is_empty());
    }
}

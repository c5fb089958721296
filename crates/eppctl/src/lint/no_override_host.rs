//! The pool's cluster ignores the picker's choice.

use epp_core::config::value::{Node, Path};
use epp_core::config::Plan;

use super::gateway::{for_pool, policy_for};
use super::patches::{operations, patches};
use super::pool::{envoy_gateway, istio};
use super::routing::{overrides, to_metadata};
use super::site::{below, entries, holds, path_below, text, text_below, Site, DESTINATION};
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "no-override-host",
    finds: "a pool's cluster without the `override_host` policy, or with one that reads another header",
    why: "the picker's choice has no effect: the cluster balances by its own policy",
    fix: "give the cluster the override_host load balancing policy with override_host_sources: [{header: x-gateway-destination-endpoint}] (Istio: a CLUSTER patch, as in envoy/istio/cluster.yaml; Envoy Gateway: loadBalancer.endpointOverride of a BackendTrafficPolicy)",
    check: |site| {
        let mut faults = Vec::new();
        for (picker, plan) in site.loaded() {
            let name = plan.cluster();
            let mut own = Vec::new();
            if let Some((path, cluster)) = site.cluster(name) {
                own.extend(without_policy(site, path, cluster));
                own.extend(elsewhere(site, path, plan));
            } else if istio(name).is_some() {
                own.extend(istios(site, &picker.document, plan));
            } else if envoy_gateway(name).is_some() {
                own.extend(envoy_gateways(site, &picker.document, plan));
            }
            let fix = RULE.fix.replace(DESTINATION, &plan.settings.destination_header);
            faults.extend(own.into_iter().map(|fault| match fault.fix {
                Some(_) => fault,
                None => fault.fixed_by(&*fix),
            }));
        }
        faults
    },
};

/// Finds a cluster with a different policy that no patch in these files corrects.
fn without_policy(site: &Site<'_>, path: &Path, cluster: &Node) -> Option<Fault> {
    let name = text(cluster, "name");
    let policy = cluster.get("load_balancing_policy");
    let type_of = |text: &str| text.ends_with("override_host.v3.OverrideHost");
    let overridden = policy.is_some_and(|policy| holds(policy, &type_of))
        // header_to_metadata in front of Istio's own cluster chooses by metadata there.
        || text(cluster, "type") == "ORIGINAL_DST"
        || is_patched(site, name);
    (!overridden).then(|| Fault::at(path, format!("cluster {name} has no override_host policy")))
}

/// Returns whether a patch in these files gives a cluster the `override_host` policy.
pub fn is_patched(site: &Site<'_>, name: &str) -> bool {
    let by_istio = patches(site).iter().any(|patch| {
        patch.target() == "CLUSTER"
            && patch.is_for_cluster(name)
            && patch.value().is_some_and(overrides)
    });
    let by_gateway = operations(site).iter().any(|operation| {
        let set = operation.sets("Cluster", "load_balancing_policy");
        set.is_some_and(|(_, policy)| overrides(policy))
    });
    by_istio || by_gateway
}

/// Checks a cluster that Istio generates, which is not in the files.
fn istios(site: &Site<'_>, document: &Path, plan: &Plan) -> Option<Fault> {
    let name = plan.cluster();
    // Istio gives the cluster of an InferencePool the policy itself, by metadata.
    let is_pool = istio(name).is_some_and(|cluster| cluster.is_of_inference_pool());
    let by_metadata = is_pool && site.tops().any(|(_, top)| !to_metadata(top).is_empty());
    if is_patched(site, name) || by_metadata {
        return None;
    }
    let patches = patches(site);
    let other = patches.iter().find(|patch| {
        let policy = patch
            .value()
            .and_then(|value| value.get("load_balancing_policy"));
        patch.target() == "CLUSTER" && patch.is_for_cluster(name) && policy.is_some()
    });
    Some(match other {
        Some(patch) => Fault::at(
            &patch.place(&["load_balancing_policy"]),
            format!("cluster {name} gets a policy that is not override_host"),
        ),
        None => misdirected(site, name).unwrap_or_else(|| {
            Fault::not_seen(
                document,
                format!("a CLUSTER patch that gives {name} the override_host policy"),
            )
        }),
    })
}

/// Finds a patch that gives the policy to another port or subset of the Service, for which no filter picks.
fn misdirected(site: &Site<'_>, name: &str) -> Option<Fault> {
    let host = istio(name)?.host;
    let patches = patches(site);
    let patch = patches.iter().find(|patch| {
        let wanted = |key| text_below(patch.entry, &["match", "cluster", key]);
        let same = match istio(wanted("name")) {
            Some(cluster) => cluster.host == host,
            None => wanted("service") == host,
        };
        let mut plans = site.loaded().map(|(_, plan)| plan);
        patch.target() == "CLUSTER"
            && same
            && patch.value().is_some_and(overrides)
            && !plans.any(|plan| patch.is_for_cluster(plan.cluster()))
    })?;
    let what = format!(
        "gives override_host to another port or subset of {host}: the filter picks for {name}"
    );
    let fault = Fault::at(&path_below(patch.path, &["match", "cluster"]), what);
    Some(
        fault
            .because(
                "no filter picks for the patched cluster, and the filter's choice has no effect",
            )
            .fixed_by(format!(
                "use one cluster in both: {name}, or the one that the patch matches"
            )),
    )
}

/// Checks a cluster that Envoy Gateway generates for a rule of an HTTPRoute.
fn envoy_gateways(site: &Site<'_>, document: &Path, plan: &Plan) -> Option<Fault> {
    let name = plan.cluster();
    if is_patched(site, name) {
        return None;
    }
    let route = for_pool(site, name);
    let keys = ["spec", "load_balancer", "endpoint_override", "extract_from"];
    let policies = || {
        site.objects("BackendTrafficPolicy")
            .filter(|(_, policy)| policy_for(policy, name, route))
    };
    let header = &plan.settings.destination_header;
    let reads = |policy: &Node| {
        let sources = entries(policy, &keys).iter();
        sources
            .map(|source| text(source, "header"))
            .any(|name| name.eq_ignore_ascii_case(header))
    };
    if policies().any(|(_, policy)| reads(policy)) {
        return None;
    }
    let with_another = policies().find(|(_, policy)| below(policy, &keys).is_some());
    let fault = match (with_another, policies().next()) {
        (Some((path, _)), _) => Fault::at(
            &path_below(path, &keys),
            format!("endpointOverride does not read {header}, which the picker writes"),
        ),
        (_, Some((path, _))) => Fault::at(path, format!("{name} gets no endpointOverride")),
        _ => Fault::not_seen(
            document,
            format!("a BackendTrafficPolicy with loadBalancer.endpointOverride for {name}"),
        ),
    };
    Some(fault)
}

/// Finds policies that do not read the header that the picker writes.
fn elsewhere(site: &Site<'_>, path: &Path, plan: &Plan) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (place, map) in site.inside(path) {
        let Some(sources) = map.get("override_host_sources") else {
            continue;
        };
        let header = &plan.settings.destination_header;
        // header_to_metadata copies the header to metadata.
        let mut below = site.inside(place);
        let by_metadata = below.any(|(_, map)| map.get("metadata").is_some());
        if !by_metadata && !holds(sources, &|text| text.eq_ignore_ascii_case(header)) {
            let what = format!("override_host does not read {header}, which the picker writes");
            faults.push(Fault::at(&place.key("override_host_sources"), what));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use crate::lint::body_unread::tests::POLICY;
    use crate::lint::{finds, found};

    const FILTER: &str = include_str!("../../../../envoy/istio/filter.yaml");
    const CLUSTER: &str = include_str!("../../../../envoy/istio/cluster.yaml");

    #[test]
    fn finds_a_pool_with_another_policy() {
        let right = "override_host.v3.OverrideHost";
        finds(&super::RULE, right, "least_request.v3.LeastRequest");
        let right = "override_host_sources: [{header: x-gateway-destination-endpoint}]";
        finds(
            &super::RULE,
            right,
            "override_host_sources: [{header: x-other}]",
        );
    }

    #[test]
    fn the_fix_has_the_header_of_the_document() {
        let bootstrap = include_str!("../../../../envoy/envoy.yaml");
        let fixes = |own: &str| {
            let text = bootstrap.replace("{readBody: always}", own);
            let text = text.replace("override_host.v3.OverrideHost", "ring_hash.v3.RingHash");
            crate::lint::faults(&super::RULE, &text)
        };
        let fix = fixes("{readBody: always, destinationHeader: x-own}")
            .remove(0)
            .1;
        assert!(fix.contains("[{header: x-own}]"), "{fix}");
        let fix = fixes("{readBody: always}").remove(0).1;
        assert_eq!(fix, super::RULE.fix);
    }

    #[test]
    fn a_patch_in_another_document_gives_the_policy() {
        let both = |cluster: &str| found(&super::RULE, &format!("{FILTER}\n---\n{cluster}"));
        assert!(both(CLUSTER).is_empty());
        let alone = found(&super::RULE, FILTER);
        assert!(
            alone.len() == 1 && alone[0].starts_with("not seen: "),
            "{alone:?}"
        );
        let other = both(&CLUSTER.replace("vllm", "qwen"));
        assert!(
            other.len() == 1 && other[0].starts_with("not seen: "),
            "{other:?}"
        );
        for wrong in ["outbound|8080||vllm", "outbound|8000|v1|vllm"] {
            let port = both(&CLUSTER.replace("outbound|8000||vllm", wrong));
            assert!(
                port.len() == 1 && port[0].starts_with("spec.configPatches[1].match.cluster: "),
                "{port:?}"
            );
        }
        let by_service = "cluster: {service: vllm.llm.svc.cluster.local, portNumber: 8080}";
        let named = "cluster: {name: \"outbound|8000||vllm.llm.svc.cluster.local\"}";
        let port = both(&CLUSTER.replace(named, by_service));
        assert!(
            port.len() == 1 && port[0].contains("another port"),
            "{port:?}"
        );
        // A second filter picks for the other port.
        let second = FILTER.replace("outbound|8000||vllm", "outbound|8080||vllm");
        let cluster = CLUSTER.replace("outbound|8000||vllm", "outbound|8080||vllm");
        let two = both(&format!("{cluster}\n---\n{second}"));
        assert!(
            two.len() == 1 && two[0].starts_with("not seen: "),
            "{two:?}"
        );
        let ring = both(&CLUSTER.replace("override_host", "ring_hash"));
        assert!(ring.len() == 1 && ring[0].starts_with("spec."), "{ring:?}");
        // A cluster as istioctl prints it before the patch.
        let plain =
            "---\nname: outbound|8000||vllm.llm.svc.cluster.local\neds_cluster_config: {}\n";
        assert_eq!(both(plain).len(), 1);
        assert!(both(&format!("{CLUSTER}{plain}")).is_empty());
    }

    #[test]
    fn envoy_gateways_policy_is_for_the_route() {
        let with = |spec: &str| {
            let policy = format!("---\nkind: BackendTrafficPolicy\nmetadata: {{namespace: llm}}\nspec:\n  targetRefs: [{{kind: HTTPRoute, name: vllm}}]\n{spec}\n");
            found(&super::RULE, &format!("{POLICY}{policy}"))
        };
        let header = |header: &str| {
            with(&format!(
                "  loadBalancer: {{endpointOverride: {{extractFrom: [{{header: {header}}}]}}}}"
            ))
        };
        let alone = found(&super::RULE, POLICY);
        assert!(
            alone.len() == 1 && alone[0].starts_with("not seen: "),
            "{alone:?}"
        );
        assert!(header("X-Gateway-Destination-Endpoint").is_empty());
        assert_eq!(header("x-other").len(), 1);
        let none = with("  retry: {}");
        assert!(
            none.len() == 1 && none[0].contains("no endpointOverride"),
            "{none:?}"
        );
        let patched = format!("{POLICY}---\nkind: EnvoyPatchPolicy\nspec: {{jsonPatches: [{{type: x/envoy.config.cluster.v3.Cluster, operation: {{op: add, path: /load_balancing_policy, value: {{'@type': type.googleapis.com/x.override_host.v3.OverrideHost}}}}}}]}}\n");
        assert!(found(&super::RULE, &patched).is_empty());
    }
}

//! The pool's cluster does not listen to the picker.

use super::site::{holds, text, Site};
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "no-override-host",
    why: "the picker's choice has no effect: the cluster balances by its own policy",
    fix: "give the cluster the override_host load balancing policy with override_host_sources: [{header: x-gateway-destination-endpoint}]",
    check: |site| {
        let plans = site.pickers.iter().filter_map(|picker| picker.loaded.as_ref().ok());
        let pools = plans.filter_map(|plan| site.cluster(plan.cluster()));
        let deaf = pools.filter(|(_, cluster)| {
            let policy = cluster.get("load_balancing_policy");
            let type_of = |text: &str| text.ends_with("override_host.v3.OverrideHost");
            // header_to_metadata in front of Istio's own cluster chooses by metadata there.
            !policy.is_some_and(|policy| holds(policy, &type_of))
                && text(cluster, "type") != "ORIGINAL_DST"
        });
        let deaf = deaf.map(|(path, cluster)| {
            let what = format!("cluster {} has no override_host policy", text(cluster, "name"));
            Fault::at(path, what)
        });
        deaf.chain(elsewhere(site)).collect()
    },
};

/// Policies that read another header than the picker writes.
fn elsewhere(site: &Site<'_>) -> Vec<Fault> {
    let plans = site
        .pickers
        .iter()
        .filter_map(|picker| picker.loaded.as_ref().ok());
    let pairs = plans.filter_map(|plan| Some((plan, site.cluster(plan.cluster())?)));
    let mut faults = Vec::new();
    for (plan, (path, _)) in pairs {
        let inside = site
            .maps
            .iter()
            .filter(|(place, _)| place.steps().starts_with(path.steps()));
        for (place, map) in inside {
            let Some(sources) = map.get("override_host_sources") else {
                continue;
            };
            let header = &plan.proxy.destination_header;
            // Metadata is written from the header by header_to_metadata.
            let by_metadata = site.maps.iter().any(|(below, map)| {
                below.steps().starts_with(place.steps()) && map.get("metadata").is_some()
            });
            if !by_metadata && !holds(sources, &|text| text.eq_ignore_ascii_case(header)) {
                let what = format!("override_host does not read {header}, which the picker writes");
                faults.push(Fault::at(&place.key("override_host_sources"), what));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    #[test]
    fn finds_a_pool_with_another_policy() {
        let right = "override_host.v3.OverrideHost";
        crate::lint::finds(&super::RULE, right, "least_request.v3.LeastRequest");
        let right = "override_host_sources: [{header: x-gateway-destination-endpoint}]";
        crate::lint::finds(
            &super::RULE,
            right,
            "override_host_sources: [{header: x-other}]",
        );
    }
}

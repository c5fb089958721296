//! The pool's cluster does not listen to the picker.

use super::site::{holds, text};
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
        deaf.map(|(path, cluster)| {
            let what = format!("cluster {} has no override_host policy", text(cluster, "name"));
            Fault::at(path, what)
        })
        .collect()
    },
};

#[cfg(test)]
mod tests {
    #[test]
    fn finds_a_pool_with_another_policy() {
        let right = "override_host.v3.OverrideHost";
        crate::lint::finds(&super::RULE, right, "least_request.v3.LeastRequest");
    }
}

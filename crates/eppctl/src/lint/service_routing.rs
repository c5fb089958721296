//! Envoy Gateway gives the pool's cluster the Service's address instead of its endpoints.

use epp_core::config::value::{Node, Path};

use super::gateway::{for_pool, policy_for};
use super::site::{path_below, text_below, Site};
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "service-routing",
    finds: "`routingType: Service` of Envoy Gateway, by which a pool has one endpoint",
    why: "the cluster's only endpoint is the Service's own address, behind which Kubernetes chooses the pod: there is nothing to pick",
    fix: "remove routingType from the EnvoyProxy, or set routingType: Endpoint in the route's BackendTrafficPolicy",
    check: |site| {
        let mut faults: Vec<(Path, Fault)> = Vec::new();
        for (picker, plan) in site.loaded() {
            if !picker.is_envoy_gateways(site) {
                continue;
            }
            if let Some(path) = of_service(site, plan.cluster()) {
                let what = format!("{} has one endpoint, the Service's address", plan.cluster());
                faults.push((path.clone(), Fault::at(&path, what)));
            }
        }
        faults.dedup_by(|(one, _), (other, _)| one == other);
        faults.into_iter().map(|(_, fault)| fault).collect()
    },
};

const KEYS: [&str; 2] = ["spec", "routing_type"];

/// Returns the path of the setting by which a cluster has the Service's address. That of a policy counts before that of
/// a proxy.
fn of_service(site: &Site<'_>, cluster: &str) -> Option<Path> {
    let route = for_pool(site, cluster);
    let set = |(_, object): &&(Path, &Node)| !text_below(object, &KEYS).is_empty();
    let mut policies = site.objects("BackendTrafficPolicy");
    let policy = policies.find(|one| set(one) && policy_for(one.1, cluster, route));
    let (path, object) = policy.or_else(|| site.objects("EnvoyProxy").find(set))?;
    (text_below(object, &KEYS) == "Service").then(|| path_below(path, &KEYS))
}

#[cfg(test)]
mod tests {
    use crate::lint::body_unread::tests::POLICY;
    use crate::lint::found;

    #[test]
    fn finds_the_routing_to_a_service() {
        let proxy = "---\nkind: EnvoyProxy\nspec: {routingType: Service}\n";
        let policy = |route: &str, kind: &str| {
            format!("---\nkind: BackendTrafficPolicy\nmetadata: {{namespace: llm}}\nspec: {{targetRefs: [{{kind: HTTPRoute, name: {route}}}], routingType: {kind}}}\n")
        };
        let with = |more: &str| found(&super::RULE, &format!("{POLICY}{more}"));
        let by_proxy = with(proxy);
        assert!(
            by_proxy.len() == 1
                && by_proxy[0].starts_with("spec.routingType: httproute/llm/vllm/rule/0 "),
            "{by_proxy:?}"
        );
        assert!(with(&proxy.replace("Service", "Endpoint")).is_empty());
        assert_eq!(with(&policy("vllm", "Service")).len(), 1);
        assert!(with(&policy("web", "Service")).is_empty());
        assert!(with(&format!("{proxy}{}", policy("vllm", "Endpoint"))).is_empty());
        assert!(found(&super::RULE, &proxy[4..]).is_empty());
    }
}

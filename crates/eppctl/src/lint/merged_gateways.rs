//! A patch is for one Gateway of several that share their proxies.

use super::site::{below, flag, path_below, text_below};
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "merged-gateways",
    finds: "an EnvoyPatchPolicy for a Gateway beside `mergeGateways: true`",
    why: "Envoy Gateway accepts none for a single Gateway if Gateways share their proxies: without its patches the filter does not read bodies",
    fix: "have the EnvoyPatchPolicy target the GatewayClass: targetRef: {group: gateway.networking.k8s.io, kind: GatewayClass, name: …}",
    check: |site| {
        let merge = |object| below(object, &["spec", "merge_gateways"]).and_then(flag);
        let mut proxies = site.objects("EnvoyProxy");
        if !proxies.any(|(_, proxy)| merge(proxy) == Some(true)) {
            return Vec::new();
        }
        let target = ["spec", "target_ref"];
        let policies = site.objects("EnvoyPatchPolicy").filter(|(_, policy)| {
            text_below(policy, &["spec", "target_ref", "kind"]) == "Gateway"
        });
        let what = "targets a Gateway, and mergeGateways is set";
        policies.map(|(path, _)| Fault::at(&path_below(path, &target), what)).collect()
    },
};

#[cfg(test)]
mod tests {
    use crate::lint::found;

    #[test]
    fn finds_the_patch_for_one_gateway() {
        let with = |kind: &str, merge: &str| {
            found(&super::RULE, &format!("kind: EnvoyPatchPolicy\nspec: {{targetRef: {{kind: {kind}, name: llm}}}}\n---\nkind: EnvoyProxy\nspec: {{mergeGateways: {merge}}}\n"))
        };
        let one = with("Gateway", "true");
        assert!(
            one.len() == 1 && one[0].starts_with("spec.targetRef: "),
            "{one:?}"
        );
        assert!(with("GatewayClass", "true").is_empty());
        assert!(with("Gateway", "false").is_empty());
    }
}

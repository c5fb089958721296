//! A trap in the module ends its service.

use epp_wasm::document::Node;

use super::body_unread::patched_field;
use super::picker::{Home, Picker};
use super::site::{text, Site};
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "fail-closed",
    why: "the default is FAIL_CLOSED: after one trap every request of that worker is answered 503 until Envoy restarts",
    fix: "set failure_policy: FAIL_RELOAD beside vm_config (Istio's WasmPlugin: failStrategy: FAIL_RELOAD or FAIL_OPEN; Higress: FAIL_OPEN; Envoy Gateway: failure_policy in an EnvoyPatchPolicy, without failOpen: true)",
    check: |site| site.pickers.iter().filter_map(|picker| fault(site, picker)).collect(),
};

fn fault(site: &Site<'_>, picker: &Picker<'_>) -> Option<Fault> {
    let settings = picker.settings;
    let policy = match picker.home {
        Home::WasmPlugin | Home::HigressPlugin => text(settings, "fail_strategy"),
        Home::Filter | Home::ExtensionPolicy => match patched_field(site, picker, "failure_policy")
        {
            Some(Node::String(policy)) => policy,
            _ => text(settings, "failure_policy"),
        },
    };
    let stays = matches!(policy, "FAIL_RELOAD" | "FAIL_OPEN");
    if picker.home != Home::ExtensionPolicy {
        return (!stays).then(|| Fault::at(&picker.path, "fails closed for good"));
    }
    let open = settings.get("fail_open") == Some(&Node::Bool(true));
    match (open, policy) {
        (true, "") => None,
        (true, _) => Some(Fault::at(
            &picker.path.key("fail_open"),
            "failOpen: true and a patched failure_policy: Envoy refuses the listener, which takes one of them",
        )),
        (false, _) if stays => None,
        (false, "") if site.objects("EnvoyPatchPolicy").next().is_none() => Some(
            Fault::not_seen(&picker.path, "an EnvoyPatchPolicy that sets failure_policy"),
        ),
        (false, _) => Some(Fault::at(&picker.path, "fails closed for good")),
    }
}

#[cfg(test)]
mod tests {
    use crate::lint::body_unread::tests::POLICY;
    use crate::lint::found;

    #[test]
    fn finds_the_default() {
        crate::lint::finds(
            &super::RULE,
            "failure_policy: FAIL_RELOAD",
            "fail_open: false",
        );
    }

    #[test]
    fn envoy_gateway_takes_one_policy() {
        let alone = found(&super::RULE, POLICY);
        assert!(
            alone.len() == 1 && alone[0].starts_with("not seen: "),
            "{alone:?}"
        );
        let open = POLICY.replace("  - name: epp\n", "  - name: epp\n    failOpen: true\n");
        assert!(found(&super::RULE, &open).is_empty());
        let patch = "---\nkind: EnvoyPatchPolicy\nspec:\n  jsonPatches:\n  - type: x/envoy.config.listener.v3.Listener\n    operation: {op: add, path: /a/failure_policy, value: FAIL_RELOAD}\n";
        assert!(found(&super::RULE, &format!("{POLICY}{patch}")).is_empty());
        let both = found(&super::RULE, &format!("{open}{patch}"));
        assert!(
            both.len() == 1 && both[0].contains("failOpen: true"),
            "{both:?}"
        );
        let closed = patch.replace("FAIL_RELOAD", "FAIL_CLOSED");
        assert_eq!(found(&super::RULE, &format!("{POLICY}{closed}")).len(), 1);
    }
}

//! One trap in the module takes a worker out of service.

use epp_core::config::value::Node;

use super::body_unread::patched_field;
use super::picker::{Home, Picker};
use super::site::{flag, text, Site};
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "fail-closed",
    finds: "the default failure policy, or an unknown one; `failOpen` beside a patched one",
    why: "the default is FAIL_CLOSED: after one trap, that worker replies to every request with 503 until Envoy restarts",
    fix: "set failure_policy: FAIL_RELOAD beside vm_config (Istio's WasmPlugin: failStrategy: FAIL_RELOAD or FAIL_OPEN; Higress: FAIL_OPEN; Envoy Gateway: failure_policy in an EnvoyPatchPolicy, without failOpen: true)",
    check: |site| {
        let in_vms = site.pickers.iter().filter(|picker| !picker.home.is_module());
        in_vms.filter_map(|picker| fault(site, picker)).collect()
    },
};

fn fault(site: &Site<'_>, picker: &Picker<'_>) -> Option<Fault> {
    let settings = picker.settings;
    let policy = match picker.home {
        Home::WasmPlugin | Home::HigressPlugin => text(settings, "fail_strategy"),
        _ => match patched_field(site, picker, "failure_policy") {
            Some(Node::String(policy)) => policy,
            _ => text(settings, "failure_policy"),
        },
    };
    let (field, known) = policies(picker.home);
    if !matches!(policy, "" | "UNSPECIFIED") && !known.contains(&policy) {
        let known = known.join(", ");
        let what = format!("unknown {field} {policy}: expected one of {known}");
        let fault = Fault::at(&picker.path.key(field), what);
        let why = "an unknown enum value makes the whole configuration invalid";
        return Some(
            fault
                .because(why)
                .fixed_by(format!("set {field} to one of {known}")),
        );
    }
    let stays = matches!(policy, "FAIL_RELOAD" | "FAIL_OPEN");
    if picker.home != Home::ExtensionPolicy {
        return (!stays).then(|| Fault::at(&picker.path, "fails closed until Envoy restarts"));
    }
    let open = settings.get("fail_open").and_then(flag) == Some(true);
    match (open, policy) {
        (true, "") => None,
        (true, _) => Some(Fault::at(
            &picker.path.key("fail_open"),
            "failOpen: true beside a patched failure_policy: Envoy rejects a listener with both",
        )),
        (false, _) if stays => None,
        (false, "") if site.objects("EnvoyPatchPolicy").next().is_none() => Some(Fault::not_seen(
            &picker.path,
            "an EnvoyPatchPolicy that sets failure_policy",
        )),
        (false, _) => Some(Fault::at(&picker.path, "fails closed until Envoy restarts")),
    }
}

/// Returns the name of the policy's field, and its valid values.
fn policies(home: Home) -> (&'static str, &'static [&'static str]) {
    match home {
        Home::WasmPlugin => ("fail_strategy", &["FAIL_RELOAD", "FAIL_OPEN", "FAIL_CLOSE"]),
        Home::HigressPlugin => ("fail_strategy", &["FAIL_OPEN", "FAIL_CLOSE"]),
        _ => (
            "failure_policy",
            &["FAIL_RELOAD", "FAIL_OPEN", "FAIL_CLOSED"],
        ),
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
    fn names_an_unknown_policy() {
        let bootstrap = include_str!("../../../../envoy/envoy.yaml");
        let with = |policy: &str| {
            let policy = format!("failure_policy: {policy}");
            crate::lint::faults(
                &super::RULE,
                &bootstrap.replace("failure_policy: FAIL_RELOAD", &policy),
            )
        };
        let misspelt = with("FAIL_RELAOD");
        let (found, fix) = &misspelt[0];
        assert!(
            found.ends_with("failure_policy: unknown failure_policy FAIL_RELAOD: expected one of FAIL_RELOAD, FAIL_OPEN, FAIL_CLOSED"),
            "{found}"
        );
        assert!(
            fix.ends_with("FAIL_RELOAD, FAIL_OPEN, FAIL_CLOSED"),
            "{fix}"
        );
        assert!(with("FAIL_CLOSED")[0]
            .0
            .ends_with("fails closed until Envoy restarts"));
        let plugin = include_str!("../../../../envoy/istio/wasmplugin.yaml");
        let wrong = plugin.replace("FAIL_RELOAD", "FAIL_CLOSED");
        assert_ne!(plugin, wrong);
        let found = self::found(&super::RULE, &wrong);
        assert!(
            found[0].contains("unknown fail_strategy FAIL_CLOSED"),
            "{found:?}"
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

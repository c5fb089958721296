//! A trap in the module ends its service.

use super::site::text;
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "fail-closed",
    why: "the default is FAIL_CLOSED: after one trap every request of that worker is answered 503 until Envoy restarts",
    fix: "set failure_policy: FAIL_RELOAD beside vm_config (Istio's WasmPlugin: failStrategy: FAIL_RELOAD or FAIL_OPEN)",
    check: |site| {
        let closed = site.pickers.iter().filter(|picker| {
            let key = if picker.is_wasm_plugin { "failStrategy" } else { "failure_policy" };
            let policy = text(picker.settings, key);
            !matches!(policy, "FAIL_RELOAD" | "FAIL_OPEN")
        });
        closed
            .map(|picker| Fault::at(&picker.path, "fails closed for good"))
            .collect()
    },
};

#[cfg(test)]
mod tests {
    #[test]
    fn finds_the_default() {
        crate::lint::finds(
            &super::RULE,
            "failure_policy: FAIL_RELOAD",
            "fail_open: false",
        );
    }
}

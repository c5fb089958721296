//! Bodies do not reach the filter before the request is routed.

use epp_wasm::document::Node;
use epp_wasm::plugins::proxy::envoy_proxy::ReadBody;

use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "body-unread",
    why: "Envoy routes a request before its body can be read, so that neither prompt nor model count",
    fix: "set allow_on_headers_stop_iteration: true beside vm_config (Istio: in an EnvoyFilter, a WasmPlugin cannot), or readBody: never on the envoy-proxy plugin",
    check: |site| {
        let blind = site.pickers.iter().filter(|picker| {
            let never = matches!(&picker.loaded, Ok(plan) if plan.proxy.read_body != ReadBody::Auto
                || !(plan.needs.prompt || plan.needs.model));
            let flag = picker.settings.get("allow_on_headers_stop_iteration");
            !never && flag != Some(&Node::Bool(true))
        });
        blind
            .map(|picker| Fault::at(&picker.path, "allow_on_headers_stop_iteration is not set"))
            .collect()
    },
};

#[cfg(test)]
mod tests {
    #[test]
    fn finds_the_missing_flag() {
        let right = "allow_on_headers_stop_iteration: true";
        let auto = include_str!("../../../../envoy/envoy.yaml")
            .replace("readBody: always", "readBody: auto");
        assert!(crate::lint::found(&super::RULE, &auto).is_empty());
        let wrong = auto.replace(right, "fail_open: false");
        assert_eq!(crate::lint::found(&super::RULE, &wrong).len(), 1);
    }
}

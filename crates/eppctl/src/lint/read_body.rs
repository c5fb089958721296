//! `readBody` does not match what Envoy delivers.

use epp_core::config::settings::ReadBody;
use epp_core::config::Plan;

use super::body_unread::{delivers, Delivers};
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "read-body",
    finds: "`readBody: auto` with that flag, or `readBody: always` without it; `never` is always accepted",
    why: "with `auto` the filter infers from requests whether Envoy delivers bodies, and clients that withhold them can turn body reading off; with `always` but without the flag, each request with a body waits for bodyTimeout",
    fix: "set readBody: always on envoy-proxy if allow_on_headers_stop_iteration: true is set, readBody: never where it cannot be set (Istio's WasmPlugin)",
    check: |site| {
        let faults = site.loaded().filter_map(|(picker, plan)| {
            // There `auto` is `always`.
            let auto = picker.home.is_module();
            let what = wrong(delivers(site, picker), plan).filter(|_| !auto);
            Some(Fault::at(&picker.path, what?))
        });
        faults.collect()
    },
};

fn wrong(delivers: Delivers, plan: &Plan) -> Option<&'static str> {
    if !(plan.needs.prompt || plan.needs.model) {
        return None;
    }
    match (plan.settings.read_body, delivers) {
        (ReadBody::Auto, Delivers::Yes) => Some("bodies are delivered, but readBody is not always"),
        (ReadBody::Always, Delivers::No) => {
            Some("readBody is always, but bodies are not delivered")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::lint::{finds, found};

    #[test]
    fn finds_a_picker_that_must_find_out() {
        finds(&super::RULE, "{readBody: always}", "{readBody: auto}");
    }

    #[test]
    fn finds_one_that_waits_for_what_does_not_come() {
        let flag = "allow_on_headers_stop_iteration: true";
        finds(&super::RULE, flag, "fail_open: false");
        let text = include_str!("../../../../envoy/envoy.yaml");
        let never = text.replace("{readBody: always}", "{readBody: never}");
        assert_eq!(found(&super::RULE, &never), Vec::<String>::new());
    }
}

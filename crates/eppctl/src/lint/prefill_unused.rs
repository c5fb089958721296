//! A prefill profile that never runs.

use epp_core::config::value::Node;
use epp_core::config::{Instance, Plan};

use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "prefill-unused",
    finds: "a prefill profile that no decider lets run",
    why: "every prompt is computed where its response is generated, and the prefill endpoints get none",
    fix: "name a decider in `deciders.prefill` of disagg-profile-handler: always-disagg-pd-decider, or prefix-based-pd-decider with nonCachedTokens above 0; pd-profile-handler names it in `deciderPluginName`",
    check: |site| {
        let mut faults = Vec::new();
        for (picker, plan) in site.loaded() {
            let what = plan.instances.iter().find_map(|handler| unused(plan, handler));
            faults.extend(what.map(|what| Fault::at(&picker.document, what)));
        }
        faults
    },
};

/// Returns what is wrong, if this is the handler of disaggregated profiles.
fn unused(plan: &Plan, handler: &Instance) -> Option<String> {
    let default = match handler.kind {
        "disagg-profile-handler" => None,
        "pd-profile-handler" => Some("prefix-based-pd-decider"),
        _ => return None,
    };
    let order = text(handler, "stageOrder").unwrap_or_default();
    if order.to_ascii_lowercase().starts_with("prefill") {
        return None;
    }
    let names = ["profiles.prefill", "prefillProfile"];
    let profile = names.iter().find_map(|name| text(handler, name));
    let profile = profile.unwrap_or("prefill");
    plan.profiles.iter().find(|known| known.name == profile)?;
    let deciders = [
        "deciders.prefill",
        "prefillDeciderPluginName",
        "deciderPluginName",
    ];
    let mut named = deciders.iter().filter_map(|name| text(handler, name));
    match named.find(|name| !name.is_empty()).or(default) {
        None => Some(format!(
            "profile {profile} is never run: no prefill decider"
        )),
        Some(name) => {
            let decider = plan.instances.iter();
            let mut decider = decider.filter(|other| *other.name == *name);
            let never = decider.next().is_some_and(|decider| never_decides(decider));
            never.then(|| {
                format!("profile {profile} is never run: its decider has nonCachedTokens 0")
            })
        }
    }
}

fn never_decides(decider: &Instance) -> bool {
    let threshold = parameter(decider, "nonCachedTokens");
    decider.kind == "prefix-based-pd-decider" && matches!(threshold, None | Some(Node::Number(0.0)))
}

/// Returns a parameter, which may be in a section.
fn parameter<'i>(instance: &'i Instance, name: &str) -> Option<&'i Node> {
    let find = |name: &str| {
        let mut known = instance.parameters.iter();
        known.find(|(key, _)| key == name).map(|(_, value)| value)
    };
    let (section, key) = name.split_once('.').unwrap_or((name, ""));
    find(name).or_else(|| find(section)?.get(key))
}

fn text<'i>(instance: &'i Instance, name: &str) -> Option<&'i str> {
    match parameter(instance, name)? {
        Node::String(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::lint::found;

    const BOOTSTRAP: &str = include_str!("../../../../envoy/disaggregated.yaml");

    #[test]
    fn finds_a_profile_without_a_decider_that_runs_it() {
        assert_eq!(found(&super::RULE, BOOTSTRAP), Vec::<String>::new());
        let handler = "parameters: {deciders: {prefill: prefix-based-pd-decider}}";
        let with = |wrong: &str| {
            assert!(BOOTSTRAP.contains(handler));
            found(&super::RULE, &BOOTSTRAP.replace(handler, wrong))
        };
        let none = with("parameters: {}");
        assert!(
            none.len() == 1 && none[0].contains("no prefill decider"),
            "{none:?}"
        );
        for right in [
            "parameters: {stageOrder: prefill-first}",
            "parameters: {deciderPluginName: prefix-based-pd-decider}",
        ] {
            assert_eq!(with(right), Vec::<String>::new(), "{right}");
        }
        let never = BOOTSTRAP.replace("nonCachedTokens: 512", "nonCachedTokens: 0");
        let never = found(&super::RULE, &never);
        assert!(
            never.len() == 1 && never[0].contains("nonCachedTokens 0"),
            "{never:?}"
        );
    }

    #[test]
    fn finds_that_the_former_handlers_default_decider_never_runs_it() {
        let handler = "- type: disagg-profile-handler\n                      parameters: {deciders: {prefill: prefix-based-pd-decider}}";
        let with = |threshold: &str, parameters: &str| {
            let former = format!(
                "- type: pd-profile-handler\n                      parameters: {parameters}"
            );
            let text = BOOTSTRAP.replace(handler, &former);
            assert_ne!(text, BOOTSTRAP);
            found(
                &super::RULE,
                &text.replace("nonCachedTokens: 512", threshold),
            )
        };
        for parameters in ["{}", "{deciderPluginName: prefix-based-pd-decider}"] {
            assert_eq!(
                with("nonCachedTokens: 512", parameters),
                Vec::<String>::new()
            );
            for never in ["promptTokens: 9", "nonCachedTokens: 0"] {
                let found = with(never, parameters);
                assert!(
                    found.len() == 1 && found[0].contains("nonCachedTokens 0"),
                    "{found:?}"
                );
            }
        }
    }
}

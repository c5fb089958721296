//! A prefix scorer behind the filter that keeps the endpoints with the prompt's prefix.

use epp_core::config::Profiled;

use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "prefix-twice",
    finds: "a weighted prefix scorer behind `prefix-cache-affinity-filter`",
    why: "among the endpoints that the filter keeps, which hold nearly all of the prompt, the scorer still prefers the fullest match to the least load; and where the filter gives affinity up because of load, the scorer brings it back",
    fix: "leave the prefix scorer out of profiles with prefix-cache-affinity-filter, and weight scorers by load there",
    check: |site| {
        let mut faults = Vec::new();
        for (picker, plan) in site.loaded() {
            let wrong = plan.profiles.iter().filter_map(wrong);
            faults.extend(wrong.map(|what| Fault::at(&picker.document, what)));
        }
        faults
    },
};

/// The scorers by prefix.
pub const SCORERS: [&str; 2] = ["prefix-cache-scorer", "precise-prefix-cache-scorer"];

fn wrong(profile: &Profiled) -> Option<String> {
    let kinds = || profile.plugins.iter();
    kinds().find(|(instance, _)| instance.kind == "prefix-cache-affinity-filter")?;
    let scorer =
        kinds().find(|(instance, weight)| SCORERS.contains(&instance.kind) && *weight != 0.0);
    let (scorer, weight) = scorer?;
    let (name, kind) = (&profile.name, scorer.kind);
    Some(format!(
        "profile {name}: {kind} has weight {weight} behind prefix-cache-affinity-filter"
    ))
}

#[cfg(test)]
mod tests {
    use crate::lint::found;

    #[test]
    fn finds_a_weighted_prefix_scorer_behind_the_filter() {
        let bootstrap = include_str!("../../../../envoy/production/static.yaml");
        let reference = "                      - {pluginRef: prefix-cache-scorer, weight: 3}\n";
        let plugin = "                    - type: queue-scorer\n";
        assert!(bootstrap.contains(reference) && bootstrap.contains(plugin));
        assert_eq!(found(&super::RULE, bootstrap), Vec::<String>::new());
        let kind = "prefix-cache-affinity-filter";
        let declared = format!("{plugin}                    - type: {kind}\n");
        let filter = format!("                      - pluginRef: {kind}\n");
        let with = |scorer: &str| {
            let text = bootstrap.replace(plugin, &declared);
            found(
                &super::RULE,
                &text.replace(reference, &format!("{filter}{scorer}")),
            )
        };
        let behind = with(reference);
        assert!(
            behind.len() == 1 && behind[0].contains("weight 3"),
            "{behind:?}"
        );
        assert_eq!(with(""), Vec::<String>::new());
    }
}

//! A profile keeps endpoints by labels that no endpoint can have.

use epp_core::config::{Plan, Profiled};
use epp_core::plugins::Discovery;
use epp_core::scheduling::{Basis, Cycle, Endpoint, Pool, RequestView, Slot};

use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "roles-without-endpoints",
    finds: "a profile that keeps endpoints by labels that no endpoint has, as a role that no cluster gives",
    why: "the profile never has a candidate: requests that need it are rejected, or their prompts are computed where responses are generated",
    fix: "give the endpoints these labels where they are discovered: `labels` of a cluster of envoy-cluster-discovery, or of an endpoint of static-discovery (docs/disaggregation.md)",
    check: |site| {
        let mut faults = Vec::new();
        for (picker, plan) in site.loaded() {
            let unmatched = profiles_without_endpoints(plan).into_iter();
            faults.extend(unmatched.map(|what| Fault::at(&picker.document, what)));
        }
        faults
    },
};

/// Returns what is wrong with each profile that keeps endpoints by labels that none has.
pub fn profiles_without_endpoints(plan: &Plan) -> Vec<String> {
    let pool = every_kind(plan);
    let profiles = plan.profiles.iter();
    profiles
        .filter_map(|profile| unmatched(profile, &pool))
        .collect()
}

/// Returns a pool with an endpoint for each set of labels that the discovery gives, and one that is in all
/// clusters for each of them.
pub(super) fn every_kind(plan: &Plan) -> Pool {
    let sets: Vec<Vec<(String, String)>> = match &plan.discovery {
        Discovery::Static(discovery) => {
            let members = discovery.members.iter();
            members.map(|member| member.labels.clone()).collect()
        }
        Discovery::EnvoyCluster(discovery) => {
            let clusters = discovery.clusters.iter();
            let mut sets: Vec<_> = clusters.map(|cluster| cluster.labels.clone()).collect();
            // A member of several clusters has the labels of them all. Of different values the first counts, here
            // each cluster's own: members need not be in those that give the label another value.
            let all = sets.concat();
            let joined: Vec<_> = sets
                .iter()
                .map(|own| [own.as_slice(), &all].concat())
                .collect();
            sets.extend(joined);
            sets
        }
    };
    let mut pool = Pool::default();
    for (slot, labels) in (0..).map(Slot).zip(sets) {
        let endpoint = Endpoint {
            labels,
            ..Endpoint::default()
        };
        pool.set(slot, endpoint);
    }
    pool
}

/// Returns what is wrong with a profile whose filters by label leave none of these endpoints.
fn unmatched(profile: &Profiled, pool: &Pool) -> Option<String> {
    let cycle = Cycle::new(pool, RequestView::default());
    let mut candidates: Vec<Slot> = pool.iter().map(|(slot, _)| slot).collect();
    for (instance, _) in &profile.plugins {
        let Some(filter) = &instance.capabilities.filter else {
            continue;
        };
        // Localities, which Envoy may know, are labels as well; other filters depend on more than labels.
        let locality = format!("{:?}", instance.parameters).contains("topology.kubernetes.io");
        if !filter.needs().labels || filter.basis() != Basis::Pool || locality {
            continue;
        }
        filter.filter(&cycle, &mut candidates);
        if candidates.is_empty() {
            let (name, kind) = (&profile.name, instance.kind);
            return Some(format!(
                "profile {name}: no endpoint has the labels that {kind} keeps"
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use crate::lint::found;

    const BOOTSTRAP: &str = include_str!("../../../../envoy/disaggregated.yaml");

    #[test]
    fn finds_a_role_that_no_cluster_gives() {
        assert_eq!(found(&super::RULE, BOOTSTRAP), Vec::<String>::new());
        let prefill = "labels: {llm-d.ai/role: prefill}";
        for (wrong, expected) in [
            ("labels: {llm-d.ai/role: prefil}", "profile prefill: "),
            ("labels: {}", "profile prefill: "),
            ("labels: {llm-d.ai/role: both}", ""),
        ] {
            let found = found(&super::RULE, &BOOTSTRAP.replace(prefill, wrong));
            match expected {
                "" => assert_eq!(found, Vec::<String>::new(), "{wrong}"),
                _ => assert!(found.len() == 1 && found[0].contains(expected), "{found:?}"),
            }
        }
        // An endpoint without a role decodes.
        let decode = "labels: {llm-d.ai/role: decode}";
        assert!(found(&super::RULE, &BOOTSTRAP.replace(decode, "labels: {}")).is_empty());
    }

    #[test]
    fn members_have_the_labels_of_all_their_clusters() {
        let decode = "- {name: decode, labels: {llm-d.ai/role: decode}}";
        let all = "- {name: all, labels: {pool: a}}\n                        ";
        let joined = BOOTSTRAP.replace(decode, &format!("{all}{decode}"));
        assert_ne!(joined, BOOTSTRAP);
        let selecting = |role: &str, pool: &str| {
            let filter = format!(
                "- {{name: prefill-filter, type: label-selector-filter, parameters: {{matchLabels: {{llm-d.ai/role: {role}, pool: {pool}}}}}}}"
            );
            found(
                &super::RULE,
                &joined.replace("- type: prefill-filter", &filter),
            )
        };
        assert_eq!(selecting("decode", "a"), Vec::<String>::new());
        assert_eq!(selecting("prefill", "a"), Vec::<String>::new());
        assert_eq!(selecting("prefill", "b").len(), 1);
        assert_eq!(selecting("encode", "a").len(), 1);
    }

    #[test]
    fn finds_a_role_that_no_listed_endpoint_has() {
        let linted = |role: &str| {
            let endpoint = format!(
                "{{name: a, address: 10.0.0.1, port: \"8000\", labels: {{llm-d.ai/role: {role}}}}}"
            );
            let plugins = format!(
                "[{{name: pods, type: static-discovery, parameters: {{endpoints: [{endpoint}]}}}}, {{type: encode-filter}}, {{type: queue-scorer}}]"
            );
            let profile =
                "{name: all, plugins: [{pluginRef: encode-filter}, {pluginRef: queue-scorer}]}";
            let document = format!(
                "{{apiVersion: llm-d.ai/v1alpha1, kind: EndpointPickerConfig, plugins: {plugins}, schedulingProfiles: [{profile}], dataLayer: {{discovery: {{pluginRef: pods}}}}}}"
            );
            let kind = "'@type': type.googleapis.com/google.protobuf.StringValue";
            let text = format!(
                "{{'@type': x/wasm.v3.Wasm, config: {{configuration: {{{kind}, value: '{document}'}}}}}}"
            );
            found(&super::RULE, &text)
        };
        assert_eq!(linted("encode"), Vec::<String>::new());
        let wrong = linted("decode");
        assert!(
            wrong.len() == 1 && wrong[0].contains("encode-filter"),
            "{wrong:?}"
        );
    }
}

//! SGLang's `/v1/loads` is to be read, and no endpoint is of that engine.

use epp_core::config::Plan;
use epp_core::picker::Picker;

use super::roles_without_endpoints::every_kind;
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "sglang-loads",
    finds: "`sglangLoads: true` where no endpoint is of the engine `sglang`",
    why: "no endpoint's `/v1/loads` is read, but its metrics page instead, by the metric names of another engine",
    fix: "set `defaultEngine: sglang` of core-metrics-extractor, or give the servers' clusters or listed endpoints the label `llm-d.ai/engine-type: sglang`",
    check: |site| {
        let loaded = site.loaded().filter(|(_, plan)| is_without_effect(plan));
        let faults = loaded.map(|(picker, plan)| {
            let (default, label) = (&plan.extractor.default_engine, &plan.extractor.engine_label);
            let what = format!(
                "sglangLoads: true, and no endpoint is of the engine sglang: the default is {default}, and no label {label} says sglang"
            );
            Fault::at(&picker.document, what)
        });
        faults.collect()
    },
};

/// Returns whether a plan has `/v1/loads` read, and there is no endpoint of which that is done. The document has all labels
/// that name an engine: Envoy adds those of localities only.
fn is_without_effect(plan: &Plan) -> bool {
    let pool = every_kind(plan);
    let slots: Vec<_> = pool.iter().map(|(slot, _)| slot).collect();
    if !plan.source.sglang_loads || slots.is_empty() {
        return false;
    }
    let mut picker = Picker::new(plan.clone(), 0);
    *picker.fixture().pool() = pool;
    !slots
        .into_iter()
        .any(|slot| picker.fixture().may_serve_loads(slot))
}

#[cfg(test)]
mod tests {
    use crate::lint::found;

    const BOOTSTRAP: &str = include_str!("../../../../envoy/disaggregated.yaml");

    /// Returns what is found in a bootstrap of two clusters, with these parameters of the two plugins for metrics, and with these
    /// further labels of one cluster.
    fn found_with(source: &str, extractor: &str, labels: &str) -> Vec<String> {
        let mut text = BOOTSTRAP.to_owned();
        for (known, with) in [
            (
                "{cluster: model-server-metrics}",
                format!("{{cluster: model-server-metrics{source}}}"),
            ),
            (
                "- type: core-metrics-extractor\n",
                format!("- {{type: core-metrics-extractor, parameters: {{{extractor}}}}}\n"),
            ),
            (
                "{llm-d.ai/role: prefill}",
                format!("{{llm-d.ai/role: prefill{labels}}}"),
            ),
        ] {
            assert!(text.contains(known), "{known}");
            text = text.replace(known, &with);
        }
        found(&super::RULE, &text)
    }

    #[test]
    fn finds_loads_without_an_endpoint_that_can_serve_them() {
        let loads = ", sglangLoads: true";
        for (source, extractor, label, is_fault) in [
            (loads, "", "", true),
            (loads, "defaultEngine: sglang", "", false),
            (loads, "", ", llm-d.ai/engine-type: sglang", false),
            (loads, "", ", inference.networking.k8s.io/engine-type: sglang", false),
            (loads, "", ", llm-d.ai/engine-type: vllm", true),
            (loads, "engineLabelKey: mine", ", llm-d.ai/engine-type: sglang", true),
            (loads, "engineLabelKey: mine", ", mine: sglang", false),
            // Its own names of families change nothing of that.
            (
                loads,
                "engineConfigs: [{name: sglang, queuedRequestsSpec: q, runningRequestsSpec: r, kvUsageSpec: u}]",
                "",
                true,
            ),
            ("", "", "", false),
        ] {
            let found = found_with(source, extractor, label);
            assert_eq!(found.len(), usize::from(is_fault), "{extractor}, {label}: {found:?}");
        }
        let found = found_with(loads, "", "");
        assert!(found[0].contains("the default is vllm"), "{found:?}");
    }
}

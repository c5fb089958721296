//! Bodies do not reach the filter before the request is routed.

use epp_core::config::settings::ReadBody;
use epp_core::config::value::Node;

use super::patches::{operations, patches, Patch};
use super::picker::{Home, Picker};
use super::site::{below, flag, text_below, Site};
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "body-unread",
    finds: "the filter without `allow_on_headers_stop_iteration`",
    why: "Envoy routes a request before its body can be read, so decisions ignore the prompt and the model",
    fix: "set allow_on_headers_stop_iteration: true beside vm_config (Istio: in an EnvoyFilter, since a WasmPlugin has no such field; Envoy Gateway: in an EnvoyPatchPolicy), or readBody: never on the envoy-proxy plugin",
    check: |site| {
        let mut faults = Vec::new();
        for picker in &site.pickers {
            let never = matches!(&picker.loaded, Ok(plan) if plan.settings.read_body != ReadBody::Auto
                || !(plan.needs.prompt || plan.needs.model));
            if never {
                continue;
            }
            match delivers(site, picker) {
                Delivers::Yes => {}
                Delivers::No => faults.push(Fault::at(&picker.path, "allow_on_headers_stop_iteration is not set")),
                Delivers::NotSeen => faults.push(Fault::not_seen(
                    &picker.path,
                    "an EnvoyPatchPolicy that sets allow_on_headers_stop_iteration",
                )),
            }
        }
        faults
    },
};

/// Returns whether Envoy delivers bodies to a picker before it routes a request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Delivers {
    /// Bodies are delivered.
    Yes,
    /// Bodies are not delivered.
    No,
    /// It depends on a file that was not given.
    NotSeen,
}

/// Returns whether bodies reach a picker.
pub fn delivers(site: &Site<'_>, picker: &Picker<'_>) -> Delivers {
    const FLAG: &str = "allow_on_headers_stop_iteration";
    let patched = |node: &Node| flag(node) == Some(true);
    match picker.home {
        Home::WasmPlugin | Home::HigressPlugin => Delivers::No,
        Home::ModuleFilter | Home::ModulePolicy => Delivers::Yes,
        _ if picker.settings.get(FLAG).and_then(flag) == Some(true) => Delivers::Yes,
        _ if patched_field(site, picker, FLAG).is_some_and(patched) => Delivers::Yes,
        Home::ExtensionPolicy if site.objects("EnvoyPatchPolicy").next().is_none() => {
            Delivers::NotSeen
        }
        _ => Delivers::No,
    }
}

/// Returns the value that a patch of Istio or Envoy Gateway gives a field of a picker's settings.
pub fn patched_field<'s>(site: &'s Site<'_>, picker: &Picker<'_>, field: &str) -> Option<&'s Node> {
    let operations = operations(site);
    let mut set = operations
        .iter()
        .filter(|operation| operation.may_be_for(&picker.names));
    let by_gateway = set.find_map(|operation| Some(operation.sets("Listener", field)?.1));
    by_gateway.or_else(|| {
        // The last one that is merged counts.
        let patches = patches(site);
        let mut merged = patches
            .iter()
            .rev()
            .filter(|patch| is_merged_into(patch, picker));
        merged.find_map(|patch| below(patch.value()?, &["typed_config", "config", field]))
    })
}

/// Returns whether a patch of Istio's is merged into a picker's filter.
fn is_merged_into(patch: &Patch<'_>, picker: &Picker<'_>) -> bool {
    const NAMED: &[&[&str]] = &[
        &["patch", "value", "name"],
        &["patch", "value", "typed_config", "config", "name"],
        &[
            "match",
            "listener",
            "filter_chain",
            "filter",
            "sub_filter",
            "name",
        ],
    ];
    let named = |keys: &&[&str]| picker.names.contains(&text_below(patch.entry, keys));
    let changes = matches!(patch.target(), "HTTP_FILTER" | "EXTENSION_CONFIG");
    changes && patch.operation() == "MERGE" && NAMED.iter().any(named)
}

#[cfg(test)]
pub mod tests {
    use crate::lint::found;

    /// A picker of Envoy Gateway's.
    pub const POLICY: &str = "apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyExtensionPolicy
metadata: {name: epp, namespace: llm}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: vllm}]
  wasm:
  - name: epp
    config:
      apiVersion: llm-d.ai/v1alpha1
      kind: EndpointPickerConfig
      plugins:
      - {name: members, type: envoy-cluster-discovery, parameters: {clusters: [httproute/llm/vllm/rule/0]}}
      - type: queue-scorer
      - type: prefix-cache-scorer
      schedulingProfiles:
      - name: default
        plugins: [{pluginRef: queue-scorer}, {pluginRef: prefix-cache-scorer}]
      dataLayer:
        discovery: {pluginRef: members}
";

    #[test]
    fn finds_the_missing_flag() {
        let right = "allow_on_headers_stop_iteration: true";
        let auto = include_str!("../../../../envoy/envoy.yaml")
            .replace("readBody: always", "readBody: auto");
        assert!(found(&super::RULE, &auto).is_empty());
        let wrong = auto.replace(right, "fail_open: false");
        assert_eq!(found(&super::RULE, &wrong).len(), 1);
    }

    #[test]
    fn a_quoted_flag_is_set() {
        let right = "allow_on_headers_stop_iteration: true";
        let auto = include_str!("../../../../envoy/envoy.yaml")
            .replace("readBody: always", "readBody: auto");
        let with = |value: &str| {
            let quoted = format!("allow_on_headers_stop_iteration: \"{value}\"");
            found(&super::RULE, &auto.replace(right, &quoted)).len()
        };
        assert_eq!((with("true"), with("false")), (0, 1));
    }

    #[test]
    fn istio_merges_the_flag_into_a_filter() {
        let filter = include_str!("../../../../envoy/istio/filter.yaml")
            .replace("            allow_on_headers_stop_iteration: true\n", "")
            .replace("readBody: always", "readBody: auto");
        assert_eq!(found(&super::RULE, &filter).len(), 1);
        let with = |filter: &str, name: &str| {
            let patch = format!("---\nkind: EnvoyFilter\nspec: {{configPatches: [{{applyTo: HTTP_FILTER, match: {{listener: {{filterChain: {{filter: {{subFilter: {{name: {name}}}}}}}}}}}, patch: {{operation: MERGE, value: {{typedConfig: {{config: {{allowOnHeadersStopIteration: true}}}}}}}}}}]}}\n");
            found(&super::RULE, &format!("{filter}{patch}")).len()
        };
        assert_eq!(with(&filter, "epp"), 0);
        assert_eq!(with(&filter, "other"), 1);
        // A filter without a name is not every filter.
        let lines = filter.lines().filter(|line| line.trim() != "name: epp");
        let nameless: Vec<&str> = lines.collect();
        assert_eq!(with(&format!("{}\n", nameless.join("\n")), "other"), 1);
    }

    #[test]
    fn envoy_gateway_is_patched() {
        let alone = found(&super::RULE, POLICY);
        assert!(
            alone.len() == 1 && alone[0].starts_with("not seen: spec.wasm[0]"),
            "{alone:?}"
        );
        let patched = |selected: &str, field: &str, value: &str| {
            let patch = format!("---\nkind: EnvoyPatchPolicy\nspec:\n  jsonPatches:\n  - type: x/envoy.config.listener.v3.Listener\n    operation:\n      op: add\n      jsonPath: '$..http_filters[?(@.typed_config.config.name==\"{selected}\")].typed_config.config'\n      path: {field}\n      value: {value}\n");
            found(&super::RULE, &format!("{POLICY}{patch}"))
        };
        let flag = "allow_on_headers_stop_iteration";
        assert!(patched("epp", flag, "true").is_empty());
        for (selected, field, value) in [
            ("other", flag, "true"),
            ("epp", "other", "true"),
            ("epp", flag, "false"),
        ] {
            let found = patched(selected, field, value);
            assert!(
                found.len() == 1 && found[0].starts_with("spec.wasm[0]"),
                "{found:?}"
            );
        }
    }
}

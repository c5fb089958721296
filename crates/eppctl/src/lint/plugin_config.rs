//! The picker's document does not load.

use epp_core::config::value::problem::Step;
use epp_core::config::value::Problem;

use super::picker::{Home, Picker};
use super::site::text;
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "plugin-config",
    finds: "an EndpointPickerConfig that does not load, or is not a StringValue in Envoy's own settings; Higress' `matchRules`",
    why: "Envoy rejects the update; at its first start, the listener has no picker",
    fix: "correct the document; `eppctl check` shows each problem with its line",
    check: |site| {
        let refused = site
            .pickers
            .iter()
            .filter_map(|picker| Some((picker, picker.loaded.as_ref().err()?)));
        let refused = refused.flat_map(|(picker, rejected)| {
            rejected.errors.iter().map(|error| fault(picker, error))
        });
        site.pickers
            .iter()
            .filter_map(unreadable)
            .chain(refused)
            .collect()
    },
};

/// Finds a configuration that does not reach the filter as its text.
///
/// Envoy unwraps strings and bytes, and passes a Struct to dynamic modules as JSON; of every other message the filter gets
/// the encoded bytes.
fn unreadable(picker: &Picker<'_>) -> Option<Fault> {
    let (key, template) = match picker.home {
        Home::Filter => ("configuration", "envoy/envoy.yaml"),
        Home::ModuleFilter => ("filter_config", "envoy/module.yaml"),
        _ => return None,
    };
    let configuration = picker.settings.get(key)?;
    let path = picker.path.key(key);
    let kind = text(configuration, "@type");
    let kind = kind.rsplit('/').next().unwrap_or_default();
    let fault = match kind {
        "google.protobuf.StringValue" | "google.protobuf.BytesValue" => return None,
        "google.protobuf.Struct" if picker.home.is_module() => return None,
        "" => Fault::at(
            &path,
            format!("{key} has no @type: expected google.protobuf.StringValue"),
        ),
        kind => Fault::at(
            &path.key("@type"),
            format!("{key} is a {kind}: expected google.protobuf.StringValue"),
        ),
    };
    Some(fault.fixed_by(format!("write the document as a string: {key}: {{\"@type\": type.googleapis.com/google.protobuf.StringValue, value: |…}}, as in {template}")))
}

fn fault(picker: &Picker<'_>, error: &Problem) -> Fault {
    let first = error.path.steps().first();
    let is_rules = matches!(first, Some(Step::Key(key)) if **key == *"_rules_");
    if picker.home == Home::HigressPlugin && is_rules {
        let what = "Higress adds _rules_ to the document if there are matchRules, and the filter rejects it: remove them; the filter acts only on routes to its cluster";
        return Fault::at(&picker.path.key("match_rules"), what);
    }
    if picker.is_text {
        return Fault {
            below: error.location.map_or(0, |(line, _)| line),
            ..Fault::at(&picker.document, error.to_string())
        };
    }
    // The document is part of the tree, so the problem has a path in the tree.
    let place = error
        .path
        .steps()
        .iter()
        .fold(picker.document.clone(), |path, step| match step {
            Step::Key(key) => path.key(key),
            Step::Index(index) => path.index(*index),
        });
    Fault::at(&place, &*error.message)
}

#[cfg(test)]
mod tests {
    use crate::lint::body_unread::tests::POLICY;
    use crate::lint::found;

    #[test]
    fn finds_a_document_that_does_not_load() {
        crate::lint::finds(&super::RULE, "hashBlockSize: 5", "hashBlokSize: 5");
    }

    #[test]
    fn finds_a_configuration_that_is_not_a_text() {
        let picker = |configuration: &str| {
            let text =
                format!("{{'@type': x/wasm.v3.Wasm, config: {{configuration: {configuration}}}}}");
            found(&super::RULE, &text)
        };
        let document = "kind: EndpointPickerConfig, apiVersion: llm-d.ai/v1alpha1, plugins: [{type: queue-scorer}], schedulingProfiles: [{name: default, plugins: [{pluginRef: queue-scorer}]}]";
        let kind = "'@type': type.googleapis.com/google.protobuf";
        let expected = "config.configuration.@type: configuration is a google.protobuf.Struct: expected google.protobuf.StringValue";
        let as_struct = format!("{{{kind}.Struct, value: {{{document}}}}}");
        assert_eq!(picker(&as_struct), [expected]);
        let bare = picker(&format!("'{{{document}}}'"));
        assert!(bare.len() == 1 && bare[0].contains("no @type"), "{bare:?}");
        let text = format!("{{{kind}.StringValue, value: '{{{document}}}'}}");
        assert!(picker(&text).is_empty());
        // What the log says of the bytes of a Struct.
        let rejected = epp_core::config::load_bytes(&[10, 0xff]).unwrap_err();
        let said = rejected.errors[0].to_string();
        assert!(
            said.contains("at byte 1: is `configuration` a StringValue?"),
            "{said}"
        );
    }

    #[test]
    fn names_a_misspelt_kind() {
        let bootstrap = include_str!("../../../../envoy/envoy.yaml");
        let misspelt = |text: &str| {
            let text = text.replace("kind: EndpointPickerConfig", "kind: EndpointPickerConf");
            let owned = crate::lint::unowned_override_host::RULE;
            assert!(found(&owned, &text).is_empty());
            let found = found(&super::RULE, &text);
            assert!(
                found.len() == 1 && found[0].contains("EndpointPickerConf"),
                "{found:?}"
            );
        };
        misspelt(bootstrap);
        misspelt(POLICY);
        misspelt(include_str!("../../../../envoy/istio/wasmplugin.yaml"));
    }

    #[test]
    fn the_place_is_inside_a_document_without_a_text() {
        assert!(found(&super::RULE, POLICY).is_empty());
        let text = POLICY.replace("- type: queue-scorer", "- type: queue-scorrer");
        let found = found(&super::RULE, &text);
        let place = "spec.wasm[0].config.plugins[1].type: ";
        assert!(
            found.iter().any(|found| found.starts_with(place)),
            "{found:?}"
        );
    }

    #[test]
    fn finds_the_rules_of_higress() {
        let plugin = "apiVersion: extensions.higress.io/v1alpha1\nkind: WasmPlugin\nspec:\n  defaultConfig:\n    apiVersion: llm-d.ai/v1alpha1\n    kind: EndpointPickerConfig\n    plugins: [{type: queue-scorer}]\n    schedulingProfiles: [{name: default, plugins: [{pluginRef: queue-scorer}]}]\n";
        assert!(found(&super::RULE, plugin).is_empty());
        let rules = format!("{plugin}  matchRules:\n  - ingress: [llm]\n    config: {{}}\n");
        let found = found(&super::RULE, &rules);
        assert!(
            found.len() == 1 && found[0].starts_with("spec.matchRules: "),
            "{found:?}"
        );
    }
}

//! A patch of Envoy Gateway's matches nothing.

use epp_core::config::value::{Node, Path};

use super::picker::Home;
use super::site::{below, entries, number, path_below, text, text_below, Site};
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "unmatched-patch",
    finds: "an EnvoyPatchPolicy with a patch of a listener or a filter that does not exist, or of a filter by a name that differs between providers",
    why: "the policy is Accepted and not Programmed, its other patches are applied all the same, and the filter runs without reading bodies",
    fix: "name the listener NAMESPACE/GATEWAY/LISTENER (with XDSNameSchemeV2: tcp-PORT), and select the filter by the plugin's name, as in envoy/gateway/patch.yaml; `kubectl get envoypatchpolicy -o yaml` shows whether it is Programmed",
    check: |site| {
        let mut faults = Vec::new();
        for (path, policy) in site.objects("EnvoyPatchPolicy") {
            let keys = ["spec", "json_patches"];
            let path = path_below(path, &keys);
            for (index, patch) in entries(policy, &keys).iter().enumerate() {
                let path = path.index(index);
                faults.extend(listener(site, policy, &path, patch));
                faults.extend(filter(site, &path, patch));
            }
        }
        faults
    },
};

/// Finds the patch of a listener, or of its routes, that the policy's Gateway does not have.
fn listener(site: &Site<'_>, policy: &Node, path: &Path, patch: &Node) -> Option<Fault> {
    let kind = text(patch, "type").rsplit('.').next().unwrap_or_default();
    let operation = below(patch, &["operation"])?;
    // A whole resource is added under a name of its own.
    let is_whole = text(operation, "path").is_empty() && text(operation, "json_path").is_empty();
    let target = below(policy, &["spec", "target_ref"])?;
    if is_whole
        || !matches!(kind, "Listener" | "RouteConfiguration")
        || text(target, "kind") != "Gateway"
    {
        return None;
    }
    let (gateway, namespace) = (
        text(target, "name"),
        text_below(policy, &["metadata", "namespace"]),
    );
    let known = site.objects("Gateway").find(|(_, object)| {
        let own = text_below(object, &["metadata", "namespace"]);
        text_below(object, &["metadata", "name"]) == gateway
            && (own.is_empty() || namespace.is_empty() || own == namespace)
    });
    let listeners = known.map(|(_, gateway)| entries(gateway, &["spec", "listeners"]));
    let has = |wanted: &dyn Fn(&Node) -> bool| listeners.is_none_or(|all| all.iter().any(wanted));
    let name = text(patch, "name");
    let mut parts = name.splitn(3, '/');
    let exists = match (parts.next(), parts.next(), parts.next()) {
        (Some(own), Some(of), Some(listener)) => {
            (namespace.is_empty() || own == namespace)
                && of == gateway
                && has(&|one| text(one, "name") == listener)
        }
        (Some(name), None, None) => {
            let port = name.split_once('-').and_then(|(_, port)| port.parse().ok());
            port.is_some() && has(&|one| one.get("port").and_then(number) == port)
        }
        _ => false,
    };
    let what = format!("Gateway {gateway} has no {name}");
    (!exists).then(|| Fault::at(&path.key("name"), what))
}

/// Finds the patch that selects a filter of ours by a name that is not its plugin's.
fn filter(site: &Site<'_>, path: &Path, patch: &Node) -> Option<Fault> {
    let place = path_below(path, &["operation", "json_path"]);
    let selector = text_below(patch, &["operation", "json_path"]);
    let named = selector.split(['"', '\'']).skip(1).step_by(2);
    let by_name = named
        .clone()
        .find(|name| name.starts_with("envoy.filters.http.wasm/"));
    if let Some(name) = by_name {
        let what = format!(
            "selects the filter as {name}, a name that differs between providers of Envoy Gateway"
        );
        let fix = "select it by the plugin's name, as in envoy/gateway/patch.yaml: $..http_filters[?(@.typed_config.config.name==\"epp\")].typed_config.config";
        return Some(Fault::at(&place, what).fixed_by(fix));
    }
    let after = selector.split_once("config.name")?.1;
    let wanted = after.split(['"', '\'']).nth(1)?;
    let own = site.pickers.iter();
    let own = own.filter(|picker| picker.home == Home::ExtensionPolicy);
    let names: Vec<&str> = own
        .flat_map(|picker| picker.names.iter().copied())
        .collect();
    if names.is_empty() || names.contains(&wanted) {
        return None;
    }
    let what = format!(
        "selects the plugin {wanted}: the policies here have {}",
        names.join(", ")
    );
    Some(Fault::at(&place, what))
}

#[cfg(test)]
mod tests {
    use crate::lint::body_unread::tests::POLICY;
    use crate::lint::found;

    const PATCH: &str = include_str!("../../../../envoy/gateway/patch.yaml");
    const GATEWAY: &str = include_str!("../../../../envoy/gateway/gateway.yaml");

    /// What is found of the manifests with a change of the patch.
    fn with(right: &str, wrong: &str) -> Vec<String> {
        assert!(PATCH.contains(right), "{right}");
        let patch = PATCH.replace(right, wrong);
        found(&super::RULE, &format!("{patch}---\n{GATEWAY}---\n{POLICY}"))
    }

    #[test]
    fn finds_a_listener_that_the_gateway_does_not_have() {
        let name = "name: llm/llm/http";
        assert!(with(name, name).is_empty());
        for wrong in [
            "name: llm/llm/https",
            "name: llm/other/http",
            "name: other/llm/http",
            "name: http",
            "name: tcp-81",
        ] {
            let found = with(name, wrong);
            assert!(
                found.len() == 4 && found[0].starts_with("spec.jsonPatches[0].name: "),
                "{wrong}: {found:?}"
            );
        }
        assert!(with(name, "name: tcp-80").is_empty());
        // Without the Gateway, what the policy itself says.
        let alone = |name: &str| found(&super::RULE, &PATCH.replace("llm/llm/http", name)).len();
        assert_eq!(
            (
                alone("llm/llm/https"),
                alone("llm/gate/http"),
                alone("tcp-1")
            ),
            (0, 4, 0)
        );
    }

    #[test]
    fn finds_a_filter_by_another_name_than_its_plugins() {
        let plugin = "config.name==\"epp\"";
        let other = with(plugin, "config.name==\"picker\"");
        assert!(
            other.len() == 3
                && other[0].ends_with("selects the plugin picker: the policies here have epp"),
            "{other:?}"
        );
        let exact = "@.typed_config.config.name==\"epp\"";
        let exact = with(
            exact,
            "@.name==\"envoy.filters.http.wasm/envoyextensionpolicy/llm/epp/wasm/0\"",
        );
        assert!(
            exact.len() == 3 && exact[0].contains("differs between providers"),
            "{exact:?}"
        );
        // The filter may be in a file that was not given.
        let patch = PATCH.replace(plugin, "config.name==\"picker\"");
        assert!(found(&super::RULE, &patch).is_empty());
        // A listener of its own has its own name.
        let own = include_str!("../../../../envoy/gateway/from-file.yaml");
        assert!(found(&super::RULE, &format!("{own}---\n{GATEWAY}")).is_empty());
    }
}

//! Finds filters that read an EndpointPickerConfig, in the objects of every control plane.

use epp_core::config::value::{Node, Path};
use epp_core::config::{self, Plan, Rejected};

use super::normal::is_like_one;
use super::site::{below, entries, holds, text, Site};
use crate::base64::base64;

/// A filter that reads an EndpointPickerConfig.
pub struct Picker<'a> {
    /// The path of its settings: Envoy's `PluginConfig` or `DynamicModuleFilter`, a `spec`, or an entry of `spec.wasm` or
    /// `spec.dynamic_module`.
    pub path: Path,
    /// Its settings.
    pub settings: &'a Node,
    /// The names by which patches may refer to it: the plugin's and the filter's.
    pub names: Vec<&'a str>,
    /// The kind of object that contains the settings.
    pub home: Home,
    /// The path of its EndpointPickerConfig.
    pub document: Path,
    /// True if that is a string with lines of its own, false if it is part of the tree.
    pub is_text: bool,
    /// The result of loading it.
    pub loaded: Result<Plan, Rejected>,
}

/// The kind of object that contains a filter's settings.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// Envoy's own message, in a bootstrap or in a patch.
    Filter,
    /// Envoy's own message for a dynamic module.
    ModuleFilter,
    /// Istio's `WasmPlugin`, which has no field for `allow_on_headers_stop_iteration`.
    WasmPlugin,
    /// Higress' `WasmPlugin`, which also has rules for routes.
    HigressPlugin,
    /// An entry of Envoy Gateway's `EnvoyExtensionPolicy`; fields that it lacks need a patch.
    ExtensionPolicy,
    /// The same for a dynamic module.
    ModulePolicy,
}

impl Home {
    /// Returns whether this is the dynamic module, which needs no VM and gets bodies without a setting.
    pub fn is_module(self) -> bool {
        matches!(self, Self::ModuleFilter | Self::ModulePolicy)
    }
}

/// Returns the pickers among these mappings.
pub fn pickers<'a>(maps: &[(Path, &'a Node)]) -> Vec<Picker<'a>> {
    let mut found = Vec::new();
    for &(ref path, map) in maps {
        match text(map, "kind") {
            "WasmPlugin" => plugin(path, map, &mut found),
            "EnvoyExtensionPolicy" => policy(path, map, &mut found),
            _ => found.extend(filter(path, map).map(|mut picker| {
                let above = path
                    .steps()
                    .split_last()
                    .map_or(&[][..], |(_, above)| above);
                let filter = maps.iter().find(|(place, _)| place.steps() == above);
                let name = filter.map_or("", |(_, map)| text(map, "name"));
                picker.names.push(name);
                picker
            })),
        }
    }
    for picker in &mut found {
        picker.names.retain(|name| !name.is_empty());
    }
    found
}

/// Returns the picker in a filter's own message.
fn filter<'a>(path: &Path, map: &'a Node) -> Option<Picker<'a>> {
    let kind = text(map, "@type");
    let (path, settings, home) = if kind.ends_with("wasm.v3.Wasm") {
        (path.key("config"), map.get("config")?, Home::Filter)
    } else if kind.ends_with("dynamic_modules.v3.DynamicModuleFilter") {
        (path.clone(), map, Home::ModuleFilter)
    } else {
        return None;
    };
    let (name, key) = match home.is_module() {
        true => ("filter_name", "filter_config"),
        false => ("name", "configuration"),
    };
    let configuration = settings.get(key)?;
    let value = configuration.get("value").unwrap_or(configuration);
    let document = match configuration.get("value") {
        Some(_) => path.key(key).key("value"),
        None => path.key(key),
    };
    let decoded = match value {
        Node::String(coded) if text(configuration, "@type").ends_with("protobuf.BytesValue") => {
            Some(Node::String(base64(coded)?))
        }
        _ => None,
    };
    let is_text = decoded.is_none() && matches!(value, Node::String(_));
    let value = decoded.as_ref().unwrap_or(value);
    let is_ours = holds(value, &|text| text.contains("EndpointPickerConfig"));
    (is_ours || is_misspelt(value)).then(|| Picker {
        path,
        settings,
        names: vec![text(settings, name)],
        home,
        document,
        is_text,
        loaded: load(value),
    })
}

/// Returns the pickers in a `WasmPlugin` of Istio or Higress.
fn plugin<'a>(path: &Path, map: &'a Node, found: &mut Vec<Picker<'a>>) {
    let Some(settings) = map.get("spec") else {
        return;
    };
    let path = path.key("spec");
    let is_higress = text(map, "api_version").starts_with("extensions.higress.io/");
    let home = match is_higress {
        true => Home::HigressPlugin,
        false => Home::WasmPlugin,
    };
    let mut add = |document: Path, node: Option<&Node>, rules: &[Node]| {
        let node = node.filter(|node| is_ours(node));
        found.extend(node.map(|node| Picker {
            path: path.clone(),
            settings,
            names: vec![text(settings, "plugin_name")],
            home,
            document,
            is_text: false,
            loaded: load(&with_rules(node, rules)),
        }));
    };
    add(
        path.key("plugin_config"),
        settings.get("plugin_config"),
        &[],
    );
    if is_higress {
        let rules = entries(settings, &["match_rules"]);
        add(
            path.key("default_config"),
            settings.get("default_config"),
            rules,
        );
        for (index, rule) in rules.iter().enumerate() {
            let document = path.key("match_rules").index(index).key("config");
            add(document, rule.get("config"), &[]);
        }
    }
}

/// Returns the configuration that Higress passes to the filter: the document, with the rules as an
/// extra key.
fn with_rules(node: &Node, rules: &[Node]) -> Node {
    match node {
        Node::Map(entries) if !rules.is_empty() => {
            let mut entries = entries.clone();
            entries.push(("_rules_".to_owned(), Node::List(Vec::new())));
            Node::Map(entries)
        }
        other => other.clone(),
    }
}

/// Returns the pickers in an `EnvoyExtensionPolicy`.
fn policy<'a>(path: &Path, map: &'a Node, found: &mut Vec<Picker<'a>>) {
    let lists = [
        ("wasm", "name", Home::ExtensionPolicy),
        ("dynamic_module", "filter_name", Home::ModulePolicy),
    ];
    for (list, name, home) in lists {
        for (index, settings) in entries(map, &["spec", list]).iter().enumerate() {
            let path = path.key("spec").key(list).index(index);
            let node = settings.get("config").filter(|node| is_ours(node));
            found.extend(node.map(|node| Picker {
                document: path.key("config"),
                path,
                settings,
                names: vec![text(settings, name)],
                home,
                is_text: false,
                loaded: load(node),
            }));
        }
    }
}

fn is_ours(node: &Node) -> bool {
    holds(node, &|text| text == "EndpointPickerConfig") || is_misspelt(node)
}

/// Returns whether this is an EndpointPickerConfig except for its kind, as a string or a mapping.
fn is_misspelt(node: &Node) -> bool {
    match node {
        Node::String(text) => config::parse(text).is_ok_and(|node| is_like_one(&node)),
        node => is_like_one(node),
    }
}

impl Picker<'_> {
    /// Returns whether a control plane adds it to listeners that are not in the files.
    pub fn is_inserted(&self, site: &Site<'_>) -> bool {
        let mut objects = site
            .objects("EnvoyFilter")
            .chain(site.objects("EnvoyPatchPolicy"));
        !matches!(self.home, Home::Filter | Home::ModuleFilter)
            || objects.any(|(path, _)| self.path.steps().starts_with(path.steps()))
    }

    /// Returns whether Envoy Gateway configures it.
    pub fn is_envoy_gateways(&self, site: &Site<'_>) -> bool {
        let mut policies = site.objects("EnvoyPatchPolicy");
        matches!(self.home, Home::ExtensionPolicy | Home::ModulePolicy)
            || policies.any(|(path, _)| self.path.steps().starts_with(path.steps()))
    }

    /// Returns its `vm_id`.
    pub fn vm_id(&self) -> &str {
        below(self.settings, &["vm_config"]).map_or("", |vm| text(vm, "vm_id"))
    }
}

fn load(node: &Node) -> Result<Plan, Rejected> {
    let loaded = match node {
        Node::String(text) => config::load(text),
        other => config::load(&crate::schema::value(other).to_string()),
    };
    loaded.map(|loaded| loaded.plan)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lint::normal::normal;

    const PICKER: &str = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins: []\n";

    /// The pickers of a document: whether each loads, and where its document is.
    fn found(text: &str) -> Vec<(bool, String)> {
        let documents = [normal(&config::parse(text).unwrap())];
        let site = Site::of(&documents);
        let pickers = site.pickers.iter();
        pickers
            .map(|picker| (picker.loaded.is_ok(), picker.document.to_string()))
            .collect()
    }

    #[test]
    fn a_configuration_is_text_bytes_or_a_struct() {
        let filter = |configuration: &str| {
            found(&format!(
                "{{'@type': x/wasm.v3.Wasm, config: {{configuration: {configuration}}}}}"
            ))
        };
        let text = format!(
            "{{'@type': x/google.protobuf.StringValue, value: {:?}}}",
            PICKER.replace("[]", "{}")
        );
        assert_eq!(filter(&text).len(), 1);
        let bytes = "{'@type': x/google.protobuf.BytesValue, value: eyJraW5kIjogIkVuZHBvaW50UGlja2VyQ29uZmlnIn0=}";
        let place = "[0].config.configuration.value";
        assert_eq!(filter(bytes), [(false, place.to_owned())]);
        let others = bytes.replace("eyJr", "eyJ.");
        assert_eq!(filter(&others), []);
        let node = "{'@type': x/google.protobuf.Struct, value: {kind: EndpointPickerConfig}}";
        assert_eq!(filter(node), [(false, place.to_owned())]);
    }

    #[test]
    fn higress_has_documents_of_its_own() {
        let document = "apiVersion: llm-d.ai/v1alpha1, kind: EndpointPickerConfig, plugins: [{type: queue-scorer}], schedulingProfiles: [{name: default, plugins: [{pluginRef: queue-scorer}]}]";
        let plugin = |spec: &str| {
            found(&format!("{{apiVersion: extensions.higress.io/v1alpha1, kind: WasmPlugin, spec: {{{spec}}}}}"))
        };
        let default = format!("defaultConfig: {{{document}}}");
        assert_eq!(
            plugin(&default),
            [(true, "[0].spec.default_config".to_owned())]
        );
        // Higress hands over another document where there are rules.
        let rules = format!("{default}, matchRules: [{{ingress: [a], config: {{{document}}}}}]");
        let expected = [
            (false, "[0].spec.default_config".to_owned()),
            (true, "[0].spec.match_rules[0].config".to_owned()),
        ];
        assert_eq!(plugin(&rules), expected);
        let istio = found(&format!(
            "{{apiVersion: extensions.istio.io/v1alpha1, kind: WasmPlugin, spec: {{{default}}}}}"
        ));
        assert_eq!(istio, []);
    }

    #[test]
    fn a_dynamic_module_has_a_filter_configuration() {
        let filter = |configuration: &str| {
            found(&format!(
                "{{'@type': x/dynamic_modules.v3.DynamicModuleFilter, filter_name: epp, filter_config: {configuration}}}"
            ))
        };
        let text = "{'@type': x/google.protobuf.StringValue, value: 'kind: EndpointPickerConfig'}";
        let place = "[0].filter_config.value";
        assert_eq!(filter(text), [(false, place.to_owned())]);
        let node = "{'@type': x/google.protobuf.Struct, value: {kind: EndpointPickerConfig}}";
        assert_eq!(filter(node), [(false, place.to_owned())]);
        assert_eq!(
            filter("{'@type': x/google.protobuf.StringValue, value: other}"),
            []
        );
        let text = "{kind: EnvoyExtensionPolicy, spec: {dynamicModule: [{name: epp, filterName: epp, config: {kind: EndpointPickerConfig}}]}}";
        let place = "[0].spec.dynamic_module[0].config";
        assert_eq!(found(text), [(false, place.to_owned())]);
    }

    #[test]
    fn envoy_gateway_has_a_list_of_them() {
        let text = "{kind: EnvoyExtensionPolicy, spec: {wasm: [{name: other, config: {}}, {name: epp, config: {kind: EndpointPickerConfig}}]}}";
        assert_eq!(found(text), [(false, "[0].spec.wasm[1].config".to_owned())]);
    }
}

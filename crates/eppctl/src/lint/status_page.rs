//! The status page is reachable from other machines, or shares a picker's VM.

use epp_core::config::value::{Node, Path};

use super::site::{below, holds, is_loopback, text, Site};
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "status-page",
    finds: "a status page that other machines can reach, or in a picker's VM; a misspelt `root_id`",
    why: "the status page has no authentication and shows addresses, models and load; in a picker's VM it does not start",
    fix: "bind its listener to 127.0.0.1, and give its vm_config the pickers' vm_id and a configuration of its own",
    check: |site| open(site).chain(mixed(site)).chain(misspelt(site)).collect(),
};

/// Returns whether a plugin's settings are those of the status page.
fn is_page(settings: &Node) -> bool {
    let is_module = settings.get("dynamic_module_config").is_some();
    text(settings, "root_id") == "status" && settings.get("vm_config").is_some()
        || text(settings, "filter_name") == "status" && is_module
}

fn open<'a>(site: &'a Site<'_>) -> impl Iterator<Item = Fault> + 'a {
    let pages = site.maps.iter().filter(|(_, map)| is_page(map));
    pages.filter_map(|(page, _)| {
        let inside = |path: &Path| page.steps().starts_with(path.steps());
        let mut listeners = site.maps.iter().filter(|(path, map)| {
            inside(path) && map.get("filter_chains").is_some() && map.get("address").is_some()
        });
        let (path, listener) = listeners.next()?;
        let host = text(below(listener, &["address", "socket_address"])?, "address");
        let what = format!("the status page is bound to {host}");
        (!is_loopback(host)).then(|| Fault::at(&path.key("address"), what))
    })
}

fn mixed<'a>(site: &'a Site<'_>) -> impl Iterator<Item = Fault> + 'a {
    let pages = site.maps.iter().filter(|(_, map)| is_page(map));
    pages.filter_map(|(path, page)| {
        let what = wrong(site, page.get("vm_config")?)?;
        Some(Fault::at(&path.key("vm_config"), what))
    })
}

/// Finds a `root_id` that the module does not have, without a document that would make it a picker.
fn misspelt<'a>(site: &'a Site<'_>) -> impl Iterator<Item = Fault> + 'a {
    let roots = site.maps.iter().filter(|(_, map)| {
        !matches!(text(map, "root_id"), "" | "status")
            && is_blank(map.get("configuration"))
            && map.get("vm_config").is_some_and(|vm| is_ours(site, vm))
    });
    roots.map(|(path, map)| {
        let what = format!(
            "unknown root_id {} without an EndpointPickerConfig",
            text(map, "root_id")
        );
        Fault::at(&path.key("root_id"), what)
            .because("every root_id but `status` is a picker, which does not start without an EndpointPickerConfig")
            .fixed_by("for the status page set root_id: status; for a picker remove it and set the EndpointPickerConfig as configuration")
    })
}

/// Returns whether a VM runs the module: by its file name, or because a picker uses the same code.
fn is_ours(site: &Site<'_>, vm: &Node) -> bool {
    let by_name = |text: &str| text.contains("epp_wasm") || text.contains("epp-wasm");
    let mut pickers = site.pickers.iter();
    let code = vm.get("code");
    code.is_some_and(|code| {
        holds(code, &by_name)
            || pickers.any(|picker| below(picker.settings, &["vm_config", "code"]) == Some(code))
    })
}

/// Returns whether a string message is empty.
fn is_blank(message: Option<&Node>) -> bool {
    match message.and_then(|message| message.get("value")) {
        None | Some(Node::Null) => true,
        Some(Node::String(text)) => text.trim().is_empty(),
        Some(_) => false,
    }
}

/// Returns what is wrong with the page's VM, given the pickers of the same document.
fn wrong(site: &Site<'_>, vm: &Node) -> Option<&'static str> {
    let own = vm.get("configuration");
    let blank = match own.map(|own| own.get("value")) {
        None => true,
        Some(value) => matches!(value, Some(Node::String(text)) if text.is_empty()),
    };
    if blank {
        return Some("the status page has no VM of its own: vm_config has no configuration");
    }
    let pickers = site.pickers.iter();
    let pickers: Vec<&Node> = pickers
        .filter_map(|picker| picker.settings.get("vm_config"))
        .collect();
    let with_it = |picker: &&&Node| text(picker, "vm_id") == text(vm, "vm_id");
    if !pickers.is_empty() && !pickers.iter().any(|picker| with_it(&picker)) {
        return Some("the status page is empty: no picker has its vm_id");
    }
    let mut shared = pickers.iter().filter(with_it);
    shared
        .any(|picker| picker.get("configuration") == own)
        .then_some("the status page has no VM of its own: vm_config has a picker's configuration")
}

#[cfg(test)]
mod tests {
    #[test]
    fn finds_an_open_one_and_one_that_is_not_apart() {
        let right = "{address: 127.0.0.1, port_value: 10001}";
        crate::lint::finds(&super::RULE, right, "{address: 0.0.0.0, port_value: 10001}");
        let right = "value: status\n";
        crate::lint::finds(&super::RULE, right, "value: ''\n");
        let right = "vm_id: epp\n                  # Gives";
        let wrong = "vm_id: another\n                  # Gives";
        crate::lint::finds(&super::RULE, right, wrong);
        let right = "vm_id: epp\n                  runtime";
        let wrong = "vm_id: epp\n                  configuration: {'@type': type.googleapis.com/google.protobuf.StringValue, value: status}\n                  runtime";
        crate::lint::finds(&super::RULE, right, wrong);
    }

    #[test]
    fn finds_an_open_one_of_a_dynamic_module() {
        let with = |address: &str| {
            let listener = format!("address: {{socket_address: {{address: {address}}}}}, filter_chains: [{{filters: [{{typed_config: {{'@type': x/dynamic_modules.v3.DynamicModuleFilter, dynamic_module_config: {{}}, filter_name: status}}}}]}}]");
            let text = format!("static_resources: {{listeners: [{{{listener}}}]}}");
            crate::lint::found(&super::RULE, &text).len()
        };
        assert_eq!((with("127.0.0.1"), with("0.0.0.0")), (0, 1));
    }

    #[test]
    fn finds_a_root_that_the_module_does_not_have() {
        crate::lint::finds(&super::RULE, "root_id: status", "root_id: stats");
        let bootstrap = include_str!("../../../../envoy/envoy.yaml");
        let with = |right: &str, wrong: &str| {
            assert!(bootstrap.contains(right), "{right}");
            crate::lint::found(&super::RULE, &bootstrap.replace(right, wrong)).len()
        };
        // A picker may have any root, another module has its own.
        let name = "                name: epp\n";
        assert_eq!(
            with(name, &format!("{name}                root_id: own\n")),
            0
        );
        let other = bootstrap
            .replacen("epp_wasm", "first", 1)
            .replace("root_id: status", "root_id: stats")
            .replace("epp_wasm", "other");
        assert!(crate::lint::found(&super::RULE, &other).is_empty());
    }
}

//! Others than this machine reach the status page, or it stands in a picker's VM.

use epp_wasm::document::{Node, Path};

use super::site::{below, is_loopback, text, Site};
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "status-page",
    why: "the status page asks for no password and shows addresses, models and load; in a picker's VM it is refused",
    fix: "bind its listener to 127.0.0.1, and give its vm_config the pickers' vm_id and a configuration of its own",
    check: |site| open(site).chain(mixed(site)).collect(),
};

/// Whether a plugin's settings are those of the page.
fn is_page(settings: &Node) -> bool {
    text(settings, "root_id") == "status" && settings.get("vm_config").is_some()
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

/// What is wrong with the VM of a page, beside the pickers of the same document.
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
        return Some("the status page shows nothing: no picker has its vm_id");
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
        let right = "vm_id: epp\n                  # Makes";
        let wrong = "vm_id: another\n                  # Makes";
        crate::lint::finds(&super::RULE, right, wrong);
        let right = "vm_id: epp\n                  runtime";
        let wrong = "vm_id: epp\n                  configuration: {'@type': type.googleapis.com/google.protobuf.StringValue, value: status}\n                  runtime";
        crate::lint::finds(&super::RULE, right, wrong);
    }
}

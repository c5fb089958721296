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
    let mixed = pages.filter(|(_, page)| {
        let own = below(page, &["vm_config", "configuration"]);
        match own {
            None => true,
            Some(own) => matches!(own.get("value"), Some(Node::String(text)) if text.is_empty()),
        }
    });
    mixed.map(|(path, _)| {
        let what = "the status page has no VM of its own: vm_config has no configuration";
        Fault::at(&path.key("vm_config"), what)
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn finds_an_open_one_and_one_that_is_not_apart() {
        let right = "{address: 127.0.0.1, port_value: 10001}";
        crate::lint::finds(&super::RULE, right, "{address: 0.0.0.0, port_value: 10001}");
        let right = "value: status\n";
        crate::lint::finds(&super::RULE, right, "value: ''\n");
    }
}

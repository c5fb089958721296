//! Others than this machine reach the admin interface.

use super::site::{below, is_loopback, text, Site};
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "admin-open",
    why:
        "whoever reaches the admin interface can stop Envoy and read its configuration and secrets",
    fix: "bind it to 127.0.0.1, or to a pipe; of a route to it, pass on /stats/prometheus and /ready by GET and nothing else",
    check: |site| {
        let address = below(site.top, &["admin", "address", "socket_address"]);
        let open = address.filter(|address| {
            !is_loopback(text(address, "address"))
        });
        let path = epp_wasm::document::Path::default()
            .key("admin")
            .key("address");
        let open = open.map(|address| Fault::at(&path, format!("bound to {}", text(address, "address"))));
        open.into_iter().chain(passed_on(site)).collect()
    },
};

/// Routes that pass everything on to the cluster of the admin interface.
fn passed_on(site: &Site<'_>) -> Vec<Fault> {
    let plans = site
        .pickers
        .iter()
        .filter_map(|picker| picker.loaded.as_ref().ok());
    let admin: Vec<&str> = plans
        .map(|plan| plan.admin_cluster())
        .filter(|name| !name.is_empty())
        .collect();
    let routes = site.maps.iter().filter(|(_, map)| {
        let to = below(map, &["route"]).map_or("", |route| text(route, "cluster"));
        let all = below(map, &["match"]).is_some_and(|matched| text(matched, "prefix") == "/");
        all && admin.contains(&to)
    });
    let fault = |(path, _): &(epp_wasm::document::Path, _)| {
        Fault::at(
            path,
            "a listener passes every path on to the admin interface",
        )
    };
    routes.map(fault).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn finds_an_open_one() {
        let right = "{address: 127.0.0.1, port_value: 9901}}\n\nstatic";
        crate::lint::finds(
            &super::RULE,
            right,
            "{address: 0.0.0.0, port_value: 9901}}\n\nstatic",
        );
        crate::lint::finds(
            &super::RULE,
            "cluster: inference-pool\n",
            "cluster: prometheus_stats\n",
        );
    }
}

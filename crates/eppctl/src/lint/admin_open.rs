//! The admin interface is reachable from other machines.

use epp_envoy::callouts::admin_cluster;

use super::original_dst_open::leads_to;
use super::site::{below, is_loopback, text, Site};
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "admin-open",
    finds: "an admin interface that other machines can reach",
    why:
        "anyone who reaches the admin interface can stop Envoy and read its configuration and secrets",
    fix: "bind it to 127.0.0.1 or to a pipe; if a route leads to it, allow only GET of /stats/prometheus and /ready",
    check: |site| {
        let open = site.bootstraps().filter_map(|(path, bootstrap)| {
            let address = below(bootstrap, &["admin", "address", "socket_address"])?;
            let host = text(address, "address");
            let path = path.key("admin").key("address");
            (!is_loopback(host)).then(|| Fault::at(&path, format!("bound to {host}")))
        });
        open.chain(passed_on(site)).collect()
    },
};

/// Finds routes to the admin interface's cluster that match more than one exact path.
fn passed_on(site: &Site<'_>) -> Vec<Fault> {
    let plans = site
        .pickers
        .iter()
        .filter_map(|picker| picker.loaded.as_ref().ok());
    let admin: Vec<&str> = plans
        .filter_map(admin_cluster)
        .filter(|name| !name.is_empty())
        .collect();
    let routes = site.maps.iter().filter(|(_, map)| {
        let one = below(map, &["match"]).is_some_and(|matched| !text(matched, "path").is_empty());
        !one && admin.iter().any(|name| leads_to(map, name))
    });
    let fault = |(path, _): &(epp_core::config::value::Path, _)| {
        Fault::at(
            path,
            "a route to the admin interface matches more than one exact path",
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

    #[test]
    fn only_an_exact_path_may_lead_there() {
        let route = |matched: &str, to: &str| {
            let right = "match: {prefix: /}\n                route:\n                  cluster: inference-pool\n";
            let wrong =
                format!("match: {matched}\n                route:\n                  {to}\n");
            let bootstrap = include_str!("../../../../envoy/envoy.yaml");
            assert!(bootstrap.contains(right));
            crate::lint::found(&super::RULE, &bootstrap.replace(right, &wrong)).len()
        };
        let one = "cluster: prometheus_stats";
        let several = "weighted_clusters: {clusters: [{name: prometheus_stats, weight: 1}]}";
        assert_eq!(route("{path: /stats/prometheus}", one), 0);
        assert_eq!(route("{path: /ready}", several), 0);
        assert_eq!(route("{prefix: /}", several), 1);
        assert_eq!(route("{prefix: ''}", one), 1);
        assert_eq!(route("{safe_regex: {regex: '/.*'}}", one), 1);
        let rewritten = "cluster: prometheus_stats\n                  prefix_rewrite: /";
        assert_eq!(route("{prefix: /admin}", rewritten), 1);
    }
}

//! Discovery asks something else than the admin interface.

use epp_core::config::value::Node;
use epp_envoy::callouts::admin_cluster;

use super::site::{below, is_loopback, number, text};
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "admin-cluster",
    finds: "an admin cluster whose endpoint is not the admin interface of the bootstrap",
    why: "the filter does not learn the pool's endpoints: Envoy's own load balancing chooses, and responses are 200",
    fix: "give the cluster the address of `admin` as its only endpoint, as in envoy/production/static.yaml",
    check: |site| {
        let mut bootstraps = site.bootstraps();
        let (Some((_, bootstrap)), None) = (bootstraps.next(), bootstraps.next()) else {
            return Vec::new();
        };
        let own = site.loaded().filter(|(picker, _)| !picker.is_inserted(site));
        let mut names: Vec<&str> = own.filter_map(|(_, plan)| admin_cluster(plan)).collect();
        names.sort_unstable();
        names.dedup();
        let faults = names.into_iter().filter_map(|name| {
            let (path, cluster) = site.cluster(name)?;
            Some(Fault::at(path, wrong(bootstrap, name, cluster)?))
        });
        faults.collect()
    },
};

/// Returns what is wrong with the cluster, if the bootstrap shows it.
fn wrong(bootstrap: &Node, name: &str, cluster: &Node) -> Option<String> {
    let Some(admin) = below(bootstrap, &["admin", "address"]) else {
        return Some(format!(
            "{name} leads to the admin interface, and the bootstrap has none"
        ));
    };
    let mut endpoints = Vec::new();
    addresses(below(cluster, &["load_assignment"])?, &mut endpoints);
    let other = endpoints
        .into_iter()
        .find(|endpoint| !is_same(admin, endpoint))?;
    // A listener of this Envoy may lead on to the interface.
    let mut listeners = Vec::new();
    addresses(
        below(bootstrap, &["static_resources", "listeners"]).unwrap_or(&Node::Null),
        &mut listeners,
    );
    if listeners.iter().any(|listener| is_same(listener, other)) {
        return None;
    }
    Some(format!(
        "{name} leads to {}, the admin interface is {}",
        shown(other),
        shown(admin)
    ))
}

/// Collects the addresses below a node.
pub(super) fn addresses<'n>(node: &'n Node, found: &mut Vec<&'n Node>) {
    match node {
        Node::Map(entries) => {
            for (key, entry) in entries {
                match entry {
                    Node::Map(_) if key == "address" => found.push(entry),
                    _ => addresses(entry, found),
                }
            }
        }
        Node::List(entries) => entries.iter().for_each(|entry| addresses(entry, found)),
        _ => {}
    }
}

/// Returns whether an endpoint's address reaches what listens on another.
fn is_same(listening: &Node, endpoint: &Node) -> bool {
    let pipe = |address| below(address, &["pipe"]).map(|pipe| text(pipe, "path"));
    let socket = |address| {
        let socket = below(address, &["socket_address"])?;
        Some((
            text(socket, "address"),
            socket.get("port_value").and_then(number),
        ))
    };
    match (
        pipe(listening),
        pipe(endpoint),
        socket(listening),
        socket(endpoint),
    ) {
        (Some(one), Some(other), _, _) => one == other,
        (_, _, Some((one, port)), Some((other, other_port))) => {
            let any = matches!(one, "0.0.0.0" | "::");
            port == other_port && (one == other || any || is_loopback(one) && is_loopback(other))
        }
        _ => false,
    }
}

fn shown(address: &Node) -> String {
    if let Some(pipe) = below(address, &["pipe"]) {
        return text(pipe, "path").to_owned();
    }
    let socket = below(address, &["socket_address"]);
    let port = socket.and_then(|socket| number(socket.get("port_value")?));
    let host = socket.map_or("elsewhere", |socket| text(socket, "address"));
    port.map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use crate::lint::{finds, found};

    #[test]
    fn finds_an_endpoint_that_is_not_the_interface() {
        let admin = "{address: 127.0.0.1, port_value: 9901}}\n\nstatic";
        finds(
            &super::RULE,
            admin,
            "{address: 127.0.0.1, port_value: 9900}}\n\nstatic",
        );
        let bootstrap = include_str!("../../../../envoy/envoy.yaml");
        let with = |other: &str| found(&super::RULE, &bootstrap.replace(admin, other)).len();
        assert_eq!(with("{address: 0.0.0.0, port_value: 9901}}\n\nstatic"), 0);
        assert_eq!(with("{address: '::1', port_value: 9901}}\n\nstatic"), 0);
        let pipe = bootstrap.replace(
            &format!("{{socket_address: {admin}"),
            "{pipe: {path: /run/a.sock}}\n\nstatic",
        );
        assert_ne!(pipe, bootstrap);
        let pipe = found(&super::RULE, &pipe);
        let expected =
            "prometheus_stats leads to 127.0.0.1:9901, the admin interface is /run/a.sock";
        assert!(pipe.len() == 1 && pipe[0].ends_with(expected), "{pipe:?}");
        let none = found(&super::RULE, &bootstrap.replace("\nadmin:", "\nnode:"));
        assert!(
            none.len() == 1 && none[0].ends_with("the bootstrap has none"),
            "{none:?}"
        );
        // A listener that leads on to it.
        let through = bootstrap.replace("port_value: 9901}}}", "port_value: 10001}}}");
        assert_ne!(through, bootstrap);
        assert!(found(&super::RULE, &through).is_empty());
    }
}

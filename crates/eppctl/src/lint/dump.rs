//! Config dumps of a running Envoy (`/config_dump`), with each resource once.
//!
//! A dump repeats resources: those of the bootstrap among the ones in force, inline routes beside their listener,
//! and a listener before and after an update. Linted as it is, it would give each finding twice, and findings in
//! configurations that are not in force.

use epp_core::config::{self, value::Node};

use super::site::{below, entries, text, text_below};

/// Returns the sections of a config dump; none if the document is something else.
pub fn sections(document: &Node) -> &[Node] {
    entries(document, &["configs"])
}

/// Returns the bootstrap in a section, if that is what it has.
pub fn bootstrap(section: &Node) -> Option<&Node> {
    section
        .get("bootstrap")
        .filter(|_| is(section, "BootstrapConfigDump"))
}

/// Returns whether a section is of this type.
pub fn is(section: &Node, kind: &str) -> bool {
    text(section, "@type").rsplit('.').next() == Some(kind)
}

/// A filter that Envoy has received by ECDS. It is not in force if Envoy has refused it.
#[derive(Debug)]
pub struct ReceivedFilter {
    /// Its name.
    pub name: String,
    /// When it was received, as the dump has it.
    pub last_updated: String,
}

/// Returns the filters of a config dump that Envoy has received by ECDS.
pub fn received_filters(dump: &str) -> Vec<ReceivedFilter> {
    let Ok(document) = config::parse(dump) else {
        return Vec::new();
    };
    let sections = sections(&document).iter();
    let filters = sections
        .filter(|section| is(section, "EcdsConfigDump"))
        .flat_map(|section| entries(section, &["ecds_filters"]));
    filters
        .map(|filter| ReceivedFilter {
            name: text_below(filter, &["ecds_filter", "name"]).to_owned(),
            last_updated: text(filter, "last_updated").to_owned(),
        })
        .collect()
}

/// Replaces what a config dump repeats by null: the paths of everything else stay the same.
pub fn make_distinct(document: &mut Node) {
    let has = |wanted: &dyn Fn(&Node) -> bool| sections(document).iter().any(wanted);
    let in_bootstrap = |resources: &str| {
        has(&|section| {
            bootstrap(section).is_some_and(|bootstrap| {
                below(bootstrap, &["static_resources", resources]).is_some()
            })
        })
    };
    let repeated = [
        ("static_listeners", in_bootstrap("listeners")),
        ("static_clusters", in_bootstrap("clusters")),
        (
            "static_route_configs",
            has(&|section| is(section, "ListenersConfigDump")),
        ),
    ];
    let Some(Node::List(sections)) = entry_mut(document, "configs") else {
        return;
    };
    for section in sections {
        for (key, _) in repeated.iter().filter(|(_, repeated)| *repeated) {
            forget(section, key);
        }
        forget_superseded_clusters(section);
        forget_states(section);
    }
}

fn entry_mut<'n>(map: &'n mut Node, key: &str) -> Option<&'n mut Node> {
    match map {
        Node::Map(entries) => {
            let found = entries.iter_mut().find(|(known, _)| known == key);
            found.map(|(_, entry)| entry)
        }
        _ => None,
    }
}

fn forget(map: &mut Node, key: &str) {
    if let Some(entry) = entry_mut(map, key) {
        *entry = Node::Null;
    }
}

/// Removes new versions of clusters that wait for their endpoints while the present ones serve.
fn forget_superseded_clusters(section: &mut Node) {
    let name = |entry: &Node| {
        entry
            .get("cluster")
            .map(|cluster| text(cluster, "name").to_owned())
    };
    let active = entries(section, &["dynamic_active_clusters"]).iter();
    let active: Vec<_> = active.filter_map(name).collect();
    if let Some(Node::List(warming)) = entry_mut(section, "dynamic_warming_clusters") {
        for entry in warming {
            if name(entry).is_some_and(|name| active.contains(&name)) {
                *entry = Node::Null;
            }
        }
    }
}

/// Removes the states of resources that are not in force: of a listener that is going, of its next version
/// while the present one serves, and of updates that Envoy refused.
fn forget_states(node: &mut Node) {
    if node.get("active_state").is_some() {
        forget(node, "warming_state");
    }
    forget(node, "draining_state");
    if let Some(refused) = entry_mut(node, "error_state") {
        forget(refused, "failed_configuration");
    }
    if let Node::Map(entries) = node {
        let lists = entries.iter_mut().filter_map(|(_, entry)| match entry {
            Node::List(entries) => Some(entries),
            _ => None,
        });
        lists.flatten().for_each(forget_states);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distinct(text: &str) -> String {
        let mut document = config::parse(text).unwrap();
        make_distinct(&mut document);
        document.to_string()
    }

    #[test]
    fn each_resource_is_there_once() {
        let bootstrap = "{'@type': x/a.BootstrapConfigDump, bootstrap: {static_resources: {listeners: [1], clusters: [2]}}}";
        let clusters = "{'@type': x/a.ClustersConfigDump, static_clusters: [2], dynamic_active_clusters: [{cluster: {name: a}}], dynamic_warming_clusters: [{cluster: {name: a}}, {cluster: {name: b}}]}";
        let listeners = "{'@type': x/a.ListenersConfigDump, static_listeners: [1], dynamic_listeners: [{active_state: 1, warming_state: 2, draining_state: 3}, {warming_state: 4}, {error_state: {details: d, failed_configuration: {}}}]}";
        let routes = "{'@type': x/a.RoutesConfigDump, static_route_configs: [1], dynamic_route_configs: [2]}";
        let all = distinct(&format!(
            "{{configs: [{bootstrap}, {clusters}, {listeners}, {routes}]}}"
        ));
        for kept in [
            "{listeners: [1], clusters: [2]}",
            "static_clusters: null",
            "dynamic_active_clusters: [{cluster: {name: a}}]",
            "dynamic_warming_clusters: [null, {cluster: {name: b}}]",
            "static_listeners: null",
            "[{active_state: 1, warming_state: null, draining_state: null}, {warming_state: 4}, {error_state: {details: d, failed_configuration: null}}]",
            "static_route_configs: null, dynamic_route_configs: [2]",
        ] {
            assert!(all.contains(kept), "{kept}: {all}");
        }
        // A dump of a part has nothing to repeat.
        for part in [clusters, listeners, routes] {
            let alone = distinct(&format!("{{configs: [{part}]}}"));
            assert!(
                alone.contains("static_") && !alone.contains("static_clusters: null"),
                "{alone}"
            );
        }
        let other = "{configs: 1, static_clusters: [1]}";
        assert_eq!(distinct(other), other);
    }
}

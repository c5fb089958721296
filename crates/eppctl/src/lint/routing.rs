//! The clusters that a connection manager routes to, and the headers that choose an endpoint in them.

use epp_core::config::value::{Node, Path};

use super::picker::Picker;
use super::site::{below, holds, text, Site};

/// An HTTP connection manager.
pub struct Manager<'s> {
    /// Its path.
    pub path: &'s Path,
    /// Its configuration.
    pub map: &'s Node,
    site: &'s Site<'s>,
}

/// Returns the connection managers of a document. A patch of one lacks the fields that make it complete.
pub fn managers<'s>(site: &'s Site<'_>) -> impl Iterator<Item = Manager<'s>> {
    let managers = site.maps.iter().filter(|(_, map)| {
        text(map, "@type").ends_with("v3.HttpConnectionManager")
            && map.get("http_filters").is_some()
    });
    managers.map(move |(path, map)| Manager { path, map, site })
}

impl<'s> Manager<'s> {
    /// Returns whether it contains a filter of this type.
    pub fn has_filter(&self, kind: &str) -> bool {
        holds_type(self.map, kind)
    }

    /// Returns the pickers in it; `None` if they are not in the document.
    pub fn pickers(&self) -> Option<Vec<&'s Picker<'s>>> {
        let pickers = self.site.pickers.iter();
        let own = pickers.clone().filter(|picker| self.is_above(&picker.path));
        let discovered = self
            .site
            .maps
            .iter()
            .any(|(path, map)| self.is_above(path) && map.get("config_discovery").is_some());
        // A control plane adds filters here from its own objects.
        let inserted = pickers.clone().any(|picker| picker.is_inserted(self.site));
        if !discovered && !inserted {
            return Some(own.collect());
        }
        // In /config_dump they are beside the listeners.
        let pickers: Vec<_> = pickers.collect();
        (!pickers.is_empty()).then_some(pickers)
    }

    /// Returns whether a picker is one of its filters: in its configuration, or by the name of one that ECDS delivers.
    pub fn has(&self, picker: &Picker<'_>) -> bool {
        let mut maps = self
            .site
            .maps
            .iter()
            .filter(|(path, _)| self.is_above(path));
        let is_named = |map: &Node| {
            map.get("config_discovery").is_some() && picker.names.contains(&text(map, "name"))
        };
        self.is_above(&picker.path) || maps.any(|(_, map)| is_named(map))
    }

    /// Returns the clusters that its routes lead to, including mirrors.
    pub fn clusters(&self) -> Vec<&'s str> {
        let mut found = Vec::new();
        for (table, _) in self.tables() {
            let inside = self.site.maps.iter();
            let inside = inside.filter(|(path, _)| path.steps().starts_with(table.steps()));
            inside.for_each(|(_, map)| named_by(map, &mut found));
        }
        found
    }

    /// Returns its route configurations, as far as the documents have them.
    fn tables(&self) -> Vec<&'s (Path, &'s Node)> {
        let rds = below(self.map, &["rds"]).map_or("", |rds| text(rds, "route_config_name"));
        let tables = self.site.maps.iter().filter(|(path, map)| {
            let own = self.is_above(path);
            let named = !rds.is_empty() && text(map, "name") == rds;
            map.get("virtual_hosts").is_some() && (own || named)
        });
        tables.collect()
    }

    /// Returns whether all clusters that its routes lead to are in the documents, by their names.
    pub fn knows_routes(&self) -> bool {
        let open = [
            "cluster_header",
            "cluster_specifier_plugin",
            "inline_cluster_specifier_plugin",
            "vhds",
        ];
        let tables = self.tables();
        let has_open = || {
            tables
                .iter()
                .any(|(_, table)| open.iter().any(|key| holds_key(table, key)))
        };
        self.map.get("scoped_routes").is_none() && !tables.is_empty() && !has_open()
    }

    /// Returns whether its routes name clusters for anything else than the request itself.
    pub fn names_helpers(&self) -> bool {
        let helpers = ["request_mirror_policies", "typed_per_filter_config"];
        let tables = self.tables();
        tables
            .iter()
            .any(|(_, table)| helpers.iter().any(|key| holds_key(table, key)))
    }

    /// Returns the clusters behind the aggregates that its routes lead to.
    pub fn aggregated(&self) -> Vec<&'s str> {
        let mut found = Vec::new();
        for name in self.clusters() {
            members(self.site, name, &mut found);
        }
        // An aggregate may be a member of another aggregate.
        let mut next = 0;
        while let Some(name) = found.get(next).copied() {
            members(self.site, name, &mut found);
            next += 1;
        }
        found
    }

    /// Returns the headers by which its requests choose an endpoint of a cluster.
    pub fn headers_of(&self, cluster: &'s Node) -> Vec<&'s str> {
        let Some(policy) = cluster.get("load_balancing_policy") else {
            return Vec::new();
        };
        let mut headers = sources(policy);
        if holds_key(policy, "metadata") {
            headers.extend(to_metadata(self.map));
        }
        headers
    }

    fn is_above(&self, path: &Path) -> bool {
        path.steps().starts_with(self.path.steps())
    }
}

/// Returns whether a connection manager, or a patch of one, removes a header before route selection.
pub fn removes_early(manager: &Node, header: &str) -> bool {
    let Some(early) = manager.get("early_header_mutation_extensions") else {
        return false;
    };
    let is = |name: &str| name.eq_ignore_ascii_case(header);
    any_map(early, &|map| {
        let matcher = below(map, &["remove_on_match", "key_matcher"]);
        let matched = matcher.is_some_and(|matcher| {
            let prefix = text(matcher, "prefix");
            let begins = header
                .get(..prefix.len())
                .is_some_and(|begin| begin.eq_ignore_ascii_case(prefix));
            is(text(matcher, "exact")) || (!prefix.is_empty() && begins)
        });
        matched || is(text(map, "remove"))
    })
}

/// Returns the headers that `override_host` policies below a node read.
pub fn sources(node: &Node) -> Vec<&str> {
    let mut found = Vec::new();
    each_map(node, &mut |map| {
        if let Some(Node::List(sources)) = map.get("override_host_sources") {
            found.extend(sources.iter().map(|source| text(source, "header")));
        }
    });
    found.retain(|header| !header.is_empty());
    found
}

/// Returns the headers that `header_to_metadata` filters below a node copy to the metadata that Istio's
/// policies read.
pub fn to_metadata(node: &Node) -> Vec<&str> {
    let mut found = Vec::new();
    each_map(node, &mut |map| {
        let to = below(map, &["on_header_present"]);
        if to.is_some_and(|to| text(to, "metadata_namespace") == "envoy.lb") {
            found.push(text(map, "header"));
        }
    });
    found.retain(|header| !header.is_empty());
    found
}

/// Returns whether there is an `override_host` policy below a node.
pub fn overrides(node: &Node) -> bool {
    holds_type(node, "override_host.v3.OverrideHost")
}

fn holds_type(node: &Node, kind: &str) -> bool {
    holds(node, &|text| {
        text.starts_with("type.googleapis.com/") && text.ends_with(kind)
    })
}

fn holds_key(node: &Node, key: &str) -> bool {
    any_map(node, &|map| map.get(key).is_some())
}

/// Returns the clusters that a route names: as the only one, as one of several, as a mirror.
fn named_by<'n>(map: &'n Node, found: &mut Vec<&'n str>) {
    add(found, text(map, "cluster"));
    if let Some(Node::List(several)) = below(map, &["weighted_clusters", "clusters"]) {
        several.iter().for_each(|one| add(found, text(one, "name")));
    }
}

/// Adds the members of an aggregate cluster.
fn members<'s>(site: &'s Site<'_>, name: &str, found: &mut Vec<&'s str>) {
    let aggregates = site
        .maps
        .iter()
        .filter(|(_, map)| text(map, "name") == name);
    let lists =
        aggregates.filter_map(|(_, map)| below(map, &["cluster_type", "typed_config", "clusters"]));
    for list in lists {
        let Node::List(names) = list else { continue };
        for name in names {
            if let Node::String(name) = name {
                add(found, name);
            }
        }
    }
}

fn add<'n>(found: &mut Vec<&'n str>, name: &'n str) {
    if !name.is_empty() && !found.contains(&name) {
        found.push(name);
    }
}

fn any_map(node: &Node, wanted: &dyn Fn(&Node) -> bool) -> bool {
    let mut any = false;
    each_map(node, &mut |map| any |= wanted(map));
    any
}

fn each_map<'n>(node: &'n Node, visit: &mut dyn FnMut(&'n Node)) {
    match node {
        Node::Map(entries) => {
            visit(node);
            entries.iter().for_each(|(_, entry)| each_map(entry, visit));
        }
        Node::List(entries) => entries.iter().for_each(|entry| each_map(entry, visit)),
        _ => {}
    }
}

//! Properties of the reader of the admin interface's list of clusters.
//!
//! Settings: the names of the clusters.

use std::collections::HashSet;
use std::net::SocketAddr;

use epp_core::endpoints::store::Member;
use epp_core::plugins::discovery::envoy_cluster::{
    EnvoyClusterDiscovery, SourceCluster, MAX_CLUSTERS,
};
use epp_envoy::clusters::members;

use super::{settings, within};

/// Memory for an empty page, and per byte of a page.
const MEMORY: usize = 4 << 10;
const MEMORY_PER_BYTE: usize = 16;

/// Asserts that members are distinct addresses from lines of the cluster itself.
pub fn clusters(input: &[u8]) {
    let (words, page) = settings(input);
    let names: Vec<String> = words.take(MAX_CLUSTERS).map(str::to_owned).collect();
    let discovery = EnvoyClusterDiscovery {
        clusters: names
            .iter()
            .map(|name| SourceCluster::unlabelled(name))
            .collect(),
        ..EnvoyClusterDiscovery::default()
    };
    let members = |page: &[u8]| {
        let listing = members(page, &discovery, true).ok();
        listing.map(|listing| listing.members)
    };
    let found = within(MEMORY + MEMORY_PER_BYTE * page.len(), || members(page));
    if !page.ends_with(b"\n") {
        return assert_eq!(found, None, "a cut page");
    }
    let lines = page.split_inclusive(|byte| *byte == b'\n');
    let own = |line: &&[u8]| names.iter().any(|name| line.starts_with(name.as_bytes()));
    let alone: Vec<u8> = lines.clone().filter(own).collect::<Vec<_>>().concat();
    let alone = members(&alone);
    assert_eq!(alone, found, "other lines matter");

    let found = found.unwrap_or_default();
    let addresses: HashSet<&str> = found.iter().map(|member| member.address.as_str()).collect();
    assert_eq!(addresses.len(), found.len(), "each once");
    assert!(addresses
        .iter()
        .all(|address| address.parse::<SocketAddr>().is_ok()));
    assert!(found
        .iter()
        .all(|member| member.name == member.address && member.labels.len() <= 2));
    let lines = lines.filter_map(|line| std::str::from_utf8(line).ok());
    for line in lines {
        names
            .iter()
            .for_each(|name| assert_plain(line, name, &found));
    }
}

/// Asserts that the members have what a simple reader finds in a line.
fn assert_plain(line: &str, cluster: &str, found: &[Member]) {
    let fact = line
        .strip_prefix(cluster)
        .and_then(|rest| rest.strip_prefix("::"));
    let Some((address, flags)) =
        fact.and_then(|fact| fact.trim_end().split_once("::health_flags::"))
    else {
        return;
    };
    if address.parse::<SocketAddr>().is_err() {
        return;
    }
    let member = found.iter().find(|member| member.address == address);
    let member = member.expect("a line says that it is one");
    let fails = flags.split('/').any(|flag| flag.starts_with("failed_"));
    assert!(!fails || !member.health.may_be_picked(), "{line}");
}

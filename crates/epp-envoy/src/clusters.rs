//! Members and health of a cluster, from Envoy's admin interface (`GET /clusters`, text form).
//!
//! The text form costs Envoy's main thread a fifth of the JSON form and suffices. It has one fact per line:
//! `inference-pool::10.0.0.1:8000::health_flags::healthy`. It has no end mark; only HTTP shows that a page was cut
//! between two lines (the admin interface responds in chunks).

use std::net::SocketAddr;

use hashbrown::hash_map::{Entry, HashMap};
use memchr::{memchr_iter, memmem};

use epp_core::endpoints::discovery::Listing;
use epp_core::endpoints::store::Member;
use epp_core::plugins::discovery::envoy_cluster::{EnvoyClusterDiscovery, SourceCluster};
use epp_core::scheduling::Health;
use epp_core::FetchError;

use crate::health::health_of;

/// Kubernetes' labels for the parts of a locality, which Istio takes from there.
const REGION: &str = "topology.kubernetes.io/region";
const ZONE: &str = "topology.kubernetes.io/zone";

/// Bytes of a region's or zone's name. Kubernetes' labels have at most 63; a longer one gives no label.
const MAX_LOCALITY_BYTES: usize = 256;

/// What the page says of a member.
struct Found<'p> {
    address: &'p str,
    health: Health,
    /// The clusters whose member it is, by their places in the list: a bit for each.
    clusters: u32,
    region: &'p str,
    zone: &'p str,
}

/// Returns the members of a plan's clusters, in the page's order, with the labels of their clusters and, if
/// `locality`, of their region and zone. If the page was cut or none of the clusters is on it, the members are unknown,
/// which differs from an empty cluster.
pub fn members(
    page: &[u8],
    discovery: &EnvoyClusterDiscovery,
    locality: bool,
) -> Result<Listing, FetchError> {
    if !page.is_empty() && !page.ends_with(b"\n") {
        return Err(FetchError::NotAPage);
    }
    let clusters = discovery.clusters.as_slice();
    let mut members: Vec<Found<'_>> = Vec::new();
    let mut positions = HashMap::new();
    let mut seen = 0_u32;
    let mut facts = page.is_empty();
    let mut start = 0;
    for end in memchr_iter(b'\n', page) {
        let line = page.get(start..end).unwrap_or_default();
        start = end + 1;
        facts |= memmem::find(line, b"::").is_some();
        // Several names may match: a line of the cluster `pool::a` looks like a fact of the cluster `pool`.
        for (bit, cluster) in (0..u32::BITS).zip(clusters) {
            let Some(fact) = fact_of(line, &cluster.name) else {
                continue;
            };
            seen |= 1 << bit;
            if let Some((address, flags)) = member_fact(fact, "::health_flags::") {
                let (health, listed) = (health_of(flags), 1 << bit);
                match positions.entry(address) {
                    Entry::Vacant(position) => {
                        position.insert(members.len());
                        members.push(Found {
                            address,
                            health,
                            clusters: listed,
                            region: "",
                            zone: "",
                        });
                    }
                    // The member is listed in two clusters or priorities: the worse health counts.
                    Entry::Occupied(position) => {
                        if let Some(known) = members.get_mut(*position.get()) {
                            known.health = health.min(known.health);
                            known.clusters |= listed;
                        }
                    }
                }
                break;
            }
            if locality && note_locality(fact, &positions, &mut members) {
                break;
            }
        }
    }
    // At most 32.
    let all = (1_u64 << clusters.len().min(32)) - 1;
    match seen {
        0 if !facts => Err(FetchError::NotAPage),
        0 => Err(FetchError::NotListed),
        _ => Ok(Listing {
            members: described(&members, clusters),
            missing: all as u32 & !seen,
        }),
    }
}

/// Returns the text behind `cluster::` if the line is about this cluster.
fn fact_of<'a>(line: &'a [u8], cluster: &str) -> Option<&'a str> {
    let fact = line.strip_prefix(cluster.as_bytes())?.strip_prefix(b"::")?;
    std::str::from_utf8(fact).ok()
}

/// Splits `address::name::value`. Returns `None` for other facts: the cluster's own and those of another
/// cluster `cluster::name` do not begin with an address, and a member behind a pipe has no address that a request
/// could name.
fn member_fact<'a>(fact: &'a str, name: &str) -> Option<(&'a str, &'a str)> {
    let (address, value) = fact.split_once(name)?;
    address.parse::<SocketAddr>().ok()?;
    Some((address, value))
}

/// Notes a member's region or zone, which the page has after its health. Returns whether the fact is one of them.
fn note_locality<'p>(
    fact: &'p str,
    positions: &HashMap<&str, usize>,
    members: &mut [Found<'p>],
) -> bool {
    let region = member_fact(fact, "::region::");
    let Some((address, value)) = region.or_else(|| member_fact(fact, "::zone::")) else {
        return false;
    };
    let position = positions.get(address);
    let member = position.and_then(|position| members.get_mut(*position));
    if let Some(member) = member.filter(|_| value.len() <= MAX_LOCALITY_BYTES) {
        let known = match region {
            Some(_) => &mut member.region,
            None => &mut member.zone,
        };
        // Another cluster may list it without a locality.
        if known.is_empty() {
            *known = value;
        }
    }
    true
}

/// Returns the members as discovery reports them.
fn described(members: &[Found<'_>], clusters: &[SourceCluster]) -> Vec<Member> {
    // Like Envoy: degraded members of a cluster are used only if none is healthy.
    let best = (0..u32::BITS).zip(clusters).map(|(bit, _)| {
        let listed = members
            .iter()
            .filter(|member| member.clusters >> bit & 1 == 1);
        listed.map(|member| member.health).max()
    });
    let best: Vec<Option<Health>> = best.collect();
    let described = members.iter().map(|member| {
        let mut best = (0..u32::BITS).zip(&best);
        let is_best =
            best.any(|(bit, best)| member.clusters >> bit & 1 == 1 && *best == Some(member.health));
        let health = match member.health {
            Health::Degraded if is_best => Health::Healthy,
            own => own,
        };
        Member {
            name: member.address.to_owned(),
            address: member.address.to_owned(),
            labels: labels(member, clusters),
            health,
        }
    });
    described.collect()
}

/// Returns a member's labels. The first of its clusters that has a label decides on its value, then its locality.
fn labels(member: &Found<'_>, clusters: &[SourceCluster]) -> Vec<(String, String)> {
    let listed = (0..u32::BITS).zip(clusters);
    let listed = listed.filter(|(bit, _)| member.clusters >> bit & 1 == 1);
    let given = listed.flat_map(|(_, cluster)| &cluster.labels);
    let given = given.map(|(name, value)| (name.as_str(), value.as_str()));
    let locality = [(REGION, member.region), (ZONE, member.zone)];
    let locality = locality.into_iter().filter(|(_, value)| !value.is_empty());
    let mut labels: Vec<(String, String)> = Vec::new();
    for (name, value) in given.chain(locality) {
        if labels.iter().all(|(known, _)| known != name) {
            labels.push((name.to_owned(), value.to_owned()));
        }
    }
    labels
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The text form of a real page: a host that fails its health check, one that is ejected, every health status of
    /// EDS, a second priority, IPv6, a pipe, an empty cluster, and cluster names that begin alike.
    const PAGE: &[u8] = include_bytes!("../../../tests/fixtures/envoy-1.40/clusters.txt");
    /// The JSON form of the same page.
    const JSON: &[u8] = include_bytes!("../../../tests/fixtures/envoy-1.40/clusters.json");

    fn discovery(clusters: Vec<SourceCluster>) -> EnvoyClusterDiscovery {
        EnvoyClusterDiscovery {
            clusters,
            ..EnvoyClusterDiscovery::default()
        }
    }

    fn found(page: &[u8], clusters: &[&str]) -> Option<Vec<(String, bool)>> {
        let clusters = clusters.iter().map(|name| SourceCluster::unlabelled(name));
        let members = members(page, &discovery(clusters.collect()), true)
            .ok()?
            .members;
        assert!(members.iter().all(|member| member.name == member.address));
        let pairs = members.into_iter();
        Some(
            pairs
                .map(|member| (member.address, member.health.may_be_picked()))
                .collect(),
        )
    }

    fn pairs(pairs: &[(&str, bool)]) -> Option<Vec<(String, bool)>> {
        let pairs = pairs.iter();
        Some(
            pairs
                .map(|(address, available)| ((*address).to_owned(), *available))
                .collect(),
        )
    }

    #[test]
    fn a_real_page_gives_members_and_health_of_the_named_clusters_only() {
        let pool = [
            ("127.0.0.1:28101", true),
            ("127.0.0.1:28102", false),
            ("127.0.0.1:28103", false),
        ];
        assert_eq!(found(PAGE, &["inference-pool"]), pairs(&pool));
        let eds = [
            ("127.0.0.1:28101", true),
            ("127.0.0.1:28111", false),
            ("127.0.0.1:28112", false),
            ("127.0.0.1:28113", false),
            ("127.0.0.1:28114", false),
            ("[fd00::1]:8000", true),
        ];
        assert_eq!(found(PAGE, &["inference-pool-eds"]), pairs(&eds));
        let clusters = ["inference-pool", "inference-pool-eds"].map(SourceCluster::unlabelled);
        let listing = members(PAGE, &discovery(clusters.into()), false).unwrap();
        let reasons = listing.members.iter().map(|member| member.health.name());
        let reasons: BTreeSet<&str> = reasons.collect();
        for reason in [
            "failed health check",
            "Envoy's outlier detection",
            "unhealthy in EDS",
            "draining",
            "degraded while others are healthy",
        ] {
            assert!(reasons.contains(reason), "no {reason}: {reasons:?}");
        }
        let other = [("[::1]:28101", true)];
        assert_eq!(found(PAGE, &["inference-pool-2"]), pairs(&other));
        let nested = [("127.0.0.1:28199", true)];
        assert_eq!(found(PAGE, &["inference-pool::nested"]), pairs(&nested));
        let both = ["inference-pool", "inference-pool::nested"];
        let both = found(PAGE, &both).unwrap();
        assert!(both.contains(&("127.0.0.1:28199".to_owned(), true)) && both.len() == 4);
        assert_eq!(found(PAGE, &["empty-eds"]), pairs(&[]));
        assert_eq!(found(PAGE, &["elsewhere"]), None);
        assert_eq!(found(PAGE, &["inference"]), None);
        assert_eq!(found(PAGE, &[]), None);
    }

    #[test]
    fn both_forms_of_a_page_agree() {
        let document: serde_json::Value = serde_json::from_slice(JSON).unwrap();
        let clusters = document["cluster_statuses"].as_array().unwrap();
        assert_eq!(clusters.len(), 6);
        for cluster in clusters {
            let hosts = cluster["host_statuses"].as_array();
            let expected = hosts.into_iter().flatten().filter_map(|host| {
                let socket = host["address"].get("socket_address")?;
                let ip: std::net::IpAddr = socket["address"].as_str()?.parse().unwrap();
                let port = socket["port_value"].as_u64()?.try_into().unwrap();
                let health = host["health_status"].as_object()?;
                let failed = health.keys().any(|key| key.starts_with("failed_"));
                let eds = health["eds_health_status"].as_str()?;
                // Each of these clusters has a healthy member, so that degraded ones are not used.
                let serves = eds == "HEALTHY" && !failed;
                Some((SocketAddr::new(ip, port).to_string(), serves))
            });
            let name = cluster["name"].as_str().unwrap();
            assert_eq!(found(PAGE, &[name]), Some(expected.collect()), "{name}");
        }
    }

    #[test]
    fn a_member_listed_twice_has_the_worse_health() {
        let page = b"a::10.0.0.1:80::health_flags::healthy\n\
            a::10.0.0.2:80::health_flags::healthy\n\
            b::10.0.0.1:80::health_flags::/failed_active_hc\n\
            b::10.0.0.2:80::health_flags::/degraded_active_hc\n";
        // No member is better than degraded.
        let expected = [("10.0.0.1:80", false), ("10.0.0.2:80", true)];
        assert_eq!(found(page, &["a", "b"]), pairs(&expected));
        assert_eq!(found(page, &["b"]), pairs(&expected));
    }

    #[test]
    fn degraded_members_serve_where_their_cluster_has_no_better_one() {
        let page = b"all::10.0.0.1:80::health_flags::healthy\n\
            all::10.0.0.2:80::health_flags::/degraded_active_hc\n\
            all::10.0.0.3:80::health_flags::/failed_active_hc\n\
            decode::10.0.0.2:80::health_flags::healthy\n\
            decode::10.0.0.3:80::health_flags::healthy\n";
        let serve = |clusters: &[&str]| {
            let members = found(page, clusters).unwrap().into_iter();
            members.map(|(_, serves)| serves).collect::<Vec<_>>()
        };
        assert_eq!(serve(&["all"]), [true, false, false]);
        assert_eq!(serve(&["all", "decode"]), [true, true, false]);
    }

    /// The labels of each member.
    fn labelled(page: &str, clusters: &[(&str, &[(&str, &str)])], locality: bool) -> Vec<String> {
        let clusters = clusters.iter().map(|(name, labels)| SourceCluster {
            labels: labels
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            ..SourceCluster::unlabelled(name)
        });
        let members = members(page.as_bytes(), &discovery(clusters.collect()), locality).unwrap();
        let text = |member: Member| {
            let labels = member
                .labels
                .iter()
                .map(|(name, value)| format!("{name}={value}"));
            labels.collect::<Vec<_>>().join(" ")
        };
        members.members.into_iter().map(text).collect()
    }

    #[test]
    fn members_have_the_labels_of_all_their_clusters_and_the_first_decides() {
        let (all, decode, prefill) = (
            "outbound|80||a.b",
            "outbound|80|decode|a.b",
            "outbound|80|prefill|a.b",
        );
        let mut page = String::new();
        for (cluster, member) in [
            (all, 1),
            (all, 2),
            (all, 3),
            (decode, 1),
            (decode, 3),
            (prefill, 2),
            (prefill, 3),
        ] {
            page += &format!("{cluster}::10.0.0.{member}:80::health_flags::healthy\n");
        }
        let found = labelled(
            &page,
            &[
                (all, &[("pool", "a")]),
                (decode, &[("role", "decode"), ("pool", "b")]),
                (prefill, &[("role", "prefill")]),
            ],
            true,
        );
        assert_eq!(
            found,
            [
                "pool=a role=decode",
                "pool=a role=prefill",
                "pool=a role=decode"
            ]
        );
    }

    #[test]
    fn localities_are_labels_where_they_are_wanted() {
        let line =
            |address: &str, fact: &str, value: &str| format!("a::{address}::{fact}::{value}\n");
        let mut page = String::new();
        for (address, region, zone) in [
            ("10.0.0.1:80", "eu", "eu-1"),
            ("[::1]:80", "", "zone::b"),
            ("10.0.0.2:80", "us", ""),
            ("10.0.0.3:80", &"x".repeat(MAX_LOCALITY_BYTES + 1), ""),
        ] {
            page += &line(address, "health_flags", "healthy");
            page += &line(address, "region", region);
            page += &line(address, "zone", zone);
            page += &line(address, "sub_zone", "rack");
        }
        // Listed once more, elsewhere.
        page += &line("10.0.0.1:80", "zone", "");
        page += &line("10.0.0.1:80", "zone", "eu-2");
        // Not a fact of a member, and one of a member that is not listed.
        page += &line("10.0.0.1:80::region", "zone", "c");
        page += &line("10.0.0.9:80", "zone", "c");
        let unlabelled: &[(&str, &[(&str, &str)])] = &[("a", &[])];
        let found = labelled(&page, unlabelled, true);
        let expected = [
            "topology.kubernetes.io/region=eu topology.kubernetes.io/zone=eu-1",
            "topology.kubernetes.io/zone=zone::b",
            "topology.kubernetes.io/region=us",
            "",
        ];
        assert_eq!(found, expected);
        assert_eq!(labelled(&page, unlabelled, false), ["", "", "", ""]);
        let found = labelled(&page, &[("a", &[(ZONE, "own")])], true);
        assert_eq!(
            found[0],
            "topology.kubernetes.io/zone=own topology.kubernetes.io/region=eu"
        );
    }

    #[test]
    fn an_address_with_several_ports_is_several_members() {
        let page =
            b"a::10.0.0.1:8000::health_flags::healthy\na::10.0.0.1:8001::health_flags::healthy\n";
        let expected = [("10.0.0.1:8000", true), ("10.0.0.1:8001", true)];
        assert_eq!(found(page, &["a"]), pairs(&expected));
    }

    #[test]
    fn a_cut_page_is_rejected_or_gives_the_same_health() {
        let clusters = ["inference-pool", "inference-pool-eds"];
        let whole = found(PAGE, &clusters).unwrap();
        for end in 0..PAGE.len() {
            let cut = &PAGE[..end];
            if let Some(found) = found(cut, &clusters) {
                assert!(cut.ends_with(b"\n"));
                assert!(whole.starts_with(&found));
            }
        }
    }

    #[test]
    fn clusters_that_are_missing_are_told_from_pages_of_another_kind() {
        let read = |page: &[u8], names: [&str; 2]| {
            let clusters = names.map(SourceCluster::unlabelled).into();
            let listing = members(page, &discovery(clusters), false);
            listing.map(|listing| listing.missing)
        };
        assert_eq!(read(PAGE, ["inference-pool", "empty-eds"]), Ok(0));
        assert_eq!(read(PAGE, ["elsewhere", "empty-eds"]), Ok(0b01));
        assert_eq!(read(PAGE, ["empty-eds", "elsewhere"]), Ok(0b10));
        // So the interface responds if the expression matches no name.
        for page in [b"", PAGE] {
            assert_eq!(read(page, ["a", "b"]), Err(FetchError::NotListed));
        }
        for page in [&b"<html>\n"[..], b"\n", &PAGE[..100]] {
            assert_eq!(read(page, ["a", "b"]), Err(FetchError::NotAPage));
        }
    }

    #[test]
    fn other_texts_are_rejected() {
        for page in [&b""[..], b"\n", b"\0\xff\n", b"{}\n", b"<html>\n"] {
            assert_eq!(found(page, &["a"]), None);
        }
        // Lines of this cluster that are not about a member.
        for fact in [
            "",
            "::",
            "x",
            "10.0.0.1::health_flags::healthy",
            "[::1::health_flags::",
        ] {
            let page = format!("a::{fact}\n");
            assert_eq!(found(page.as_bytes(), &["a"]), pairs(&[]), "{fact}");
        }
        assert_eq!(found(b"a::\xff:1::health_flags::healthy\n", &["a"]), None);
    }

    #[test]
    fn damaged_pages_never_panic() {
        let (mut rng, mut read) = (fastrand::Rng::with_seed(9), 0);
        for _ in 0..500 {
            let mut page = PAGE.to_vec();
            for _ in 0..rng.usize(1..100) {
                let at = rng.usize(..page.len());
                page[at] = rng.u8(..);
            }
            page.push(b'\n');
            let found = found(&page, &["inference-pool", "inference-pool-eds"]);
            for (address, _) in found.iter().flatten() {
                assert!(address.parse::<SocketAddr>().is_ok(), "{address}");
                read += 1;
            }
        }
        assert!(read > 100, "{read} members of damaged pages");
    }
}

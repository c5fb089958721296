//! Members and health of a cluster, from Envoy's admin interface (`GET /clusters`, text form).
//!
//! The text form costs Envoy's main thread a fifth of the JSON form and suffices. It has one fact per line:
//! `inference-pool::10.0.0.1:8000::health_flags::healthy`. It has no end mark; only HTTP shows that a page was cut
//! between two lines (the admin interface responds in chunks).

use std::net::SocketAddr;

use hashbrown::hash_map::{Entry, HashMap};
use memchr::memchr_iter;

use epp_core::endpoints::store::Member;

/// Returns the members of the clusters with these names, in the page's order. Returns `None` if the page was cut or
/// none of the clusters is on it: then the members are unknown, which differs from an empty cluster.
pub fn members(page: &[u8], clusters: &[String]) -> Option<Vec<Member>> {
    if !page.ends_with(b"\n") {
        return None;
    }
    let mut members: Vec<Member> = Vec::new();
    let mut healths = Vec::new();
    let mut positions = HashMap::new();
    let mut seen = false;
    let mut start = 0;
    for end in memchr_iter(b'\n', page) {
        let line = page.get(start..end).unwrap_or_default();
        start = end + 1;
        // Several names may match: a line of the cluster `pool::a` looks like a fact of the cluster `pool`.
        let mut facts = clusters
            .iter()
            .filter_map(|name| fact_of(line, name))
            .peekable();
        seen |= facts.peek().is_some();
        let Some((address, flags)) = facts.find_map(health_fact) else {
            continue;
        };
        let health = health_of(flags);
        match positions.entry(address) {
            Entry::Vacant(position) => {
                position.insert(members.len());
                members.push(member(address));
                healths.push(health);
            }
            // The member is listed in two clusters or priorities: the worse health counts.
            Entry::Occupied(position) => {
                if let Some(known) = healths.get_mut(*position.get()) {
                    *known = health.min(*known);
                }
            }
        }
    }
    // Like Envoy: degraded members are used only if none is healthy.
    let best = healths.iter().copied().max().unwrap_or(Health::Down);
    for (member, health) in members.iter_mut().zip(healths) {
        member.available = health != Health::Down && health == best;
    }
    seen.then_some(members)
}

/// Returns the text behind `cluster::` if the line is about this cluster.
fn fact_of<'a>(line: &'a [u8], cluster: &str) -> Option<&'a str> {
    let fact = line.strip_prefix(cluster.as_bytes())?.strip_prefix(b"::")?;
    std::str::from_utf8(fact).ok()
}

/// Splits `address::health_flags::flags`. Returns `None` for other facts: the cluster's own and those of another
/// cluster `cluster::name` do not begin with an address, and a member behind a pipe has no address that a request
/// could name.
fn health_fact(fact: &str) -> Option<(&str, &str)> {
    let (address, flags) = fact.split_once("::health_flags::")?;
    address.parse::<SocketAddr>().ok()?;
    Some((address, flags))
}

fn member(address: &str) -> Member {
    Member {
        name: address.to_owned(),
        address: address.to_owned(),
        ..Member::default()
    }
}

/// The health of a member in Envoy, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Health {
    /// The member fails a check, was ejected, or is draining: it gets no new requests.
    Down,
    /// The member gets requests only if none is healthy.
    Degraded,
    /// The member gets requests.
    Healthy,
}

/// Returns the health for flags, which are `healthy` or a list such as `/failed_active_hc/active_hc_timeout`.
fn health_of(flags: &str) -> Health {
    let down = |flag: &str| {
        let prefixes = ["failed_", "pending_", "excluded_"];
        prefixes.iter().any(|prefix| flag.starts_with(prefix)) || flag == "eds_status_draining"
    };
    if flags.split('/').any(down) {
        Health::Down
    } else if flags.split('/').any(|flag| flag.starts_with("degraded_")) {
        Health::Degraded
    } else {
        Health::Healthy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text form of a real page: a host that fails its health check, one that is ejected, every health status of
    /// EDS, a second priority, IPv6, a pipe, an empty cluster, and cluster names that begin alike.
    const PAGE: &[u8] = include_bytes!("../../../tests/fixtures/envoy-1.40/clusters.txt");
    /// The JSON form of the same page.
    const JSON: &[u8] = include_bytes!("../../../tests/fixtures/envoy-1.40/clusters.json");

    fn found(page: &[u8], clusters: &[&str]) -> Option<Vec<(String, bool)>> {
        let clusters: Vec<String> = clusters.iter().map(|name| (*name).to_owned()).collect();
        let members = members(page, &clusters)?;
        assert!(members.iter().all(|member| member.name == member.address));
        let pairs = members.into_iter();
        Some(
            pairs
                .map(|member| (member.address, member.available))
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

    #[test]
    fn health_flags() {
        for (flags, health) in [
            ("healthy", Health::Healthy),
            ("/degraded_active_hc", Health::Degraded),
            ("/degraded_eds_health", Health::Degraded),
            ("/failed_active_hc", Health::Down),
            ("/failed_outlier_check", Health::Down),
            ("/failed_active_hc/active_hc_timeout", Health::Down),
            ("/failed_eds_health", Health::Down),
            ("/eds_status_draining", Health::Down),
            ("/pending_dynamic_removal", Health::Down),
            (
                "/failed_active_hc/excluded_via_immediate_hc_fail",
                Health::Down,
            ),
        ] {
            assert_eq!(health_of(flags), health, "{flags}");
        }
    }
}

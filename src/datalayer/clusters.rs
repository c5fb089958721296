//! Members and health of a cluster, from Envoy's admin interface (`GET /clusters`, text form).
//!
//! The text form costs Envoy's main thread a fifth of the JSON form and has what is needed, one
//! fact a line: `inference-pool::10.0.0.1:8000::health_flags::healthy`. It has no end mark; that
//! it was cut between two lines HTTP tells (the admin interface answers in chunks).

use std::net::SocketAddr;

use hashbrown::hash_map::{Entry, HashMap};
use memchr::memchr_iter;

use super::store::Member;

/// The members of the clusters of these names, in the page's order; `None` where the page is not
/// whole or none of the clusters is on it (then nothing is known, which is not the same as none).
pub fn members(page: &[u8], clusters: &[String]) -> Option<Vec<Member>> {
    if !page.ends_with(b"\n") {
        return None;
    }
    let mut members: Vec<Member> = Vec::new();
    let mut places = HashMap::new();
    let mut seen = false;
    let mut start = 0;
    for end in memchr_iter(b'\n', page) {
        let line = page.get(start..end).unwrap_or_default();
        start = end + 1;
        // Of several: the line of a cluster `pool::a` looks like a fact of the cluster `pool`.
        let mut facts = clusters
            .iter()
            .filter_map(|name| own(line, name))
            .peekable();
        seen |= facts.peek().is_some();
        let Some((address, flags)) = facts.find_map(health) else {
            continue;
        };
        let available = is_available(flags);
        match places.entry(address) {
            Entry::Vacant(place) => {
                place.insert(members.len());
                members.push(member(address, available));
            }
            // In two clusters or priorities: it serves where no listing says otherwise.
            Entry::Occupied(place) => {
                if let Some(member) = members.get_mut(*place.get()) {
                    member.available &= available;
                }
            }
        }
    }
    seen.then_some(members)
}

/// What follows `cluster::` where the line is about this cluster.
fn own<'a>(line: &'a [u8], cluster: &str) -> Option<&'a str> {
    let fact = line.strip_prefix(cluster.as_bytes())?.strip_prefix(b"::")?;
    std::str::from_utf8(fact).ok()
}

/// The address and flags of `address::health_flags::flags`. The cluster's own facts and those of
/// another cluster `cluster::name` begin with no address; a member behind a pipe has none that a
/// request could be sent to by name.
fn health(fact: &str) -> Option<(&str, &str)> {
    let (address, flags) = fact.split_once("::health_flags::")?;
    address.parse::<SocketAddr>().ok()?;
    Some((address, flags))
}

fn member(address: &str, available: bool) -> Member {
    Member {
        name: address.to_owned(),
        address: address.to_owned(),
        labels: Vec::new(),
        available,
    }
}

/// Flags are `healthy` or a list such as `/failed_active_hc/active_hc_timeout`. A degraded host
/// serves; one that fails a check, was ejected, or is draining gets nothing new.
fn is_available(flags: &str) -> bool {
    let bad = |flag: &str| {
        let prefixes = ["failed_", "pending_", "excluded_"];
        prefixes.iter().any(|prefix| flag.starts_with(prefix)) || flag == "eds_status_draining"
    };
    !flags.split('/').any(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both forms of one real page: a host that fails its health check, one that is ejected, every
    /// health status of EDS, a second priority, IPv6, a pipe, an empty cluster, and cluster names
    /// that begin alike.
    const PAGE: &[u8] = include_bytes!("../../tests/fixtures/envoy-1.40/clusters.txt");
    const JSON: &[u8] = include_bytes!("../../tests/fixtures/envoy-1.40/clusters.json");

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
            ("127.0.0.1:28113", true),
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
    fn both_forms_of_a_page_say_the_same() {
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
                let serves = matches!(eds, "HEALTHY" | "DEGRADED") && !failed;
                Some((SocketAddr::new(ip, port).to_string(), serves))
            });
            let name = cluster["name"].as_str().unwrap();
            assert_eq!(found(PAGE, &[name]), Some(expected.collect()), "{name}");
        }
    }

    #[test]
    fn a_member_listed_twice_is_one_and_serves_where_no_listing_says_otherwise() {
        let page = b"a::10.0.0.1:80::health_flags::healthy\n\
            a::10.0.0.2:80::health_flags::healthy\n\
            b::10.0.0.1:80::health_flags::/failed_active_hc\n\
            b::10.0.0.2:80::health_flags::/degraded_active_hc\n";
        let expected = [("10.0.0.1:80", false), ("10.0.0.2:80", true)];
        assert_eq!(found(page, &["a", "b"]), pairs(&expected));
        assert_eq!(found(page, &["b"]), pairs(&expected));
    }

    #[test]
    fn a_cut_page_says_nothing_and_never_another_health() {
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
    fn what_is_no_page_says_nothing() {
        for page in [&b""[..], b"\n", b"\0\xff\n", b"{}\n", b"<html>\n"] {
            assert_eq!(found(page, &["a"]), None);
        }
        // Of this cluster, but about nobody.
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
        let mut rng = fastrand::Rng::with_seed(9);
        for _ in 0..500 {
            let mut page = PAGE.to_vec();
            for _ in 0..rng.usize(1..100) {
                let at = rng.usize(..page.len());
                page[at] = rng.u8(..);
            }
            page.push(b'\n');
            let found = found(&page, &["inference-pool", "inference-pool-eds"]);
            let mut addresses = found.iter().flatten().map(|(address, _)| address);
            assert!(addresses.all(|address| address.parse::<SocketAddr>().is_ok()));
        }
    }

    #[test]
    fn health_flags() {
        for (flags, available) in [
            ("healthy", true),
            ("/degraded_active_hc", true),
            ("/degraded_eds_health", true),
            ("/failed_active_hc", false),
            ("/failed_outlier_check", false),
            ("/failed_active_hc/active_hc_timeout", false),
            ("/failed_eds_health", false),
            ("/eds_status_draining", false),
            ("/pending_dynamic_removal", false),
            ("/failed_active_hc/excluded_via_immediate_hc_fail", false),
        ] {
            assert_eq!(is_available(flags), available, "{flags}");
        }
    }
}

//! Members and health of a cluster, from Envoy's admin interface (`GET /clusters`, text form).
//!
//! The text form costs Envoy's main thread a fifth of the JSON form and has what is needed, one
//! fact a line: `inference-pool::10.0.0.1:8000::health_flags::healthy`.

use memchr::memchr_iter;

use super::store::Member;

/// The members of the clusters of these names, in the page's order; `None` where the page is not
/// whole or none of the clusters is on it (then nothing is known, which is not the same as none).
pub fn members(page: &[u8], clusters: &[String]) -> Option<Vec<Member>> {
    if page.last() != Some(&b'\n') {
        return None;
    }
    let mut members: Vec<Member> = Vec::new();
    let mut seen = false;
    let mut start = 0;
    for end in memchr_iter(b'\n', page) {
        let line = page.get(start..end).unwrap_or_default();
        start = end + 1;
        let Some(fact) = std::str::from_utf8(line)
            .ok()
            .and_then(|line| own(line, clusters))
        else {
            continue;
        };
        seen = true;
        if let Some((address, name, value)) = split(fact) {
            if name == "health_flags" {
                members.push(member(address, value));
            }
        }
    }
    seen.then_some(members)
}

/// What follows `cluster::` where the line is about one of our clusters.
fn own<'a>(line: &'a str, clusters: &[String]) -> Option<&'a str> {
    let mut names = clusters.iter();
    names.find_map(|name| line.strip_prefix(name.as_str())?.strip_prefix("::"))
}

/// `address::name::value`. An IPv6 address has colons of its own, but stands in brackets; the
/// cluster's own facts (`default_priority::…`) begin with no address.
fn split(fact: &str) -> Option<(&str, &str, &str)> {
    let from = if fact.starts_with('[') {
        fact.find(']')?
    } else {
        0
    };
    let (head, _) = fact.get(from..)?.split_once("::")?;
    let (address, rest) = fact.split_at_checked(from + head.len())?;
    let port = address.rsplit_once(':')?.1;
    port.parse::<u16>().ok()?;
    let (name, value) = rest.strip_prefix("::")?.split_once("::")?;
    Some((address, name, value))
}

fn member(address: &str, flags: &str) -> Member {
    Member {
        name: address.to_owned(),
        address: address.to_owned(),
        labels: Vec::new(),
        available: is_available(flags),
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

    const PAGE: &[u8] = include_bytes!("../../tests/fixtures/envoy-1.40/clusters.txt");

    fn found(page: &[u8], cluster: &str) -> Option<Vec<(String, bool)>> {
        let members = members(page, &[cluster.to_owned()])?;
        let pairs = members
            .into_iter()
            .map(|member| (member.address, member.available));
        Some(pairs.collect())
    }

    #[test]
    fn a_real_page_gives_members_and_health_of_the_named_cluster_only() {
        let expected = [("127.0.0.1:19901", true), ("[::1]:8002", false)];
        let expected = expected.map(|(address, healthy)| (address.to_owned(), healthy));
        assert_eq!(found(PAGE, "inference-pool").unwrap(), expected);
        let other = [("127.0.0.1:1".to_owned(), true)];
        assert_eq!(found(PAGE, "inference-pool-2").unwrap(), other);
    }

    #[test]
    fn a_cut_page_and_one_without_the_cluster_say_nothing() {
        assert_eq!(found(PAGE, "elsewhere"), None);
        let whole = PAGE.len();
        assert!((0..whole)
            .filter(|end| PAGE[..*end].last() != Some(&b'\n'))
            .all(|end| found(&PAGE[..end], "inference-pool").is_none()));
    }

    #[test]
    fn a_cluster_without_hosts_is_known_to_have_none() {
        let page = b"inference-pool::added_via_api::true\n";
        assert_eq!(found(page, "inference-pool"), Some(Vec::new()));
    }

    #[test]
    fn health_flags() {
        for (flags, available) in [
            ("healthy", true),
            ("/degraded", true),
            ("/failed_active_hc", false),
            ("/failed_outlier_check", false),
            ("/failed_active_hc/active_hc_timeout", false),
            ("/failed_eds_health", false),
            ("/eds_status_draining", false),
            ("/pending_dynamic_removal", false),
        ] {
            assert_eq!(is_available(flags), available, "{flags}");
        }
    }
}

//! What Envoy's admin interface has instead of a cluster that it does not list.
//!
//! The page of all clusters may be megabytes long, so the interface is asked for those whose names resemble the missing
//! one. It is asked for the cluster of the admin interface as well: the page of this Envoy has it, since the question
//! came through that cluster.

use memchr::{memchr_iter, memmem};

use epp_core::config::value::nearest::nearest;
use epp_core::endpoints::discovery::Survey;
use epp_core::plugins::discovery::envoy_cluster::EnvoyClusterDiscovery;

use crate::callouts::anchored;

/// Letters of a word by which other names are found; the rest may be misspelt.
const STEM: usize = 3;

/// Words of a name that are looked for.
const MAX_STEMS: usize = 4;

/// Bytes of the page that are read.
pub const MAX_BYTES: usize = 1 << 20;

/// Similar names that are told.
const MAX_NAMES: usize = 3;

/// Bytes of a name that is told: Istio's are as long as the names of a Service and its namespace.
const MAX_NAME_BYTES: usize = 160;

/// Returns the admin interface's path to the clusters that resemble the missing one of this number.
pub fn path(discovery: &EnvoyClusterDiscovery, missing: usize) -> String {
    let missing = discovery.names().nth(missing).unwrap_or_default();
    // Istio's `outbound|8000||vllm.llm.svc.cluster.local`: a Service's name stands last, before its namespace.
    let name = missing.rsplit('|').next().unwrap_or_default();
    let name = name.split('.').next().unwrap_or_default();
    let words = name.split(|letter: char| !letter.is_ascii_alphanumeric());
    let stems = words.filter_map(|word| word.get(..STEM)).take(MAX_STEMS);
    // `(?i)` and bars, so that one of the expressions matches, whatever its capitals.
    let mut path = format!(
        "/clusters?filter=%28%3Fi%29{}",
        anchored(&discovery.admin_cluster)
    );
    for stem in stems {
        path.push_str("%7C");
        path.push_str(stem);
    }
    path
}

/// Returns what a page says that was fetched by [`path`].
pub fn read(page: &[u8], discovery: &EnvoyClusterDiscovery, missing: usize) -> Survey {
    let missing = discovery.names().nth(missing).unwrap_or_default();
    let (mut own, mut names, mut start) = (false, Vec::new(), 0);
    for end in memchr_iter(b'\n', page) {
        let line = page.get(start..end).unwrap_or_default();
        start = end + 1;
        // Each cluster has one such line.
        let name = memmem::find(line, b"::observability_name::");
        let name = name.and_then(|end| std::str::from_utf8(line.get(..end)?).ok());
        let Some(name) = name.filter(|name| name.len() <= MAX_NAME_BYTES) else {
            continue;
        };
        match name == discovery.admin_cluster {
            true => own = true,
            false => names.push(name),
        }
    }
    if !own {
        return match names.is_empty() {
            true => Survey::None,
            false => Survey::Foreign,
        };
    }
    let near = nearest(missing, names.iter().copied());
    let others = names.iter().copied().filter(|name| Some(*name) != near);
    let told = near.into_iter().chain(others).take(MAX_NAMES);
    Survey::Own(told.map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use epp_core::plugins::discovery::envoy_cluster::SourceCluster;

    use super::*;

    const PAGE: &[u8] = include_bytes!("../../../tests/fixtures/envoy-1.40/clusters.txt");

    fn discovery(name: &str, admin_cluster: &str) -> EnvoyClusterDiscovery {
        EnvoyClusterDiscovery {
            clusters: vec![SourceCluster::unlabelled(name)],
            admin_cluster: admin_cluster.to_owned(),
            ..EnvoyClusterDiscovery::default()
        }
    }

    #[test]
    fn names_that_begin_alike_are_asked_for_and_the_way_to_the_interface() {
        let path = |name| path(&discovery(name, "admin"), 0);
        let prefix = "/clusters?filter=%28%3Fi%29%5Eadmin%24";
        assert_eq!(path("inferense-pool"), format!("{prefix}%7Cinf%7Cpoo"));
        let istio = "outbound|8000||vllm-llama.llm.svc.cluster.local";
        assert_eq!(path(istio), format!("{prefix}%7Cvll%7Clla"));
        for nothing in ["", "ab", "|||", "é-ü", ".x"] {
            assert_eq!(path(nothing), prefix, "{nothing}");
        }
    }

    #[test]
    fn a_page_says_whose_it_is_and_which_names_are_near() {
        let read = |page, name, admin| read(page, &discovery(name, admin), 0);
        let Survey::Own(names) = read(PAGE, "inference-pol", "empty-eds") else {
            panic!("it is this Envoy's page");
        };
        assert_eq!(names[0], "inference-pool");
        assert_eq!(names.len(), MAX_NAMES);
        assert_eq!(read(PAGE, "inference-pol", "admin"), Survey::Foreign);
        for page in [&b""[..], b"\n", b"<html>\n", b"::observability_name::"] {
            assert_eq!(read(page, "a", "admin"), Survey::None);
        }
    }

    #[test]
    fn long_names_and_long_pages_are_bounded() {
        let long = format!(
            "{}::observability_name::x\n",
            "x".repeat(MAX_NAME_BYTES + 1)
        );
        let page = format!("admin::observability_name::admin\n{long}");
        let own = read(page.as_bytes(), &discovery("x", "admin"), 0);
        assert_eq!(own, Survey::Own(Vec::new()));
        let begun = cpu_time::ThreadTime::now();
        let page = "abcdefgh::observability_name::\n".repeat(MAX_BYTES / 31);
        read(page.as_bytes(), &discovery(&"x".repeat(64), "admin"), 0);
        assert!(
            begun.elapsed() < std::time::Duration::from_secs(2),
            "{:?}",
            begun.elapsed()
        );
    }
}

//! The Envoy is of a release that the filter was not tested with.

use super::site::{below, number};
use super::{Fault, Rule};

/// Minor versions of Envoy 1 that the end-to-end tests run on.
const TESTED: std::ops::RangeInclusive<u32> = 36..=40;

/// The rule.
pub const RULE: Rule = Rule {
    name: "envoy-version",
    why: "releases of Envoy differ in what they deliver to a filter: the tests run on 1.36 to 1.40",
    fix: "run one of the tested releases, or the end-to-end tests on this one (make test ENVOY_VERSION=…)",
    check: |site| {
        if site.pickers.is_empty() {
            return Vec::new();
        }
        let mut faults = Vec::new();
        for (path, map) in &site.maps {
            // As the admin interface dumps the node of a running Envoy.
            let Some(version) = below(map, &["user_agent_build_version", "version"]) else {
                continue;
            };
            let part = |key: &str| version.get(key).and_then(number).unwrap_or_default() as u32;
            let (major, minor) = (part("major_number"), part("minor_number"));
            if major != 1 || !TESTED.contains(&minor) {
                let what = format!("a test of the filter on Envoy {major}.{minor}");
                faults.push(Fault::not_seen(&path.key("user_agent_build_version"), what));
            }
        }
        faults
    },
};

#[cfg(test)]
mod tests {
    use crate::lint::found;

    #[test]
    fn says_that_a_release_was_not_tested() {
        let bootstrap = include_str!("../../../../envoy/envoy.yaml");
        let with = |minor: u32| {
            let node = format!("\nnode: {{user_agent_build_version: {{version: {{major_number: 1, minor_number: {minor}}}}}}}\n");
            found(&super::RULE, &format!("{bootstrap}{node}"))
        };
        assert!(found(&super::RULE, bootstrap).is_empty());
        assert!(with(36).is_empty() && with(40).is_empty());
        for minor in [35, 41] {
            let notes = with(minor);
            assert!(
                notes.len() == 1 && notes[0].starts_with("not seen: "),
                "{notes:?}"
            );
        }
    }
}

//! The filter was not tested with this release of Envoy.

use tested_envoys::{TESTED, TESTED_TEXT};

use super::site::{below, number};
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "envoy-version",
    finds: "a config dump of an Envoy release that the filter was not tested with",
    why: "Envoy releases, even patch releases, differ in what they deliver to a filter; 1.38.3 does not run Wasm at all",
    fix: "use a tested release, or run the end-to-end tests on this one (make test ENVOY_VERSION=…)",
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
            // A dump leaves out numbers that are 0.
            let part = |key: &str| version.get(key).and_then(number).unwrap_or_default() as u32;
            let (major, minor, patch) = (part("major_number"), part("minor_number"), part("patch"));
            let is_this = |(a, b, c): &(u8, u8, u8)| {
                (u32::from(*a), u32::from(*b), u32::from(*c)) == (major, minor, patch)
            };
            if !TESTED.iter().any(is_this) {
                let what = format!("Envoy {major}.{minor}.{patch}; tested with {TESTED_TEXT}");
                faults.push(Fault::at(&path.key("user_agent_build_version"), what));
            }
        }
        faults
    },
};

#[cfg(test)]
mod tests {
    use tested_envoys::TESTED;

    use crate::lint::found;

    #[test]
    fn a_release_that_was_not_tested_is_a_finding() {
        let bootstrap = include_str!("../../../../envoy/envoy.yaml");
        let with = |version: &str| {
            let node = format!("\nnode: {{user_agent_build_version: {{version: {version}}}}}\n");
            found(&super::RULE, &format!("{bootstrap}{node}"))
        };
        let numbered = |minor: u8, patch: u8| {
            with(&format!(
                "{{major_number: 1, minor_number: {minor}, patch: {patch}}}"
            ))
        };
        assert!(found(&super::RULE, bootstrap).is_empty());
        for (_, minor, patch) in TESTED {
            assert!(numbered(minor, patch).is_empty(), "{minor}.{patch}");
        }
        assert!(with("{major_number: 1, minor_number: 40}").is_empty());
        for (minor, patch) in [(35, 4), (36, 0), (38, 3), (40, 9), (41, 0)] {
            let version = format!("Envoy 1.{minor}.{patch}; tested with 1.36.4, ");
            let notes = numbered(minor, patch);
            assert!(
                notes.len() == 1 && notes[0].contains(&version) && !notes[0].contains("not seen"),
                "{notes:?}"
            );
        }
    }
}

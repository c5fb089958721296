//! Properties of the loader of configurations.

use epp_core::config::value::Problem;
use epp_core::config::{load, load_bytes};
use epp_core::prefix::key::Key;
use epp_core::scheduling::Pool;

use super::{json, within};

/// Memory for reading a text with the most values, aliases expanded.
const MEMORY: usize = 64 << 20;

/// Asserts that a text gives a plan that a picker can run, or problems with their places.
pub fn configuration(input: &[u8]) {
    let loaded = match within(MEMORY, || load_bytes(input)) {
        Ok(loaded) => loaded,
        Err(rejected) => {
            assert!(!rejected.errors.is_empty(), "rejected without an error");
            return assert_located(input, rejected.errors.iter().chain(&rejected.warnings));
        }
    };
    assert_located(input, loaded.warnings.iter());
    let plan = loaded.plan;
    let summary = plan.summary();
    let mut profiles = plan.profiles.iter();
    assert!(profiles.all(|profile| summary.contains(&profile.name)));
    for spec in plan.read_plan(&Pool::default(), &Key::Plain).blocks {
        assert!(spec.block_bytes > 0, "a block of no bytes");
    }
    if let Some(value) = json::parse(input) {
        // The same document, spelt another way.
        let pretty = serde_json::to_string_pretty(&value).unwrap();
        let again = load(&pretty).map(|loaded| loaded.plan);
        assert_eq!(again.ok(), Some(plan), "{pretty}");
    }
}

/// Asserts that the places of problems are in the text.
fn assert_located<'p>(input: &[u8], problems: impl Iterator<Item = &'p Problem>) {
    // YAML has five of them.
    let breaks = ['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}'];
    let text = String::from_utf8_lossy(input);
    let lines = text.split(breaks).count();
    for problem in problems {
        assert!(!problem.message.is_empty());
        if let Some((line, column)) = problem.location {
            assert!(line <= lines + 1 && column <= input.len() + 1, "{problem}");
        }
    }
}

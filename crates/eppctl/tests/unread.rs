//! `eppctl check` on what a plan does not see of requests' bodies.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::{eppctl, out};

#[test]
fn parts_of_bodies_that_a_plan_does_not_read_are_reported() {
    let document = |scorer: &str, mode: &str| {
        format!(
            "apiVersion: inference.networking.x-k8s.io/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: {scorer}
- type: envoy-proxy
  parameters: {{{mode}}}
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: {scorer}
"
        )
    };
    let report = |scorer: &str, mode: &str| {
        let output = eppctl(&["check", "-"], &document(scorer, mode));
        assert!(output.status.success(), "{}", out(&output));
        out(&output)
    };
    let (bodies, behind) = ("  bodies  ", "  fields after the messages  ");
    for (scorer, mode, has_bodies, has_behind) in [
        ("prefix-cache-scorer", "earlyRelease: exact", true, false),
        (
            "prefix-cache-scorer",
            "earlyRelease: assumeAbsent",
            true,
            true,
        ),
        ("prefix-cache-scorer", "readBody: never", true, false),
        ("queue-scorer", "earlyRelease: assumeAbsent", false, false),
    ] {
        let text = report(scorer, mode);
        assert_eq!(text.contains(bodies), has_bodies, "{text}");
        assert_eq!(text.contains(behind), has_behind, "{text}");
    }
    assert!(report("prefix-cache-scorer", "readBody: never").contains("not read (readBody)"));
}

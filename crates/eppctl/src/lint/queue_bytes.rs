//! A queue of flow control is too small for a single body.

use epp_core::config::settings::ReadBody;
use epp_core::flow::FlowControl;

use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "queue-bytes",
    finds: "`maxBytes` of flow control below `decideAfterBytes`",
    why: "a body counts with as many bytes as Envoy may have to keep of it, up to decideAfterBytes: a longer one, or one of unknown length, is rejected with 429 even while nothing waits",
    fix: "raise maxBytes to several times decideAfterBytes, or leave it out",
    check: |site| {
        let mut faults = Vec::new();
        for (picker, plan) in site.loaded() {
            let needed = plan.settings.decide_after_bytes as u64;
            let Some(control) = &plan.flow else { continue };
            if plan.settings.read_body == ReadBody::Never {
                continue;
            }
            let low = limits(control).into_iter().filter(|(_, limit)| *limit < needed);
            faults.extend(low.map(|(whose, limit)| {
                let what = format!("{limit} bytes {whose}, below decideAfterBytes ({needed})");
                Fault::at(&picker.document, what)
            }));
        }
        faults
    },
};

/// Returns the limits of bytes, and what each is for.
fn limits(control: &FlowControl) -> Vec<(String, u64)> {
    let bands = control.bands.iter();
    let bands = bands.filter_map(|band| {
        let whose = format!("in the band of priority {}", band.priority);
        Some((whose, band.max_bytes?))
    });
    let mut limits: Vec<(String, u64)> = bands.collect();
    let default = control.default_band.max_bytes;
    // The band of priority 0 has it, too, unless it is listed.
    let default = default.filter(|limit| limits.iter().all(|(_, known)| known != limit));
    limits.extend(default.map(|limit| ("in defaultPriorityBand".to_owned(), limit)));
    // It is as the default unless the document has a section for it.
    let negative = control.negative_band.max_bytes;
    let negative = negative.filter(|limit| Some(*limit) != control.default_band.max_bytes);
    limits.extend(negative.map(|limit| ("in defaultNegativePriorityBand".to_owned(), limit)));
    limits.extend(
        control
            .max_bytes
            .map(|limit| ("in all bands".to_owned(), limit)),
    );
    limits
}

#[cfg(test)]
mod tests {
    use crate::lint::found;

    fn with(flow: &str, read_body: &str) -> Vec<String> {
        let bootstrap = include_str!("../../../../envoy/envoy.yaml");
        let gate = format!("kind: EndpointPickerConfig\n                    featureGates: [flowControl]\n                    flowControl: {{{flow}}}\n");
        let text = bootstrap.replace("kind: EndpointPickerConfig\n", &gate);
        let text = text.replace("readBody: always", read_body);
        found(&super::RULE, &text)
    }

    #[test]
    fn finds_queues_that_a_single_body_overfills() {
        assert_eq!(with("", "readBody: always"), Vec::<String>::new());
        for (flow, whose) in [
            ("maxBytes: 1000", "in all bands"),
            (
                "defaultPriorityBand: {maxBytes: 1000}",
                "in the band of priority 0",
            ),
            (
                "defaultPriorityBand: {maxBytes: 1000}, priorityBands: [{priority: 0}]",
                "in defaultPriorityBand",
            ),
            (
                "defaultNegativePriorityBand: {maxBytes: 1000}",
                "in defaultNegativePriorityBand",
            ),
            (
                "priorityBands: [{priority: 7, maxBytes: 1000}]",
                "in the band of priority 7",
            ),
        ] {
            let found = with(flow, "readBody: always");
            let what = format!("1000 bytes {whose}, below decideAfterBytes (");
            assert!(
                found.len() == 1 && found[0].contains(&what),
                "{flow}: {found:?}"
            );
            assert_eq!(
                with(&flow.replace("1000", "4Mi"), "readBody: always"),
                Vec::<String>::new()
            );
            assert_eq!(with(flow, "readBody: never"), Vec::<String>::new());
        }
    }
}

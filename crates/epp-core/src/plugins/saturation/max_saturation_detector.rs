//! `max-saturation-detector`: the greatest of the saturations that other detectors measure.
//!
//! In a disaggregated pool, the endpoints that compute prompts and those that generate tokens are measured apart, by their
//! label `llm-d.ai/role` (endpoints without it generate tokens). `stages` restricts a detector to one of the two; a stage
//! that none measures is at 0.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `detectors` | required | the names of the detectors, each once |
//! | `stages` | none | by a detector's name, the stages that it measures: `prefill`, `decode` or both |
//!
//! ```yaml
//! - {name: prompts, type: concurrency-detector, parameters: {concurrencyMode: tokens, maxTokenConcurrency: 100000}}
//! - {name: streams, type: concurrency-detector, parameters: {maxConcurrency: 132}}
//! - type: max-saturation-detector
//!   parameters:
//!     detectors: [prompts, streams]
//!     stages: {prompts: [prefill], streams: [decode]}
//! ```

use std::sync::Arc;

use crate::config::value::{Fields, Kind, Node, Path};
use crate::flow::{Part, Partition, SaturationDetector};
use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType, Reference};
use crate::scheduling::{Endpoint, InFlight, Needs};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "max-saturation-detector",
    former_names: &[],
    provides: &[Capability::SaturationDetector],
    references: &[Reference {
        parameter: DETECTORS,
        to: Capability::SaturationDetector,
        default: None,
    }],
    build,
    parity: Parity::SAME,
};

const DETECTORS: &str = "detectors";
const STAGES: &str = "stages";

/// The greatest saturation of several detectors.
#[derive(Debug)]
struct MaxSaturation {
    /// Each with the partition that it is restricted to.
    detectors: Vec<Part>,
}

impl SaturationDetector for MaxSaturation {
    fn value(&self, _: &Endpoint, _: InFlight) -> Option<f64> {
        None
    }

    fn saturation_at(&self, mean: f64) -> f64 {
        mean
    }

    fn parts(&self) -> &[Part] {
        &self.detectors
    }

    fn needs(&self) -> Needs {
        let needs = self.detectors.iter().map(|(detector, _)| detector.needs());
        needs.fold(Needs::default(), Needs::union)
    }
}

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    let names = build.fields.required_texts(DETECTORS, "detectors");
    let stages = read_stages(&mut build.fields, &names);
    let mut detectors = Vec::new();
    for (place, (name, at)) in names.iter().enumerate() {
        if names.iter().take(place).any(|(before, _)| before == name) {
            let message = format!("found {name:?} again, expected each detector once");
            build.fields.problems().error(at, message);
        }
        let found = build.resolve(Capability::SaturationDetector, name, at);
        let only = stages.iter().find(|(restricted, _)| restricted == name);
        let only = only.and_then(|(_, only)| *only);
        let detector = found.and_then(|found| found.capabilities.saturation_detector.clone());
        detectors.extend(detector.map(|detector| (detector, only)));
    }
    let names = names.iter().map(|(name, _)| Node::String((*name).to_owned()));
    let names = Node::List(names.collect());
    build.fields.note(DETECTORS, names);
    Capabilities {
        saturation_detector: Some(Arc::new(MaxSaturation { detectors })),
        ..Capabilities::default()
    }
}

/// Reads `stages`: by name the partition that a detector is restricted to; `None` for both.
fn read_stages(
    fields: &mut Fields<'_>,
    names: &[(&str, Path)],
) -> Vec<(String, Option<Partition>)> {
    let path = fields.path().key(STAGES);
    fields.ask(STAGES, Kind::Any, None);
    let entries = match fields.node(STAGES) {
        None | Some(Node::Null) => return Vec::new(),
        Some(Node::Map(entries)) => entries,
        Some(other) => {
            fields.refuse(STAGES, other, "stages by detector");
            return Vec::new();
        }
    };
    fields.note(STAGES, Node::Map(entries.clone()));
    let mut read = Vec::new();
    for (name, node) in entries {
        let place = path.key(name);
        if names.iter().all(|(known, _)| known != name) {
            let message = "found a name that detectors does not have, expected one of these";
            fields.problems().error(&place, message);
        }
        match partition_of(node) {
            Some(partition) => read.push((name.clone(), partition)),
            None => {
                let message = format!(
                    "found {}, expected [prefill], [decode] or both",
                    node.found()
                );
                fields.problems().error(&place, message);
            }
        }
    }
    read
}

/// Returns the partition that a list of stages restricts to, if it is such a list; `None` in it means no restriction.
fn partition_of(node: &Node) -> Option<Option<Partition>> {
    let Node::List(stages) = node else {
        return None;
    };
    let is = |stage: &Node, name: &str| matches!(stage, Node::String(text) if text == name);
    let prefill = stages.iter().any(|stage| is(stage, "prefill"));
    let decode = stages.iter().any(|stage| is(stage, "decode"));
    let all_known = stages
        .iter()
        .all(|stage| is(stage, "prefill") || is(stage, "decode"));
    match (prefill, decode) {
        _ if !all_known => None,
        (true, true) => Some(None),
        (true, false) => Some(Some(Partition::Prefill)),
        (false, true) => Some(Some(Partition::Decode)),
        (false, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::flow::Partition;
    use crate::scheduling::{InFlight, Slot};
    use crate::testing::{detector, pool, refused_of};

    const CHILDREN: &str = "
- {name: small, type: concurrency-detector, parameters: {maxConcurrency: 2}}
- {name: large, type: concurrency-detector, parameters: {maxConcurrency: 8}}
";

    fn plugins(parameters: &str) -> String {
        format!("- {{type: max-saturation-detector, parameters: {parameters}}}{CHILDREN}")
    }

    #[test]
    fn the_fullest_of_the_detectors_of_a_stage_counts() {
        let mut pool = pool([Default::default()]);
        let load = InFlight {
            requests: 4,
            ..InFlight::default()
        };
        pool.set_load(Slot(0), load);
        pool.set_labels(Slot(0), &[("llm-d.ai/role".to_owned(), "both".to_owned())]);
        let saturation = |parameters: &str, partition| {
            detector(&plugins(parameters), "max-saturation-detector").saturation(&pool, partition)
        };
        use Partition::{All, Decode, Prefill};
        assert_eq!(saturation("{detectors: [large, small]}", Decode), 2.0);
        assert_eq!(saturation("{detectors: [large]}", Decode), 0.5);
        let staged = "{detectors: [large, small], stages: {small: [prefill], large: [decode]}}";
        assert_eq!(saturation(staged, Prefill), 2.0);
        assert_eq!(saturation(staged, Decode), 0.5);
        assert_eq!(saturation(staged, All), 2.0, "all measure a pool without stages");
        let both = "{detectors: [small], stages: {small: [decode, prefill]}}";
        assert_eq!(saturation(both, Prefill), 2.0);
        let one = "{detectors: [small], stages: {small: [decode]}}";
        assert_eq!(saturation(one, Prefill), 0.0, "no detector measures it");
    }

    #[test]
    fn what_it_combines_has_to_be_there() {
        for (parameters, place) in [
            ("{}", "detectors"),
            ("{detectors: []}", "detectors"),
            ("{detectors: [medium]}", "detectors[0]"),
            ("{detectors: [small, small]}", "detectors[1]"),
            ("{detectors: [small], stages: {large: [decode]}}", "stages.large"),
            ("{detectors: [small], stages: {small: []}}", "stages.small"),
            ("{detectors: [small], stages: {small: [encode]}}", "stages.small"),
            ("{detectors: [small], stages: {small: decode}}", "stages.small"),
            ("{detectors: [small], stages: [small]}", "stages"),
        ] {
            let error = refused_of(&plugins(parameters));
            assert!(error.contains(place), "{parameters}: {error}");
        }
    }

    #[test]
    fn detectors_may_combine_others_but_not_each_other() {
        let nested = plugins("{detectors: [inner]}")
            + "- {name: inner, type: max-saturation-detector, parameters: {detectors: [small]}}\n";
        detector(&nested, "max-saturation-detector");
        let circle = plugins("{detectors: [inner]}")
            + "- {name: inner, type: max-saturation-detector, parameters: {detectors: [max-saturation-detector]}}\n";
        let text = format!("apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n{circle}");
        let errors = crate::config::load(&text).unwrap_err().errors;
        assert!(errors.iter().any(|error| error.message.contains("in turn")), "{errors:?}");
    }
}

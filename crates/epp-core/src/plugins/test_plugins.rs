//! Plugin types that only tests can configure.

use super::{
    Build, Capabilities, Capability, Dialect, FormerName, Parity, PluginType, PrefixProducer,
    Reference,
};
use crate::scheduling::{Cycle, Filter, HeaderId, Needs, Scorer, Slot};
use std::sync::Arc;

/// A plugin that is two things at once: a filter that keeps the endpoint that a request header names,
/// and a scorer that gives endpoints the length of their names.
const HEADER_AFFINITY: PluginType = PluginType {
    name: "test-header-affinity",
    former_names: &[],
    provides: &[Capability::Filter, Capability::Scorer],
    references: &[],
    build: |build| {
        let header = build.fields.required_string("header");
        let plugin = Arc::new(HeaderAffinity(build.header("header", &header)));
        Capabilities {
            filter: Some(plugin.clone()),
            scorer: Some(plugin),
            ..Capabilities::default()
        }
    },
    parity: Parity::SAME,
};

/// A scorer that refers to another scorer.
const FOLLOWER: PluginType = PluginType {
    name: "test-follower",
    former_names: &[],
    provides: &[Capability::Scorer],
    references: &[FOLLOWS],
    build: |build: &mut Build<'_, '_>| {
        build.refer(&FOLLOWS);
        Capabilities::scorer(HeaderAffinity(HeaderId(0)))
    },
    parity: Parity::SAME,
};

/// A plugin that is three things at once, under its former name, too: a filter, a scorer, and a prefix producer.
const ALL_IN_ONE: PluginType = PluginType {
    name: "test-all-in-one",
    former_names: &[FormerName {
        name: "test-two-in-one",
        dialect: Dialect::LlmD,
    }],
    provides: &[
        Capability::Filter,
        Capability::Scorer,
        Capability::PrefixProducer,
    ],
    references: &[],
    build: |build| {
        let plugin = Arc::new(HeaderAffinity(build.header("header", "wanted")));
        let producer = PrefixProducer {
            dialect: Dialect::LlmD,
            block: 512,
            auto_tune: false,
            max_blocks: Some(9),
            max_tokens: None,
            capacity: 99,
        };
        Capabilities {
            filter: Some(plugin.clone()),
            scorer: Some(plugin),
            prefix_producer: Some(build.prefix_producer(producer)),
            ..Capabilities::default()
        }
    },
    parity: Parity::SAME,
};

const FOLLOWS: Reference = Reference {
    parameter: "follows",
    to: Capability::Scorer,
    default: None,
};

/// Returns the type of this name.
pub fn find(name: &str) -> Option<&'static &'static PluginType> {
    const TYPES: &[&PluginType] = &[&HEADER_AFFINITY, &FOLLOWER, &ALL_IN_ONE];
    TYPES.iter().find(|plugin| plugin.is_named(name))
}

#[derive(Debug)]
struct HeaderAffinity(HeaderId);

impl Filter for HeaderAffinity {
    fn filter(&self, cycle: &Cycle<'_>, candidates: &mut Vec<Slot>) {
        if let Some(wanted) = cycle.request.header(self.0) {
            candidates.retain(|slot| {
                let endpoint = cycle.pool.get(*slot);
                endpoint.is_some_and(|endpoint| endpoint.name.as_bytes() == wanted)
            });
        }
    }
}

impl Scorer for HeaderAffinity {
    fn score(&self, cycle: &Cycle<'_>, candidates: &[Slot], scores: &mut [f64]) {
        for (slot, score) in candidates.iter().zip(scores) {
            let endpoint = cycle.pool.get(*slot);
            *score = endpoint.map_or(0.0, |endpoint| endpoint.name.len() as f64 / 100.0);
        }
    }

    fn needs(&self) -> Needs {
        Needs::default()
    }
}

//! What the plugins of topologies share: where endpoints are, by their labels, and how near two of them are.

use super::{Build, Capability, Reference};
use crate::scheduling::Endpoint;

/// How near two endpoints are, the nearest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// On the same host.
    Host,
    /// In the same rack.
    Rack,
    /// In the same zone.
    Zone,
    /// In the same region.
    Region,
}

/// The levels by their names.
pub const LEVELS: [(&str, Level); 4] = [
    ("host", Level::Host),
    ("rack", Level::Rack),
    ("zone", Level::Zone),
    ("region", Level::Region),
];

/// The labels that say where an endpoint is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology(pub [(Level, String); 4]);

impl Topology {
    /// Returns how near two endpoints are; `None` if they have nothing in common. A label that is missing or empty
    /// equals none.
    pub fn nearness(&self, one: &Endpoint, other: &Endpoint) -> Option<Level> {
        let mut levels = self.0.iter();
        let common = levels.find(|(_, label)| {
            let value = one.label(label).filter(|value| !value.is_empty());
            value.is_some() && value == other.label(label)
        });
        common.map(|(level, _)| *level)
    }
}

/// The parameter of plugins that compare endpoints.
pub const REFERENCE: Reference = Reference {
    parameter: "topologyProducerName",
    to: Capability::Topology,
    default: None,
};

/// Returns the labels that a plugin reads. Without a `topology-extractor` it reads none, as in the Endpoint Picker, which
/// warns of it, too.
pub fn read(build: &mut Build<'_, '_>) -> Option<Topology> {
    let found = build.refer(&REFERENCE);
    if found.is_none() && !build.fields.has(REFERENCE.parameter) {
        let path = build.fields.path().key(REFERENCE.parameter);
        let message = "found no topology-extractor: no endpoint is near another one";
        build.fields.problems().warn(&path, message);
    }
    found?.capabilities.topology.clone()
}

/// A pool whose endpoints have these labels, for the tests: host, rack, zone and region, separated by spaces; `-` is none.
#[cfg(test)]
pub fn placed(places: &[&str]) -> crate::scheduling::Pool {
    use crate::scheduling::Slot;
    let mut pool = crate::testing::pool(places.iter().map(|_| Default::default()));
    for (slot, place) in (0..).map(Slot).zip(places) {
        let labels = super::source::topology_extractor::LABELS;
        let values = labels.iter().zip(place.split(' '));
        let values = values.filter(|(_, value)| *value != "-");
        let labels = values.map(|((_, label), value)| ((*label).to_owned(), value.to_owned()));
        pool.get_mut(slot).unwrap().labels = labels.collect();
    }
    pool
}

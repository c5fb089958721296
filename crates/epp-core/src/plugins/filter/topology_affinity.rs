//! `topology-affinity-filter`: keeps the endpoints near the one that another profile has picked, such as prefill
//! endpoints near the decode endpoint.
//!
//! Reads the labels that `topology-extractor` names, of the candidates and of the other endpoint. A candidate is kept
//! if it shares `minAffinity` with that endpoint, or something nearer: the host, the rack, the zone or the region. All are
//! kept where none does, and where no other profile has picked an endpoint before.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `minAffinity` | `host` | `host`, `rack`, `zone` or `region` |
//! | `topologyProducerName` | the only extractor | whose labels |
//!
//! ```yaml
//! - type: topology-affinity-filter
//!   parameters: {minAffinity: zone}
//! ```

use crate::plugins::keep::keep;
use crate::plugins::topology::{self, Level, Topology, LEVELS};
use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType};
use crate::scheduling::{Cycle, Filter, Needs, Slot};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "topology-affinity-filter",
    former_names: &[],
    provides: &[Capability::Filter],
    references: &[topology::REFERENCE],
    build,
    parity: Parity::SAME,
};

#[derive(Debug)]
struct TopologyAffinityFilter {
    topology: Option<Topology>,
    farthest: Level,
}

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    Capabilities::filter(TopologyAffinityFilter {
        topology: topology::read(build),
        farthest: build.fields.choice("minAffinity", Level::Host, &LEVELS),
    })
}

impl Filter for TopologyAffinityFilter {
    fn filter(&self, cycle: &Cycle<'_>, candidates: &mut Vec<Slot>) {
        let peer = cycle.peer.and_then(|slot| cycle.pool.get(slot));
        let (Some(topology), Some(peer)) = (&self.topology, peer) else {
            return;
        };
        keep(cycle, candidates, true, &|_, endpoint| {
            let nearness = topology.nearness(peer, endpoint);
            nearness.is_some_and(|level| level <= self.farthest)
        });
    }

    fn needs(&self) -> Needs {
        Needs {
            labels: self.topology.is_some(),
            peer: self.topology.is_some(),
            ..Needs::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::source::topology_extractor::LABELS;
    use crate::plugins::topology::placed;
    use crate::scheduling::RequestView;
    use crate::testing::refused;

    fn kept(farthest: Level, peer: Option<u32>, places: &[&str]) -> Vec<u32> {
        let pool = placed(places);
        let filter = TopologyAffinityFilter {
            topology: Some(Topology(LABELS.map(|(level, label)| (level, label.to_owned())))),
            farthest,
        };
        let cycle = Cycle {
            peer: peer.map(Slot),
            ..Cycle::new(&pool, RequestView::default())
        };
        let mut candidates: Vec<Slot> = pool.iter().map(|(slot, _)| slot).skip(1).collect();
        filter.filter(&cycle, &mut candidates);
        candidates.iter().map(|slot| slot.0).collect()
    }

    #[test]
    fn endpoints_near_the_other_one_are_kept() {
        let places = ["h r z g", "h r z g", "i r z g", "i s z g", "i s y g", "i s y f", "- - - -"];
        assert_eq!(kept(Level::Host, Some(0), &places), [1]);
        assert_eq!(kept(Level::Rack, Some(0), &places), [1, 2]);
        assert_eq!(kept(Level::Zone, Some(0), &places), [1, 2, 3]);
        assert_eq!(kept(Level::Region, Some(0), &places), [1, 2, 3, 4]);
        // Nothing is known of the other endpoint, or there is none.
        assert_eq!(kept(Level::Region, Some(6), &places), [1, 2, 3, 4, 5, 6]);
        assert_eq!(kept(Level::Host, None, &places), [1, 2, 3, 4, 5, 6]);
        assert_eq!(kept(Level::Host, Some(9), &places), [1, 2, 3, 4, 5, 6]);
        // None is as near.
        assert_eq!(kept(Level::Host, Some(0), &["h - - -", "i - - -", "- - - -"]), [1, 2]);
        // Nothing in common is not the same.
        assert_eq!(kept(Level::Host, Some(0), &["- - z -", "- - z -", "h - z -"]), [1, 2]);
        assert_eq!(kept(Level::Zone, Some(0), &["- - z -", "- - z -", "h - y -"]), [1]);
    }

    #[test]
    fn a_level_is_one_of_four() {
        refused("topology-affinity-filter", "{minAffinity: cluster}");
    }
}

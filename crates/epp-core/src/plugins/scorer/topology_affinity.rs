//! `topology-affinity-scorer`: prefers the endpoints near the one that another profile has picked, such as prefill
//! endpoints near the decode endpoint.
//!
//! Reads the labels that `topology-extractor` names, of the candidates and of the other endpoint.
//!
//! Score by the nearest that both share: host 1, rack 0.2, zone 0.05, region 0.02, nothing 0; 0 for all where no other
//! profile has picked an endpoint before.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `topologyProducerName` | the only extractor | whose labels |
//!
//! ```yaml
//! - type: topology-affinity-scorer
//! ```

use crate::plugins::topology::{self, Level, Topology};
use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType};
use crate::scheduling::{Cycle, Needs, Scorer, Slot};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "topology-affinity-scorer",
    former_names: &[],
    provides: &[Capability::Scorer],
    references: &[topology::REFERENCE],
    build,
    parity: Parity::SAME,
};

#[derive(Debug)]
struct TopologyAffinityScorer(Option<Topology>);

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    Capabilities::scorer(TopologyAffinityScorer(topology::read(build)))
}

impl Scorer for TopologyAffinityScorer {
    fn score(&self, cycle: &Cycle<'_>, candidates: &[Slot], scores: &mut [f64]) {
        let peer = cycle.peer.and_then(|slot| cycle.pool.get(slot));
        let topology = self.0.as_ref();
        for (slot, score) in candidates.iter().zip(scores) {
            let nearness = topology.and_then(|topology| topology.nearness(peer?, cycle.pool.get(*slot)?));
            *score = match nearness {
                Some(Level::Host) => 1.0,
                Some(Level::Rack) => 0.2,
                Some(Level::Zone) => 0.05,
                Some(Level::Region) => 0.02,
                None => 0.0,
            };
        }
    }

    fn needs(&self) -> Needs {
        Needs {
            labels: self.0.is_some(),
            peer: self.0.is_some(),
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
    use crate::testing::close;

    #[test]
    fn the_nearest_in_common_counts() {
        let pool = placed(&["h r z g", "h r z g", "i r z g", "i s z g", "i s y g", "i s y f", "- - - -"]);
        let scorer = TopologyAffinityScorer(Some(Topology(
            LABELS.map(|(level, label)| (level, label.to_owned())),
        )));
        let score = |peer: Option<u32>| {
            let cycle = Cycle {
                peer: peer.map(Slot),
                ..Cycle::new(&pool, RequestView::default())
            };
            let candidates: Vec<Slot> = pool.iter().map(|(slot, _)| slot).collect();
            let mut scores = vec![9.0; candidates.len()];
            scorer.score(&cycle, &candidates, &mut scores);
            scores
        };
        assert!(close(&score(Some(0)), &[1.0, 1.0, 0.2, 0.05, 0.02, 0.0, 0.0]));
        assert!(close(&score(Some(6)), &[0.0; 7]));
        assert!(close(&score(None), &[0.0; 7]));
    }
}

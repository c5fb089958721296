//! `no-hit-lru-scorer`: spreads prompts that no endpoint holds over the endpoints in turn.
//!
//! Reads the prefix match of each candidate. Where no candidate holds any block of the prompt, the request is cold:
//! the longer ago an endpoint got its last cold request, the better. A cold request moves the endpoint that it is sent
//! to behind all others, and so the one that computes its prompt, if that is another. Other requests move none. Of
//! several profiles with this scorer the candidates of the last that runs say whether a request is cold.
//!
//! Score: 0.5 for all if any candidate holds a block, and 1 for an only candidate. Else 1 − i / (n − 1) for n
//! candidates, not below 0: the endpoints that never got a cold request count i from 0 on, in the pool's order;
//! one that did has its place among all that did, behind those.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `lruSize` | 1024 | endpoints remembered |
//! | `prefixMatchInfoProducerName` | the only producer | whose matches |
//! | `prefixPluginType` | – | deprecated, no effect |
//! | `prefixPluginName` | – | deprecated, no effect |
//!
//! ```yaml
//! - type: no-hit-lru-scorer
//! ```

use std::sync::Arc;

use crate::plugins::producer::approx_prefix_cache;
use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType};
use crate::scheduling::{
    Additions, Bindings, Cycle, Decision, Hook, Needs, ProducerId, Record, Scorer, Slot, StateId,
};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "no-hit-lru-scorer",
    former_names: &[],
    provides: &[Capability::Scorer],
    references: &[approx_prefix_cache::REFERENCE],
    build,
    parity: Parity::SAME,
};

/// Endpoints remembered by default.
const LRU_SIZE: u32 = 1024;

const UNUSED: &str = "deprecated; prefixMatchInfoProducerName names the producer";

#[derive(Debug)]
struct NoHitLruScorer {
    name: String,
    /// Whose matches it reads; `None` only in a plan that is refused.
    producer: Option<ProducerId>,
    /// Each endpoint that got a cold request, under its slot.
    state: StateId,
}

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    let producer = build.refer(&approx_prefix_cache::REFERENCE);
    let producer = producer.unwrap_or_else(|| build.add(&approx_prefix_cache::TYPE));
    let size = build.fields.positive_or_default("lruSize", LRU_SIZE);
    build.fields.no_effect("prefixPluginType", UNUSED);
    build.fields.no_effect("prefixPluginName", UNUSED);
    let scorer = Arc::new(NoHitLruScorer {
        name: build.name.to_owned(),
        producer: producer.capabilities.prefix_producer,
        state: build.state(size as usize, None),
    });
    Capabilities {
        scorer: Some(scorer.clone()),
        hook: Some(scorer),
        ..Capabilities::default()
    }
}

impl NoHitLruScorer {
    fn is_cold(&self, cycle: &Cycle<'_>, mut candidates: impl Iterator<Item = Slot>) -> bool {
        let prefix = self.producer.and_then(|id| cycle.request.prefix_match(id));
        prefix.is_none_or(|prefix| candidates.all(|slot| prefix.blocks(slot) == 0))
    }
}

impl Scorer for NoHitLruScorer {
    fn score(&self, cycle: &Cycle<'_>, candidates: &[Slot], scores: &mut [f64]) {
        if !self.is_cold(cycle, candidates.iter().copied()) {
            return scores.fill(0.5);
        }
        if candidates.len() == 1 {
            return scores.fill(1.0);
        }
        let state = cycle.request.state(self.state);
        let turn = |slot: Slot| state.and_then(|state| state.turn(u64::from(slot.0)));
        let turns: Vec<u64> = state.into_iter().flat_map(Bindings::turns).collect();
        let new = candidates.iter().filter(|slot| turn(**slot).is_none());
        let all_new = new.count();
        let mut new = 0;
        let most = candidates.len().saturating_sub(1) as f64;
        for (slot, score) in candidates.iter().zip(scores) {
            let place = match turn(*slot) {
                Some(turn) => all_new + turns.partition_point(|earlier| *earlier < turn),
                None => {
                    new += 1;
                    new - 1
                }
            };
            *score = (1.0 - place as f64 / most).max(0.0);
        }
    }

    fn needs(&self) -> Needs {
        Needs {
            model: true,
            prompt: true,
            ..Needs::default()
        }
    }
}

impl Hook for NoHitLruScorer {
    fn before_request(
        &self,
        cycle: &Cycle<'_>,
        decision: &Decision<'_>,
        additions: &mut Additions,
    ) {
        let Some(scored) = decision.scored_by(&self.name) else {
            return;
        };
        if !self.is_cold(cycle, scored.scored.iter().map(|scored| scored.slot)) {
            return;
        }
        let rankings = [Some(decision.ranking), decision.prefill];
        let targets = rankings.into_iter().flatten().filter_map(|ranking| ranking.picks().next());
        additions.records.extend(targets.map(|slot| Record {
            state: self.state,
            key: u64::from(slot.0),
            slot,
        }));
    }
}

#[cfg(test)]
mod tests {
    use crate::scheduling::Health;
    use super::*;
    use crate::testing::{close, refused, Scheduling};

    fn plan(parameters: &str, endpoints: usize) -> Scheduling {
        let scorer = format!("{{type: no-hit-lru-scorer, parameters: {parameters}}}");
        Scheduling::new(&scorer, endpoints)
    }

    #[test]
    fn cold_requests_go_to_each_endpoint_in_turn() {
        let mut plan = plan("{}", 3);
        for (scores, pick) in [
            ([1.0, 0.5, 0.0], 0),
            ([0.0, 1.0, 0.5], 1),
            ([0.5, 0.0, 1.0], 2),
            ([1.0, 0.5, 0.0], 0),
        ] {
            let found = plan.schedule(&[], &[]);
            assert!(close(&found.scores, &scores), "{:?}", found.scores);
            assert_eq!(found.pick, pick);
        }
        for _ in 0..3 {
            let warm = plan.schedule(&[], &[0, 0, 1]);
            assert!(close(&warm.scores, &[0.5; 3]));
        }
        let found = plan.schedule(&[], &[]);
        assert!(close(&found.scores, &[0.0, 1.0, 0.5]), "warm ones move none");
    }

    #[test]
    fn an_only_candidate_gets_the_best_score() {
        let mut plan = plan("{}", 1);
        for _ in 0..2 {
            assert!(close(&plan.schedule(&[], &[]).scores, &[1.0]));
        }
    }

    #[test]
    fn of_more_endpoints_than_are_remembered_the_oldest_counts_as_new() {
        let mut plan = plan("{lruSize: 2}", 4);
        let picks: Vec<u32> = (0..5).map(|_| plan.schedule(&[], &[]).pick).collect();
        assert_eq!(picks, [0, 1, 2, 0, 1]);
        // Two are remembered, 0 and then 1: they come behind the two that are not.
        let scores = plan.schedule(&[], &[]).scores;
        assert!(close(&scores, &[1.0 / 3.0, 0.0, 1.0, 2.0 / 3.0]), "{scores:?}");
    }

    #[test]
    fn a_place_counts_among_all_that_are_remembered() {
        let mut plan = plan("{}", 5);
        (0..5).for_each(|_| drop(plan.schedule(&[], &[])));
        // Of the five two are left, which are behind the three that are not candidates now.
        for slot in [0, 1, 2] {
            let slot = Slot(slot);
            plan.pool.get_mut(slot).unwrap().health = Health::Unhealthy;
        }
        let scores = plan.schedule(&[], &[]).scores;
        assert!(close(&scores, &[0.0, 0.0]), "{scores:?}");
    }

    #[test]
    fn the_candidates_of_the_last_profile_that_it_scored_say_what_is_cold() {
        let plugins = "{type: no-hit-lru-scorer}, {type: queue-scorer}, {type: prefix-cache-scorer}";
        let (own, other) = ("no-hit-lru-scorer", "queue-scorer");
        for (scorers, matched, bound) in [
            // Decode endpoint 0 holds blocks, prefill endpoint 1 none.
            ([other, own, other], [5, 0], vec![0, 1]),
            ([own, own, other], [5, 0], vec![0, 1]),
            ([own, other, other], [5, 0], vec![]),
            ([own, own, other], [0, 5], vec![]),
            ([own, other, other], [0, 5], vec![0, 1]),
            // Its profile does not run.
            ([other, other, own], [0, 0], vec![]),
        ] {
            let mut plan = Scheduling::disaggregated(plugins, scorers, &["decode", "prefill"]);
            plan.schedule(&[], &matched);
            let state = plan.states.get(StateId(0)).unwrap();
            let mut keys: Vec<u32> = state.iter().map(|(_, slot)| slot.0).collect();
            keys.sort_unstable();
            assert_eq!(keys, bound, "{scorers:?} {matched:?}");
        }
    }

    #[test]
    fn former_parameters_warn_and_unknown_ones_are_refused() {
        let text = "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: no-hit-lru-scorer, parameters: {prefixPluginType: a, prefixPluginName: b, lruSize: 0}}]";
        let loaded = crate::config::load(text).unwrap();
        let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[0].contains("prefixPluginType"), "{warnings:?}");
        assert_eq!(loaded.plan.states[0].capacity, 1024);
        assert!(refused("no-hit-lru-scorer", "{lruSizes: 1}").contains("lruSizes"));
    }
}

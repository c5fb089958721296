//! `queue-scorer`: the shorter the waiting queue, the better.
//!
//! Reads the waiting count W of each candidate (`vllm:num_requests_waiting` or the engine's own),
//! plus the requests that this Envoy sent since that count was scraped.
//!
//! Score: (max − W) / (max − min) over the candidates that the filters left; 1 for all where all
//! are equal. No parameters.
//!
//! ```yaml
//! - type: queue-scorer
//! ```

use crate::plugins::normalize::score_lower_is_better;
use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType, Standing};
use crate::scheduling::{Cycle, Needs, Scorer, Slot};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "queue-scorer",
    former_names: &[],
    provides: &[Capability::Scorer],
    references: &[],
    build,
    parity: Parity::of(Standing::Differs(
        "requests sent since the last scrape count as waiting (envoy-proxy's correctQueue: false \
         turns it off), and endpoints without fresh metrics get the mean score",
    )),
};

fn build(_: &mut Build<'_, '_>) -> Capabilities {
    Capabilities::scorer(QueueScorer)
}

#[derive(Debug)]
struct QueueScorer;

impl Scorer for QueueScorer {
    fn score(&self, cycle: &Cycle<'_>, candidates: &[Slot], scores: &mut [f64]) {
        let queues = &cycle.pool.snapshot().queues;
        score_lower_is_better(cycle, candidates, scores, |slot| {
            queues.get(slot.index()).copied().unwrap_or(f64::NAN)
        });
    }

    fn needs(&self) -> Needs {
        Needs {
            waiting: true,
            ..Needs::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduling::{Freshness, InFlight, Pool, RequestView};
    use crate::testing::{close, pool, scores, waiting};

    fn score(pool: &Pool) -> Vec<f64> {
        scores(&QueueScorer, pool, RequestView::default())
    }

    #[test]
    fn the_reference_vectors_hold() {
        for (queues, expected) in [
            ([10.0, 5.0, 0.0].as_slice(), [0.0, 0.5, 1.0].as_slice()),
            (&[5.0, 5.0], &[1.0, 1.0]),
            (&[0.0, 0.0], &[1.0, 1.0]),
        ] {
            let found = score(&pool(queues.iter().copied().map(waiting)));
            assert!(close(&found, expected), "{queues:?}: {found:?}");
        }
    }

    #[test]
    fn an_endpoint_that_was_never_scraped_or_is_stale_gets_the_mean_of_the_others() {
        for freshness in [Freshness::Unknown, Freshness::Stale] {
            let mut pool = pool([8.0, 2.0, 0.0].map(waiting));
            pool.get_mut(Slot(2)).unwrap().freshness = freshness;
            let found = score(&pool);
            assert!(close(&found, &[0.0, 1.0, 0.5]), "{found:?}");
        }
    }

    #[test]
    fn without_any_fresh_value_no_endpoint_is_preferred() {
        let mut pool = pool([8.0, 2.0].map(waiting));
        for slot in [Slot(0), Slot(1)] {
            pool.get_mut(slot).unwrap().freshness = Freshness::Stale;
        }
        assert!(close(&score(&pool), &[0.0, 0.0]));
    }

    #[test]
    fn requests_sent_since_the_scrape_count_as_waiting() {
        let mut pool = pool([0.0, 1.0].map(waiting));
        // Before, between and after decisions that use the same snapshot.
        for (unseen, expected) in [(2, [0.0, 1.0]), (1, [1.0, 1.0]), (0, [1.0, 0.0])] {
            let load = InFlight {
                unseen,
                ..InFlight::default()
            };
            pool.set_load(Slot(0), load);
            assert!(close(&score(&pool), &expected), "{unseen}");
        }
    }
}

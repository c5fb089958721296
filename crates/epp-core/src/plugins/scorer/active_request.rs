//! `active-request-scorer`: the fewer requests in flight, the better.
//!
//! Reads the requests n that this Envoy sent to each candidate and that have not ended, over all
//! workers (`inflight-load-producer`, created where none is declared).
//!
//! Score: 1 where n ≤ idle threshold; else (max − n) / max × the most for a busy one, max being the
//! highest n of the candidates that the filters left.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `idleThreshold` | 0 | requests up to which an endpoint is idle; below 0 counts as 0 |
//! | `maxBusyScore` | 1 | the most that a busy endpoint gets; outside 0 to 1 counts as 1 |
//! | `inFlightLoadProducerName` | the only producer | whose counts |
//! | `requestTimeout` | – | no effect |
//!
//! ```yaml
//! - type: active-request-scorer
//!   parameters: {idleThreshold: 1, maxBusyScore: 0.5}
//! ```

use crate::plugins::producer::inflight_load;
use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType, Standing};
use crate::scheduling::{Cycle, Needs, Scorer, Slot};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "active-request-scorer",
    former_names: &[],
    provides: &[Capability::Scorer],
    references: &[inflight_load::REFERENCE],
    build,
    parity: Parity {
        plugin: Standing::Same,
        parameters: &[("requestTimeout", Standing::NoEffect(UNTIL_THEY_END))],
    },
};

/// The reason why `requestTimeout` has no effect.
const UNTIL_THEY_END: &str = "deprecated there too: requests count until they end";

#[derive(Debug)]
struct ActiveRequestScorer {
    idle: u32,
    max_busy_score: f64,
}

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    build.refer(&inflight_load::REFERENCE);
    let fields = &mut build.fields;
    let idle = fields.integer("idleThreshold", 0, i64::MIN).max(0);
    let given = fields.number("maxBusyScore", 1.0, (f64::MIN, f64::MAX));
    let inside = (0.0..=1.0).contains(&given);
    if !inside {
        let path = fields.path().key("maxBusyScore");
        let message = format!("found {given}, outside 0 to 1: counts as 1");
        fields.problems().warn(&path, message);
    }
    fields.no_effect("requestTimeout", UNTIL_THEY_END);
    Capabilities::scorer(ActiveRequestScorer {
        idle: u32::try_from(idle).unwrap_or(u32::MAX),
        max_busy_score: if inside { given } else { 1.0 },
    })
}

impl Scorer for ActiveRequestScorer {
    fn score(&self, cycle: &Cycle<'_>, candidates: &[Slot], scores: &mut [f64]) {
        let requests = |slot: Slot| cycle.pool.load(slot).requests;
        let most = candidates.iter().map(|slot| requests(*slot)).max();
        let most = f64::from(most.unwrap_or(0));
        for (slot, score) in candidates.iter().zip(scores) {
            let requests = requests(*slot);
            *score = if requests <= self.idle {
                1.0
            } else {
                (most - f64::from(requests)) / most * self.max_busy_score
            };
        }
    }

    fn needs(&self) -> Needs {
        Needs {
            in_flight: true,
            ..Needs::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduling::{InFlight, RequestView};
    use crate::testing::{close, pool, scores};

    fn score(idle: u32, max_busy_score: f64, requests: &[u32]) -> Vec<f64> {
        let mut pool = pool(requests.iter().map(|_| Default::default()));
        for (slot, requests) in (0..).zip(requests) {
            let load = InFlight {
                requests: *requests,
                ..InFlight::default()
            };
            pool.set_load(Slot(slot), load);
        }
        let scorer = ActiveRequestScorer {
            idle,
            max_busy_score,
        };
        scores(&scorer, &pool, RequestView::default())
    }

    #[test]
    fn the_reference_vectors_hold() {
        assert!(close(&score(0, 1.0, &[3, 0, 6]), &[0.5, 1.0, 0.0]));
        assert!(close(&score(0, 1.0, &[4, 0, 1]), &[0.0, 1.0, 0.75]));
        assert!(close(&score(0, 1.0, &[3, 11]), &[8.0 / 11.0, 0.0]));
        assert!(close(&score(1, 0.5, &[1, 2, 0]), &[1.0, 0.0, 1.0]));
        assert!(close(&score(0, 1.0, &[0, 0]), &[1.0, 1.0]));
    }
}

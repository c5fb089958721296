//! `program-aware-fairness`: of a band's flows, the one goes next that has got least, or whose session is deepest.
//!
//! A flow is the requests with one fairness id, such as those of an agent. A band names it as its `fairnessPolicyRef`.
//! With `strategy: las`, the flow goes with the greatest sum of `lasWeightService` × (1 − service) and
//! `lasWeightHeadWait` × wait: both are scaled to 0 to 1 over the flows with requests that wait. Service is the tokens of
//! the prompts and twice those of the responses that have ended; it halves every `lasHalfLifeSeconds`. Wait is how long
//! the flow's first request has waited. With `strategy: turn-priority`, the flow goes with the greatest sum of the
//! requests that were dispatched of it before, and `turnPriorityTimeWeight` for each second for which its first request
//! has waited. Each band counts for itself.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `strategy` | `las` | least attained service, or `turn-priority` |
//! | `lasWeightService` | 0.8 | the weight of service, 0 or more |
//! | `lasWeightHeadWait` | 0.2 | the weight of the wait, 0 or more |
//! | `lasHalfLifeSeconds` | 60 | after how long service counts half, 0 or more; 0: it always counts whole |
//! | `turnPriorityTimeWeight` | 0.05 | turns that a second of waiting counts as, 0 or more |
//! | `turnPriorityInactivitySeconds` | 120 | a flow that was inactive for longer begins again at its first turn; 0: never |
//! | `evictionTtlSeconds` | 3600 | a flow that was idle for so long is forgotten; 0: never, unless others need its place |
//! | `evictionSweepSeconds` | – | no effect: idle flows are looked for every minute |
//!
//! ```yaml
//! - type: program-aware-fairness
//!   parameters: {strategy: turn-priority, turnPriorityTimeWeight: 0.5}
//! ```

use std::time::Duration;

use crate::config::value::Fields;
use crate::flow::{Fairness, ProgramAware, Strategy};
use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType, Standing};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "program-aware-fairness",
    former_names: &[],
    provides: &[Capability::Fairness],
    references: &[],
    build,
    parity: Parity {
        plugin: Standing::Differs("service is counted by band"),
        parameters: &[("evictionSweepSeconds", Standing::NoEffect(SWEEP))],
    },
};

const SWEEP: &str = "idle flows are looked for every minute";

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    let fields = &mut build.fields;
    let strategies = [("las", false), ("turn-priority", true)];
    let turns = fields.choice("strategy", false, &strategies);
    let any = (0.0, f64::MAX);
    let las = Strategy::Las {
        service_weight: fields.number("lasWeightService", 0.8, any),
        wait_weight: fields.number("lasWeightHeadWait", 0.2, any),
        half_life: seconds(fields, "lasHalfLifeSeconds", 60.0),
    };
    let turn_priority = Strategy::TurnPriority {
        time_weight: fields.number("turnPriorityTimeWeight", 0.05, any),
        inactivity: seconds(fields, "turnPriorityInactivitySeconds", 120.0),
    };
    let idle = seconds(fields, "evictionTtlSeconds", 3_600.0);
    fields.no_effect("evictionSweepSeconds", SWEEP);
    let strategy = if turns { turn_priority } else { las };
    Capabilities {
        fairness: Some(Fairness::ProgramAware(ProgramAware { strategy, idle })),
        ..Capabilities::default()
    }
}

/// Seconds, or none where the document says 0.
fn seconds(fields: &mut Fields<'_>, name: &'static str, default: f64) -> Option<Duration> {
    const CENTURY: f64 = 3.2e9;
    let seconds = fields.number(name, default, (0.0, CENTURY));
    let duration = Duration::try_from_secs_f64(seconds).ok();
    duration.filter(|duration| !duration.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{loaded, refused};

    fn policy(parameters: &str) -> ProgramAware {
        let instance = loaded("program-aware-fairness", parameters);
        match instance.capabilities.fairness {
            Some(Fairness::ProgramAware(policy)) => policy,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_defaults_are_those_of_the_endpoint_picker() {
        let las = Strategy::Las {
            service_weight: 0.8,
            wait_weight: 0.2,
            half_life: Some(Duration::from_secs(60)),
        };
        let idle = Some(Duration::from_secs(3_600));
        let expected = |strategy, idle| ProgramAware { strategy, idle };
        assert_eq!(policy("{}"), expected(las, idle));
        let turns = Strategy::TurnPriority {
            time_weight: 0.05,
            inactivity: Some(Duration::from_secs(120)),
        };
        assert_eq!(policy("{strategy: turn-priority}"), expected(turns, idle));
        let never = "{lasWeightService: 0, lasWeightHeadWait: 1, lasHalfLifeSeconds: 0, evictionTtlSeconds: 0}";
        let las = Strategy::Las {
            service_weight: 0.0,
            wait_weight: 1.0,
            half_life: None,
        };
        assert_eq!(policy(never), expected(las, None));
    }

    #[test]
    fn parameters_have_the_bounds_of_the_endpoint_picker() {
        for parameters in [
            "{strategy: drr}",
            "{lasWeightService: -0.1}",
            "{lasWeightHeadWait: -1}",
            "{lasHalfLifeSeconds: -1}",
            "{evictionTtlSeconds: -1}",
            "{turnPriorityTimeWeight: -1}",
            "{turnPriorityInactivitySeconds: -1}",
        ] {
            refused("program-aware-fairness", parameters);
        }
    }
}

//! `concurrency-detector`: in a profile, keeps the endpoints with few requests in flight. As a saturation detector it
//! has no effect: requests have no priority here, so that none is shed.
//!
//! Reads the requests and tokens that this Envoy has in flight at each candidate, over all workers
//! (`inflight-load-producer`, created where none is declared). An endpoint is kept if it has fewer requests than
//! `maxConcurrency` × (1 + `headroom`), fewer tokens than `maxTokenConcurrency` × (1 + `headroom`), or both, by
//! `concurrencyMode`; each limit is rounded down. No candidate may be left.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `concurrencyMode` | `requests` | what is limited: `requests`, `tokens` or `hybrid`, which is both |
//! | `maxConcurrency` | 100 | requests of an endpoint, above 0 |
//! | `maxTokenConcurrency` | 1000000 | tokens of an endpoint, above 0 |
//! | `headroom` | 0 | share by which an endpoint may exceed the limits, 0 or more |
//! | `inFlightLoadProducerName` | the only producer | whose counts |
//!
//! ```yaml
//! - type: concurrency-detector
//!   parameters: {maxConcurrency: 132, headroom: 0.1}
//! ```

use crate::plugins::keep::keep;
use crate::plugins::producer::inflight_load;
use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType, Standing};
use crate::scheduling::{Cycle, Filter, Needs, Slot};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "concurrency-detector",
    former_names: &[],
    provides: &[Capability::Filter],
    references: &[inflight_load::REFERENCE],
    build,
    parity: Parity::of(Standing::Differs(
        "filters in a profile as there; sheds and queues no request",
    )),
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Requests,
    Tokens,
    Hybrid,
}

const MODES: [(&str, Mode); 3] = [
    ("requests", Mode::Requests),
    ("tokens", Mode::Tokens),
    ("hybrid", Mode::Hybrid),
];

#[derive(Debug)]
struct ConcurrencyDetector {
    /// An endpoint with as many is full; `None` where they do not count.
    requests: Option<f64>,
    tokens: Option<f64>,
}

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    build.refer(&inflight_load::REFERENCE);
    let fields = &mut build.fields;
    let mode = fields.choice("concurrencyMode", Mode::Requests, &MODES);
    let requests = fields.integer("maxConcurrency", 100, 1) as f64;
    let tokens = fields.integer("maxTokenConcurrency", 1_000_000, 1) as f64;
    let relaxed = 1.0 + fields.number("headroom", 0.0, (0.0, f64::MAX));
    let limit = |most: f64, unlimited: Mode| (mode != unlimited).then_some((most * relaxed).floor());
    Capabilities::filter(ConcurrencyDetector {
        requests: limit(requests, Mode::Tokens),
        tokens: limit(tokens, Mode::Requests),
    })
}

impl Filter for ConcurrencyDetector {
    fn filter(&self, cycle: &Cycle<'_>, candidates: &mut Vec<Slot>) {
        keep(cycle, candidates, false, &|slot, _| {
            let load = cycle.pool.load(slot);
            let room = |limit: Option<f64>, found: f64| limit.is_none_or(|limit| found < limit);
            room(self.requests, f64::from(load.requests)) && room(self.tokens, load.tokens as f64)
        });
    }

    fn needs(&self) -> Needs {
        Needs {
            in_flight: true,
            tokens: self.tokens.is_some(),
            // Tokens are those of prompts.
            prompt: self.tokens.is_some(),
            ..Needs::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::scheduling::{InFlight, Slot};
    use crate::testing::{kept, pool, refused};

    #[test]
    fn endpoints_with_room_are_kept() {
        let mut pool = pool([(); 4].map(|()| Default::default()));
        for (slot, (requests, tokens)) in (0..).zip([(0, 0), (9, 999), (10, 10), (11, 1_100)]) {
            let load = InFlight {
                requests,
                tokens,
                ..InFlight::default()
            };
            pool.set_load(Slot(slot), load);
        }
        let limits = "maxConcurrency: 10, maxTokenConcurrency: 1000";
        for (more, expected) in [
            ("", [0, 1].as_slice()),
            // The limit of 11.9 is 11.
            (", headroom: 0.19", &[0, 1, 2]),
            (", headroom: 0.2", &[0, 1, 2, 3]),
            (", concurrencyMode: tokens", &[0, 1, 2]),
            (", concurrencyMode: hybrid", &[0, 1]),
        ] {
            let parameters = format!("{{{limits}{more}}}");
            assert_eq!(kept("concurrency-detector", &parameters, &pool), expected, "{more}");
        }
        assert_eq!(kept("concurrency-detector", "{}", &pool), [0, 1, 2, 3]);
        for slot in 0..4 {
            pool.set_load(Slot(slot), InFlight { requests: 100, ..InFlight::default() });
        }
        assert_eq!(kept("concurrency-detector", "{}", &pool), [0; 0], "none may be left");
    }

    #[test]
    fn limits_have_the_bounds_of_the_endpoint_picker() {
        for parameters in [
            "{maxConcurrency: 0}",
            "{maxTokenConcurrency: 0}",
            "{headroom: -1}",
            "{concurrencyMode: both}",
        ] {
            refused("concurrency-detector", parameters);
        }
    }
}

//! `concurrency-detector`: measures how many requests and tokens the endpoints have in flight. In a profile, keeps the
//! endpoints with few.
//!
//! Reads the requests and tokens that this Envoy has in flight at each endpoint, over all workers
//! (`inflight-load-producer`, created where none is declared). The saturation of a pool is all requests in flight ÷ the
//! sum of `maxConcurrency`, or the same of tokens; with `hybrid` it is the mean over the endpoints of the greater of the
//! two. Without endpoints it is 1. At a saturation of 1, requests below priority 0 are dropped; with the feature gate
//! `flowControl`, requests wait.
//!
//! As a filter, it keeps an endpoint if it has fewer requests than `maxConcurrency` × (1 + `headroom`), fewer tokens than
//! `maxTokenConcurrency` × (1 + `headroom`), or both, by `concurrencyMode`; each limit is rounded down. If it would keep
//! none, it keeps all: where another filter has left only endpoints that are full, the pool as a whole may have room. With
//! `failOpen: false` the request is refused.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `concurrencyMode` | `requests` | what is limited: `requests`, `tokens` or `hybrid`, which is both |
//! | `maxConcurrency` | 100 | requests of an endpoint, above 0 |
//! | `maxTokenConcurrency` | 1000000 | tokens of an endpoint, above 0 |
//! | `headroom` | 0 | share by which an endpoint may exceed the limits as a filter sees it, 0 or more |
//! | `failOpen` | true | whether the filter keeps all candidates where none is within the limits |
//! | `inFlightLoadProducerName` | the only producer | whose counts |
//!
//! ```yaml
//! - type: concurrency-detector
//!   parameters: {maxConcurrency: 132, headroom: 0.1}
//! ```

use std::sync::Arc;

use crate::flow::{rounded, SaturationDetector};
use crate::plugins::keep::keep;
use crate::plugins::producer::inflight_load;
use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType};
use crate::scheduling::{Cycle, Endpoint, Filter, InFlight, Needs, Slot};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "concurrency-detector",
    former_names: &[],
    provides: &[Capability::SaturationDetector, Capability::Filter],
    references: &[inflight_load::REFERENCE],
    build,
    parity: Parity::SAME,
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

/// Measures requests and tokens in flight.
#[derive(Debug, Clone, Copy)]
struct ConcurrencyDetector {
    mode: Mode,
    /// An endpoint with as many is full.
    requests: f64,
    tokens: f64,
    /// By how much an endpoint may exceed these, as a filter sees it.
    relaxed: f64,
    all_if_none: bool,
}

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    build.refer(&inflight_load::REFERENCE);
    let fields = &mut build.fields;
    let detector = ConcurrencyDetector {
        mode: fields.choice("concurrencyMode", Mode::Requests, &MODES),
        requests: fields.integer("maxConcurrency", 100, 1) as f64,
        tokens: fields.integer("maxTokenConcurrency", 1_000_000, 1) as f64,
        relaxed: 1.0 + fields.number("headroom", 0.0, (0.0, f64::MAX)),
        all_if_none: fields.boolean("failOpen", true),
    };
    Capabilities {
        saturation_detector: Some(Arc::new(detector)),
        ..Capabilities::filter(detector)
    }
}

impl ConcurrencyDetector {
    fn counts_tokens(&self) -> bool {
        self.mode != Mode::Requests
    }

    fn own_needs(&self) -> Needs {
        Needs {
            in_flight: true,
            tokens: self.counts_tokens(),
            // Tokens are those of prompts.
            prompt: self.counts_tokens(),
            ..Needs::default()
        }
    }
}

impl SaturationDetector for ConcurrencyDetector {
    /// In requests, or in tokens if these alone count. All endpoints have the same limits, so that the mean over them is the
    /// sum over the sum.
    fn value(&self, _: &Endpoint, load: InFlight) -> Option<f64> {
        let requests = f64::from(load.requests) + f64::from(load.unreported);
        // Those that other pickers have not reported yet cost as much as the others.
        let each = load.tokens as f64 / f64::from(load.requests.max(1));
        let tokens = load.tokens as f64 + each * f64::from(load.unreported);
        Some(match self.mode {
            Mode::Requests => requests,
            Mode::Tokens => tokens.round(),
            Mode::Hybrid => rounded(requests.max(tokens / self.tokens * self.requests)),
        })
    }

    fn saturation_at(&self, mean: f64) -> f64 {
        match self.mode {
            Mode::Tokens => mean / self.tokens,
            Mode::Requests | Mode::Hybrid => mean / self.requests,
        }
    }

    fn needs(&self) -> Needs {
        self.own_needs()
    }
}

impl Filter for ConcurrencyDetector {
    fn filter(&self, cycle: &Cycle<'_>, candidates: &mut Vec<Slot>) {
        let (requests, tokens) = (self.requests * self.relaxed, self.tokens * self.relaxed);
        let (requests, tokens) = (requests.floor(), tokens.floor());
        let has_room = |load: &InFlight| {
            (self.mode == Mode::Tokens || f64::from(load.requests) < requests)
                && (self.mode == Mode::Requests || (load.tokens as f64) < tokens)
        };
        // Each request asks, and mostly no endpoint is full.
        if has_room(&cycle.pool.most_in_flight()) {
            return;
        }
        keep(cycle, candidates, self.all_if_none, &|slot, _| has_room(&cycle.pool.load(slot)));
    }

    fn needs(&self) -> Needs {
        self.own_needs()
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
        assert_eq!(kept("concurrency-detector", "{}", &pool), [0, 1, 2, 3], "none has room");
        assert_eq!(kept("concurrency-detector", "{failOpen: false}", &pool), [0; 0]);
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

//! `probabilistic-admitter`: drops requests below priority 0, the more of them the fuller the pool is.
//!
//! A request below priority 0 is dropped with the probability min(saturation^`power` × `k`, 1). The saturation is the mean
//! over the endpoints of the greater of waiting requests ÷ `queueDepthThreshold` and KV-cache utilization ÷
//! `kvCacheUtilThreshold`, by their last metrics pages, and 1 for an endpoint without one. Without endpoints nothing is
//! dropped. A dropped request gets a 500, as in the Endpoint Picker. Priorities come from `static-objectives`.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `queueDepthThreshold` | 5 | requests in the queue, above 0 |
//! | `kvCacheUtilThreshold` | 0.8 | above 0 |
//! | `power` | 5 | above 0 |
//! | `k` | 300 | above 0 |
//!
//! ```yaml
//! - type: probabilistic-admitter
//!   parameters: {power: 3, k: 10}
//! ```

use crate::config::value::Node;
use crate::flow::{mean, Dropped, Partition};
use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType};
use crate::scheduling::{Freshness, Needs, Pool};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "probabilistic-admitter",
    former_names: &[],
    provides: &[Capability::Admitter],
    references: &[],
    build,
    parity: Parity::SAME,
};

/// What it adds to a request's random bits, so that they do not decide the same as in another plugin.
const SALT: u64 = 0x9E6D_3B1F_55A4_7C21;

/// Drops requests by chance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ProbabilisticAdmitter {
    queue: f64,
    kv_usage: f64,
    power: f64,
    k: f64,
}

impl ProbabilisticAdmitter {
    /// Returns what it reads.
    pub fn needs() -> Needs {
        Needs {
            waiting: true,
            kv_usage: true,
            random: true,
            ..Needs::default()
        }
    }

    /// Returns why a request below priority 0 with these random bits is dropped, if it is.
    pub fn drops(&self, draw: u64, pool: &Pool) -> Option<Dropped> {
        let saturation = mean(pool, Partition::All, &|endpoint, _| {
            let metrics = &endpoint.metrics;
            let queue = metrics.waiting.unwrap_or(0.0) / self.queue;
            let kv_usage = metrics.kv_usage.unwrap_or(0.0) / self.kv_usage;
            Some(match endpoint.freshness {
                Freshness::Unknown => 1.0,
                Freshness::Fresh | Freshness::Stale => queue.max(kv_usage),
            })
        })?;
        let probability = (saturation.powf(self.power) * self.k).min(1.0);
        let dropped = fastrand::Rng::with_seed(draw ^ SALT).f64() < probability;
        dropped.then(|| Dropped::DrawnOut {
            saturation: (saturation * 1000.0).round() as u32,
            probability: (probability * 100.0).round() as u32,
        })
    }
}

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    let queue = f64::from(build.fields.positive("queueDepthThreshold", 5));
    let mut above_zero = |name, default| {
        let value = build.fields.number(name, default, (0.0, f64::MAX));
        if value <= 0.0 {
            build.fields.refuse(name, &Node::Number(value), "a number above 0");
        }
        value
    };
    let admitter = ProbabilisticAdmitter {
        queue,
        kv_usage: above_zero("kvCacheUtilThreshold", 0.8),
        power: above_zero("power", 5.0),
        k: above_zero("k", 300.0),
    };
    Capabilities {
        admitter: Some(admitter),
        ..Capabilities::default()
    }
}

#[cfg(test)]
mod tests {
    use crate::plugins::{build_default, Dialect};
    use crate::scheduling::{Freshness, Pool, Slot};
    use crate::testing::{pool_with_loads as of, refused};

    /// How many of 10,000 requests are dropped.
    fn dropped(pool: &Pool) -> usize {
        let admitter = build_default("probabilistic-admitter", Dialect::LlmD).admitter.unwrap();
        let mut random = fastrand::Rng::with_seed(1);
        let draws = (0..10_000).filter(|_| admitter.drops(random.u64(..), pool).is_some());
        draws.count()
    }

    #[test]
    fn the_fuller_the_pool_the_more_requests_are_dropped() {
        assert_eq!(dropped(&of(&[(0.0, 0.0), (0.0, 0.0)])), 0);
        // 0.2^5 × 300 is 0.096; two endpoints of 0.3 and 0.1 are as full.
        for loads in [[(1.0, 0.0), (0.0, 0.16)], [(1.5, 0.0), (0.5, 0.0)]] {
            let found = dropped(&of(&loads));
            assert!((860..=1060).contains(&found), "{found}");
        }
        // 0.4^5 × 300 is 3.
        assert_eq!(dropped(&of(&[(2.0, 0.0)])), 10_000);
        assert_eq!(dropped(&of(&[])), 0);
        let mut unknown = of(&[(0.0, 0.0)]);
        unknown.get_mut(Slot(0)).unwrap().freshness = Freshness::Unknown;
        assert_eq!(dropped(&unknown), 10_000);
    }

    #[test]
    fn one_request_is_decided_once() {
        let pool = of(&[(1.3, 0.0)]);
        let admitter = build_default("probabilistic-admitter", Dialect::LlmD).admitter.unwrap();
        for draw in 0..100 {
            assert_eq!(admitter.drops(draw, &pool), admitter.drops(draw, &pool));
        }
    }

    #[test]
    fn the_text_has_the_numbers() {
        let admitter = build_default("probabilistic-admitter", Dialect::LlmD).admitter.unwrap();
        let dropped = admitter.drops(1, &of(&[(10.2, 0.0)])).unwrap();
        let text = "probabilistic-admitter: rejected, saturation=2.040 prob=1.00";
        assert_eq!(dropped.to_string(), text);
    }

    #[test]
    fn parameters_have_the_bounds_of_the_endpoint_picker() {
        for name in ["queueDepthThreshold", "kvCacheUtilThreshold", "power", "k"] {
            for value in ["0", "-1"] {
                refused("probabilistic-admitter", &format!("{{{name}: {value}}}"));
            }
        }
    }
}

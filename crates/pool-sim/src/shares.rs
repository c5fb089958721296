//! Who sends the requests of a load, and how fast.

use crate::report::second_half;
use crate::trace::{Request, Trace};
use crate::SECOND;

/// The objective of a part of the requests.
#[derive(Debug, Clone, PartialEq)]
pub struct Objective {
    /// The name that these requests send.
    pub name: String,
    /// Their share in all requests, in relation to the other objectives' shares.
    pub share: f64,
}

impl Trace {
    /// Gives each request an objective and a tenant, at random by their shares. Without objectives or tenants, requests
    /// name none.
    pub fn share_out(&mut self, objectives: &[Objective], tenants: &[f64], seed: u64) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let shares: Vec<f64> = objectives.iter().map(|objective| objective.share).collect();
        for request in &mut self.requests {
            request.objective = draw(&mut rng, &shares);
            request.tenant = draw(&mut rng, tenants);
        }
        let names = objectives.iter().map(|objective| objective.name.clone());
        self.objectives = names.collect();
        self.tenants = tenants.len();
    }

    /// Returns how many requests arrive per second in the second half of the load.
    pub fn rate(&self) -> f64 {
        let half = second_half(self);
        let arrive = |request: &&Request| half.contains(&request.at);
        let seconds = (half.end - half.start).max(1) as f64 / SECOND as f64;
        self.requests.iter().filter(arrive).count().max(1) as f64 / seconds
    }
}

/// Returns the number of a share, drawn at random.
fn draw(rng: &mut fastrand::Rng, shares: &[f64]) -> usize {
    let mut left = rng.f64() * shares.iter().sum::<f64>();
    let within = |share: &f64| {
        left -= share;
        left < 0.0
    };
    shares.iter().position(within).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_objectives_and_tenants_by_their_shares() {
        let mut trace = Trace::shared_prefix(4_000, 50.0, 10, 1);
        let objective = |name: &str, share| Objective {
            name: name.to_owned(),
            share,
        };
        let objectives = [objective("high", 1.0), objective("low", 3.0)];
        trace.share_out(&objectives, &[2.0, 0.0, 2.0], 5);
        assert_eq!(trace.objectives, ["high", "low"]);
        let share = |of: &dyn Fn(&Request) -> bool| {
            let found = trace.requests.iter().filter(|request| of(request));
            found.count() as f64 / 4_000.0
        };
        for (found, expected) in [
            (share(&|request| request.objective == 0), 0.25),
            (share(&|request| request.objective == 1), 0.75),
            (share(&|request| request.tenant == 0), 0.5),
            (share(&|request| request.tenant == 1), 0.0),
            (share(&|request| request.tenant == 2), 0.5),
            // Drawn independently of each other.
            (
                share(&|request| (request.objective, request.tenant) == (0, 0)),
                0.125,
            ),
        ] {
            assert!((found - expected).abs() < 0.02, "{found}, not {expected}");
        }
    }

    #[test]
    fn the_rate_is_that_of_the_second_half() {
        let mut trace = Trace::default();
        for at in [0, 400, 500, 600, 700, 800, 1_000] {
            trace.requests.push(Request {
                at: at * SECOND / 1_000,
                ..Request::default()
            });
        }
        assert_eq!(trace.rate(), 8.0);
        trace.speed_up(2.0);
        assert_eq!(trace.rate(), 16.0);
    }
}

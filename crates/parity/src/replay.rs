//! A scenario through the native core: the same scanner, prefix index and scheduler as the module's.

use std::collections::BTreeMap;

use epp_core::config::{self, Plan};
use epp_core::prefix::index::Index;
use epp_core::prefix::key::{Key, Secret};
use epp_core::prefix::walk::Walk;
use epp_core::request::{Api, BodyReader};
use epp_core::scheduling::{
    Cycle, Endpoint, Freshness, Lora, Metrics, Pool, PrefixMatch, Request, Scratch, Slot,
};

use crate::scenario::{names, Expected, Exported, Scenario, Sent, Step};
use crate::TOLERANCE;

/// A scenario under way.
pub struct Replay {
    plan: Plan,
    pool: Pool,
    indexes: Vec<Index>,
    scratch: Scratch,
}

/// A decision.
pub struct Decided {
    /// The endpoints by name with their weighted sums, best first.
    pub ranking: Vec<(String, f64)>,
    walks: Vec<Walk>,
}

/// How a replay went.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The scenario.
    pub name: String,
    /// The types of its plugins.
    pub plugins: Vec<String>,
    /// Its decisions.
    pub decisions: usize,
    /// Where a decision was another one, at most once for each decision.
    pub differences: Vec<String>,
}

/// Replays a whole scenario. An error: it cannot be replayed.
pub fn replay(scenario: &Scenario) -> Result<Outcome, String> {
    let named = |error: String| format!("{}: {error}", scenario.name);
    let mut replay = Replay::new(scenario).map_err(named)?;
    let mut differences = Vec::new();
    for (number, step) in scenario.steps.iter().enumerate() {
        match step {
            Step::Metrics { metrics } => replay.set_metrics(metrics).map_err(named)?,
            Step::Request { request, expect } => {
                let decided = replay.decide(request).map_err(named)?;
                if let Err(difference) = compare(&decided.ranking, expect, TOLERANCE) {
                    differences.push(format!("{} step {number}: {difference}", scenario.name));
                }
                replay.learn(&expect.served_by, decided).map_err(named)?;
            }
        }
    }
    Ok(Outcome {
        name: scenario.name.clone(),
        plugins: scenario.plugins(),
        decisions: scenario.decisions(),
        differences,
    })
}

/// Whether a ranking is the recorded one. Equal scores are in random order on both sides: the scores
/// along the ranking count.
pub fn compare(ranking: &[(String, f64)], expect: &Expected, tolerance: f64) -> Result<(), String> {
    let own: BTreeMap<&str, f64> = ranking
        .iter()
        .map(|(name, score)| (name.as_str(), *score))
        .collect();
    if own.len() != expect.scores.len() {
        let (found, recorded) = (own.len(), expect.scores.len());
        return Err(format!("{found} candidates, recorded {recorded}"));
    }
    for (endpoint, recorded) in &expect.scores {
        let found = own.get(endpoint.as_str());
        let found = found.ok_or_else(|| format!("{endpoint} is no candidate"))?;
        if (found - recorded).abs() > tolerance {
            return Err(format!("{endpoint} {found}, recorded {recorded}"));
        }
    }
    for ((name, score), recorded) in ranking.iter().zip(&expect.ranking) {
        let recorded_score = own.get(recorded.as_str()).copied().unwrap_or(f64::NAN);
        let apart = (score - recorded_score).abs();
        if apart.is_nan() || apart > tolerance {
            return Err(format!("{name} before {recorded}"));
        }
    }
    Ok(())
}

impl Replay {
    /// Before the first step.
    pub fn new(scenario: &Scenario) -> Result<Self, String> {
        let loaded = config::load(&scenario.config.to_string());
        let plan = loaded.map_err(|rejected| {
            let errors: Vec<String> = rejected.errors.iter().map(ToString::to_string).collect();
            errors.join("; ")
        })?;
        let plan = plan.plan;
        let mut pool = Pool::default();
        for (slot, place) in scenario.endpoints.iter().enumerate() {
            let endpoint = Endpoint {
                name: place.name.clone(),
                address: format!("{}:{}", place.address, place.port),
                available: true,
                freshness: Freshness::Fresh,
                ..Endpoint::default()
            };
            pool.set(Slot(slot as u32), endpoint);
        }
        let bound = plan.proxy.max_index_bytes;
        let indexes = plan
            .producers
            .iter()
            .map(|_| Index::new(bound, &Secret::from(1)))
            .collect();
        Ok(Self {
            plan,
            pool,
            indexes,
            scratch: Scratch::new(fastrand::Rng::with_seed(1)),
        })
    }

    /// These endpoints export these values from now on.
    pub fn set_metrics(&mut self, metrics: &BTreeMap<String, Exported>) -> Result<(), String> {
        for (name, exported) in metrics {
            let slot = self.slot(name)?;
            let Some(endpoint) = self.pool.get_mut(slot) else {
                continue;
            };
            let lora = match exported.maxlora {
                Some(max) => Lora {
                    active: names(&exported.lora),
                    waiting: names(&exported.lorawaiting),
                    max,
                },
                // The family left the page: the last values stay.
                None => endpoint.metrics.lora.clone(),
            };
            endpoint.metrics = Metrics {
                waiting: exported.waiting,
                running: exported.running,
                kv_usage: exported.kv,
                lora,
                ..Metrics::default()
            };
        }
        Ok(())
    }

    /// What is decided on the whole of a request.
    pub fn decide(&mut self, request: &Sent) -> Result<Decided, String> {
        let api = Api::of_path(request.path.as_bytes());
        if api == Api::PassThrough {
            return Err(format!("{}: no API that is read", request.path));
        }
        let mut reader = BodyReader::default();
        reader.reset(api, self.plan.read_plan(&self.pool, &Key::Plain));
        let body = request.body.as_bytes();
        reader.push(body);
        reader.finish();
        while let Some(range) = reader.reread() {
            let again = body.get(range.clone()).unwrap_or_default();
            reader.feed_again(range.start, again);
        }
        let model = reader.model().known().unwrap_or_default();
        let seed = Key::Plain.seed(model, reader.salt().known().unwrap_or_default());
        let mut walks: Vec<Walk> = Vec::new();
        for (stream, index) in self.indexes.iter().enumerate() {
            let mut walk = Walk::default();
            walk.advance(seed, reader.prompts(stream), index);
            walks.push(walk);
        }
        let ranking = self.rank(model, &mut walks)?;
        Ok(Decided { ranking, walks })
    }

    /// What is decided on metrics alone, for a request that names this model.
    pub fn decide_without_body(&mut self, model: &str) -> Result<Vec<(String, f64)>, String> {
        let walks = self.indexes.iter().map(|_| Walk::default());
        let mut walks: Vec<Walk> = walks.collect();
        self.rank(model, &mut walks)
    }

    /// The endpoint of this name was picked.
    pub fn learn(&mut self, served_by: &str, mut decided: Decided) -> Result<(), String> {
        let slot = self.slot(served_by)?;
        let producers = self.plan.producers.iter();
        let walks = decided.walks.iter_mut().zip(&mut self.indexes);
        for ((walk, index), (_, producer)) in walks.zip(producers) {
            let capacity = producer.capacity_of(self.pool.get(slot));
            walk.learn(index, slot.0, capacity, &mut |_, _| {});
        }
        Ok(())
    }

    fn rank(&mut self, model: &str, walks: &mut [Walk]) -> Result<Vec<(String, f64)>, String> {
        let producers = self.plan.producers.iter();
        let matches = walks.iter_mut().zip(producers);
        let prefix: Vec<PrefixMatch<'_>> = matches
            .map(|(walk, (_, producer))| PrefixMatch {
                total: walk.total() as f64,
                block_tokens: producer.block_tokens(&self.pool),
                matched: walk.matched(),
            })
            .collect();
        let cycle = Cycle {
            pool: &self.pool,
            request: Request {
                model,
                prefix: &prefix,
                ..Request::default()
            },
        };
        let scheduler = &self.plan.scheduler;
        let decision = scheduler.schedule(&cycle, 0, &mut self.scratch, None);
        let decision = decision.map_err(|error| error.to_string())?;
        let scored = decision.ranking.scored.iter();
        let named = scored.filter_map(|scored| {
            let endpoint = self.pool.get(scored.slot)?;
            Some((endpoint.name.clone(), scored.score))
        });
        Ok(named.collect())
    }

    fn slot(&self, name: &str) -> Result<Slot, String> {
        let found = self.pool.find(name);
        found.ok_or_else(|| format!("no endpoint {name}"))
    }
}

//! Decisions recorded from a real Endpoint Picker (llm-d-router), replayed through the native core.
//!
//! The recordings and their format: tests/parity/recorded/README.md. Scenarios with a request that
//! this core does not read yet (another API than chat completions and completions) are named in the
//! output; every other scenario must agree in every score and every ranking.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use epp_wasm::config::{self, Plan};
use epp_wasm::prefix::index::Index;
use epp_wasm::prefix::walk::Walk;
use epp_wasm::request::{Api, BodyReader};
use epp_wasm::scheduling::{
    Cycle, Endpoint, Freshness, Lora, Metrics, Pool, PrefixMatch, Request, Scored, Scratch, Slot,
};
use serde_json::Value;

/// Scores agree to this.
const TOLERANCE: f64 = 1e-9;

struct Replay {
    plan: Plan,
    pool: Pool,
    indexes: Vec<Index>,
    scratch: Scratch,
}

impl Replay {
    fn new(scenario: &Value) -> Self {
        let loaded = config::load(&scenario["config"].to_string());
        let plan = loaded
            .unwrap_or_else(|rejected| panic!("{rejected:?}"))
            .plan;
        let mut pool = Pool::default();
        for (slot, endpoint) in scenario["endpoints"].as_array().unwrap().iter().enumerate() {
            let text = |key: &str| endpoint[key].as_str().unwrap();
            pool.set(
                Slot(slot as u32),
                Endpoint {
                    name: text("name").to_owned(),
                    address: format!("{}:{}", text("address"), text("port")),
                    available: true,
                    freshness: Freshness::Fresh,
                    ..Endpoint::default()
                },
            );
        }
        let bound = plan.proxy.max_index_bytes;
        let indexes = plan.producers.iter().map(|_| Index::new(bound)).collect();
        let scratch = Scratch::new(fastrand::Rng::with_seed(1));
        Self {
            plan,
            pool,
            indexes,
            scratch,
        }
    }

    fn set_metrics(&mut self, step: &Value) {
        for (name, values) in step.as_object().unwrap() {
            let slot = self.pool.find(name).unwrap();
            let endpoint = self.pool.get_mut(slot).unwrap();
            let number = |key: &str| values[key].as_f64();
            let adapters = |key: &str| {
                let names = values[key].as_str().unwrap_or_default().split(',');
                let names = names.map(str::trim).filter(|name| !name.is_empty());
                names.map(str::to_owned).collect()
            };
            let lora = match values["maxlora"].as_u64() {
                Some(max) => Lora {
                    active: adapters("lora"),
                    waiting: adapters("lorawaiting"),
                    max: max as u32,
                },
                // The family left the page: the last values stay.
                None => endpoint.metrics.lora.clone(),
            };
            endpoint.metrics = Metrics {
                waiting: number("waiting"),
                running: number("running"),
                kv_usage: number("kv"),
                lora,
                ..Metrics::default()
            };
        }
    }

    /// The ranking by endpoint name, best first.
    fn decide(&mut self, request: &Value) -> (Vec<(String, f64)>, Vec<Walk>) {
        let mut reader = BodyReader::default();
        let api = Api::of_path(request["path"].as_str().unwrap().as_bytes());
        reader.reset(api, self.plan.read_plan(&self.pool));
        let body = request["body"].as_str().unwrap().as_bytes();
        reader.push(body);
        reader.finish();
        while let Some(range) = reader.reread() {
            reader.feed_again(range.start, &body[range.clone()]);
        }
        let model = reader.model().known().unwrap_or_default();
        let salt = reader.salt().known().unwrap_or_default();
        let seed = epp_wasm::prefix::digest::seed(model, salt);
        let mut walks: Vec<Walk> = Vec::new();
        for (stream, index) in self.indexes.iter().enumerate() {
            let mut walk = Walk::default();
            walk.advance(seed, reader.prompts(stream), index);
            walks.push(walk);
        }
        let producers = self.plan.producers.iter();
        let prefix: Vec<PrefixMatch<'_>> = walks
            .iter_mut()
            .zip(producers)
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
            },
        };
        let decision = self
            .plan
            .scheduler
            .schedule(&cycle, 0, &mut self.scratch, None);
        let ranking = decision.unwrap().ranking.scored.iter();
        let named = |scored: &Scored| {
            (
                self.pool.get(scored.slot).unwrap().name.clone(),
                scored.score,
            )
        };
        let ranking = ranking.map(named).collect();
        (ranking, walks)
    }

    fn learn(&mut self, served_by: &str, mut walks: Vec<Walk>) {
        let slot = self.pool.find(served_by).unwrap();
        let producers = self.plan.producers.iter();
        for ((walk, index), (_, producer)) in walks.iter_mut().zip(&mut self.indexes).zip(producers)
        {
            let capacity = producer.capacity_of(self.pool.get(slot));
            index.add(slot.0, walk.unlearnt().iter().copied(), capacity);
        }
    }
}

/// Checks one scenario; how many decisions it holds.
fn replay(name: &str, scenario: &Value) -> usize {
    let mut replay = Replay::new(scenario);
    let mut decisions = 0;
    for (number, step) in scenario["steps"].as_array().unwrap().iter().enumerate() {
        if step.get("metrics").is_some() {
            replay.set_metrics(&step["metrics"]);
            continue;
        }
        let (ranking, walks) = replay.decide(&step["request"]);
        let expect = &step["expect"];
        let scores: BTreeMap<&str, f64> = ranking
            .iter()
            .map(|(name, score)| (name.as_str(), *score))
            .collect();
        for (endpoint, score) in expect["scores"].as_object().unwrap() {
            let found = scores[endpoint.as_str()];
            let expected = score.as_f64().unwrap();
            assert!(
                (found - expected).abs() < TOLERANCE,
                "{name} step {number}: {endpoint} {found}, recorded {expected}"
            );
        }
        // Equal scores are in random order on both sides: compare the scores along the ranking.
        let recorded = expect["ranking"]
            .as_array()
            .unwrap()
            .iter()
            .map(|name| scores[name.as_str().unwrap()]);
        let own: Vec<f64> = ranking.iter().map(|(_, score)| *score).collect();
        for (place, (found, expected)) in own.iter().zip(recorded).enumerate() {
            assert!(
                (found - expected).abs() < TOLERANCE,
                "{name} step {number}: place {place}"
            );
        }
        replay.learn(expect["served_by"].as_str().unwrap(), walks);
        decisions += 1;
    }
    decisions
}

fn is_read(scenario: &Value) -> bool {
    let steps = scenario["steps"].as_array().unwrap().iter();
    let mut paths = steps.filter_map(|step| step["request"]["path"].as_str());
    paths.all(|path| Api::of_path(path.as_bytes()) != Api::PassThrough)
}

#[test]
fn the_recorded_decisions_of_a_real_picker_are_ours() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity/recorded");
    let (mut replayed, mut decisions, mut others) = (0, 0, Vec::new());
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let scenario: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let name = scenario["name"].as_str().unwrap().to_owned();
        if is_read(&scenario) {
            decisions += replay(&name, &scenario);
            replayed += 1;
        } else {
            others.push(name);
        }
    }
    println!("{replayed} scenarios with {decisions} decisions agree; with requests of other APIs, not replayed: {others:?}");
    assert_eq!(replayed + others.len(), 80, "a scenario is missing");
    assert!(
        replayed >= LEAST_REPLAYED,
        "only {replayed} scenarios were replayed"
    );
}

/// Scenarios that hold nothing but chat completions and completions; a new skip must be meant.
const LEAST_REPLAYED: usize = 80;

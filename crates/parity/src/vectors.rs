//! Cases of the Endpoint Picker's own tests as data: tests/vectors/reference, one file for each section of
//! its test suites. A file has the number of cases in the section, the cases that are run here, and the
//! reason why the others are not.

mod decide;
mod flow;
mod saturation;
mod setting;

use std::path::Path;

use epp_core::config::{self, Plan};
use epp_core::endpoints::scan::Extraction;
use epp_core::request::Api;
use epp_core::scheduling::{
    Chance, Lora, Metrics, Observer, ProfileId, Scored, Scratch, Slot, WeightedScorer,
};
use serde::{Deserialize, Serialize};
use serde_json::{json, Value};

use self::decide::Decide;
use self::flow::{Admit, Ceilings, Queue};
use self::saturation::Saturation;
use self::setting::Setting;
use crate::replay::{Made, Replay};
use crate::scenario::{names, Expected, Exported, Scenario, Sent, Served};
use crate::TOLERANCE;

/// Draws of a random picker, and their greatest distance from the odds, as in the Endpoint Picker's test.
const DRAWS: u32 = 10_000;
const ODDS_TOLERANCE: f64 = 0.2;

/// A section of the Endpoint Picker's tests.
#[derive(Debug, Deserialize)]
pub struct Section {
    /// The subject of the section.
    pub section: String,
    /// The approximate number of cases in its tests.
    pub reference: usize,
    /// Where the other cases are tested, or why they are not.
    pub rest: String,
    /// The cases that are run here.
    pub cases: Vec<Case>,
}

/// A case.
#[derive(Debug, Deserialize)]
pub struct Case {
    /// Its name.
    pub name: String,
    #[serde(flatten)]
    check: Check,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Check {
    Load(Load),
    Score(Score),
    Decide(Box<Decide>),
    Saturation(Saturation),
    Ceilings(Ceilings),
    Queue(Queue),
    Admit(Admit),
    Pick(Pick),
    Prefix(Vec<Prompted>, Value),
    Page(Page),
    Path(String, bool),
}

/// A document, and whether it loads.
#[derive(Debug, Deserialize)]
struct Load {
    config: Value,
    loads: bool,
    /// The scorers of the first profile with their weights.
    weights: Option<Vec<(String, f64)>>,
    picker: Option<String>,
}

/// The sums of scorers for endpoints.
#[derive(Debug, Deserialize)]
struct Score {
    scorers: Vec<Value>,
    #[serde(flatten)]
    setting: Setting,
    scores: Vec<f64>,
}

/// The order in which a picker puts endpoints.
#[derive(Debug, Deserialize)]
struct Pick {
    picker: Value,
    scores: Vec<f64>,
    /// Groups of endpoints, best first. The order within a group may vary.
    picks: Option<Vec<Vec<u32>>>,
    /// The odds of each endpoint to be picked first.
    odds: Option<Vec<f64>>,
}

/// The scores of endpoints and the endpoint that is picked.
#[derive(Debug, Deserialize)]
struct Prompted {
    model: String,
    prompt: String,
    scores: Vec<f64>,
    pick: usize,
}

/// A metrics page and its values.
#[derive(Debug, Deserialize)]
struct Page {
    engine: String,
    lines: Vec<String>,
    says: Option<Exported>,
}

/// The result of a section.
#[derive(Debug, Clone, Serialize)]
pub struct Held {
    /// The subject of the section.
    pub section: String,
    /// The approximate number of cases in the Endpoint Picker's tests.
    pub reference: usize,
    /// Cases that were run here.
    pub run: usize,
    /// Cases that hold.
    pub held: usize,
    /// Why the other cases were not run.
    pub rest: String,
    /// Cases that do not hold.
    pub failures: Vec<String>,
}

impl Section {
    /// Reads a section's file.
    pub fn read(path: &Path) -> Result<Self, String> {
        let in_file = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| in_file(&error))?;
        serde_json::from_str(&text).map_err(|error| in_file(&error))
    }

    /// Runs its cases.
    pub fn run(self) -> Held {
        let failures = self.cases.iter().filter_map(|case| {
            let outcome = case.check.run();
            Some(format!("{}: {}", case.name, outcome.err()?))
        });
        let failures: Vec<String> = failures.collect();
        Held {
            run: self.cases.len(),
            held: self.cases.len() - failures.len(),
            section: self.section,
            reference: self.reference,
            rest: self.rest,
            failures,
        }
    }
}

impl Check {
    fn run(&self) -> Result<(), String> {
        match self {
            Self::Load(load) => load.run(),
            Self::Score(score) => score.run(),
            Self::Decide(decide) => decide.run(),
            Self::Saturation(saturation) => saturation.run(),
            Self::Ceilings(ceilings) => ceilings.run(),
            Self::Queue(queue) => queue.run(),
            Self::Admit(admit) => admit.run(),
            Self::Pick(pick) => pick.run(),
            Self::Prefix(requests, config) => prefix(requests, config),
            Self::Page(page) => page.run(),
            Self::Path(path, read) => {
                let found = Api::of_path(path.as_bytes()) != Api::PassThrough;
                same(&found, read)
            }
        }
    }
}

impl Load {
    fn run(&self) -> Result<(), String> {
        let text = match &self.config {
            Value::String(text) => text.clone(),
            document => document.to_string(),
        };
        let plan = match (config::load(&text), self.loads) {
            (Ok(loaded), true) => loaded.plan,
            (Err(_), false) => return Ok(()),
            (Ok(_), false) => return Err("it loads".to_owned()),
            (Err(rejected), true) => {
                let error = rejected.errors.first();
                return Err(error.map(ToString::to_string).unwrap_or_default());
            }
        };
        let Some(profile) = plan.profiles.first() else {
            return Err("no profile".to_owned());
        };
        if let Some(weights) = &self.weights {
            let found = profile.plugins.iter();
            let found = found.map(|(instance, weight)| (instance.name.clone(), *weight));
            same(&found.collect(), weights)?;
        }
        if let Some(picker) = &self.picker {
            let found = profile.picker.as_ref().map(|picker| picker.name.as_str());
            same(&found, &Some(picker.as_str()))?;
        }
        Ok(())
    }
}

impl Score {
    fn run(&self) -> Result<(), String> {
        let references = self.scorers.iter().filter_map(|scorer| scorer.get("type"));
        let references: Vec<Value> = references.map(|kind| json!({"pluginRef": kind})).collect();
        let plan = plan(&self.scorers, &references)?;
        let mut sums = Sums(vec![0.0; self.setting.len()]);
        let mut scratch = Scratch::new(fastrand::Rng::with_seed(1));
        self.setting.run(&plan, |cycle| {
            let scheduler = &plan.scheduler;
            let decision = scheduler.schedule(cycle, 0, &mut scratch, Some(&mut sums));
            decision.map(drop).map_err(|error| error.to_string())
        })?;
        close(&sums.0, &self.scores)
    }
}

/// Returns the sums of scores, with weight 1 for each scorer.
struct Sums(Vec<f64>);

impl Observer for Sums {
    fn filtered(&mut self, _: &str, _: &[Slot], _: &[Slot]) {}

    fn scored(&mut self, _: &WeightedScorer, candidates: &[Slot], scores: &[f64]) {
        for (slot, score) in candidates.iter().zip(scores) {
            if let Some(sum) = self.0.get_mut(slot.index()) {
                *sum += score;
            }
        }
    }
}

impl Pick {
    fn run(&self) -> Result<(), String> {
        let kind = self.picker.get("type").cloned().unwrap_or_default();
        let plan = plan(
            std::slice::from_ref(&self.picker),
            &[json!({"pluginRef": kind})],
        )?;
        let profile = plan
            .scheduler
            .profiles()
            .get(ProfileId(0))
            .ok_or("no profile")?;
        let picker = &profile.picker;
        let mut chance = Chance::new(fastrand::Rng::with_seed(7));
        let scored = self.scores.iter().enumerate();
        let scored = scored.map(|(slot, score)| Scored {
            slot: Slot(slot as u32),
            score: *score,
        });
        let scored: Vec<Scored> = scored.collect();
        let want = picker.max_endpoints().min(scored.len());
        let mut draw = || {
            let mut scored = scored.clone();
            chance.turn = chance.turn.wrapping_add(1);
            picker.pick(&mut scored, want, &mut chance);
            scored.truncate(want);
            scored
                .iter()
                .map(|scored| scored.slot.0)
                .collect::<Vec<u32>>()
        };
        if let Some(groups) = &self.picks {
            let picks = draw();
            let mut rest = picks.as_slice();
            for group in groups {
                let (own, others) = rest.split_at(group.len().min(rest.len()));
                let mut own = own.to_vec();
                own.sort_unstable();
                same(&own, group)?;
                rest = others;
            }
            same(&rest.len(), &0)?;
        }
        if let Some(odds) = &self.odds {
            let mut counts = vec![0_u32; odds.len()];
            for _ in 0..DRAWS {
                let first = draw().first().copied().unwrap_or(u32::MAX);
                if let Some(count) = counts.get_mut(first as usize) {
                    *count += 1;
                }
            }
            for (count, odds) in counts.iter().zip(odds) {
                let found = f64::from(*count) / f64::from(DRAWS);
                if (found - odds).abs() > odds * ODDS_TOLERANCE {
                    return Err(format!("{found}, expected {odds}"));
                }
            }
        }
        Ok(())
    }
}

fn prefix(requests: &[Prompted], config: &Value) -> Result<(), String> {
    let names = requests.first().map_or(0, |request| request.scores.len());
    let places = (0..names)
        .map(|n| json!({"name": format!("{n}"), "address": "10.0.0.1", "port": format!("{n}")}));
    let scenario = json!({"name": "", "family": "", "config": config, "steps": [], "endpoints": places.collect::<Vec<_>>()});
    let scenario: Scenario = serde_json::from_value(scenario).map_err(|error| error.to_string())?;
    let mut replay = Replay::directed(&scenario)?;
    for request in requests {
        let body = json!({"model": request.model, "prompt": request.prompt}).to_string();
        let sent = Sent {
            path: "/v1/completions".to_owned(),
            body,
            ..Sent::default()
        };
        let expect = Expected::Served(Served {
            ranking: vec![request.pick.to_string()],
            ..Served::default()
        });
        let decided = replay.decide(&sent, &expect)?;
        let Made::Routed(routed) = &decided.made else {
            return Err(format!("{decided:?}"));
        };
        let mut found = vec![f64::NAN; names];
        for (name, score) in &routed.ranking {
            let place = name.parse::<usize>().ok();
            if let Some(place) = place.and_then(|place| found.get_mut(place)) {
                *place = *score;
            }
        }
        close(&found, &request.scores).map_err(|error| format!("{:?}: {error}", request.prompt))?;
        replay.proceed(decided, &expect);
    }
    Ok(())
}

impl Page {
    fn run(&self) -> Result<(), String> {
        let kinds = [
            "queue-scorer",
            "running-requests-size-scorer",
            "kv-cache-utilization-scorer",
            "lora-affinity-scorer",
        ];
        let plan = plan(
            &kinds.map(|kind| json!({"type": kind})),
            &kinds.map(|kind| json!({"pluginRef": kind})),
        )?;
        let mut engines = plan.extractor.engines.iter();
        let engine = engines.find(|engine| engine.name == self.engine);
        let engine = engine.ok_or_else(|| format!("no engine {}", self.engine))?;
        let page = self.lines.join("\n") + "\n";
        let found = Extraction::new(engine, &plan.needs).scan(page.as_bytes());
        let found = found.map(|page| page.metrics);
        same(&found, &self.says.as_ref().map(metrics))
    }
}

fn plan(plugins: &[Value], references: &[Value]) -> Result<Plan, String> {
    let document = json!({
        "apiVersion": "llm-d.ai/v1alpha1", "kind": "EndpointPickerConfig", "plugins": plugins,
        "schedulingProfiles": [{"name": "default", "plugins": references}],
    });
    let loaded = config::load(&document.to_string());
    loaded.map(|loaded| loaded.plan).map_err(|rejected| {
        let error = rejected.errors.first();
        error.map(ToString::to_string).unwrap_or_default()
    })
}

fn metrics(exported: &Exported) -> Metrics {
    Metrics {
        waiting: exported.waiting,
        running: exported.running,
        kv_usage: exported.kv,
        lora: Lora {
            active: names(&exported.lora),
            waiting: names(&exported.lorawaiting),
            max: exported.maxlora.unwrap_or(0),
        },
        ..Metrics::default()
    }
}

fn same<T: PartialEq + std::fmt::Debug>(found: &T, expected: &T) -> Result<(), String> {
    if found == expected {
        return Ok(());
    }
    Err(format!("{found:?}, expected {expected:?}"))
}

fn close(found: &[f64], expected: &[f64]) -> Result<(), String> {
    let mut pairs = found.iter().zip(expected);
    let close = pairs.all(|(found, expected)| (found - expected).abs() < TOLERANCE);
    if close && found.len() == expected.len() {
        return Ok(());
    }
    Err(format!("{found:?}, expected {expected:?}"))
}

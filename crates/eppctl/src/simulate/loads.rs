//! `--load`: a load in multiples of the pool's capacity, by priority, with flow control and without.

use clap::Args;
use pool_sim::{Objective, Outcome};
use serde_json::{json, Value};

use super::figures::median;
use super::runs::{run_all, Setting};
use super::traces::{Source, Traces};
use super::{positive, sweep};
use crate::input::plan_of;
use crate::output::Error;

/// Loads beyond the capacity of a pool.
#[derive(Args)]
#[command(next_help_heading = "Priorities and overload")]
pub struct LoadArgs {
    /// Offer these multiples of what the pool takes without flow control, which is measured first, and show what becomes
    /// of each priority; a configuration with flow control is compared with itself without.
    #[arg(long, value_name = "FACTOR,…", value_delimiter = ',', value_parser = positive,
        conflicts_with_all = ["rate", "speed", "plot"])]
    pub load: Vec<f64>,
    /// Objectives of the requests, as in high=10:1,low=0:3, each with its priority and its share in all requests
    /// [default share: 1; default: those of the first configuration]. They replace those of the configurations.
    #[arg(
        long,
        value_name = "NAME=PRIORITY[:SHARE],…",
        value_delimiter = ',',
        requires = "load"
    )]
    objectives: Vec<Ranked>,
    /// Shares of tenants in the requests, as in 3:1 for two of them; each has a fairness id of its own.
    #[arg(long, value_name = "SHARE:SHARE…", value_delimiter = ':', value_parser = positive, requires = "load")]
    tenants: Vec<f64>,
}

/// An objective with its priority.
#[derive(Debug, Clone, PartialEq)]
struct Ranked {
    objective: Objective,
    priority: i32,
}

impl std::str::FromStr for Ranked {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (name, rest) = text.split_once('=').filter(|(name, _)| !name.is_empty())?;
            let (priority, share) = rest.split_once(':').unwrap_or((rest, "1"));
            let objective = Objective {
                name: name.to_owned(),
                share: positive(share).ok()?,
            };
            Some(Self {
                objective,
                priority: priority.parse().ok()?,
            })
        };
        let expected = "expected NAME=PRIORITY or NAME=PRIORITY:SHARE, as in batch=-1:3";
        parse().ok_or_else(|| expected.to_owned())
    }
}

/// The runs under one load.
pub struct Runs<'a> {
    /// The multiple of the capacity.
    pub load: f64,
    /// Each policy, with its outcomes by seed.
    pub policies: Vec<(&'a Setting, Vec<Outcome>)>,
}

/// A document that is simulated, with its name.
pub type Named = (String, Value);

impl LoadArgs {
    /// Returns the documents with the objectives that are given; before each that has flow control, the same without.
    pub fn documents(&self, documents: Vec<Named>) -> Result<Vec<Named>, Error> {
        let mut all = Vec::new();
        for (name, mut document) in documents {
            self.set_objectives(&mut document);
            let plan = plan_of(&name, &document.to_string())?;
            let without = plan.flow.is_some().then(|| without_gate(document.clone()));
            all.extend(without.map(|document| (format!("{name}, no flow control"), document)));
            all.push((name, document));
        }
        Ok(all)
    }

    fn set_objectives(&self, document: &mut Value) {
        if self.objectives.is_empty() {
            return;
        }
        let objectives = self
            .objectives
            .iter()
            .map(|ranked| json!({"name": ranked.objective.name, "priority": ranked.priority}));
        let objectives: Value = objectives.collect();
        let mut plugins = sweep::list(document, "plugins").iter_mut();
        if let Some(plugin) = plugins.find(|plugin| is_objectives(plugin)) {
            sweep::set_parameter(plugin, "parameters.objectives", &objectives);
            return;
        }
        let plugin = json!({"type": OBJECTIVES, "parameters": {"objectives": objectives}});
        append(document, "plugins", plugin);
    }

    /// Returns the objectives of the requests: those given, or those of a document in equal shares.
    pub fn objectives(&self, document: &Value) -> Vec<Objective> {
        if !self.objectives.is_empty() {
            let given = self.objectives.iter();
            return given.map(|ranked| ranked.objective.clone()).collect();
        }
        let plugins = document.get("plugins").and_then(Value::as_array);
        let plugin =
            plugins.and_then(|plugins| plugins.iter().find(|plugin| is_objectives(plugin)));
        let listed = plugin.and_then(|plugin| plugin.pointer("/parameters/objectives")?.as_array());
        let names = listed.into_iter().flatten();
        let names = names.filter_map(|objective| objective.get("name")?.as_str());
        let objective = |name: &str| Objective {
            name: name.to_owned(),
            share: 1.0,
        };
        names.map(objective).collect()
    }

    /// Runs each policy under each load.
    pub fn run<'a>(
        &self,
        settings: &'a [Setting],
        source: &Source<'_>,
        objectives: &[Objective],
        capacity: f64,
    ) -> Result<Vec<Runs<'a>>, Error> {
        let run = |load: &f64| {
            let mut traces = source.at_rate(load * capacity, *load);
            for (seed, trace) in &mut traces {
                trace.share_out(objectives, &self.tenants, *seed);
            }
            let outcomes = run_all(settings, &traces)?;
            Ok(Runs {
                load: *load,
                policies: settings.iter().zip(outcomes).collect(),
            })
        };
        self.load.iter().map(run).collect()
    }
}

/// The plugin that lists objectives.
const OBJECTIVES: &str = "static-objectives";

fn is_objectives(plugin: &Value) -> bool {
    plugin.get("type").is_some_and(|kind| kind == OBJECTIVES)
}

/// Returns a document without flow control.
fn without_gate(mut document: Value) -> Value {
    // The last one counts.
    append(&mut document, "featureGates", "flowControl=false".into());
    document
}

fn append(document: &mut Value, key: &str, entry: Value) {
    match document.get_mut(key).and_then(Value::as_array_mut) {
        Some(list) => list.push(entry),
        None => document[key] = json!([entry]),
    }
}

/// The load under which the capacity is measured, as a multiple of an estimate that is too low rather than too high.
const SATURATING: f64 = 2.0;

/// Returns how many requests a policy has a pool complete per second while more arrive than it can take: the median of
/// the seeds.
pub fn capacity(setting: &Setting, source: &Source<'_>) -> Result<f64, Error> {
    let measure = |traces: &Traces, of: fn(&Outcome) -> f64| {
        let outcomes = run_all(std::slice::from_ref(setting), traces)?;
        let mut values: Vec<f64> = outcomes.iter().flatten().map(of).collect();
        values.sort_by(f64::total_cmp);
        Ok::<f64, Error>(median(&values))
    };
    // All at once: the end of such a run, in which some servers idle, makes the estimate too low.
    let at_once = source.at_rate(AT_ONCE, 1.0);
    let estimate = measure(&at_once, |run| run.completed as f64 / run.seconds.max(1e-9))?;
    let saturated = source.at_rate(SATURATING * estimate, SATURATING);
    let rate = |run: &Outcome| run.bands.iter().map(|band| band.completed_rate).sum();
    match measure(&saturated, rate)? {
        none if none <= 0.0 => Err(Error::new(
            "--load: the pool completed nothing in the second half of a load beyond its capacity; set more --requests",
        )),
        rate => Ok(rate),
    }
}

/// The rate of requests that arrive all at once.
const AT_ONCE: f64 = 1e9;

/// How often [`capacity`] plays the traces.
pub const CAPACITY_RUNS: f64 = 1.0 + SATURATING;

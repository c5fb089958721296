//! The result: figures of each policy over its runs.

use std::io::{self, Write};
use std::time::Duration;

use pool_sim::Outcome;
use serde::Serialize;
use serde_json::Value;

use super::figures::{headings, median, named, row, Figure, Spread, Unit};
use super::runs::Setting;
use crate::output::{styled, Report, FAINT, STRONG, WARNING};

const FIGURES: [Figure; 11] = {
    use Unit::{Ratio, Share, Whole};
    [
        Figure::new("ttft_mean_ms", "mean", Whole),
        Figure::new("ttft_p50_ms", "p50", Whole),
        Figure::new("ttft_p90_ms", "p90", Whole),
        Figure::new("ttft_p99_ms", "p99", Whole),
        Figure::new("token_p50_ms", "token", Whole),
        Figure::new("token_p99_ms", "p99", Whole),
        Figure::new("cached_share", "cached", Share),
        Figure::new("load_spread", "spread", Ratio),
        Figure::new("prefill_share", "prefill", Share),
        Figure::new("disaggregated_share", "P/D", Share),
        Figure::new("refused", "refused", Whole),
    ]
};

/// Returns the values of [`FIGURES`].
fn values(run: &Outcome) -> Vec<f64> {
    vec![
        run.ttft_ms.mean,
        run.ttft_ms.p50,
        run.ttft_ms.p90,
        run.ttft_ms.p99,
        run.token_ms.p50,
        run.token_ms.p99,
        run.cached_share,
        run.load_spread,
        run.prefill_share,
        run.disaggregated as f64 / run.requests.max(1) as f64,
        run.refused as f64,
    ]
}

/// A run.
#[derive(Serialize)]
struct Run {
    seed: u64,
    #[serde(flatten)]
    outcome: Outcome,
}

/// The runs of one policy.
#[derive(Serialize)]
pub struct Policy {
    policy: String,
    /// Number of gateways.
    gateways: usize,
    /// Of each figure, the median of the runs.
    median: Value,
    /// The lowest of the runs.
    lowest: Value,
    /// The highest.
    highest: Value,
    /// How much more was offered than the pool could take, as a share of what it could: the median of the runs, if most
    /// of them were saturated.
    overload: Option<f64>,
    runs: Vec<Run>,
    /// The same as rows of a table.
    #[serde(skip)]
    spread: Spread,
    /// Every time to first token of all runs in milliseconds, in ascending order.
    #[serde(skip)]
    times: Vec<f64>,
}

impl Policy {
    /// Summarises the runs of a policy under consecutive seeds.
    pub fn new(setting: Setting, first_seed: u64, mut runs: Vec<Outcome>) -> Self {
        let taken = runs.iter_mut();
        let mut times = taken
            .flat_map(|run| std::mem::take(&mut run.ttfts))
            .collect::<Vec<f64>>();
        times.sort_by(f64::total_cmp);
        let spread = Spread::of(&runs.iter().map(values).collect::<Vec<_>>());
        let named = |values: &[f64]| Value::Object(named(&FIGURES, values));
        let mut overload: Vec<f64> = runs.iter().map(|run| run.overload.unwrap_or(0.0)).collect();
        overload.sort_by(f64::total_cmp);
        let overload = median(&overload);
        let seeds = (0..).map(|number| first_seed.wrapping_add(number));
        let runs = seeds.zip(runs).map(|(seed, outcome)| Run { seed, outcome });
        Self {
            policy: setting.name,
            gateways: setting.pool.gateways,
            median: named(&spread.median),
            lowest: named(&spread.lowest),
            highest: named(&spread.highest),
            overload: Some(overload).filter(|overload| *overload > 0.0),
            runs: runs.collect(),
            spread,
            times,
        }
    }

    /// Returns its name.
    pub fn name(&self) -> &str {
        &self.policy
    }

    /// Returns every time to first token of all runs in milliseconds, in ascending order.
    pub fn times(&self) -> &[f64] {
        &self.times
    }
}

/// What is simulated.
#[derive(Serialize)]
pub struct Load {
    /// The trace's file, or the kind of a generated one.
    pub trace: String,
    /// Number of servers.
    pub pods: u32,
    /// How many of them have the role prefill.
    pub prefill_pods: u32,
    /// Numbers of gateways.
    pub gateways: Vec<u32>,
    /// The first seed.
    pub seed: u64,
    /// Number of seeds.
    pub seeds: u64,
}

impl Load {
    /// Writes the first line of a table.
    pub fn write(&self, requests: usize, out: &mut dyn Write) -> io::Result<()> {
        let Self {
            trace, pods, seed, ..
        } = self;
        let prefill = match self.prefill_pods {
            0 => String::new(),
            some => format!(" ({some} prefill)"),
        };
        let gateways = match self.gateways.as_slice() {
            [1] => String::new(),
            several => {
                let numbers: Vec<String> = several.iter().map(u32::to_string).collect();
                let numbers = numbers.join(", ");
                let numbers = match numbers.rsplit_once(", ") {
                    Some((first, last)) => format!("{first} or {last}"),
                    None => numbers,
                };
                format!(" behind {numbers} gateways")
            }
        };
        let last = seed.wrapping_add(self.seeds - 1);
        let seeds = match self.seeds {
            1 => format!("seed {seed}"),
            some => format!("medians of the seeds {seed} to {last}, with the lowest and the highest of the {some} runs"),
        };
        writeln!(
            out,
            "{requests} requests of {trace}, {pods} pods{prefill}{gateways}; {seeds}"
        )
    }
}

/// The runs of all policies.
#[derive(Serialize)]
pub struct Comparison {
    /// What is simulated.
    #[serde(flatten)]
    pub load: Load,
    /// The policies.
    pub policies: Vec<Policy>,
    /// Wall-clock time; not reproducible, so not serialized.
    #[serde(skip)]
    pub took: Duration,
}

const FOOT: &str =
    "mean, p50, p90, p99: time to first token in ms; token, p99: the requests' mean times per further token in ms; \
     cached: share of prompt tokens; spread: prefill time of the busiest pod over the mean; prefill: share of time \
     spent in prefill; P/D: share of requests whose prompt another pod computed";

impl Report for Comparison {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let first = self.policies.first();
        let requests = first.and_then(|policy| policy.runs.first());
        let requests = requests.map_or(0, |run| run.outcome.requests);
        self.load.write(requests, out)?;
        let names = self
            .policies
            .iter()
            .map(|policy| policy.policy.chars().count());
        let width = names.max().unwrap_or(0).max(20);
        let head = headings("policy", width, &FIGURES);
        writeln!(out, "{}", styled(STRONG, head))?;
        for policy in &self.policies {
            let Spread {
                median,
                lowest,
                highest,
            } = &policy.spread;
            writeln!(out, "{}", row(&policy.policy, width, &FIGURES, median))?;
            if self.load.seeds > 1 {
                let row = |name, values| styled(FAINT, row(name, width, &FIGURES, values));
                writeln!(out, "{}", row("  lowest", lowest))?;
                writeln!(out, "{}", row("  highest", highest))?;
            }
        }
        self.write_saturated(out)?;
        let simulated = requests * self.policies.len() * self.load.seeds as usize;
        let rate = simulated as f64 / self.took.as_secs_f64().max(1e-9);
        let foot = format!("{FOOT}. Simulated {rate:.0} requests/s");
        writeln!(out, "{}", styled(FAINT, foot))
    }
}

impl Comparison {
    /// Says which policies saturate the pool, and by how much.
    fn write_saturated(&self, out: &mut dyn Write) -> io::Result<()> {
        let policies = self.policies.iter();
        let saturated = policies.filter_map(|policy| {
            let excess = policy.overload? * 100.0;
            Some(format!(
                "{} ({excess:.0} % above its capacity)",
                policy.policy
            ))
        });
        let saturated: Vec<String> = saturated.collect();
        if saturated.is_empty() {
            return Ok(());
        }
        writeln!(
            out,
            "{} under {}: waits grow for as long as the load lasts, so that these times depend on the trace's length. \
             To compare policies, offer less (--rate, --speed) or add pods.",
            styled(WARNING, "The pool is saturated"),
            saturated.join(", ")
        )
    }
}

//! The result: figures of each policy over its runs.

use std::io::{self, Write};
use std::time::Duration;

use pool_sim::Outcome;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::output::{styled, Report, FAINT, STRONG, WARNING};

/// A figure of an outcome.
struct Figure {
    /// Its name in JSON.
    name: &'static str,
    /// The heading of its column.
    heading: &'static str,
    unit: Unit,
    of: fn(&Outcome) -> f64,
}

enum Unit {
    /// Milliseconds, or a count.
    Whole,
    /// A quotient.
    Ratio,
    /// A share, shown in percent.
    Share,
}

const FIGURES: [Figure; 11] = {
    const fn figure(
        name: &'static str,
        heading: &'static str,
        unit: Unit,
        of: fn(&Outcome) -> f64,
    ) -> Figure {
        Figure {
            name,
            heading,
            unit,
            of,
        }
    }
    use Unit::{Ratio, Share, Whole};
    [
        figure("ttft_mean_ms", "mean", Whole, |run| run.ttft_ms.mean),
        figure("ttft_p50_ms", "p50", Whole, |run| run.ttft_ms.p50),
        figure("ttft_p90_ms", "p90", Whole, |run| run.ttft_ms.p90),
        figure("ttft_p99_ms", "p99", Whole, |run| run.ttft_ms.p99),
        figure("token_p50_ms", "token", Whole, |run| run.token_ms.p50),
        figure("token_p99_ms", "p99", Whole, |run| run.token_ms.p99),
        figure("cached_share", "cached", Share, |run| run.cached_share),
        figure("load_spread", "spread", Ratio, |run| run.load_spread),
        figure("prefill_share", "prefill", Share, |run| run.prefill_share),
        figure("disaggregated_share", "P/D", Share, |run| {
            run.disaggregated as f64 / run.requests.max(1) as f64
        }),
        figure("refused", "refused", Whole, |run| run.refused as f64),
    ]
};

impl Figure {
    fn cell(&self, value: f64) -> String {
        match self.unit {
            Unit::Whole => format!("{value:>7.0}"),
            Unit::Ratio => format!("{value:>7.2}"),
            Unit::Share => format!("{:>6.1}%", value * 100.0),
        }
    }
}

/// The figures of one run, or of several.
type Figures = [f64; FIGURES.len()];

/// Returns one of each figure's values in ascending order.
fn figures(runs: &[Outcome], choose: fn(usize) -> usize) -> Figures {
    FIGURES.map(|figure| {
        let mut values: Vec<f64> = runs.iter().map(figure.of).collect();
        values.sort_by(f64::total_cmp);
        values.get(choose(values.len())).copied().unwrap_or(0.0)
    })
}

fn named(figures: &Figures) -> Value {
    let named = FIGURES.iter().zip(figures);
    let named = named.map(|(figure, value)| (figure.name.to_owned(), Value::from(*value)));
    Value::Object(named.collect::<Map<String, Value>>())
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
    rows: [Figures; 3],
    /// Every time to first token of all runs in milliseconds, in ascending order.
    #[serde(skip)]
    times: Vec<f64>,
}

impl Policy {
    /// Summarises the runs of a policy under consecutive seeds.
    pub fn new(policy: String, first_seed: u64, mut runs: Vec<Outcome>) -> Self {
        let taken = runs.iter_mut();
        let mut times = taken
            .flat_map(|run| std::mem::take(&mut run.ttfts))
            .collect::<Vec<f64>>();
        times.sort_by(f64::total_cmp);
        let middle: fn(usize) -> usize = |runs| runs.saturating_sub(1) / 2;
        let choices: [fn(usize) -> usize; 3] = [middle, |_| 0, |runs| runs.saturating_sub(1)];
        let rows = choices.map(|choose| figures(&runs, choose));
        let [median, lowest, highest] = rows.each_ref().map(named);
        let mut overload: Vec<f64> = runs.iter().map(|run| run.overload.unwrap_or(0.0)).collect();
        overload.sort_by(f64::total_cmp);
        let overload = overload.get(middle(overload.len())).copied();
        let seeds = (0..).map(|number| first_seed.wrapping_add(number));
        let runs = seeds.zip(runs).map(|(seed, outcome)| Run { seed, outcome });
        Self {
            policy,
            median,
            lowest,
            highest,
            overload: overload.filter(|overload| *overload > 0.0),
            runs: runs.collect(),
            rows,
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

/// The runs of all policies.
#[derive(Serialize)]
pub struct Comparison {
    /// The trace's file, or the kind of a generated one.
    pub trace: String,
    /// Number of servers.
    pub pods: u32,
    /// How many of them have the role prefill.
    pub prefill_pods: u32,
    /// The first seed.
    pub seed: u64,
    /// Number of seeds.
    pub seeds: u64,
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
        let prefill = match self.prefill_pods {
            0 => String::new(),
            some => format!(" ({some} prefill)"),
        };
        let last = self.seed.wrapping_add(self.seeds - 1);
        let seeds = match self.seeds {
            1 => format!("seed {}", self.seed),
            some => format!("medians of the seeds {} to {last}, with the lowest and the highest of the {some} runs", self.seed),
        };
        writeln!(
            out,
            "{requests} requests of {}, {} pods{prefill}; {seeds}",
            self.trace, self.pods
        )?;
        let names = self
            .policies
            .iter()
            .map(|policy| policy.policy.chars().count());
        let width = names.max().unwrap_or(0).max(20);
        let headings = FIGURES
            .iter()
            .map(|figure| format!(" {:>7}", figure.heading));
        let head = format!("{:width$}{}", "policy", headings.collect::<String>());
        writeln!(out, "{}", styled(STRONG, head))?;
        for policy in &self.policies {
            let row = |name: &str, figures: &Figures| {
                let cells = FIGURES.iter().zip(figures);
                let cells = cells.map(|(figure, value)| format!(" {}", figure.cell(*value)));
                format!("{name:width$}{}", cells.collect::<String>())
            };
            let [median, lowest, highest] = &policy.rows;
            writeln!(out, "{}", row(&policy.policy, median))?;
            if self.seeds > 1 {
                writeln!(out, "{}", styled(FAINT, row("  lowest", lowest)))?;
                writeln!(out, "{}", styled(FAINT, row("  highest", highest)))?;
            }
        }
        self.write_saturated(out)?;
        let simulated = requests * self.policies.len() * self.seeds as usize;
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

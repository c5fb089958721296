//! The result of `--load`: figures of each priority under each load.

use std::io::{self, Write};

use pool_sim::{Band, Objective, Outcome};
use serde::Serialize;
use serde_json::{json, Value};

use super::figures::{headings, named, row, Figure, Spread, Unit};
use super::loads::Runs;
use super::report::Load;
use crate::output::{styled, Report, FAINT, STRONG};

const FIGURES: [Figure; 10] = {
    use Unit::{Rate, Share, Whole};
    [
        Figure::new("completed_per_second", "done/s", Rate),
        Figure::new("tokens_per_second", "tokens", Whole),
        Figure::new("ttft_p50_ms", "TTFT", Whole),
        Figure::new("ttft_p99_ms", "p99", Whole),
        Figure::new("wait_p50_ms", "wait", Whole),
        Figure::new("wait_p99_ms", "p99", Whole),
        Figure::new("server_p99_ms", "server", Whole),
        Figure::new("shed_share", "shed", Share),
        Figure::new("expired_share", "expired", Share),
        Figure::new("evicted_share", "evicted", Share),
    ]
};

/// Returns the values of [`FIGURES`], and the share of each tenant.
fn values(band: &Band) -> Vec<f64> {
    let share = |count: usize| count as f64 / band.requests.max(1) as f64;
    let mut values = vec![
        band.completed_rate,
        band.token_rate,
        band.ttft_ms.p50,
        band.ttft_ms.p99,
        band.wait_ms.p50,
        band.wait_ms.p99,
        band.server_ms.p99,
        share(band.shed),
        share(band.expired),
        share(band.evicted),
    ];
    values.extend(&band.tenants);
    values
}

/// The runs under all loads.
#[derive(Serialize)]
pub struct Loads {
    /// What is simulated.
    #[serde(flatten)]
    load: Load,
    /// Requests per second that the pool completes without flow control.
    capacity: f64,
    loads: Vec<AtLoad>,
    /// Requests of a run.
    #[serde(skip)]
    requests: usize,
    #[serde(skip)]
    columns: Vec<Figure>,
}

/// The runs under one load.
#[derive(Serialize)]
struct AtLoad {
    /// The multiple of the capacity.
    load: f64,
    /// Requests per second.
    rate: f64,
    policies: Vec<Policy>,
}

/// The runs of one policy.
#[derive(Serialize)]
struct Policy {
    policy: String,
    /// Number of gateways.
    gateways: usize,
    bands: Vec<OfBand>,
}

/// The runs of one policy, as far as they are about one objective.
#[derive(Serialize)]
struct OfBand {
    objective: String,
    median: Value,
    lowest: Value,
    highest: Value,
    #[serde(skip)]
    spread: Spread,
}

impl Loads {
    /// Summarises the runs under all loads.
    pub fn new(load: Load, capacity: f64, runs: Vec<Runs<'_>>, objectives: &[Objective]) -> Self {
        let first = runs.first().and_then(|runs| runs.policies.first());
        let first = first.and_then(|(_, outcomes)| outcomes.first());
        let mut columns = FIGURES.to_vec();
        let tenants = first.and_then(|run| run.bands.first());
        let tenants = tenants
            .map(|band| band.tenants.len())
            .filter(|tenants| *tenants > 1);
        columns.extend((0..tenants.unwrap_or(0)).map(|_| Figure {
            name: "tenants",
            heading: "tenant",
            unit: Unit::Share,
        }));
        Self {
            load,
            capacity,
            requests: first.map_or(0, |outcome| outcome.requests),
            loads: runs
                .into_iter()
                .map(|runs| at_load(runs, capacity, objectives))
                .collect(),
            columns,
        }
    }
}

fn at_load(runs: Runs<'_>, capacity: f64, objectives: &[Objective]) -> AtLoad {
    let policies = runs.policies.into_iter().map(|(setting, outcomes)| {
        let bands = 0..objectives.len().max(1);
        let bands = bands.map(|number| {
            let name = objectives
                .get(number)
                .map_or("all", |objective| &objective.name);
            OfBand::new(name, &outcomes, number)
        });
        Policy {
            policy: setting.name.clone(),
            gateways: setting.pool.gateways,
            bands: bands.collect(),
        }
    });
    AtLoad {
        load: runs.load,
        rate: runs.load * capacity,
        policies: policies.collect(),
    }
}

impl OfBand {
    fn new(objective: &str, outcomes: &[Outcome], number: usize) -> Self {
        let bands = outcomes.iter().filter_map(|run| run.bands.get(number));
        let spread = Spread::of(&bands.map(values).collect::<Vec<_>>());
        let named = |values: &[f64]| {
            let mut figures = named(&FIGURES, values);
            let tenants = values.get(FIGURES.len()..).unwrap_or_default();
            figures.insert("tenants".to_owned(), json!(tenants));
            Value::Object(figures)
        };
        Self {
            objective: objective.to_owned(),
            median: named(&spread.median),
            lowest: named(&spread.lowest),
            highest: named(&spread.highest),
            spread,
        }
    }
}

const FOOT: &str =
    "Of the second half of the load: the first lets the queues settle. done/s, tokens: requests completed per second, and \
     the tokens of their responses; TTFT, p99: time to first token in ms, median and 99th percentile; wait, p99: the part \
     of it before the request was sent to a server; server: 99th percentile of the other part; shed, expired, evicted: \
     share of requests that were refused at once, after they had waited as long as they may, and after a server had begun";

const TENANTS: &str = "; tenant: share of each tenant in the requests completed";

impl Report for Loads {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        self.load.write(self.requests, out)?;
        writeln!(
            out,
            "Without flow control, the pool completes {:.1} requests/s.",
            self.capacity
        )?;
        let policies = || self.loads.iter().flat_map(|at| &at.policies);
        let bands = policies().flat_map(|policy| &policy.bands);
        let names = bands.map(|band| band.objective.chars().count() + 2);
        let names = names.chain(policies().map(|policy| policy.policy.chars().count()));
        let width = names.max().unwrap_or(0).max(20);
        for at in &self.loads {
            let title = format!("load {}: {:.1} requests/s", at.load, at.rate);
            let head = headings(&title, width.max(title.len()), &self.columns);
            writeln!(out, "\n{}", styled(STRONG, head))?;
            for policy in &at.policies {
                writeln!(out, "{}", policy.policy)?;
                for band in &policy.bands {
                    self.write(band, width.max(title.len()), out)?;
                }
            }
        }
        let tenants = match self.columns.len() > FIGURES.len() {
            true => TENANTS,
            false => "",
        };
        writeln!(out, "\n{}", styled(FAINT, format!("{FOOT}{tenants}")))
    }
}

impl Loads {
    fn write(&self, band: &OfBand, width: usize, out: &mut dyn Write) -> io::Result<()> {
        let row = |name: &str, values: &[f64]| row(name, width, &self.columns, values);
        let Spread {
            median,
            lowest,
            highest,
        } = &band.spread;
        writeln!(out, "{}", row(&format!("  {}", band.objective), median))?;
        if self.load.seeds > 1 {
            writeln!(out, "{}", styled(FAINT, row("    lowest", lowest)))?;
            writeln!(out, "{}", styled(FAINT, row("    highest", highest)))?;
        }
        Ok(())
    }
}

//! Measures the effect of load balancers on the model servers: the same conversations at the same times
//! through one Envoy per case, each with simulated pods of its own, all side by side. The pods wait instead of
//! computing, so that the cases do not slow each other down, and everything else on the machine affects
//! all of them.

mod client;
pub mod result;
pub mod workload;

use std::fs;
use std::time::Duration;

use fake_model_server::{Settings, Sim};
use tokio::runtime::Runtime;

use crate::envoy::{Case, Proxy, Setup};
use crate::machine;
use crate::picker::Picker;
use crate::process;
use crate::BoxError;
use client::Response;
use result::{Cell, Outcome, Pool, Run};
use workload::{Workload, WORKLOADS};

/// Pods of a pool.
const PODS: usize = 8;
/// Envoy's workers, as in a small gateway.
const WORKERS: usize = 4;
/// The scrape interval: the filter's default. The Endpoint Picker's is 50 ms.
const INTERVAL_MS: u64 = 200;
/// The configuration, and the same without sharing between workers.
const PLAN: &str = "benches/envoy/balancing.yaml";
const ALONE: &str = "benches/envoy/alone.yaml";

/// The options of a run.
pub struct Options {
    /// How long each load is played first: caches fill, the filter learns of members and metrics, queues settle.
    pub warm_up: Duration,
    /// How long each load is measured.
    pub length: Duration,
    /// The path of an Endpoint Picker's binary.
    pub picker: Option<String>,
    /// Only the workloads whose name contains this.
    pub only: Option<String>,
}

/// Returns the settings of a pod that computes 8,000 prompt tokens per second, one prompt after the other,
/// serves sixteen requests at a time and caches 56,000 tokens.
fn pod() -> Settings {
    Settings {
        max_running: 16,
        cache_blocks: 3_500,
        base_latency: Duration::from_millis(20),
        prefill_rate: Some(8_000.0),
        token_time: Duration::from_millis(20),
        ..Settings::default()
    }
}

/// Runs all workloads.
pub fn run(runtime: &Runtime, options: &Options) -> Result<Run, BoxError> {
    let pod = pod();
    let mut run = Run {
        machine: machine::facts(options.picker.as_deref())?,
        load_average: machine::load_average()?,
        pool: Pool {
            pods: PODS,
            workers: WORKERS,
            prefill_rate: pod.prefill_rate.unwrap_or(f64::INFINITY),
            max_running: pod.max_running,
            cache_blocks: pod.cache_blocks,
            base_latency_ms: pod.base_latency.as_millis() as u64,
            token_ms: pod.token_time.as_millis() as u64,
        },
        warm_up_seconds: options.warm_up.as_secs_f64(),
        seconds: options.length.as_secs_f64(),
        cells: Vec::new(),
    };
    let wanted = |name: &str| options.only.as_ref().is_none_or(|only| name.contains(only));
    for workload in WORKLOADS.iter().filter(|one| wanted(one.name)) {
        for rate in workload.rates {
            eprintln!("» {}: {rate} requests/s", workload.name);
            run.cells.push(cell(runtime, workload, rate, options)?);
        }
    }
    Ok(run)
}

/// A case with its own pool.
struct Side {
    proxy: Proxy,
    _picker: Option<Picker>,
    _sim: Sim,
}

fn cases(workload: &Workload, options: &Options) -> Vec<Case> {
    let mut cases = vec![
        Case::Plain,
        Case::LeastRequest,
        Case::RingHash,
        Case::EppWasm,
    ];
    if workload.turns > 1 {
        cases.push(Case::Config(ALONE.to_owned()));
    }
    cases.extend(options.picker.is_some().then_some(Case::Epp));
    cases
}

fn cell(
    runtime: &Runtime,
    workload: &'static Workload,
    rate: f64,
    options: &Options,
) -> Result<Cell, BoxError> {
    let plan = fs::read_to_string(PLAN).map_err(|error| format!("{PLAN}: {error}"))?;
    let mut sides = Vec::new();
    for case in cases(workload, options) {
        // Pods run on a runtime of their own, which cannot be started within another.
        let sim = Sim::start(PODS, &pod())?;
        sides.push(runtime.block_on(start(case, sim, &plan, options))?);
    }
    let taken = runtime.block_on(play(&sides, workload, rate, options))?;
    let (busy, responses) = taken;
    let names = sides.iter().map(|side| side.proxy.name.clone());
    Ok(Cell {
        workload: workload.name.to_owned(),
        rate,
        busy,
        cases: names
            .zip(responses)
            .map(|(name, responses)| Outcome::of(name, &responses, options.warm_up, options.length))
            .collect(),
    })
}

async fn start(case: Case, sim: Sim, plan: &str, options: &Options) -> Result<Side, BoxError> {
    let servers: Vec<u16> = sim.addresses().iter().map(|one| one.port()).collect();
    let picker = match options.picker.as_ref().filter(|_| case == Case::Epp) {
        Some(binary) => Some(Picker::start(binary, &servers, plan, INTERVAL_MS).await?),
        None => None,
    };
    let setup = Setup {
        case,
        servers: &servers,
        config: plan,
        workers: WORKERS,
        picker: picker.as_ref().map(|picker| picker.port),
    };
    Ok(Side {
        proxy: Proxy::start(&setup).await?,
        _picker: picker,
        _sim: sim,
    })
}

/// Plays the load on all sides at once. Returns the share of busy cores, and the responses of each side.
async fn play(
    sides: &[Side],
    workload: &'static Workload,
    rate: f64,
    options: &Options,
) -> Result<(f64, Vec<Vec<Response>>), BoxError> {
    let end = options.warm_up + options.length;
    let loads: Vec<_> = sides
        .iter()
        .map(|side| tokio::spawn(client::play(side.proxy.port, workload, rate, end)))
        .collect();
    tokio::time::sleep(options.warm_up).await;
    let before = process::cores()?;
    tokio::time::sleep(options.length).await;
    let after = process::cores()?;
    let mut responses = Vec::new();
    for load in loads {
        responses.push(load.await?);
    }
    let busy = (after.0 - before.0) as f64 / (after.1 - before.1).max(1) as f64;
    Ok((busy, responses))
}

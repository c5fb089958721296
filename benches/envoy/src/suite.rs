//! The published run: every dimension varied around one base. All combinations would take hours.

use std::time::Duration;

use crate::bodies::{Order, Prompts, Source};
use crate::envoy::{Case, Proxy, Setup, ALL_CORES};
use crate::idle;
use crate::machine;
use crate::measure::{self, Pace, Turns};
use crate::picker::Picker;
use crate::plan::Plan;
use crate::result::{Cell, Footprint, Idle, Inside, Paced, Run};
use crate::sink;
use crate::statistics::quantiles;
use crate::BoxError;

/// Slices of each case in a published run.
pub const SLICES: usize = 12;
/// Milliseconds of a slice in a published run.
pub const SLICE_MS: u64 = 450;
/// Body sizes in KB.
const SIZES: [usize; 5] = [1, 4, 64, 220, 500];
/// A short and a long prompt, where not all sizes are measured.
const SHORT_AND_LONG: [usize; 2] = [4, 220];
/// A short prompt, and one longer than the prompt window.
const SHORT_AND_MIDDLE: [usize; 2] = [4, 64];
/// Endpoints of the base.
const ENDPOINTS: usize = 100;
/// Concurrent requests of the base: enough to keep one worker busy, few enough not to queue.
const CONCURRENCY: usize = 16;
/// The filter learns of the members and fetches metrics, and connections are pooled.
const WARM_UP: Duration = Duration::from_secs(3);
/// An idle Envoy's polls have become as rare as they will be.
const IDLE_WARM_UP: Duration = Duration::from_secs(8);
/// The time for which an idle Envoy is measured.
const IDLE_TIME: Duration = Duration::from_secs(4);
/// Open loops: body size in KB and requests per second, well below the capacity of one core.
const RATES: [(usize, u64); 2] = [(4, 2_000), (220, 600)];

/// A table of the report.
struct Group {
    name: &'static str,
    plan: Plan,
    endpoints: usize,
    workers: usize,
    concurrency: usize,
    sizes: &'static [usize],
    order: Order,
    prompts: Prompts,
    cases: &'static [Case],
}

const ALL_CASES: [Case; 7] = [
    Case::Plain,
    Case::OverrideHost,
    Case::Noop,
    Case::EppWasm,
    Case::Module,
    Case::RingHash,
    Case::Epp,
];
/// What bars on the CPU compare.
const COMPARED: [Case; 5] = [
    Case::Plain,
    Case::OverrideHost,
    Case::Noop,
    Case::EppWasm,
    Case::Module,
];
/// The same, and the Endpoint Picker.
const WITHOUT_RING_HASH: [Case; 6] = [
    Case::Plain,
    Case::OverrideHost,
    Case::Noop,
    Case::EppWasm,
    Case::Module,
    Case::Epp,
];
/// Where only the wasm module's settings differ.
const WASM_ONLY: [Case; 3] = [Case::Plain, Case::Noop, Case::EppWasm];
const FLOW_CONTROL: [Case; 3] = [Case::Plain, Case::EppWasm, Case::Gate];

const BASE: Group = Group {
    name: "base",
    plan: Plan::ShortWindow,
    endpoints: ENDPOINTS,
    workers: 1,
    concurrency: CONCURRENCY,
    sizes: &SIZES,
    order: Order::MessagesFirst,
    prompts: Prompts::Warm,
    cases: &ALL_CASES,
};

/// The groups, in the order of the report.
const GROUPS: [Group; 12] = [
    BASE,
    Group {
        name: "cold prompts",
        prompts: Prompts::Cold,
        cases: &COMPARED,
        ..BASE
    },
    Group {
        name: "model first",
        order: Order::ModelFirst,
        sizes: &SHORT_AND_MIDDLE,
        cases: &WASM_ONLY,
        ..BASE
    },
    Group {
        name: "model first, cold prompts",
        order: Order::ModelFirst,
        prompts: Prompts::Cold,
        sizes: &SHORT_AND_MIDDLE,
        cases: &WASM_ONLY,
        ..BASE
    },
    Group {
        name: "flow control",
        sizes: &[4],
        cases: &FLOW_CONTROL,
        ..BASE
    },
    Group {
        name: "concurrency 1",
        concurrency: 1,
        sizes: &SHORT_AND_LONG,
        cases: &WITHOUT_RING_HASH,
        ..BASE
    },
    Group {
        name: "concurrency 100",
        concurrency: 100,
        sizes: &SHORT_AND_LONG,
        cases: &WITHOUT_RING_HASH,
        ..BASE
    },
    Group {
        name: "long prompt window",
        plan: Plan::LongWindow,
        sizes: &[220, 500],
        cases: &COMPARED,
        ..BASE
    },
    Group {
        name: "asking Envoy where each route leads",
        plan: Plan::OfCluster,
        sizes: &SHORT_AND_LONG,
        cases: &WASM_ONLY,
        ..BASE
    },
    Group {
        name: "10 endpoints",
        endpoints: 10,
        sizes: &SHORT_AND_LONG,
        cases: &WITHOUT_RING_HASH,
        ..BASE
    },
    Group {
        name: "1,000 endpoints",
        endpoints: 1_000,
        sizes: &SHORT_AND_LONG,
        cases: &COMPARED,
        ..BASE
    },
    Group {
        name: "2 workers",
        workers: 2,
        sizes: &SHORT_AND_LONG,
        cases: &COMPARED,
        ..BASE
    },
];

/// Endpoints of the idle Envoys, and their polling intervals in milliseconds.
const IDLE_ENDPOINTS: [usize; 3] = [10, 100, 1_000];
const IDLE_INTERVALS_MS: [u64; 3] = [50, 200, 1_000];

/// Whether the published run has a setting with all these cases.
#[cfg(test)]
pub fn measures(group: &str, kilobytes: usize, cases: &[&str]) -> bool {
    let group = GROUPS.iter().find(|one| one.name == group);
    group.is_some_and(|group| {
        let has = |name: &&str| group.cases.iter().any(|case| case.name() == *name);
        group.sizes.contains(&kilobytes) && cases.iter().all(has)
    })
}

/// The options of a run.
pub struct Options {
    /// How often and how long each case is measured.
    pub turns: Turns,
    /// An Endpoint Picker's binary.
    pub picker: Option<String>,
    /// Only the groups whose name contains this, and none of the rest.
    pub only: Option<String>,
}

/// Runs all groups.
pub async fn run(options: &Options) -> Result<Run, BoxError> {
    raise_limits()?;
    let mut run = Run {
        machine: machine::facts(options.picker.as_deref())?,
        load_average: match options.only {
            // A part is for development.
            Some(_) => machine::load_average()?,
            None => machine::await_idle()?,
        },
        cells: Vec::new(),
        paced: Vec::new(),
        idle: Vec::new(),
        footprint: Vec::new(),
        inside: Vec::new(),
    };
    let wanted = |name: &str| {
        options
            .only
            .as_ref()
            .is_none_or(|only| name.contains(only.as_str()))
    };
    for group in GROUPS.iter().filter(|group| wanted(group.name)) {
        measure_group(group, options, &mut run).await?;
    }
    if wanted("idle") {
        for endpoints in IDLE_ENDPOINTS {
            let plain = Some(idle_plain(endpoints).await?);
            for interval_ms in IDLE_INTERVALS_MS {
                run.idle
                    .push(idle(endpoints, interval_ms, plain, options).await?);
            }
        }
    }
    Ok(run)
}

/// Raises the limit of open files: a thousand servers with a few connections each exceed the default.
fn raise_limits() -> Result<(), BoxError> {
    use rustix::process::{getrlimit, setrlimit, Resource};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

/// Starts an Envoy; one that is to have one core, once on all before, and only to take the time.
async fn start(setup: &Setup<'_>) -> Result<Proxy, BoxError> {
    let on_all = match setup.workers {
        1 => Some(Proxy::start_on(ALL_CORES, setup).await?.start),
        _ => None,
    };
    let mut proxy = Proxy::start(setup).await?;
    proxy.start_on_all = on_all;
    Ok(proxy)
}

async fn measure_group(group: &Group, options: &Options, run: &mut Run) -> Result<(), BoxError> {
    let servers = sink::listen(group.endpoints).await?;
    let picker = match &options.picker {
        Some(binary) if group.cases.contains(&Case::Epp) => {
            // The filter's default interval; the Endpoint Picker's is 50 ms.
            Some(Picker::start(binary, &servers, &Plan::LongWindow.document()?, 200).await?)
        }
        _ => None,
    };
    let config = group.plan.text()?;
    let mut proxies = Vec::new();
    let cases = group.cases.iter();
    for case in cases.filter(|case| **case != Case::Epp || picker.is_some()) {
        let setup = Setup {
            case: case.clone(),
            servers: &servers,
            config: &config,
            workers: group.workers,
            picker: picker.as_ref().map(|picker| picker.port),
        };
        proxies.push(start(&setup).await?);
    }
    tokio::time::sleep(WARM_UP).await;
    for kilobytes in group.sizes {
        eprintln!("» {}: {kilobytes} KB", group.name);
        let mut source = Source::new(kilobytes * 1024, group.order, group.prompts);
        let pace = Pace::Closed(group.concurrency);
        let turns = options.turns;
        let all: Vec<&Proxy> = proxies.iter().collect();
        let cases = measure::cases(&all, picker.as_ref(), pace, turns, &mut source).await?;
        run.cells.push(cell(group, *kilobytes, turns, cases));
    }
    if group.name == BASE.name {
        paced(&proxies, picker.as_ref(), options, run).await?;
    }
    for proxy in proxies.iter().filter(|proxy| proxy.name == "epp-wasm") {
        // Statistics are published once a second.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        run.inside.push(Inside {
            group: group.name.to_owned(),
            endpoints: group.endpoints,
            schedule: quantiles(proxy.admin, "llm_d_epp_scheduler_e2e_duration_seconds").await?,
            look_up: quantiles(proxy.admin, "epp_wasm_prefix_lookup_duration_seconds").await?,
        });
    }
    for proxy in &proxies {
        run.footprint.push(Footprint {
            group: group.name.to_owned(),
            name: proxy.name.clone(),
            endpoints: group.endpoints,
            workers: group.workers,
            start_ms: proxy.start.as_secs_f64() * 1e3,
            start_on_all_ms: proxy.start_on_all.map(|start| start.as_secs_f64() * 1e3),
            resident_mib: proxy.resident_kib()? as f64 / 1024.0,
        });
    }
    Ok(())
}

async fn paced(
    proxies: &[Proxy],
    picker: Option<&Picker>,
    options: &Options,
    run: &mut Run,
) -> Result<(), BoxError> {
    for (kilobytes, rate) in RATES {
        eprintln!("» open loop: {kilobytes} KB, {rate} requests/s");
        let mut source = Source::new(kilobytes * 1024, BASE.order, BASE.prompts);
        // The Endpoint Picker cannot keep up with these rates on a core that it shares.
        let own: Vec<&Proxy> = proxies.iter().filter(|proxy| proxy.name != "epp").collect();
        let cases = measure::cases(&own, picker, Pace::Rate(rate), options.turns, &mut source);
        run.paced.push(Paced {
            kilobytes,
            endpoints: ENDPOINTS,
            rate,
            cases: cases.await?,
        });
    }
    Ok(())
}

fn cell(group: &Group, kilobytes: usize, turns: Turns, cases: Vec<crate::result::Case>) -> Cell {
    Cell {
        group: group.name.to_owned(),
        plan: group.plan.name().to_owned(),
        endpoints: group.endpoints,
        workers: group.workers,
        concurrency: group.concurrency,
        kilobytes,
        order: group.order.name().to_owned(),
        prompts: group.prompts.name().to_owned(),
        slices: turns.slices,
        slice_ms: turns.length.as_millis() as u64,
        cases,
    }
}

/// Returns the busy cores of an Envoy that has neither requests nor a filter.
async fn idle_plain(endpoints: usize) -> Result<f64, BoxError> {
    let servers = sink::listen(endpoints).await?;
    let setup = Setup {
        case: Case::Plain,
        servers: &servers,
        config: "",
        workers: 1,
        picker: None,
    };
    let proxy = Proxy::start(&setup).await?;
    tokio::time::sleep(WARM_UP).await;
    idle::cores(|| proxy.cpu(), IDLE_TIME).await
}

/// Measures an idle Envoy with the filter; `plain_cores` is what one without takes.
async fn idle(
    endpoints: usize,
    interval_ms: u64,
    plain_cores: Option<f64>,
    options: &Options,
) -> Result<Idle, BoxError> {
    eprintln!("» idle: {endpoints} endpoints every {interval_ms} ms");
    let servers = sink::listen(endpoints).await?;
    let source = format!(
        "\n- {{type: metrics-data-source, parameters: {{interval: {interval_ms}ms}}}}\nschedulingProfiles:"
    );
    let config = Plan::ShortWindow
        .text()?
        .replacen("\nschedulingProfiles:", &source, 1);
    let setup = Setup {
        case: Case::EppWasm,
        servers: &servers,
        config: &config,
        workers: 1,
        picker: None,
    };
    let mut result = {
        let proxy = Proxy::start(&setup).await?;
        tokio::time::sleep(IDLE_WARM_UP).await;
        idle::watch(&proxy, endpoints, interval_ms, plain_cores, IDLE_TIME).await?
    };
    // With one number of endpoints only: for a thousand it would need more than its core.
    if let Some(binary) = options.picker.as_ref().filter(|_| endpoints == ENDPOINTS) {
        let picker =
            Picker::start(binary, &servers, &Plan::LongWindow.document()?, interval_ms).await?;
        result.picker_cores = Some(idle::cores(|| picker.cpu(), IDLE_TIME).await?);
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `make balancing`.
    const BALANCING: Duration = Duration::from_secs(8 * 60);
    /// The slowest start of an Envoy on one core.
    const START: Duration = Duration::from_secs(1);

    #[test]
    fn a_published_run_takes_forty_minutes_at_the_most() {
        let slice = measure::SETTLE_TIME + Duration::from_millis(SLICE_MS);
        let row = slice * (SLICES as u32 + 1);
        let group = |group: &Group| {
            let own = group.cases.iter().filter(|case| **case != Case::Epp);
            let cases = own.count() as u32;
            WARM_UP + cases * (2 * START + row * group.sizes.len() as u32)
        };
        let loads: Duration = GROUPS.iter().map(group).sum();
        let paced = row * (RATES.len() * (ALL_CASES.len() - 1)) as u32;
        let plain = START + WARM_UP + IDLE_TIME;
        let own = (START + IDLE_WARM_UP + IDLE_TIME) * IDLE_INTERVALS_MS.len() as u32;
        let idle = (plain + own) * IDLE_ENDPOINTS.len() as u32;
        let total = loads + paced + idle + BALANCING;
        assert!(total < Duration::from_secs(40 * 60), "{total:?}");
    }
}

//! Simulates the ticks of workers: the bytes and the CPU time per second that sharing takes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use epp_core::body::SliceBody;
use epp_core::config;
use epp_core::picker::{ExchangeId, Head, Picker};
use epp_core::time::Timestamp;
use epp_sync::{InProcess, Sharing, Store};

use crate::BoxError;

/// Requests per second, over all workers.
const RATE: usize = 1_000;

/// Ticks of 50 ms that are measured, after the same number to warm up.
const TICKS: usize = 100;
const TICKS_PER_SECOND: usize = 20;
/// Exchanges of in-flight counts per tick, as in the filter; the last one is the tick itself.
const EXCHANGES_PER_TICK: u64 = 5;

/// Endpoints in the pool.
const ENDPOINTS: usize = 100;

/// The simulated clock, in nanoseconds.
static NOW: AtomicU64 = AtomicU64::new(1_700_000_000_000_000_000);

fn now() -> Timestamp {
    Timestamp::from_nanos(NOW.load(Ordering::Relaxed))
}

/// Shared data in one process. It counts reads and writes of placements, in-flight requests and handovers, but
/// not those of snapshots and ejections, which are published in any case.
#[derive(Default)]
struct Memory {
    values: InProcess,
    bytes: usize,
    calls: usize,
}

impl Store for Memory {
    fn get(&mut self, key: &str) -> Option<(Vec<u8>, u32)> {
        let found = self.values.get(key);
        self.count(key, found.as_ref().map_or(0, |(value, _)| value.len()));
        found
    }

    fn set(&mut self, key: &str, value: &[u8], cas: Option<u32>) -> bool {
        self.count(key, value.len());
        self.values.set(key, value, cas)
    }
}

impl Memory {
    fn count(&mut self, key: &str, bytes: usize) {
        if key.contains("/worker/") || key.contains("/index") {
            self.calls += 1;
            self.bytes += bytes;
        }
    }
}

/// The prompts of the requests.
#[derive(Clone, Copy)]
enum Prompts {
    /// Turns of 500 conversations of 24 KB: five of up to a hundred blocks are new.
    Turns,
    /// 64 KB of a new prompt: 256 blocks, all new.
    Cold,
}

impl Prompts {
    fn body(self, number: usize) -> String {
        let text = |seed: usize, bytes: usize| {
            let mut rng = fastrand::Rng::with_seed(seed as u64);
            (0..bytes).map(|_| rng.lowercase()).collect::<String>()
        };
        let prompt = match self {
            Self::Turns => {
                let (conversation, turn) = (number % 500, number / 500 % 20);
                text(conversation, 1_200 * (turn + 1))
            }
            Self::Cold => text(number, 64 << 10),
        };
        format!("{{\"model\": \"m\", \"prompt\": \"{prompt}\"}}")
    }
}

fn document(share: bool) -> String {
    let endpoints = (0..ENDPOINTS).map(|number| {
        format!(
            "{{name: p{number}, address: 10.0.0.{}, port: 80}}",
            number + 1
        )
    });
    let endpoints: Vec<String> = endpoints.collect();
    format!(
        "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{{type: prefix-cache-scorer}}, {{type: active-request-scorer}},
  {{name: pods, type: static-discovery, parameters: {{endpoints: [{}]}}}},
  {{type: envoy-proxy, parameters: {{shareState: {share}}}}}]
schedulingProfiles: [{{name: default, plugins: [{{pluginRef: prefix-cache-scorer, weight: 3}}, {{pluginRef: active-request-scorer}}]}}]
dataLayer: {{discovery: {{pluginRef: pods}}}}
",
        endpoints.join(", ")
    )
}

/// A VM: its picker, and the sharing beside it.
struct Vm {
    picker: Picker,
    sharing: Sharing,
}

impl Vm {
    fn tick(&mut self, memory: &mut Memory) {
        self.sharing.before_tick(&mut self.picker, memory);
        self.picker.tick(now());
        self.sharing.after_tick(&mut self.picker, memory, now());
    }
}

/// The cost of some ticks.
struct Cost {
    ticks: Duration,
    bytes: usize,
    calls: usize,
}

/// Runs this many workers and the VM of the main thread.
fn simulate(workers: usize, share: bool, prompts: Prompts) -> Result<Cost, BoxError> {
    let loaded = config::load(&document(share)).map_err(|rejected| format!("{rejected:?}"))?;
    let mut memory = Memory::default();
    let mut vms: Vec<Vm> = (0..=workers as u64)
        .map(|seed| {
            let mut picker = Picker::new(loaded.plan.clone(), seed + 1);
            let mut sharing = Sharing::new("cost", loaded.plan.cluster(), seed + 1);
            sharing.join(&mut picker, &mut memory, now());
            Vm { picker, sharing }
        })
        .collect();
    let mut cost = Cost {
        ticks: Duration::ZERO,
        bytes: 0,
        calls: 0,
    };
    let mut number = 0;
    for tick in 0..2 * TICKS {
        for exchange in 1..=EXCHANGES_PER_TICK {
            NOW.fetch_add(50_000_000 / EXCHANGES_PER_TICK, Ordering::Relaxed);
            for _ in 0..RATE / TICKS_PER_SECOND / EXCHANGES_PER_TICK as usize {
                serve(&mut vms, number, prompts);
                number += 1;
            }
            let before = (memory.bytes, memory.calls);
            let started = Instant::now();
            for vm in &mut vms {
                if exchange == EXCHANGES_PER_TICK {
                    vm.tick(&mut memory);
                } else if vm.sharing.wants_fast_exchange(&mut vm.picker) {
                    vm.sharing.exchange_in_flight(&mut vm.picker, &mut memory);
                }
            }
            if tick >= TICKS {
                cost.ticks += started.elapsed();
                cost.bytes += memory.bytes - before.0;
                cost.calls += memory.calls - before.1;
            }
        }
    }
    Ok(cost)
}

/// Sends a request to one of the workers, and ends the one of half a second before, so that about 500 are
/// in flight.
fn serve(vms: &mut [Vm], number: usize, prompts: Prompts) {
    let workers = vms.len() - 1;
    let body = prompts.body(number);
    let head = Head::post_json("/v1/completions", Some(body.len()));
    if let Some(vm) = vms.get_mut(1 + number % workers) {
        let id = ExchangeId(number as u32);
        vm.picker.request_headers(now(), id, &head);
        let mut body = SliceBody::whole(body.as_bytes());
        vm.picker.request_body(now(), id, &mut body);
        while vm.picker.poll_effect().is_some() {}
    }
    if let Some(done) = number.checked_sub(RATE / 2) {
        if let Some(vm) = vms.get_mut(1 + done % workers) {
            vm.picker.closed(now(), ExchangeId(done as u32));
        }
    }
}

/// Prints the table.
pub fn run() -> Result<(), BoxError> {
    println!("| workers | prompts | MB a second | calls a second | CPU ms a second, all VMs | per worker |");
    println!("|---|---|---|---|---|---|");
    let seconds = (TICKS / TICKS_PER_SECOND) as f64;
    for workers in [1, 4, 16] {
        for (name, prompts) in [("turns", Prompts::Turns), ("cold", Prompts::Cold)] {
            let on = simulate(workers, true, prompts)?;
            let off = simulate(workers, false, prompts)?;
            let cpu = on.ticks.saturating_sub(off.ticks).as_secs_f64() * 1e3 / seconds;
            let per_second = |count: usize| count as f64 / seconds;
            println!(
                "| {workers} | {name} | {:.2} | {:.0} | {cpu:.1} | {:.2} |",
                per_second(on.bytes) / 1e6,
                per_second(on.calls),
                cpu / (workers + 1) as f64
            );
        }
    }
    Ok(())
}

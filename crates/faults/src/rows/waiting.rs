//! Faults while requests wait under flow control.
//!
//! The load is a quarter more than the pods can take, so that requests of two bands and two tenants wait when the fault
//! begins. Whatever breaks, each is answered before it expires, none is computed twice without need, and nothing is
//! left of it in the counters.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use envoy_harness::client::send;
use envoy_harness::proxy::Proxy;
use fake_model_server::{Settings, Sim};
use serde_json::json;

use super::{Form, Row};
use crate::load::{Header, Load, Mix, Outcome, Sent};
use crate::stage::{Ended, Plan, Stage};
use crate::verdict::{Bar, Measured};

/// The rows, in the order of the table.
pub const ROWS: &[Row] = &[
    Row {
        name: "waiting, pod killed",
        what: "1 of 4 pods is gone for 3 s while requests wait under flow control: its connections are cut, new ones refused",
        epp: "not measured",
        play: pod_killed,
    },
    Row {
        name: "waiting, pool emptied",
        what: "all 4 pods leave the pool while requests wait, exit 0.5 s later, and return after 3 s",
        epp: "not measured",
        play: pool_emptied,
    },
    Row {
        name: "waiting, pods killed",
        what: "all 4 pods die while requests wait, leave the pool 0.5 s later, and return after 3 s",
        epp: "not measured",
        play: pods_killed,
    },
    Row {
        name: "waiting, pool flapping",
        what: "the pool is empty for half of every 0.6 s while requests wait, for 6 s",
        epp: "not measured",
        play: pool_flapping,
    },
    Row {
        name: "waiting, config updated",
        what: "while requests wait, the time that they may wait is changed twice, and flow control is switched off",
        epp: "not measured; it reads its configuration only when it starts",
        play: config_updated,
    },
    Row {
        name: "waiting, trap",
        what: "the module executes `unreachable` in a tick of 1 of 2 workers while requests wait in both",
        epp: "not measured",
        play: trap,
    },
    Row {
        name: "waiting, worker stuck",
        what: "1 of 2 workers does nothing for 3 s while requests of the higher priority wait in both",
        epp: "not applicable: it has no workers",
        play: worker_stuck,
    },
    Row {
        name: "waiting, clients leave",
        what: "while requests wait, 40 more per second come for 4 s whose clients leave after 0.2 s",
        epp: "not measured",
        play: clients_leave,
    },
    Row {
        name: "waiting, hot restart",
        what: "a second Envoy process takes over while requests wait in the first, which drains for 12 s and exits after 13 s: \
            longer than a request waits",
        epp: "not applicable: it is a separate process",
        play: hot_restart,
    },
];

/// Requests that each pod runs at once, and is sent.
const PLACES: usize = 4;

/// The time that a pod takes for each: 4 pods take 80 per second.
const SERVICE: Duration = Duration::from_millis(200);

/// How long a request may wait.
const TTL: Duration = Duration::from_secs(10);

/// How much later than after [`TTL`] and its service a request is answered on a busy machine. Clients leave then: a request
/// that hangs has failed.
const LATE: Duration = Duration::from_secs(2);

/// The bar for recovery.
const MAX_RECOVERY: Duration = Duration::from_millis(500);

/// Returns a document with flow control.
pub fn document(places: usize, ttl: Duration) -> String {
    format!(
        "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
featureGates: [flowControl]
plugins:
- {{type: active-request-scorer}}
- {{type: concurrency-detector, parameters: {{maxConcurrency: {places}}}}}
- {{type: round-robin-fairness-policy}}
- type: static-objectives
  parameters: {{objectives: [{{name: high, priority: 10}}]}}
schedulingProfiles: [{{name: default, plugins: [{{pluginRef: active-request-scorer}}]}}]
flowControl:
  saturationDetector: {{pluginRef: concurrency-detector}}
  defaultRequestTTL: {ttl:?}
  defaultPriorityBand: {{fairnessPolicyRef: round-robin-fairness-policy}}
"
    )
}

/// The band or tenant of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The higher priority.
    High,
    /// The tenant that sends more.
    A,
    /// The other one.
    B,
}

/// Returns the class of a request by its number: of eight, one is of the higher priority, four and three are the
/// tenants'.
pub fn class(number: u64) -> Class {
    match number % 8 {
        0 => Class::High,
        1 | 3 | 5 | 7 => Class::A,
        _ => Class::B,
    }
}

/// Returns the headers of a request by its number.
pub fn headers(number: u64) -> &'static [Header] {
    match class(number) {
        Class::High => &[("x-llm-d-inference-objective", "high")],
        Class::A => &[("x-llm-d-inference-fairness-id", "a")],
        Class::B => &[("x-llm-d-inference-fairness-id", "b")],
    }
}

/// Replaces the pods of a plan by others that run this many requests at once, each for this long.
pub fn with_pods(plan: &mut Plan, count: usize, places: usize, service: Duration) {
    let settings = Settings {
        max_running: places,
        base_latency: service,
        ..Settings::default()
    };
    plan.sim = Sim::start(count, &settings).unwrap();
    plan.setup.pods = plan.sim.addresses();
}

fn plan() -> Plan {
    let mut plan = Plan::new(0);
    with_pods(&mut plan, 4, PLACES, SERVICE);
    plan.setup.configs = vec![document(PLACES, TTL)];
    // A pod that is late on a busy machine is not hung.
    plan.setup.route["retry_policy"]["per_try_timeout"] = "20s".into();
    plan.mix = Mix {
        patience: TTL + LATE,
        headers,
        ..Mix::default()
    };
    plan
}

/// Starts a row. Panics unless requests wait when its fault begins.
fn start(plan: Plan) -> Stage {
    let stage = plan.start();
    stage
        .proxy
        .wait_until("requests wait", || waiting(&stage.proxy) > 0);
    stage
}

fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}

fn waiting(proxy: &Proxy) -> u64 {
    proxy.counted("llm_d_epp_flow_control_queue_size")
}

fn outcomes(proxy: &Proxy, outcome: &str) -> u64 {
    let label = format!("outcome=\"{outcome}\"");
    proxy.counted_with("llm_d_epp_flow_control_requests_total", &label)
}

/// Returns a bar for which a response is good whenever it comes before the request expires.
fn before_it_expires(mut bar: Bar) -> Bar {
    bar.fast = TTL + LATE;
    bar
}

/// Returns the bar of a pool that becomes empty this many times: some of what a worker sends before Envoy says that there is no
/// endpoint gets a 503.
fn sent_too_late(times: usize) -> Bar {
    const MAX_PER_TIME: usize = 6;
    let who = "those that the workers sent before Envoy said that it has no endpoint";
    Bar::some(MAX_PER_TIME * times, 0, who, MAX_RECOVERY)
}

/// Ends a row. `again` is how many requests may be computed twice: those that a broken pod had.
fn end(stage: Stage, bar: Bar, again: usize) -> Measured {
    let ended = stage.stop();
    let mut measured = ended.judge(before_it_expires(bar));
    let answered = ended
        .sent
        .iter()
        .filter(|sent| sent.outcome == Outcome::Succeeded);
    let longest = answered.map(|sent| sent.took).max().unwrap_or_default();
    require_each_once(&mut measured, &ended, again);
    require_nothing_left(&mut measured, &ended.proxy);
    measured.note(format!("the longest took {longest:.1?}"));
    measured
}

/// Adds a miss if a good response was computed by no pod, or more than `again` requests by more than one.
fn require_each_once(measured: &mut Measured, ended: &Ended, again: usize) {
    let mut computed: HashMap<u64, usize> = HashMap::new();
    for seen in ended.sim.pods().flat_map(|pod| pod.seen()) {
        if seen.path.ends_with("/chat/completions") {
            *computed.entry(seen.body_xxh64).or_default() += 1;
        }
    }
    let twice = computed.values().filter(|times| **times > 1).count();
    let succeeded = |sent: &&Sent| sent.outcome == Outcome::Succeeded;
    let answered = ended.sent.iter().filter(succeeded).count();
    measured.require(computed.len() >= answered, || {
        format!("{answered} good responses to {} requests", computed.len())
    });
    measured.require(twice <= again, || {
        format!("{twice} requests were computed more than once, {again} may be")
    });
    if again > 0 {
        measured.note(format!("{twice} were computed more than once"));
    }
}

/// Adds a miss if something is still counted after all requests have ended.
pub fn require_nothing_left(measured: &mut Measured, proxy: &Proxy) {
    const GAUGES: [&str; 4] = [
        "llm_d_epp_flow_control_queue_size",
        "llm_d_epp_flow_control_queue_bytes",
        "llm_d_epp_inflight_requests",
        "epp_wasm_held_requests",
    ];
    let left = || -> Vec<String> {
        let left = GAUGES.map(|name| (name, proxy.counted(name)));
        let left = left.into_iter().filter(|(_, count)| *count > 0);
        left.map(|(name, count)| format!("{name} is {count}"))
            .collect()
    };
    // Gauges are set once a second, what a VM that is lost had published counts for another one.
    let since = Instant::now();
    while !left().is_empty() && since.elapsed() < seconds(5) {
        std::thread::sleep(Duration::from_millis(100));
    }
    let left = left();
    measured.require(left.is_empty(), || {
        format!("after the last response {}", left.join(", "))
    });
    let stat = |name: &str| proxy.stat(&format!("http.e2e.{name}"));
    let (requests, responses) = (stat("downstream_rq_total"), stat("downstream_rq_completed"));
    // A process that takes over counts what the former one had counted, and part of it when that ends.
    let taken_over = proxy.setup.base_id.is_some();
    measured.require(taken_over || responses <= requests, || {
        format!("{responses} responses to {requests} requests")
    });
}

fn pod_killed(_: &Form) -> Measured {
    let mut stage = start(plan());
    stage.allow_loss_on(0);
    let again = stage.may_be_lost();
    stage.sim.stop(0);
    stage.run(seconds(3));
    stage.sim.restart(0).unwrap();
    stage.run(seconds(1));
    end(stage, Bar::begun(MAX_RECOVERY), again)
}

fn pool_emptied(_: &Form) -> Measured {
    let mut stage = start(plan());
    let pods = stage.sim.addresses();
    stage.proxy.set_pods(&[]);
    stage.run(Duration::from_millis(500));
    (0..pods.len()).for_each(|pod| stage.sim.stop(pod));
    stage.run(Duration::from_millis(2_500));
    let waited = waiting(&stage.proxy);
    (0..pods.len()).for_each(|pod| stage.sim.restart(pod).unwrap());
    stage.proxy.set_pods(&pods);
    stage.run(seconds(1));
    let mut measured = end(stage, sent_too_late(1), 0);
    measured.note(format!("{waited} waited for the pool"));
    measured
}

fn pods_killed(_: &Form) -> Measured {
    let mut stage = start(plan());
    let pods = stage.sim.addresses();
    (0..pods.len()).for_each(|pod| {
        stage.allow_loss_on(pod);
        stage.sim.stop(pod);
    });
    stage.run(Duration::from_millis(500));
    stage.proxy.set_pods(&[]);
    stage.run(Duration::from_millis(2_500));
    (0..pods.len()).for_each(|pod| stage.sim.restart(pod).unwrap());
    stage.proxy.set_pods(&pods);
    stage.run(seconds(1));
    let lost = stage.may_be_lost();
    let who = "those that were sent until discovery found the pool empty";
    end(stage, Bar::some(200, lost, who, seconds(2)), lost)
}

fn pool_flapping(_: &Form) -> Measured {
    const TIMES: usize = 10;
    let mut plan = plan();
    // The time with endpoints and the time without count apart.
    plan.mix.patience = 2 * TTL + LATE;
    let mut stage = start(plan);
    let pods = stage.sim.addresses();
    for _ in 0..TIMES {
        stage.proxy.set_pods(&[]);
        stage.run(Duration::from_millis(300));
        stage.proxy.set_pods(&pods);
        stage.run(Duration::from_millis(300));
    }
    stage.recovery_counts();
    stage.run(seconds(1));
    end(stage, sent_too_late(TIMES), 0)
}

fn config_updated(_: &Form) -> Measured {
    let mut plan = plan();
    // Connections of a replaced listener are cut after it, also those of requests that wait.
    plan.setup.drain_seconds = 20;
    let mut stage = start(plan);
    for ttl in [20, 15] {
        stage.proxy.set_config(&document(PLACES, seconds(ttl)));
        stage.run(seconds(1));
    }
    let waited = waiting(&stage.proxy);
    let off = document(PLACES, TTL).replace("[flowControl]", "[]");
    stage.proxy.set_config(&off);
    stage.run(seconds(2));
    let updates = stage.proxy.stat("listener_manager.lds.update_success");
    let left = waiting(&stage.proxy);
    let mut measured = end(stage, Bar::none(MAX_RECOVERY), 0);
    measured.require(updates == 4, || format!("{updates} updates were accepted"));
    measured.require(waited > 0 && left == 0, || {
        format!("{waited} waited before flow control was switched off, {left} after it")
    });
    measured.note(format!(
        "{waited} waited when flow control was switched off"
    ));
    measured
}

/// Injects a fault with a request that does not count, and may get no response.
fn inject(stage: &Stage, fault: &'static str) {
    let body = json!({"model": "demo", "max_tokens": 1,
        "messages": [{"role": "user", "content": "strike"}]});
    let headers = [
        ("content-type", "application/json"),
        ("x-epp-fault", fault),
        ("x-llm-d-inference-objective", "high"),
    ];
    let (port, body) = (stage.proxy.port, body.to_string());
    std::thread::spawn(move || send(port, "POST", "/v1/completions", &headers, body.as_bytes()));
}

/// Requests that arrive at a worker until its VM is recreated, and wait for that.
const MAX_BEFORE_RECREATED: usize = 20;

fn trap(_: &Form) -> Measured {
    let mut plan = plan();
    plan.setup.module = plan.setup.host.faulty_file();
    // Those that the lost VM had get no response.
    plan.mix.patience = seconds(6);
    let mut stage = start(plan);
    (0..4).for_each(|pod| stage.allow_loss_on(pod));
    let in_flight = stage.may_be_lost();
    let had = waiting(&stage.proxy) as usize + in_flight;
    inject(&stage, "trap@tick");
    stage.run(seconds(4));
    let reloaded = stage.proxy.stat_so_far("wasm.epp0.vm_reload_success");
    let who = "those that waited or were in flight in the worker: they hang until their clients leave, here after 6 s; and those \
        that arrived before its VM was recreated";
    let bar = Bar::some(had + MAX_BEFORE_RECREATED, in_flight, who, seconds(2));
    let mut measured = end(stage, bar, 0);
    measured.require(reloaded == 1, || format!("{reloaded} VMs were recreated"));
    measured
}

/// Requests that one worker sends at least while the other is stuck for 3 s.
const MIN_MEANWHILE: usize = 40;

fn worker_stuck(_: &Form) -> Measured {
    let mut plan = plan();
    plan.setup.module = plan.setup.host.faulty_file();
    let stage = start(plan);
    let computed = |stage: &Stage| -> usize { stage.sim.pods().map(|pod| pod.seen().len()).sum() };
    let before = computed(&stage);
    inject(&stage, "stall@request_headers");
    stage.run(seconds(3));
    let meanwhile = computed(&stage) - before;
    stage.run(seconds(1));
    let mut measured = end(stage, Bar::none(MAX_RECOVERY), 0);
    // A worker's share of the places is 8, each for 0.2 s; what the stuck one had in flight keeps its own.
    measured.require(meanwhile >= MIN_MEANWHILE, || {
        format!("the other worker sent only {meanwhile} requests meanwhile")
    });
    measured.note(format!("{meanwhile} were sent meanwhile"));
    measured
}

fn clients_leave(_: &Form) -> Measured {
    let stage = start(plan());
    let impatient = Mix {
        rate: 40,
        // Bodies of their own.
        prompt: 1_000,
        patience: Duration::from_millis(200),
        ..stage.mix()
    };
    let leaving = Load::start(stage.proxy.port, impatient).unwrap();
    stage.run(seconds(4));
    let left = leaving.stop();
    stage.run(seconds(1));
    let cancelled = outcomes(&stage.proxy, "EvictedContextCancelled");
    let mut measured = end(stage, Bar::none(MAX_RECOVERY), 0);
    measured.require(cancelled > 0, || "none left the queue".to_owned());
    measured.note(format!("{cancelled} of {} left the queue", left.len()));
    measured
}

fn hot_restart(_: &Form) -> Measured {
    let mut plan = plan();
    // Envoys share memory by base id; other Envoys on this machine have smaller ids.
    plan.setup.base_id = Some(std::process::id());
    plan.setup.drain_seconds = TTL.as_secs() as u32 + 2;
    let mut stage = start(plan);
    let first = stage.proxy.process();
    stage.proxy.replace_process();
    let ended = (0..400).any(|_| {
        stage.run(Duration::from_millis(100));
        stage.proxy.ended_process(first)
    });
    let mut measured = end(stage, Bar::none(seconds(1)), 0);
    measured.require(ended, || "the first process still runs".to_owned());
    measured
}

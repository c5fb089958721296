//! Hostile clients: each row is the crafted worst case of one kind of attack on a pool that serves others.

use std::time::Duration;

use bytes::Bytes;
use envoy_harness::traffic::Http;
use fake_model_server::Faults;
use properties::collisions;
use serde::Serialize;
use serde_json::json;

use super::{Form, Row};
use crate::attack::{Attack, Unfinished, STREAMS_PER_CONNECTION};
use crate::others::{affinity, Others};
use crate::stage::{Plan, Stage};
use crate::verdict::{Bar, Measured};

/// The rows, in the order of the table.
pub const ROWS: &[Row] = &[
    Row {
        name: "colliding texts",
        what: "a client sends, one after the other, bodies of 2,000 and 60,000 texts whose hashes all fall into one bucket of an unkeyed prefix index; before that, the same with random texts",
        epp: "not measured",
        play: texts,
    },
    Row {
        name: "colliding blocks",
        what: "the same with the Endpoint Picker's first configuration: 60 prompts of 256 blocks of 5 bytes",
        epp: "not measured",
        play: blocks,
    },
    Row {
        name: "unfinished bodies",
        what: "1,500 requests stop after 170 KB of `<` or 264 KB of short strings in `tools`",
        epp: "not measured",
        play: |form| unfinished(form, Http::One),
    },
    Row {
        name: "unfinished bodies, HTTP/2",
        what: "the same over 15 connections",
        epp: "not measured",
        play: |form| unfinished(form, Http::Two),
    },
    Row {
        name: "a prompt that breaks pods",
        what: "2 clients repeat one prompt that all 4 pods reject with 500; they serve everything else",
        epp: "not applicable: it does not monitor responses",
        play: broken,
    },
    Row {
        name: "half-open requests",
        what: "the first requests that Envoy gets are 12 whose bodies never begin",
        epp: "not measured",
        play: |_| half_open(),
    },
    Row {
        name: "slow bodies",
        what: "2,300 requests send a byte of their body every 3.5 s",
        epp: "not measured",
        play: |_| slow(Http::One),
    },
    Row {
        name: "slow bodies, HTTP/2",
        what: "the same over 23 connections",
        epp: "not measured",
        play: |_| slow(Http::Two),
    },
];

/// Four healthy pods, with long timeouts: a machine that is busy with an attack must not look like a hung pod.
fn plan() -> Plan {
    let mut plan = Plan::new(4);
    plan.setup.route["retry_policy"]["per_try_timeout"] = "20s".into();
    plan.setup.cluster["connect_timeout"] = "5s".into();
    // Some streams are under way at any time.
    plan.mix.rate = 40;
    plan
}

/// The bar for other clients: none of their requests fails. Their responses are slower while an attacker uses
/// a part of two cores; the rows with a control measure by how much.
fn served() -> Bar {
    let mut bar = Bar::none(Duration::from_secs(5));
    bar.fast = Duration::from_secs(10);
    bar
}

/// The greatest ratio to the control, which sends random texts: of the time that others wait, and of the
/// time that a request of the attack takes.
const MAX_RATIO: f64 = 2.0;

/// The longest response time of Envoy's main thread, which also makes health checks and loads
/// configurations: a liveness probe that waits longer restarts the pod.
const MAX_MAIN_THREAD_DELAY: Duration = Duration::from_secs(1);

/// The duration of each side of a comparison.
const SIDE_LENGTH: Duration = Duration::from_secs(10);

/// A completion's body, with one prompt or a list of prompts.
fn completion(prompt: impl Serialize) -> Bytes {
    json!({"model": "demo", "max_tokens": 1, "prompt": prompt})
        .to_string()
        .into()
}

fn random(random: &mut fastrand::Rng, length: usize) -> String {
    (0..length).map(|_| random.lowercase()).collect()
}

fn texts(form: &Form) -> Measured {
    const TEXTS: usize = 60_000;
    /// Texts of a short body: many of these make up for a bound on the length of a list.
    const PART: usize = 2_000;
    let bodies = |texts: &[String]| {
        let parts = texts.chunks(PART).map(completion);
        parts.chain([completion(texts)]).collect()
    };
    let mut rng = fastrand::Rng::with_seed(1);
    let control: Vec<String> = (0..TEXTS).map(|_| random(&mut rng, 8)).collect();
    let crafted = collisions::strings("demo", collisions::BITS, TEXTS);
    compare(plan(), form, bodies(&control), bodies(&crafted))
}

fn blocks(form: &Form) -> Measured {
    const PROMPTS: u64 = 60;
    const BLOCKS: usize = 256;
    const BYTES: usize = 5;
    /// 15,360 blocks are too few for a table of more buckets.
    const BITS: u32 = 14;
    // This configuration reads a text, not a list of them.
    let one = |text: String| completion(&text);
    let mut rng = fastrand::Rng::with_seed(1);
    let control = (0..PROMPTS).map(|_| one(random(&mut rng, BYTES * BLOCKS)));
    let crafted =
        (0..PROMPTS).map(|number| one(collisions::prompt("demo", BYTES, BLOCKS, BITS, number)));
    let mut plan = plan();
    plan.setup.configs = vec![include_str!("../../../../examples/gie.yaml").to_owned()];
    let (control, crafted) = (control.collect(), crafted.collect());
    compare(plan, form, control, crafted)
}

/// Measures the effect on others of two clients that send crafted bodies, and of the same clients with the
/// control's bodies.
fn compare(plan: Plan, form: &Form, control: Vec<Bytes>, crafted: Vec<Bytes>) -> Measured {
    let stage = plan.start();
    let side = |bodies: Vec<Bytes>| {
        let others = Others::start(&stage.proxy);
        let attack = Attack::new(stage.proxy.port);
        attack.repeat("/v1/completions", bodies.clone(), Duration::ZERO);
        attack.repeat("/v1/completions", bodies, Duration::ZERO);
        stage.run(if form.short {
            SIDE_LENGTH / 3
        } else {
            SIDE_LENGTH
        });
        let sent = attack.ended();
        drop(attack);
        (others.stop(), sent)
    };
    let (usual, usually_sent) = side(control);
    let (seen, sent) = side(crafted);
    let mut measured = stage.end(served());
    let ratio = seen.p99.as_secs_f64() / usual.p99.as_secs_f64();
    // A 99th percentile of a few seconds on a busy machine says little.
    measured.require(form.short || ratio <= MAX_RATIO, || {
        format!(
            "p99 of others {:?}, {ratio:.1} times the control's {:?}",
            seen.p99, usual.p99
        )
    });
    measured.require(sent as f64 * MAX_RATIO >= usually_sent as f64, || {
        format!("{sent} attacks got responses, {usually_sent} of the control")
    });
    measured.require(seen.admin <= MAX_MAIN_THREAD_DELAY, || {
        format!("the admin interface took {:?}", seen.admin)
    });
    measured.note(format!(
        "p99 of others {:.0} ms, the control's {:.0} ms; the admin interface took at most {:.0} ms; \
         {sent} attacks with responses, {usually_sent} of the control",
        seen.p99.as_secs_f64() * 1e3,
        usual.p99.as_secs_f64() * 1e3,
        seen.admin.as_secs_f64() * 1e3,
    ));
    measured
}

/// The bound on a VM's memory in docs/architecture.md: 64 MiB for the index and 192 MiB for the rest.
const MAX_VM_MEMORY: u64 = 256 << 20;

/// Returns the memory of the largest VM.
fn memory(stage: &Stage) -> u64 {
    let metric = "epp_wasm_vm_memory_bytes{";
    let text = stage.proxy.prometheus();
    let values = text.lines().filter(|line| line.starts_with(metric));
    values
        .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
        .max()
        .unwrap()
}

/// A chat that ends within its `tools`, after `begin` and repetitions of `filling`.
fn tools(begin: &str, filling: &str, times: usize) -> Unfinished {
    let text = format!(
        r#"{{"model":"demo","tools":[{begin}{}"#,
        filling.repeat(times)
    );
    Unfinished {
        begin: text.into(),
        ..Unfinished::default()
    }
}

fn unfinished(form: &Form, http: Http) -> Measured {
    let count = if form.short { 900 } else { 1_500 };
    // `<` is written with six bytes where it is hashed; a short string takes more than its bytes.
    let bodies = [tools("\"", "<", 170_000), tools("", "\"a\",", 66_000)];
    let stage = plan().start();
    let before = memory(&stage);
    let attack = Attack::new(stage.proxy.port);
    let most = fill(&stage, count, || {
        attack.hold(STREAMS_PER_CONNECTION, http, &bodies)
    });
    drop(attack);
    stage.run(Duration::from_secs(2));
    let reloads = stage.proxy.stat_so_far("wasm.epp0.vm_reload_success");
    let trapped = stage.proxy.logged().contains("Uncaught RuntimeError");
    let (kept, sent) = affinity(&stage.proxy);
    let mut measured = stage.end(served());
    measured.require(reloads == 0 && !trapped, || {
        format!("the module trapped, {reloads} VMs were reloaded")
    });
    measured.require(most <= MAX_VM_MEMORY, || {
        format!("a VM had {} MiB", most >> 20)
    });
    require_affinity(&mut measured, "afterwards", kept, sent);
    measured.note(format!(
        "the largest VM grew from {} to {} MiB",
        before >> 20,
        most >> 20
    ));
    measured
}

/// Begins this many requests, [`STREAMS_PER_CONNECTION`] at a time. Returns the most memory that a VM reported.
///
/// The next ones begin when Envoy has received the earlier ones: uploads that a busy machine cannot keep up
/// with would delay others, which is not what this row measures.
fn fill(stage: &Stage, count: usize, begin: impl Fn()) -> u64 {
    const SAMPLE: Duration = Duration::from_millis(100);
    /// Envoy has received the bodies when less than this arrives between two samples: a tenth of 100 bodies.
    const FEW_BYTES: u64 = 1 << 20;
    /// Samples after the last request. The metric is reported once a second by one of the workers: within
    /// four seconds both have.
    const SAMPLES_AFTER: u32 = 40;
    let received = || stage.proxy.stat("http.e2e.downstream_cx_rx_bytes_total");
    let mut most = 0;
    let mut sample = || {
        stage.run(SAMPLE);
        most = most.max(memory(stage));
    };
    for _ in 0..count / STREAMS_PER_CONNECTION {
        begin();
        let mut last = 0;
        while received() - last > FEW_BYTES {
            last = received();
            sample();
        }
    }
    (0..SAMPLES_AFTER).for_each(|_| sample());
    most
}

/// Adds a miss unless the prompts that were sent twice went to the same pod.
fn require_affinity(measured: &mut Measured, when: &str, kept: usize, sent: usize) {
    // One of four does so by chance. Metrics that change in between may outweigh a prefix.
    let enough = sent * 9 / 10;
    let text = format!("{when}, {kept} of {sent} repeated prompts went to the same pod");
    measured.require(kept >= enough, || text.clone());
    if kept >= enough {
        measured.note(text);
    }
}

fn broken(form: &Form) -> Measured {
    let time = Duration::from_secs(if form.short { 10 } else { 20 });
    const EJECTIONS: &str = "epp_wasm_ejections_total";
    let mut plan = plan();
    // Prompts that have nothing in common spread by load alone.
    plan.mix.conversations = u64::MAX;
    let stage = plan.start();
    (0..4).for_each(|pod| {
        stage.set_faults(
            pod,
            Faults {
                status: Some(500),
                only: Some("boom".to_owned()),
                ..Faults::default()
            },
        );
    });
    stage.sim.pods().for_each(|pod| pod.forget());
    let attack = Attack::new(stage.proxy.port);
    let prompt = "the same beginning. ".repeat(100) + "boom";
    for _ in 0..2 {
        let bodies = vec![completion(&prompt)];
        attack.repeat("/v1/completions", bodies, Duration::from_millis(10));
    }
    stage.run(time);
    let sent = attack.ended();
    let ejected = stage.proxy.counted_with(EJECTIONS, "errors");
    let honest: Vec<usize> = stage
        .sim
        .pods()
        .map(|pod| {
            let seen = pod.seen();
            let chats = seen
                .iter()
                .filter(|seen| seen.path.ends_with("/chat/completions"));
            chats.count()
        })
        .collect();
    drop(attack);
    let mut measured = stage.end(served());
    let least = honest.iter().min().copied().unwrap_or_default();
    let fair = honest.iter().sum::<usize>() / honest.len();
    measured.require(least * 2 >= fair, || {
        format!("honest requests went {honest:?} to the pods")
    });
    measured.note(format!(
        "{sent} times 500; honest requests by pod: {honest:?}; endpoints were ejected {ejected} times"
    ));
    measured
}

fn half_open() -> Measured {
    let mut attack = None;
    let stage = plan().start_then(|proxy| {
        proxy.wait_until_it_serves();
        let attackers = Attack::new(proxy.port);
        let body = Unfinished {
            declared: Some(1_000),
            ..Unfinished::default()
        };
        attackers.hold(12, Http::One, &[body]);
        // Three times as long as it takes to recognise an Envoy that does not deliver bodies.
        std::thread::sleep(Duration::from_secs(1));
        attack = Some(attackers);
    });
    let reads = reads_bodies(&stage);
    let (kept, sent) = affinity(&stage.proxy);
    drop(attack);
    let mut measured = stage.end(served());
    measured.require(reads, || "epp_wasm_reads_bodies is 0".to_owned());
    require_affinity(&mut measured, "meanwhile", kept, sent);
    measured
}

fn reads_bodies(stage: &Stage) -> bool {
    // The metric is published once a second.
    stage.run(Duration::from_millis(1_500));
    stage.proxy.counted("epp_wasm_reads_bodies") == 1
}

fn slow(http: Http) -> Measured {
    let stage = plan().start();
    let (usual, _) = affinity(&stage.proxy);
    let attack = Attack::new(stage.proxy.port);
    let body = Unfinished {
        begin: r#"{"model":"demo","messages":[{"role":"user","content":""#.into(),
        drip: Some(Duration::from_millis(3_500)),
        declared: None,
    };
    attack.hold(2_300, http, &[body]);
    stage.run(Duration::from_secs(2));
    let held = stage.proxy.counted("epp_wasm_held_requests");
    let (kept, sent) = affinity(&stage.proxy);
    drop(attack);
    let mut measured = stage.end(served());
    require_affinity(&mut measured, "meanwhile", kept, sent);
    measured.note(format!(
        "{usual} before; {held} requests were held at a time"
    ));
    measured
}

//! Twice the load that the pods can take, under flow control.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::{sleep, spawn, JoinHandle};
use std::time::Duration;

use envoy_harness::proxy::Proxy;
use envoy_harness::statistics::samples;
use fake_model_server::{Pod, Sim};

use super::waiting::{class, document, headers, require_nothing_left, with_pods, Class};
use super::{Form, Row};
use crate::load::{Mix, Outcome, Sent};
use crate::stage::{Ended, Plan};
use crate::verdict::{Bar, Measured};

/// The rows, in the order of the table.
pub const ROWS: &[Row] = &[Row {
    name: "overload",
    what: "twice the requests that 4 pods can take, for 60 s (short form: 10 s), under flow control: one of eight of a \
        higher priority, which are what this row counts, the others of two tenants, 4 to 3, which wait for 2 s at most",
    epp: "not measured",
    play: overload,
}];

/// Pods.
const PODS: usize = 4;

/// Requests that each pod runs at once, and is sent.
const PLACES: usize = 4;

/// The time that a pod takes for each: a place becomes free every 6 ms.
const SERVICE: Duration = Duration::from_millis(100);

/// How long a request may wait.
const TTL: Duration = Duration::from_secs(2);

/// The higher priority's requests wait no longer than this, but for one of a hundred.
const MAX_WAIT: &str = "0.1";

/// The lower priority's requests wait for longer than this, half of them at least, and the higher one's do not, but for one of
/// ten, on a machine that is busy with other things as well.
const LONG_WAIT: &str = "0.5";

/// The greatest difference between what two tenants get.
const MAX_UNFAIRNESS: f64 = 0.1;

/// Requests beyond the places that are at the pods together at most: what comes between two looks of the workers at
/// each other.
const MAX_OVERSHOOT: usize = 4;

fn plan() -> Plan {
    let mut plan = Plan::new(0);
    with_pods(&mut plan, PODS, PLACES, SERVICE);
    plan.setup.configs = vec![document(PLACES, TTL)];
    plan.setup.route["retry_policy"]["per_try_timeout"] = "20s".into();
    let capacity = (PODS * PLACES) as f64 / SERVICE.as_secs_f64();
    plan.mix = Mix {
        rate: 2 * capacity as u32,
        streams: 0,
        prompt: 200,
        headers,
        ..Mix::default()
    };
    plan
}

fn overload(form: &Form) -> Measured {
    let stage = plan().start();
    let at_pods = AtPods::watch(&stage.sim);
    let before = Waits::of(&stage.proxy);
    stage.run(Duration::from_secs(if form.short { 10 } else { 60 }));
    let [high, low] = Waits::of(&stage.proxy);
    let waits = [high.since(&before[0]), low.since(&before[1])];
    let (most, average) = at_pods.stop();
    let ended = stage.stop();
    let high: Vec<Sent> = of(&ended, Class::High).cloned().collect();
    let mut bar = Bar::none(Duration::from_millis(500));
    if form.short {
        bar.fast = TTL;
    }
    let mut measured = ended.judge_those(&high, bar);
    judge_waits(&mut measured, &waits);
    judge_tenants(&mut measured, &ended);
    let places = PODS * PLACES;
    measured.require(most <= places + MAX_OVERSHOOT, || {
        format!("{most} requests were at the pods, which take {places}")
    });
    measured.note(format!(
        "at most {most} at the pods, which take {places}; {average:.1} on average"
    ));
    require_nothing_left(&mut measured, &ended.proxy);
    measured
}

fn of(ended: &Ended, wanted: Class) -> impl Iterator<Item = &Sent> {
    let sent = ended.sent.iter();
    sent.filter(move |sent| class(sent.number) == wanted)
}

/// The higher priority hardly waits, and the others wait for it. How long exactly is a matter of time, which the short form,
/// on a busy machine, does not judge.
fn judge_waits(measured: &mut Measured, [high, low]: &[Waits; 2]) {
    measured.require(high.all >= 200.0 && high.long <= 0.1 * high.all, || {
        let Waits { long, all, .. } = high;
        format!("{long} of {all} of the higher priority waited for longer than {LONG_WAIT} s")
    });
    measured.require(low.all >= 200.0 && low.long >= 0.5 * low.all, || {
        let Waits { long, all, .. } = low;
        format!("only {long} of {all} of the others waited for longer than {LONG_WAIT} s")
    });
    let text = format!(
        "{:.1} % of the higher priority waited for {MAX_WAIT} s at most",
        100.0 * high.quick / high.all
    );
    if high.all - high.quick > 0.01 * high.all {
        measured.late.get_or_insert_with(|| text.clone());
    }
    measured.note(text);
}

/// Both tenants get the same, and what they do not get expires.
fn judge_tenants(measured: &mut Measured, ended: &Ended) {
    let [a, b] = [Class::A, Class::B].map(|tenant| {
        let sent = of(ended, tenant).filter(|sent| sent.at > TTL);
        let succeeded = sent.filter(|sent| sent.outcome == Outcome::Succeeded);
        succeeded.count() as f64
    });
    let is_fair = a.max(b) <= (1.0 + MAX_UNFAIRNESS) * a.min(b);
    measured.require(is_fair && a >= 100.0, || {
        format!("one tenant got {a} responses, the other {b}")
    });
    let mut expired = 0;
    for sent in of(ended, Class::A).chain(of(ended, Class::B)) {
        match &sent.outcome {
            Outcome::Succeeded => (),
            Outcome::Failed(reason) if reason.starts_with("429 ") => expired += 1,
            other => measured.misses.push(format!("{other:?}")),
        }
    }
    measured.note(format!(
        "the tenants got {a} and {b} responses, and {expired} times 429"
    ));
}

/// How many requests of a band have waited: for [`MAX_WAIT`] at most, for longer than [`LONG_WAIT`], and in all.
struct Waits {
    quick: f64,
    long: f64,
    all: f64,
}

impl Waits {
    /// Returns those of the higher and of the lower priority so far.
    fn of(proxy: &Proxy) -> [Self; 2] {
        let page = proxy.prometheus();
        ["priority=\"10\"", "priority=\"0\""].map(|band| {
            let within = |bound: &str| -> f64 {
                let name = "llm_d_epp_flow_control_request_queue_duration_seconds_bucket";
                let bound = format!("le=\"{bound}\"");
                let own = samples(&page, name)
                    .filter(|(labels, _)| labels.contains(band) && labels.contains(&bound));
                own.map(|(_, value)| value).sum()
            };
            let all = within("+Inf");
            Self {
                quick: within(MAX_WAIT),
                long: all - within(LONG_WAIT),
                all,
            }
        })
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            quick: self.quick - before.quick,
            long: self.long - before.long,
            all: self.all - before.all,
        }
    }
}

/// Counts how many requests are at the pods.
struct AtPods {
    stop: Arc<AtomicBool>,
    counted: JoinHandle<(usize, f64)>,
}

impl AtPods {
    fn watch(sim: &Sim) -> Self {
        let pods: Vec<Arc<Pod>> = sim.pods().cloned().collect();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let counted = spawn(move || {
            let (mut most, mut sum, mut times) = (0, 0, 0_u32);
            while !stopped.load(Ordering::Relaxed) {
                let shown = pods.iter().map(|pod| pod.shown());
                let now: usize = shown.map(|shown| shown.running + shown.waiting).sum();
                most = most.max(now);
                sum += now;
                times += 1;
                sleep(Duration::from_millis(5));
            }
            (most, sum as f64 / f64::from(times.max(1)))
        });
        Self { stop, counted }
    }

    /// Returns the most at a time, and the average.
    fn stop(self) -> (usize, f64) {
        self.stop.store(true, Ordering::Relaxed);
        self.counted.join().unwrap()
    }
}

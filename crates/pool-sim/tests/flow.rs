//! Invariants of runs under flow control.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use pool_sim::pod::{Next, Part, Pod};
use pool_sim::trace::Request;
use pool_sim::{
    simulate, Kind, Model, Objective, Outcome, PoolModel, Progress, Servers, Trace, SECOND,
};

/// Servers take four requests each under this gate; others wait in the bands 10 and -10.
fn gate(gate: &str, section: &str) -> Kind {
    Kind::Picker(format!(
        "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
featureGates: [{gate}]
plugins:
- {{type: active-request-scorer}}
- {{type: static-objectives, parameters: {{objectives: [{{name: high, priority: 10}}, {{name: low, priority: -10}}]}}}}
- {{type: round-robin-fairness-policy}}
- {{type: sheddable-eviction-filter}}
- {{type: priority-then-time-eviction-order-policy}}
- {{type: concurrency-detector, parameters: {{maxConcurrency: 4}}}}
schedulingProfiles: [{{name: default, plugins: [{{pluginRef: active-request-scorer}}]}}]
flowControl: {{saturationDetector: {{pluginRef: concurrency-detector}}{section}}}
"
    ))
}

/// Two servers that run four requests at a time, of some 0.4 s each: 20 requests per second.
fn pool(gateways: usize) -> PoolModel {
    PoolModel {
        model: Model {
            max_running: 4,
            token_seconds: 0.003,
            token_seconds_each: 0.0,
            step_tokens: 0,
            ..Model::default()
        },
        servers: Servers { all: 2, prefill: 0 },
        gateways,
    }
}

/// Ten seconds of twice that, a quarter of it high; the first tenant sends three times as much as the second.
fn load() -> Trace {
    let mut trace = Trace::shared_prefix(400, 40.0, 4, 2);
    let objective = |name: &str, share| Objective {
        name: name.to_owned(),
        share,
    };
    let objectives = [objective("high", 1.0), objective("low", 3.0)];
    trace.share_out(&objectives, &[3.0, 1.0], 2);
    trace
}

fn run(kind: &Kind, gateways: usize) -> Outcome {
    simulate(&load(), kind, &pool(gateways), 11, &Progress::default()).unwrap()
}

#[test]
fn the_high_band_goes_first_and_the_low_one_waits() {
    let outcome = run(&gate("flowControl", ""), 1);
    assert_eq!((outcome.completed, outcome.refused), (400, 0));
    let [high, low] = &outcome.bands[..] else {
        panic!("{:?}", outcome.bands);
    };
    // A place becomes free every 50 ms.
    assert!(
        high.wait_ms.p50 > 0.0 && high.wait_ms.p99 < 500.0,
        "{high:?}"
    );
    assert!(low.wait_ms.p50 > 4_000.0, "{low:?}");
    // No request queues in a server: its time there is that of its prompt.
    for band in [high, low] {
        assert!(band.server_ms.p99 < 40.0, "{band:?}");
        let sum = band.wait_ms.mean + band.server_ms.mean;
        assert!((band.ttft_ms.mean - sum).abs() < 1.0, "{band:?}");
    }
    // Without a gate nothing waits in front of the servers, and both bands behind each other in them.
    let without = run(&Kind::RoundRobin, 1);
    let [ungated, _] = &without.bands[..] else {
        panic!("{:?}", without.bands);
    };
    assert_eq!(ungated.wait_ms.p99, 0.0);
    assert!(ungated.ttft_ms.p50 > 10.0 * high.ttft_ms.p99, "{ungated:?}");
    // The pool completes as much either way.
    let rate = |outcome: &Outcome| {
        outcome
            .bands
            .iter()
            .map(|band| band.completed_rate)
            .sum::<f64>()
    };
    let (with, without) = (rate(&outcome), rate(&without));
    assert!((with / without - 1.0).abs() < 0.1, "{with} {without}");
    assert_eq!(outcome, run(&gate("flowControl", ""), 1));
}

#[test]
fn tenants_share_a_band_as_its_fairness_policy_says() {
    let share = |section| run(&gate("flowControl", section), 1).bands[1].tenants[0];
    let strict = share("");
    assert!(strict > 0.65, "{strict}");
    let fair =
        share(", defaultNegativePriorityBand: {fairnessPolicyRef: round-robin-fairness-policy}");
    assert!((0.45..0.6).contains(&fair), "{fair}");
}

#[test]
fn requests_are_shed_and_expire() {
    let section = ", defaultRequestTTL: 1s, defaultNegativePriorityBand: {maxRequests: 30}";
    let outcome = run(&gate("flowControl", section), 1);
    assert_eq!(outcome.completed + outcome.refused, 400);
    let [high, low] = &outcome.bands[..] else {
        panic!("{:?}", outcome.bands);
    };
    assert_eq!((high.shed, high.expired), (0, 0));
    assert!(low.shed > 0 && low.expired > 0, "{low:?}");
    assert!(low.wait_ms.p99 < 1_050.0, "{low:?}");
    // Without the gate, what is below priority 0 is refused at once while the pool is full.
    let outcome = run(&gate("flowControl=false", section), 1);
    let low = &outcome.bands[1];
    assert!(low.shed > low.requests / 2 && low.expired == 0, "{low:?}");
    assert_eq!(low.wait_ms.p99, 0.0);
}

#[test]
fn requests_in_flight_are_evicted_for_higher_ones() {
    let evicting = gate("flowControl", ", enableEviction: true");
    let [without, with] = [gate("flowControl", ""), evicting].map(|kind| run(&kind, 1));
    // Nothing else is refused.
    assert_eq!((without.completed, without.refused), (400, 0));
    assert!(with.refused > 10, "{with:?}");
    assert_eq!(with.completed + with.refused, 400);
    let [before, high] = [&without, &with].map(|outcome| &outcome.bands[0]);
    assert_eq!(high.evicted, 0);
    assert!(
        high.wait_ms.mean < before.wait_ms.mean,
        "{high:?} {before:?}"
    );
}

#[test]
fn each_of_several_gateways_gates_for_itself() {
    let server = |gateways| {
        run(&gate("flowControl", ""), gateways).bands[0]
            .server_ms
            .p50
    };
    let (one, four) = (server(1), server(4));
    // Four times as many requests as servers run at a time are sent to them, and wait there.
    assert!(one < 40.0 && four > 500.0, "{one} {four}");
}

#[test]
fn a_server_frees_what_an_aborted_request_had() {
    let request = Request {
        input: 1_000,
        output: 100,
        blocks: (1..=15).collect(),
        ..Request::default()
    };
    let requests = vec![request; 5];
    let model = Model {
        prefill_rate: 1_000.0,
        token_seconds: 1.0,
        max_running: 3,
        ..Model::default()
    };
    let mut pod = Pod::new(&model, 64);
    for number in 0..4 {
        assert!(pod.arrive(0, number, Part::Whole, &requests));
    }
    let (now, first) = pod.next().unwrap();
    assert_eq!((now, first), (SECOND, Next::FirstToken(0)));
    pod.advance(now, first, &requests);
    // One decodes, one computes its prompt, and two wait.
    assert_eq!((pod.running(), pod.waiting()), (2, 2));
    pod.abort(now, 2, &requests);
    assert_eq!((pod.running(), pod.waiting()), (2, 1));
    // The next prompt begins at once.
    pod.abort(now, 1, &requests);
    assert_eq!((pod.running(), pod.waiting()), (2, 0));
    let (at, next) = pod.next().unwrap();
    assert_eq!((at, next), (now + 40 * SECOND / 1_000, Next::FirstToken(3)));
    assert!(pod.arrive(now, 4, Part::Decode, &requests));
    for number in [0, 3, 4, 9] {
        pod.abort(at, number, &requests);
    }
    assert_eq!((pod.running(), pod.cache.used(), pod.next()), (0, 0, None));
}

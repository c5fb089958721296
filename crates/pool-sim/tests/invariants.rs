//! Invariants that hold in every run.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use pool_sim::pod::{Next, Part, Pod};
use pool_sim::trace::Request;
use pool_sim::{simulate, Kind, Model, Outcome, PoolModel, Progress, Servers, Trace};

const PREFIX: &str = "
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: queue-scorer}, {type: prefix-cache-scorer}]
schedulingProfiles:
- name: default
  plugins: [{pluginRef: queue-scorer, weight: 1}, {pluginRef: prefix-cache-scorer, weight: 3}]
";

fn kinds() -> [Kind; 4] {
    [
        Kind::RoundRobin,
        Kind::LeastRequest,
        Kind::Random,
        Kind::Picker(PREFIX.to_owned()),
    ]
}

/// Servers without roles, behind this many gateways.
fn pool(model: &Model, all: usize, gateways: usize) -> PoolModel {
    PoolModel {
        model: model.clone(),
        servers: Servers { all, prefill: 0 },
        gateways,
    }
}

fn run(trace: &Trace, kind: &Kind, model: &Model, pods: usize) -> Outcome {
    run_in(trace, kind, &pool(model, pods, 1))
}

fn run_in(trace: &Trace, kind: &Kind, pool: &PoolModel) -> Outcome {
    simulate(trace, kind, pool, 11, &Progress::default()).unwrap()
}

/// Small enough that requests queue and blocks are evicted.
fn small() -> Model {
    Model {
        cache_tokens: 20_000,
        max_running: 8,
        ..Model::default()
    }
}

#[test]
fn every_request_completes_once_or_is_refused() {
    let mut trace = Trace::multi_turn(600, 30.0, 1);
    // Two that fit nowhere.
    trace.requests[5].output = 1_000_000;
    trace.requests[50].input = 30_000;
    for kind in kinds() {
        let outcome = run(&trace, &kind, &small(), 3);
        assert_eq!((outcome.completed, outcome.refused), (598, 2), "{kind:?}");
        assert_eq!(outcome.by_pod.iter().sum::<u64>(), 598);
    }
}

#[test]
fn the_same_seed_is_the_same_run_and_another_is_not() {
    let trace = Trace::shared_prefix(400, 40.0, 20, 2);
    for kind in kinds() {
        let first = run(&trace, &kind, &small(), 5);
        assert_eq!(first, run(&trace, &kind, &small(), 5), "{kind:?}");
    }
    let behind = pool(&small(), 5, 1);
    let other = simulate(&trace, &Kind::Random, &behind, 12, &Progress::default());
    assert_ne!(run(&trace, &Kind::Random, &small(), 5), other.unwrap());
}

#[test]
fn a_server_begins_requests_in_the_order_in_which_they_came() {
    let trace = Trace::multi_turn(300, 50.0, 3);
    let mut pod = Pod::new(&small(), trace.block_tokens);
    let (mut begun, mut now) = (Vec::new(), 0);
    let mut waiting = (0..trace.requests.len()).peekable();
    loop {
        let next = pod.next();
        let arrives = waiting.peek().map(|number| trace.requests[*number].at);
        match (next, arrives) {
            (None, None) => break,
            (Some((at, next)), arrives) if arrives.is_none_or(|arrives| at <= arrives) => {
                assert!(at >= now, "time runs forward");
                now = at;
                if let Next::FirstToken(number) = next {
                    begun.push(number);
                }
                pod.advance(now, next, &trace.requests);
            }
            _ => {
                let number = waiting.next().unwrap();
                now = trace.requests[number].at;
                assert!(pod.arrive(now, number, Part::Whole, &trace.requests));
            }
        }
        assert!(pod.running() <= small().max_running);
        assert!(pod.cache.usage() <= 1.0);
    }
    assert_eq!(begun, (0..300).collect::<Vec<_>>());
    assert_eq!(pod.cache.used(), 0);
}

#[test]
fn an_idle_server_computes_a_prompt_once_and_then_only_what_is_new() {
    let request = |at: u64| Request {
        at: at * pool_sim::SECOND,
        input: 1_000,
        output: 11,
        blocks: (1..=15).collect(),
        ..Request::default()
    };
    let trace = Trace {
        block_tokens: 64,
        requests: vec![request(0), request(10)],
        ..Trace::default()
    };
    let model = Model {
        prefill_rate: 1_000.0,
        token_seconds: 0.1,
        token_seconds_each: 0.0,
        ..Model::default()
    };
    let outcome = run(&trace, &Kind::RoundRobin, &model, 1);
    // 960 of the second prompt's tokens are in whole blocks.
    assert_eq!(outcome.ttfts, [40.0, 1_000.0]);
    // The prefill, and ten tokens after the first.
    assert!(
        (outcome.seconds - 11.04).abs() < 1e-6,
        "{}",
        outcome.seconds
    );
    assert!((outcome.cached_share - 0.48).abs() < 1e-9);
}

#[test]
fn decoding_slows_down_with_the_number_of_running_requests() {
    let request = Request {
        at: 0,
        input: 1,
        output: 101,
        blocks: Vec::new(),
        ..Request::default()
    };
    let trace = Trace {
        block_tokens: 64,
        requests: vec![request; 4],
        ..Trace::default()
    };
    let model = Model {
        prefill_rate: 1e9,
        token_seconds: 0.01,
        token_seconds_each: 0.01,
        ..Model::default()
    };
    let outcome = run(&trace, &Kind::RoundRobin, &model, 1);
    // Four together: a token every 50 ms, a hundred times.
    assert!((outcome.seconds - 5.0).abs() < 0.01, "{}", outcome.seconds);
}

#[test]
fn the_picker_finds_the_prefixes_that_the_others_scatter() {
    let trace = Trace::shared_prefix(1_500, 20.0, 30, 4);
    let model = Model {
        cache_tokens: 60_000,
        ..Model::default()
    };
    let [robin, least, random, picker] = kinds().map(|kind| run(&trace, &kind, &model, 10));
    for other in [robin, least, random] {
        assert!(picker.cached_share > other.cached_share + 0.2);
        assert!(picker.ttft_ms.p50 < other.ttft_ms.p50);
    }
    assert!(picker.load_spread < 3.0, "{}", picker.load_spread);
}

#[test]
fn responses_correct_an_index_that_expects_more_of_caches_than_they_hold() {
    // The index expects 2,000,000 tokens.
    let model = Model {
        cache_tokens: 30_000,
        ..Model::default()
    };
    let trace = Trace::shared_prefix(2_500, 16.0, 100, 1);
    let off = PREFIX.replace(
        "{type: prefix-cache-scorer}",
        "{type: prefix-cache-scorer}, {type: envoy-proxy, parameters: {correctIndex: false}}",
    );
    let [on, off] =
        [PREFIX.to_owned(), off].map(|config| run(&trace, &Kind::Picker(config), &model, 8));
    let (with, without) = (on.ttft_ms.mean, off.ttft_ms.mean);
    assert!(with < 0.5 * without, "{with} ms with, {without} ms without");
    assert!(on.load_spread < off.load_spread);
}

#[test]
fn a_servers_load_is_read_whatever_its_engine() {
    let trace = Trace::shared_prefix(200, 40.0, 20, 5);
    let by_load = |engine: &str| {
        let config = format!(
            "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {{type: queue-scorer}}
- {{type: running-requests-size-scorer}}
- {{type: core-metrics-extractor, parameters: {{defaultEngine: {engine}}}}}
schedulingProfiles:
- {{name: default, plugins: [{{pluginRef: queue-scorer}}, {{pluginRef: running-requests-size-scorer}}]}}
"
        );
        run(&trace, &Kind::Picker(config), &small(), 5)
    };
    let outcome = by_load("vllm");
    for engine in ["sglang", "trtllm-serve", "triton-tensorrt-llm"] {
        assert_eq!(by_load(engine), outcome, "{engine}");
    }
    // Triton alone does not export running requests, so that it decides otherwise.
    assert_ne!(by_load("triton"), outcome);
}

#[test]
fn a_configuration_that_does_not_load_is_an_error() {
    let kind = Kind::Picker("kind: Nothing".to_owned());
    let trace = Trace::shared_prefix(1, 1.0, 1, 1);
    let behind = pool(&Model::default(), 1, 1);
    let outcome = simulate(&trace, &kind, &behind, 1, &Progress::default());
    assert!(outcome.unwrap_err().contains("kind"));
}

#[test]
fn a_prompt_that_one_server_computed_is_fetched_and_decoded_by_another() {
    let request = Request {
        at: 0,
        input: 1_000,
        output: 11,
        blocks: (1..=15).collect(),
        ..Request::default()
    };
    let requests = [request.clone(), request];
    let model = Model {
        prefill_rate: 1_000.0,
        transfer_rate: 10_000.0,
        token_seconds: 0.1,
        token_seconds_each: 0.0,
        ..Model::default()
    };
    let milliseconds = |pod: &Pod| {
        let (at, next) = pod.next()?;
        Some((at / 1_000_000, next))
    };
    let [mut prefill, mut decode] = [(); 2].map(|()| Pod::new(&model, 64));
    assert!(prefill.arrive(0, 0, Part::Prefill, &requests));
    let computed = prefill.next().unwrap();
    assert_eq!(computed, (pool_sim::SECOND, Next::Prefilled(0)));
    prefill.advance(computed.0, computed.1, &requests);
    assert_eq!(
        (prefill.next(), prefill.running(), prefill.cache.used()),
        (None, 0, 0)
    );
    assert!(decode.arrive(computed.0, 0, Part::Decode, &requests));
    // What is fetched holds no one up: not a prompt that this server computes itself.
    assert!(decode.arrive(computed.0, 1, Part::Whole, &requests));
    assert_eq!(decode.running(), 2);
    // It finds the blocks that are being fetched, all but 40 tokens.
    assert_eq!(milliseconds(&decode), Some((1_040, Next::FirstToken(1))));
    decode.advance(1_040_000_000, Next::FirstToken(1), &requests);
    assert_eq!(milliseconds(&decode), Some((1_100, Next::FirstToken(0))));
    decode.advance(1_100_000_000, Next::FirstToken(0), &requests);
    assert_eq!(milliseconds(&decode), Some((2_040, Next::End(1))));
    decode.advance(2_040_000_000, Next::End(1), &requests);
    assert_eq!(milliseconds(&decode), Some((2_100, Next::End(0))));
    assert_eq!(
        (prefill.prompt_tokens, decode.prompt_tokens),
        (1_000, 1_000)
    );
}

#[test]
fn decoding_slows_down_while_a_prompt_is_computed() {
    let request = |at: u64, input| Request {
        at: at * pool_sim::SECOND,
        input,
        output: 101,
        blocks: Vec::new(),
        ..Request::default()
    };
    let trace = Trace {
        block_tokens: 64,
        requests: vec![request(0, 1), request(1, 10_000)],
        ..Trace::default()
    };
    let model = |step_tokens| Model {
        prefill_rate: 10_000.0,
        token_seconds: 0.02,
        token_seconds_each: 0.0,
        step_tokens,
        ..Model::default()
    };
    let [together, apart] = [1_000, 0].map(|step| run(&trace, &Kind::RoundRobin, &model(step), 1));
    // For one second the first request gets a token every 100 ms instead of every 20 ms.
    assert!((apart.token_ms.mean - 20.0).abs() < 0.01, "{apart:?}");
    let slowest = together.token_ms.p99;
    assert!((slowest - 28.0).abs() < 0.1, "{slowest}");
}

#[test]
fn a_gateway_does_not_know_what_others_have_sent() {
    let trace = Trace::shared_prefix(500, 20.0, 40, 4);
    let behind = |gateways| pool(&Model::default(), 10, gateways);
    let picker = Kind::Picker(PREFIX.to_owned());
    let [one, four] = [1, 4].map(|gateways| run_in(&trace, &picker, &behind(gateways)));
    assert_eq!((one.completed, four.completed), (500, 500));
    // Each document is computed once for each gateway, unless they happen to send it to the same server.
    assert!(
        one.cached_share > four.cached_share + 0.05,
        "{one:?} {four:?}"
    );
    assert!(four.cached_share > 0.3);
    // Random needs to know nothing, so that nothing is lost.
    let [one, four] = [1, 4].map(|gateways| run_in(&trace, &Kind::Random, &behind(gateways)));
    assert!((one.cached_share - four.cached_share).abs() < 0.05);
}

#[test]
fn a_load_beyond_the_capacity_is_noticed_and_measured() {
    // One server computes 10 of these prompts a second; nothing is shared.
    let model = Model {
        prefill_rate: 10_000.0,
        ..Model::default()
    };
    let trace = |rate: f64| {
        let mut trace = Trace::shared_prefix(1_200, rate, u64::MAX, 7);
        for request in &mut trace.requests {
            (request.input, request.output) = (1_000, 2);
            request.blocks.truncate(15);
        }
        trace
    };
    for (rate, expected) in [(12.0, 0.2), (20.0, 1.0), (40.0, 3.0)] {
        let overload = run(&trace(rate), &Kind::RoundRobin, &model, 1).overload;
        // A tenth more or less arrives by chance.
        let found = overload.unwrap();
        let of_expected: f64 = (1.0 + found) / (1.0 + expected);
        assert!((of_expected - 1.0).abs() < 0.1, "{rate}: {found}");
    }
    for rate in [2.0, 7.0, 9.0] {
        let outcome = run(&trace(rate), &Kind::RoundRobin, &model, 1);
        assert_eq!(outcome.overload, None, "{rate}");
    }
}

#[test]
fn no_figure_of_an_empty_run_is_negative_zero() {
    let mut trace = Trace::shared_prefix(1, 1.0, 1, 1);
    trace.requests[0].input = 10_000_000;
    let outcome = run(&trace, &Kind::RoundRobin, &Model::default(), 1);
    assert_eq!(outcome.refused, 1);
    assert!(outcome.ttft_ms.mean.is_sign_positive());
}

/// A trace of requests for adapters in turn, of prompts that take 0.1 s.
fn for_adapters(adapters: u32, requests: u32) -> Trace {
    let request = |number: u32| Request {
        at: 0,
        input: 1_000,
        output: 1,
        blocks: Vec::new(),
        adapter: Some(number % adapters),
        ..Request::default()
    };
    Trace {
        block_tokens: 64,
        requests: (0..requests).map(request).collect(),
        ..Trace::default()
    }
}

#[test]
fn adapters_are_loaded_when_their_place_was_taken() {
    let model = Model {
        prefill_rate: 10_000.0,
        max_adapters: 2,
        adapter_seconds: 0.4,
        ..Model::default()
    };
    let seconds = |adapters| {
        let outcome = run(&for_adapters(adapters, 12), &Kind::RoundRobin, &model, 1);
        assert_eq!(outcome.completed, 12);
        outcome.seconds
    };
    // Two are loaded once; three, in turn, each time.
    assert!((seconds(2) - 2.0).abs() < 1e-6, "{}", seconds(2));
    assert!((seconds(3) - 6.0).abs() < 1e-6, "{}", seconds(3));
}

#[test]
fn the_affinity_of_adapters_saves_loading_them() {
    let config = |scorer: &str| {
        let text = format!(
            "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{{type: queue-scorer}}, {{type: lora-affinity-scorer}}]
schedulingProfiles:
- {{name: default, plugins: [{{pluginRef: queue-scorer}}{scorer}]}}
"
        );
        Kind::Picker(text)
    };
    let mut trace = Trace::multi_turn(600, 12.0, 3);
    trace.use_adapters(12);
    assert!(trace
        .requests
        .iter()
        .all(|request| request.adapter.is_some()));
    let model = Model {
        max_adapters: 4,
        adapter_seconds: 0.5,
        ..Model::default()
    };
    let with = config(", {pluginRef: lora-affinity-scorer, weight: 2}");
    let [with, without] = [with, config("")].map(|kind| run(&trace, &kind, &model, 6));
    assert!(
        with.prefill_share < 0.7 * without.prefill_share,
        "{with:?} {without:?}"
    );
}

#[test]
fn adapters_share_no_blocks() {
    let [mut plain, mut spread] = [(); 2].map(|()| Trace::shared_prefix(300, 10.0, 1, 2));
    spread.use_adapters(5);
    // One document has one adapter.
    assert_eq!(spread.requests[0].adapter, spread.requests[9].adapter);
    assert_ne!(plain.requests[0].blocks, spread.requests[0].blocks);
    plain = Trace::multi_turn(300, 10.0, 2);
    plain.use_adapters(5);
    let first = |adapter| {
        let own = plain.requests.iter();
        let own = own.filter(move |request| request.adapter == Some(adapter));
        own.map(|request| request.blocks[0])
            .collect::<std::collections::HashSet<u64>>()
    };
    assert!(first(0).len() <= 8 && first(0).is_disjoint(&first(1)));
}

//! `eppctl explain` as a user calls it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::{eppctl, out};
use envoy_harness::client::complete;
use envoy_harness::proxy::Setup;
use fake_model_server::{Faults, Pinned, Settings, Sim};
use serde_json::{json, Value};

const POOL: &str = "endpoints:
- {name: idle, address: 10.0.0.1:8000, waiting: 0, kvUsage: 0.1}
- {name: busy, address: 10.0.0.2:8000, waiting: 9, kvUsage: 0.9}
- {name: gone, address: 10.0.0.3:8000, available: false}
";

/// Writes a file. Another test may read it under the same name, with the same text.
fn file(name: &str, text: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let own = path.with_extension(format!("{:?}", std::thread::current().id()));
    std::fs::write(&own, text).unwrap();
    std::fs::rename(own, &path).unwrap();
    path.to_str().unwrap().to_owned()
}

fn body() -> String {
    let question = "What is the rain in Spain? ".repeat(300);
    format!(
        r#"{{"model": "m", "messages": [{{"role": "user", "content": "{question}"}}], "max_tokens": 5}}"#
    )
}

fn explain(more: &[&str]) -> Value {
    let (pool, body) = (file("pool.yaml", POOL), file("body.json", &body()));
    let fixed = [
        "explain",
        "examples/full.yaml",
        "-o",
        "json",
        "--endpoints",
        &pool,
        "--request",
        &body,
    ];
    let output = eppctl(&[&fixed, more].concat(), "");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_str(&out(&output)).unwrap()
}

#[test]
fn the_endpoints_of_other_profiles_are_shown_or_why_there_are_none() {
    let report = |decider: &str| {
        let plan = format!(
            "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{{type: queue-scorer}}, {{name: decider, {decider}}},
  {{type: disagg-profile-handler, parameters: {{deciders: {{prefill: decider}}}}}}]
schedulingProfiles:
- {{name: decode, plugins: [{{pluginRef: queue-scorer}}]}}
- {{name: prefill, plugins: [{{pluginRef: queue-scorer}}]}}
"
        );
        let plan = file("disaggregated.yaml", &plan);
        let pool = file("pool.yaml", POOL);
        let body = file("body.json", &body());
        let arguments = ["explain", &plan, "-o", "json", "--endpoints", &pool];
        let output = eppctl(&[&arguments[..], &["--request", &body]].concat(), "");
        let report: Value = serde_json::from_str(&out(&output)).unwrap();
        (report["parts"].clone(), report["headers"].clone())
    };
    let (parts, headers) = report("type: always-disagg-pd-decider");
    assert_eq!(parts, json!(["prefill: 10.0.0.1:8000"]));
    assert_eq!(headers, json!({"x-prefiller-host-port": "10.0.0.1:8000"}));
    let (parts, headers) = report("type: prefix-based-pd-decider");
    assert_eq!(
        (parts, headers),
        (json!(["prefill: turned off"]), json!({}))
    );
}

#[test]
fn a_cold_prompt_goes_to_the_idlest_endpoint_before_its_body_ends() {
    let report = explain(&[]);
    let destination = report["destination"].as_str().unwrap();
    assert!(destination.starts_with("10.0.0.1:8000"), "{destination}");
    assert_eq!(report["candidates"].as_array().unwrap().len(), 2);
    assert_eq!(report["tied"], 1, "{report}");
    let busy = &report["candidates"][1];
    assert_eq!(busy["scores"][1]["scorer"], "queue-scorer");
    assert_eq!(busy["scores"][1]["raw"], 0.0, "9 wait there: {report}");
    assert_eq!(report["candidates"][0]["scores"][1]["weighted"], 2.0);
    assert_eq!(report["left_out"][0]["name"], "gone");
    assert_eq!(report["endpoints"], 3);
    assert!(
        report["bytes_needed"].as_u64() < report["body_bytes"].as_u64(),
        "{report}"
    );
}

#[test]
fn the_explained_request_is_not_in_flight() {
    let body = file("explained.json", &body());
    let in_flight = |pool: &str| {
        let pool = file("in-flight.yaml", pool);
        let arguments = ["examples/full.yaml", "--endpoints", &pool, "--request"];
        let report =
            explained(&[&arguments[..], &[&body, "--warm", &format!("idle={body}")]].concat());
        let candidates = report["candidates"].as_array().unwrap().iter();
        let shown =
            candidates.map(|one| (one["picked"] == true, one["in_flight"].as_u64().unwrap()));
        shown.collect::<Vec<_>>()
    };
    assert_eq!(in_flight(POOL), [(true, 0), (false, 0)]);
    let busy = POOL.replace("waiting: 0,", "waiting: 0, inFlight: 3,");
    assert_eq!(
        in_flight(&busy.replace("waiting: 9,", "waiting: 9, inFlight: 5,")),
        [(true, 3), (false, 5)]
    );
}

/// Returns what `eppctl explain` says of a request to two servers with so many requests waiting, with the exit status.
fn under_flow_control(more: &str, waiting: u32, header: &str) -> (String, Option<i32>) {
    let plan = format!(
        "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{{type: queue-scorer}}, {{type: static-objectives, parameters: {{objectives: [{{name: batch, priority: -1}}]}}}}]
schedulingProfiles: [{{name: default, plugins: [{{pluginRef: queue-scorer}}]}}]
{more}
"
    );
    let plan = file(&format!("gated-{waiting}-{}.yaml", more.len()), &plan);
    let pool = format!(
        "endpoints:
- {{name: a, address: 10.0.0.1:8000, waiting: {waiting}, kvUsage: 0.1}}
- {{name: b, address: 10.0.0.2:8000, waiting: {waiting}, kvUsage: 0.1}}
"
    );
    let pool = file(&format!("gated-pool-{waiting}.yaml"), &pool);
    let body = file("body.json", &body());
    let output = eppctl(
        &[
            "explain",
            &plan,
            "--endpoints",
            &pool,
            "--request",
            &body,
            "--header",
            header,
        ],
        "",
    );
    (out(&output), output.status.code())
}

#[test]
fn a_request_that_would_wait_is_told_why_and_one_that_would_be_shed_with_what() {
    let gate = "featureGates: [flowControl]";
    let batch = "x-llm-d-inference-objective: batch";
    let (text, status) = under_flow_control(gate, 10, batch);
    let why =
        "waits in a queue: utilization-detector measures 200 %, and priority -1 stops at 100 %\n";
    assert!(text.starts_with(why) && status == Some(1), "{text}");
    assert!(!text.contains("decided"), "{text}");
    let (text, status) = under_flow_control(gate, 0, batch);
    assert!(
        text.contains("queue: sent at once with priority -1\n") && status == Some(0),
        "{text}"
    );
    let (text, status) = under_flow_control("", 10, batch);
    let reply = "local reply: 429 inference error: ResourceExhausted - system saturated, sheddable request dropped \
                 (x-llm-d-request-dropped-reason: rejected-saturated)\n";
    assert!(text.starts_with(reply) && status == Some(1), "{text}");
}

#[test]
fn a_body_that_is_not_json_is_reported() {
    let body = file("no.json", "Once upon a time");
    let pool = file("pool-of-no.yaml", POOL);
    let report = explained(&[
        "examples/full.yaml",
        "--endpoints",
        &pool,
        "--request",
        &body,
    ]);
    let note = report["notes"][0].as_str().unwrap();
    assert!(note.contains("not a JSON object"), "{note}");
}

#[test]
fn the_endpoint_that_served_the_conversation_has_its_prefix() {
    let body = file("earlier.json", &body());
    let report = explain(&["--warm", &format!("busy={body}")]);
    let busy = report["candidates"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["name"] == "default/busy" || one["name"] == "busy");
    let prefix = &busy.unwrap()["scores"][0];
    assert_eq!(prefix["scorer"], "prefix-cache-scorer");
    assert!(prefix["raw"].as_f64().unwrap() > 0.9, "{report}");
}

#[test]
fn a_mistake_in_a_snapshot_is_an_error_with_its_location() {
    let pool = file(
        "slip.yaml",
        "endpoints:\n- {name: a, address: 10.0.0.1:80, wating: 1}\n",
    );
    let output = eppctl(
        &[
            "explain",
            "examples/full.yaml",
            "--endpoints",
            &pool,
            "--request",
            "-",
        ],
        "{}",
    );
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        error.contains("wating") && error.contains("--help"),
        "{error}"
    );
}

/// Metrics alone decide, so that picks can be foretold.
const BY_METRICS: &str = "
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: queue-scorer}, {type: kv-cache-utilization-scorer}, {type: running-requests-size-scorer}]
";

/// Two pods, the first with a queue.
fn pods() -> Sim {
    let sim = Sim::start(2, &Settings::default()).unwrap();
    sim.pod(0).pin(Pinned {
        waiting: Some(7),
        kv_usage: Some(0.25),
        ..Pinned::default()
    });
    sim
}

fn explained(arguments: &[&str]) -> Value {
    let output = eppctl(&[&["explain", "-o", "json"], arguments].concat(), &body());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    serde_json::from_str(&out(&output)).unwrap()
}

/// Returns the error that `eppctl explain` reports for wrong arguments.
fn misuse(arguments: &[&str]) -> String {
    let output = eppctl(&[&["explain"], arguments].concat(), &body());
    assert_eq!(output.status.code(), Some(2), "{}", out(&output));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn pods_are_scored_by_their_own_metrics_pages() {
    let sim = pods();
    let [busy, idle] = [0, 1].map(|pod| sim.addresses()[pod].to_string());
    let config = file("by-metrics.yaml", BY_METRICS);
    let both = [&config, "--request", "-", "--pod", &busy, "--pod", &idle];
    let report = explained(&both);
    assert_eq!(report["candidates"][0]["name"], *idle, "{report}");
    let scores = &report["candidates"][1]["scores"];
    assert_eq!(
        (&scores[0]["raw"], &scores[1]["raw"]),
        (&0.0.into(), &0.75.into()),
        "{report}"
    );
    assert_eq!(report["notes"], serde_json::json!([]));
    // One that is down is named, and neutral as in the filter.
    let report = explained(&[&both[..], &["--pod", "127.0.0.1:1"]].concat());
    let note = report["notes"][0].as_str().unwrap();
    assert!(
        note.contains("127.0.0.1:1/metrics") && note.contains("never scraped"),
        "{note}"
    );
    let down = report["candidates"].as_array().unwrap().iter();
    let down: Vec<&Value> = down.filter(|one| one["name"] == "127.0.0.1:1").collect();
    assert_eq!(down[0]["freshness"], "unknown");
    assert_eq!(down[0]["scores"][0]["raw"], 0.5, "the mean of 0 and 1");
    let text = eppctl(&[&["explain"], &both[..]].concat(), &body());
    let text = out(&text);
    assert!(
        text.contains("queue-scorer × 1") && text.contains("0.0000 → 0.0000"),
        "{text}"
    );
    let error = misuse(&[&config, "--request", "-", "--pod", "http://10.0.0.1"]);
    assert!(error.contains("expected HOST:PORT"), "{error}");
}

#[test]
fn a_page_of_another_engine_is_reported() {
    let sim = pods();
    let config = BY_METRICS.replace(
        "plugins: [",
        "plugins: [{type: core-metrics-extractor, parameters: {defaultEngine: sglang}}, {type: metrics-data-source}, ",
    );
    let config = file("sglang.yaml", &config);
    let pod = sim.addresses()[0].to_string();
    let report = explained(&[&config, "--request", "-", "--pod", &pod]);
    let note = report["notes"][0].as_str().unwrap();
    assert!(note.contains("defaultEngine"), "{note}");
    assert_eq!(report["metrics_count"], false);
}

#[test]
fn the_filters_state_is_read_from_a_running_envoy() {
    let sim = pods();
    let [busy, idle] = [0, 1].map(|pod| sim.addresses()[pod].to_string());
    let proxy = Setup::new(&sim.addresses(), BY_METRICS).start();
    complete(proxy.port, "m", "a prompt");
    let admin = format!("127.0.0.1:{}", proxy.admin);
    let config = file("in-envoy.yaml", BY_METRICS);
    let arguments = [&config, "--request", "-", "--envoy", &admin];
    let mut report = Value::Null;
    proxy.wait_until("the filter exports the queue", || {
        report = explained(&arguments);
        report["candidates"][1]["scores"][0]["raw"] == 0.0
            && report["candidates"][1]["scores"][1]["raw"] == 0.75
    });
    assert_eq!(report["candidates"][0]["name"], *idle);
    assert_eq!(report["candidates"][1]["name"], *busy);
    assert_eq!(report["candidates"][1]["freshness"], "fresh");
    assert!(report["candidates"][1]["age_ms"].is_u64(), "{report}");
    let with = |plugin: &str| {
        let more = format!("plugins: [{{type: {plugin}}}, ");
        BY_METRICS.replace("plugins: [", &more)
    };
    // Pages of endpoints at rest are older than this document would trust.
    let source = "metrics-data-source, parameters: {interval: 50ms, maxInterval: 50ms, stalenessThreshold: 100ms}";
    let strict = file("strict.yaml", &with(source));
    proxy.wait_until("a page is old", || {
        let notes = &explained(&[&strict, "--request", "-", "--envoy", &admin])["notes"];
        notes.to_string().contains("s old count as fresh")
    });
    let listed =
        "static-discovery, parameters: {endpoints: [{name: a, address: 10.0.0.1, port: 80}]}";
    let listed = file("elsewhere.yaml", &with(listed));
    let error = misuse(&[&listed, "--request", "-", "--envoy", &admin]);
    assert!(
        error.contains("none of the endpoints is a member"),
        "{error}"
    );
    // The output lists what cannot be read off the filter.
    let notes = explained(&["examples/full.yaml", "--request", "-", "--envoy", &admin])["notes"]
        .to_string();
    assert!(
        notes.contains("LoRA") && notes.contains("--warm"),
        "{notes}"
    );
    // A document for another pool than the filter's.
    let other = with("envoy-proxy, parameters: {cluster: other}");
    let other = file("other.yaml", &other);
    let error = misuse(&[&other, "--request", "-", "--envoy", &admin]);
    assert!(
        error.contains("pick for inference-pool, the document for other"),
        "{error}"
    );
}

#[test]
fn an_address_without_the_filter_is_an_error_that_says_what_to_do() {
    let sim = pods();
    let mut setup = Setup::new(&sim.addresses(), BY_METRICS);
    setup.configs.clear();
    let proxy = setup.start();
    let bare = format!("http://127.0.0.1:{}", proxy.admin);
    let listener = format!("http://127.0.0.1:{}", proxy.port);
    let pod = format!("http://{}", sim.addresses()[0]);
    for (address, expected) in [
        (bare.as_str(), "no epp-wasm statistics"),
        (&listener, "admin interface"),
        (&pod, "admin interface"),
        ("127.0.0.1:1", "admin interface"),
    ] {
        let error = misuse(&["examples/full.yaml", "--request", "-", "--envoy", address]);
        assert!(error.contains(expected), "{address}: {error}");
    }
}

#[test]
fn a_header_names_the_model_where_bodies_are_not_read() {
    let config = file(
        "headers-only.yaml",
        "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: lora-affinity-scorer}
- {type: envoy-proxy, parameters: {readBody: never, modelHeader: X-Model}}
schedulingProfiles: [{name: default, plugins: [{pluginRef: lora-affinity-scorer}]}]
dataLayer: {}
",
    );
    let pool = "endpoints:
- {name: a, address: 10.0.0.1:8000, lora: {active: [one], max: 1}}
- {name: b, address: 10.0.0.2:8000, lora: {active: [two], max: 1}}
";
    let (pool, body) = (file("lora.yaml", pool), file("lora.json", &body()));
    for (model, address) in [("one", "10.0.0.1:8000"), ("two", "10.0.0.2:8000")] {
        let header = format!("x-MODEL: {model}");
        let inputs = [
            "--endpoints",
            &pool,
            "--request",
            &body,
            "--header",
            &header,
        ];
        let output = eppctl(
            &[&["explain", &config, "-o", "json"][..], &inputs].concat(),
            "",
        );
        let report: Value = serde_json::from_str(&out(&output)).unwrap();
        let destination = report["destination"].as_str().unwrap();
        assert!(destination.starts_with(address), "{model}: {report}");
        assert_eq!(report["bytes_needed"], 0, "{report}");
    }
    let output = eppctl(
        &["explain", &config, "--request", &body, "--header", "model"],
        "",
    );
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("NAME: VALUE"));
}

/// A plan for servers of the engine `sglang`, whose page has vLLM's names.
const LOADS: &str = r#"apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: queue-scorer}
- {type: prefix-cache-scorer}
- {type: metrics-data-source, parameters: {sglangLoads: true}}
- type: core-metrics-extractor
  parameters:
    defaultEngine: sglang
    engineConfigs:
    - {name: sglang, queuedRequestsSpec: "vllm:num_requests_waiting", cacheInfoSpec: "vllm:cache_config_info"}
"#;

#[test]
fn the_load_of_a_pod_is_that_of_its_loads_as_in_the_filter_and_without_them_that_of_its_page() {
    let sim = pods();
    let pod = sim.addresses()[0].to_string();
    let config = file("loads.yaml", LOADS);
    let arguments = [&config, "--request", "-", "--pod", &pod];
    let metrics = |report: &Value| report["candidates"][0]["metrics"].clone();
    let report = explained(&arguments);
    let read = metrics(&report);
    assert_eq!(report["notes"], json!([]));
    // The names of the page's families have none for the utilization.
    assert_eq!(
        (&read["from_loads"], &read["kv_usage"]),
        (&json!(true), &json!(0.25))
    );
    assert_eq!(read["waiting"], 7.0);
    assert!(read["num_blocks"].is_number(), "from the page: {read}");
    let off = file(
        "page.yaml",
        &LOADS.replace("sglangLoads: true", "sglangLoads: false"),
    );
    let read = metrics(&explained(&[&off, "--request", "-", "--pod", &pod]));
    assert_eq!(
        (&read["from_loads"], &read["kv_usage"]),
        (&json!(false), &Value::Null)
    );
    assert_eq!(read["waiting"], 7.0);
    sim.pod(0).set_faults(Faults {
        no_loads: true,
        ..Faults::default()
    });
    let report = explained(&arguments);
    let read = metrics(&report);
    assert_eq!(
        (&read["from_loads"], &read["waiting"]),
        (&json!(false), &json!(7.0))
    );
    let note = report["notes"][0].as_str().unwrap();
    let parts = [
        "/v1/loads?include=core: http status: 404",
        "the load on its page counts",
    ];
    assert!(parts.iter().all(|part| note.contains(part)), "{note}");
}

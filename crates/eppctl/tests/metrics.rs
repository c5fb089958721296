//! `eppctl metrics` and the values that `eppctl explain` shows.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::io::{Read, Write};
use std::net::TcpListener;

use common::{eppctl, out};
use fake_model_server::{Faults, Metrics, Pinned, Settings, Sim};
use serde_json::{json, Value};

fn metrics(page: &str, arguments: &[&str]) -> (Value, Option<i32>) {
    let output = eppctl(&[&["metrics", "-o", "json", "-"], arguments].concat(), page);
    (
        serde_json::from_str(&out(&output)).unwrap(),
        output.status.code(),
    )
}

/// Lines as a server writes them, a family's type before it.
fn page(families: &[(&str, &str, &[&str])]) -> String {
    let mut page = String::new();
    for (name, kind, series) in families {
        page += &format!("# TYPE {name} {kind}\n");
        for series in *series {
            page += &format!("{name}{series}\n");
        }
    }
    page
}

/// A page with something to say of each family.
fn varied() -> String {
    page(&[
        (
            "vllm:num_requests_waiting",
            "gauge",
            &[
                "{engine=\"0\",model_name=\"m\"} 2.0",
                "{engine=\"1\",model_name=\"m\"} 12.0",
                "{engine=\"1\",model_name=\"m\"} 13.0",
                "{engine=\"0\",model_name=\"other\"} 50.0",
                "{engine=\"2\",model_name=\"m\"} NaN",
            ],
        ),
        (
            "vllm:num_requests_running",
            "counter",
            &["{engine=\"0\"} 9.0"],
        ),
        (
            "vllm:kv_cache_usage_perc",
            "gauge",
            &["{engine=\"0\"} 0.25", "{engine=\"1\"} 1.01"],
        ),
        ("vllm:gpu_cache_usage_perc", "gauge", &[" 0.5"]),
        (
            "vllm:lora_requests_info",
            "gauge",
            &[
                "{max_lora=\"2\",running_lora_adapters=\"old\"} 1",
                "{max_lora=\"2\",running_lora_adapters=\"new\"} 2",
            ],
        ),
    ]) + "vllm:cache_config_info{num_gpu_blocks=\"7\" 1\n"
}

#[test]
fn each_series_is_listed_with_its_use() {
    let page = varied();
    let (shown, code) = metrics(&page, &[]);
    assert_eq!((&shown["usable"], code), (&json!(true), Some(0)));
    let values = &shown["values"];
    assert_eq!(values["waiting"], 14.0);
    assert_eq!(values["running"], Value::Null);
    assert_eq!(values["kv_usage"], 1.0);
    assert_eq!(
        values["lora"],
        json!({"active": ["new"], "waiting": [], "max": 2})
    );
    let families = shown["families"].as_array().unwrap();
    let of = |name: &str| families.iter().find(|one| one["family"] == name).unwrap();
    let series = &of("vllm:num_requests_waiting")["series"];
    let whys = series.as_array().unwrap().iter();
    let whys: Vec<&str> = whys
        .map(|one| one["left_out"].as_str().unwrap_or(""))
        .collect();
    assert_eq!([whys[0], whys[1]], ["", ""]);
    assert!(whys[2].contains("another line"), "{whys:?}");
    assert!(whys[3].contains("engine, rank"), "{whys:?}");
    assert!(whys[4].contains("impossible"), "{whys:?}");
    assert_eq!(
        (&series[0]["line"], &series[0]["read"]),
        (&json!(2), &json!(true))
    );
    assert_eq!(series[1]["series"], "{engine=\"1\",model_name=\"m\"} 12.0");
    let unread = |name: &str| of(name)["unread"].as_str().unwrap().to_owned();
    assert!(unread("vllm:num_requests_running").contains("line 7 declares the type \"counter\""));
    assert!(unread("vllm:gpu_cache_usage_perc").contains("vllm:kv_cache_usage_perc"));
    assert!(unread("vllm:cache_config_info").contains("is damaged"));
    let old = &of("vllm:lora_requests_info")["series"][0];
    assert!(old["left_out"].as_str().unwrap().contains("written later"));
    let text = out(&eppctl(&["metrics", "-"], &page));
    for line in [
        "     2  {engine=\"0\",model_name=\"m\"} 2.0\n",
        "     6  {engine=\"2\",model_name=\"m\"} NaN  left out: impossible value",
        "waiting 14, running unknown, KV 1, LoRA running new, waiting none, of 2",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
}

#[test]
fn an_unusable_page_is_reported_with_the_reason() {
    let waiting: &[&str] = &[" 2"];
    let sound = page(&[("sglang:num_queue_reqs", "gauge", waiting)]);
    let (shown, code) = metrics(&sound, &[]);
    assert_eq!((&shown["usable"], code), (&json!(false), Some(1)));
    assert!(shown["why"]
        .as_str()
        .unwrap()
        .contains("none of the engine's metrics"));
    let unread = &shown["families"][0]["unread"];
    assert_eq!(unread, "not on the page");
    let (shown, code) = metrics(&sound, &["--engine", "sglang"]);
    assert_eq!((&shown["values"]["waiting"], code), (&json!(2.0), Some(0)));
    // As Ray's agent passes it on.
    let renamed = sound.replace("sglang:", "ray_sglang_");
    let (shown, _) = metrics(&renamed, &["--engine", "sglang"]);
    let unread = shown["families"][0]["unread"].as_str().unwrap();
    assert!(
        unread.contains("has ray_sglang_num_queue_reqs: engineConfigs"),
        "{unread}"
    );
    let (shown, _) = metrics(sound.trim_end(), &["--engine", "sglang"]);
    assert!(shown["why"].as_str().unwrap().contains("incomplete"));
    let output = eppctl(&["metrics", "--engine", "sglangs", "-"], &sound);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2));
    assert!(error.contains("expected one of vllm, sglang"), "{error}");
}

#[test]
fn the_engines_and_metric_names_of_a_document_apply() {
    let config = "
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: queue-scorer
- type: core-metrics-extractor
  parameters:
    defaultEngine: mine
    engineConfigs:
    - {name: mine, queuedRequestsSpec: 'q{engine=1}'}
dataLayer:
  sources: [{pluginRef: metrics-data-source, extractors: [{pluginRef: core-metrics-extractor}]}]
";
    let config = config.replace(
        "- type: queue-scorer",
        "- type: queue-scorer\n- type: metrics-data-source",
    );
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("metrics-engines.yaml");
    std::fs::write(&path, config).unwrap();
    let series: &[&str] = &["{engine=\"0\"} 2", "{engine=\"1\"} 3"];
    let (shown, _) = metrics(
        &page(&[("q", "gauge", series)]),
        &["--config", path.to_str().unwrap()],
    );
    assert_eq!(shown["engine"], "mine");
    assert_eq!(shown["values"]["waiting"], 3.0);
    assert_eq!(shown["families"][0]["family"], "q{engine=\"1\"}");
    let why = shown["families"][0]["series"][0]["left_out"].as_str();
    assert!(why.unwrap().contains("labels"), "{shown}");
}

/// Returns a simulated pod with a queue of seven, and its address.
fn busy_pod() -> (Sim, String) {
    let sim = Sim::start(1, &Settings::default()).unwrap();
    sim.pod(0).pin(Pinned {
        waiting: Some(7),
        kv_usage: Some(0.25),
        ..Pinned::default()
    });
    let pod = sim.addresses()[0].to_string();
    (sim, pod)
}

/// Writes a document that has `/v1/loads` read, with more settings of its extractor. Returns its path.
fn with_loads(name: &str, more: &str) -> String {
    let document = format!(
        "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {{type: queue-scorer}}
- {{type: metrics-data-source, parameters: {{sglangLoads: true}}}}
- {{type: core-metrics-extractor, parameters: {{defaultEngine: sglang{more}}}}}
"
    );
    let path = format!("{}/{name}", env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(&path, document).unwrap();
    path
}

#[test]
fn a_pods_page_is_fetched_and_explain_shows_the_values_used() {
    let (_sim, pod) = busy_pod();
    for place in [&pod, &format!("http://{pod}/metrics")] {
        let output = eppctl(&["metrics", "-o", "json", place], "");
        let shown: Value = serde_json::from_str(&out(&output)).unwrap();
        assert_eq!(shown["values"]["waiting"], 7.0, "{shown}");
    }
    let output = eppctl(&["metrics", "127.0.0.1:1"], "");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2));
    assert!(error.contains("127.0.0.1:1/metrics"), "{error}");
    let body = r#"{"model": "m", "prompt": "Once upon a time"}"#;
    let arguments = ["examples/full.yaml", "--request", "-", "--pod", &pod];
    let output = eppctl(&[&["explain", "-o", "json"], &arguments[..]].concat(), body);
    let report: Value = serde_json::from_str(&out(&output)).unwrap();
    let used = &report["candidates"][0]["metrics"];
    assert_eq!(
        (&used["waiting"], &used["kv_usage"]),
        (&json!(7.0), &json!(0.25))
    );
    let text = out(&eppctl(&[&["explain"], &arguments[..]].concat(), body));
    assert!(text.contains("waiting 7, running 0, KV 0.25"), "{text}");
}

#[test]
fn the_load_is_that_of_loads_where_the_document_has_them_read() {
    let (sim, pod) = busy_pod();
    // The page's names are vLLM's, but for the utilization, which it does not have.
    let config = with_loads(
        "metrics-loads.yaml",
        ", engineConfigs: [{name: sglang, queuedRequestsSpec: \"vllm:num_requests_waiting\"}]",
    );
    let config = config.as_str();
    let shown = |place: &str, more: &[&str]| {
        let arguments = ["metrics", "-o", "json", "--config", config, place];
        let output = eppctl(&[&arguments[..], more].concat(), "");
        let shown: Value = serde_json::from_str(&out(&output)).unwrap();
        let values = &shown["values"];
        let values = [
            &values["from_loads"],
            &values["waiting"],
            &values["kv_usage"],
        ];
        let unread = shown["loads_unread"].as_str().map(ToOwned::to_owned);
        (values.map(Clone::clone), unread.unwrap_or_default())
    };
    let of_loads = [json!(true), json!(7.0), json!(0.25)];
    let of_page = [json!(false), json!(7.0), Value::Null];
    assert_eq!(shown(&pod, &[]), (of_loads, String::new()));
    let (values, why) = shown(&format!("http://{pod}/metrics"), &[]);
    assert!(values == of_page && why.contains("HOST:PORT"), "{why}");
    // The other engine's page is all that there is of it.
    let (_, why) = shown(&pod, &["--engine", "vllm"]);
    assert_eq!(why, "");
    sim.pod(0).set_faults(Faults {
        no_loads: true,
        ..Faults::default()
    });
    let (values, why) = shown(&pod, &[]);
    assert!(values == of_page && why.contains("404"), "{why}");
    let text = out(&eppctl(&["metrics", "--config", config, &pod], ""));
    assert!(text.contains("the load is the page's: http"), "{text}");
}

/// Its `/v1/loads` is enough, whatever is wrong with its page.
#[test]
fn a_server_without_a_usable_page_is_usable_by_its_loads() {
    let (sim, pod) = busy_pod();
    // The page has none of the engine's names.
    let config = with_loads("metrics-no-page.yaml", "");
    let arguments = ["metrics", "--config", &config, &pod];
    let with = |metrics, no_loads| {
        sim.pod(0).set_faults(Faults {
            metrics,
            no_loads,
            ..Faults::default()
        });
        eppctl(&arguments, "")
    };
    for (metrics, why) in [
        (Metrics::Fine, "it has none of the engine's metrics"),
        (Metrics::Error, "/metrics: http status: 500"),
    ] {
        let output = with(metrics, false);
        let text = out(&output);
        assert_eq!(output.status.code(), Some(0), "{text}");
        let note = "only the load is known, as the page is not usable: ";
        assert!(text.contains(note) && text.contains(why), "{text}");
        let end = format!(
            "{pod} is usable as a server of sglang:\n  waiting 7, running 0, KV 0.25 (from /v1/loads)\n"
        );
        assert!(text.ends_with(&end), "{text}");
    }
    let shown: Value = serde_json::from_str(&out(&eppctl(
        &[&arguments[..], &["-o", "json"]].concat(),
        "",
    )))
    .unwrap();
    assert_eq!(
        (&shown["usable"], &shown["families"]),
        (&json!(true), &json!([]))
    );
    assert_eq!(shown["values"]["waiting"], 7.0);
    assert!(shown["why"].as_str().unwrap().contains("500"), "{shown}");
    // Without either, a page without the engine's metrics is unusable, and no page an error.
    assert_eq!(with(Metrics::Fine, true).status.code(), Some(1));
    assert_eq!(with(Metrics::Error, true).status.code(), Some(2));
}

/// Serves one page to all requests, and returns its address.
fn serve(page: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // The request is one packet, and what it says does not matter.
            let _ = stream.read(&mut [0; 4_096]);
            let length = page.len();
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n");
            let _ = stream.write_all(format!("{head}\r\n{page}").as_bytes());
        }
    });
    address
}

/// Two engines each, one of them overloaded: its endpoint is not the idle one.
#[test]
fn the_endpoint_with_an_overloaded_engine_is_not_picked() {
    let pod = |engines: [(f64, f64, f64); 2]| {
        let mut page = String::new();
        for (engine, (waiting, running, usage)) in engines.into_iter().enumerate() {
            page += &format!(
                "vllm:num_requests_waiting{{engine=\"{engine}\"}} {waiting}\n\
                 vllm:num_requests_running{{engine=\"{engine}\"}} {running}\n\
                 vllm:kv_cache_usage_perc{{engine=\"{engine}\"}} {usage}\n"
            );
        }
        serve(page)
    };
    let overloaded = pod([(0.0, 1.0, 0.05), (12.0, 40.0, 0.95)]);
    let balanced = pod([(1.0, 2.0, 0.1), (0.0, 2.0, 0.1)]);
    let pods = ["--pod", &overloaded, "--pod", &balanced];
    let arguments = [
        "explain",
        "-o",
        "json",
        "examples/full.yaml",
        "--request",
        "-",
    ];
    let body = r#"{"model": "m", "prompt": "Once upon a time"}"#;
    let output = eppctl(&[&arguments[..], &pods[..]].concat(), body);
    let report: Value = serde_json::from_str(&out(&output)).unwrap();
    let [first, second] = [0, 1].map(|place| &report["candidates"][place]);
    assert_eq!(first["name"], balanced, "{report}");
    assert_eq!(second["metrics"]["waiting"], 12.0);
    assert_eq!(second["metrics"]["running"], 41.0);
    assert_eq!(second["metrics"]["kv_usage"], 0.95);
}

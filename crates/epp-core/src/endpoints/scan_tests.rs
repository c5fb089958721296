//! The values of whole pages.

use super::*;
use crate::endpoints::engine::built_in;
use crate::scheduling::Lora;

const IDLE: &[u8] = include_bytes!("../../../../tests/fixtures/vllm-0.32/metrics_idle.txt");
const BUSY: &[u8] = include_bytes!("../../../../tests/fixtures/vllm-0.32/metrics_busy.txt");
const LORA: &[u8] = include_bytes!("../../../../tests/fixtures/vllm-0.32/metrics_lora.txt");
pub(super) const LORA_AFTER: &[u8] =
    include_bytes!("../../../../tests/fixtures/vllm-0.32/metrics_lora_after.txt");
const LORA_ONE: &[u8] =
    include_bytes!("../../../../tests/fixtures/vllm-0.32/metrics_lora_maxloras1.txt");
pub(super) const PAGES: [&[u8]; 5] = [IDLE, BUSY, LORA, LORA_AFTER, LORA_ONE];

pub(super) fn extraction(engine: &str) -> Extraction {
    let engines = built_in();
    let engine = engines.iter().find(|known| known.name == engine).unwrap();
    Extraction::new(engine, &Needs::METRICS)
}

pub(super) fn vllm(page: impl AsRef<[u8]>) -> Option<Page> {
    extraction("vllm").scan(page.as_ref())
}

pub(super) fn metrics(page: impl AsRef<[u8]>) -> Metrics {
    vllm(page).unwrap_or_default().metrics
}

/// Returns a page of gauges. Each has a name and the texts of its series behind the name.
pub(super) fn gauges(families: &[(&str, &[&str])]) -> String {
    let mut page = String::new();
    for (name, series) in families {
        page += &format!("# HELP {name} Help.\n# TYPE {name} gauge\n");
        for series in *series {
            page += &format!("{name}{series}\n");
        }
    }
    page
}

pub(super) fn waiting(series: &[&str]) -> Option<f64> {
    metrics(gauges(&[("vllm:num_requests_waiting", series)])).waiting
}

pub(super) fn kv_usage(series: &[&str]) -> Option<f64> {
    metrics(gauges(&[("vllm:kv_cache_usage_perc", series)])).kv_usage
}

pub(super) fn lora_of(series: &[&str]) -> Option<Lora> {
    let page = vllm(gauges(&[("vllm:lora_requests_info", series)]))?;
    page.lora_seen.then_some(page.metrics.lora)
}

pub(super) fn names(names: &str) -> Vec<String> {
    names.split_whitespace().map(str::to_owned).collect()
}

fn whole_page(waiting: f64, running: f64, kv_usage: f64, cache: (u32, u32)) -> Metrics {
    Metrics {
        model: Some("tiny".to_owned()),
        waiting: Some(waiting),
        running: Some(running),
        kv_usage: Some(kv_usage),
        block_size: Some(cache.0),
        num_blocks: Some(cache.1),
        ..Metrics::default()
    }
}

#[test]
fn real_pages_without_adapters_are_read() {
    for (page, expected, generated) in [
        (IDLE, whole_page(0.0, 0.0, 0.0, (128, 8192)), 0.0),
        (
            BUSY,
            whole_page(6.0, 2.0, 0.0031742156024905377, (128, 8192)),
            8_233.0,
        ),
    ] {
        let page = vllm(page).unwrap();
        let generated = Some(generated);
        assert_eq!(
            page.metrics,
            Metrics {
                generated,
                ..expected
            }
        );
        assert!(!page.lora_seen);
    }
}

#[test]
fn the_newest_series_of_adapters_counts_on_real_pages() {
    let busy = whole_page(8.0, 2.0, 0.003662556464412159, (128, 8192));
    let after = whole_page(0.0, 0.0, 0.0, (128, 8192));
    let one = whole_page(6.0, 2.0, 0.4147157190635451, (32, 300));
    for (page, expected, adapters, max, generated) in [
        (LORA, busy, "chat sql", 2, 789.0),
        (LORA_AFTER, after, "", 2, 40_000.0),
        (LORA_ONE, one, "sql", 1, 945.0),
    ] {
        let generated = Some(generated);
        let page = vllm(page).unwrap();
        let lora = Lora {
            active: names(adapters),
            waiting: names(adapters),
            max,
        };
        let expected = Metrics {
            lora,
            generated,
            ..expected
        };
        assert_eq!(page.metrics, expected);
        assert!(page.lora_seen);
    }
}

/// The three values that people look at are read wherever a page is read at all.
#[test]
fn only_needed_families_are_read() {
    let engine = &built_in()[0];
    assert!(Extraction::new(engine, &Needs::default()).is_empty());
    let needs = Needs {
        cache_info: true,
        ..Needs::default()
    };
    let page = Extraction::new(engine, &needs).scan(LORA).unwrap();
    let metrics = page.metrics;
    assert_eq!((metrics.waiting, metrics.running), (Some(8.0), Some(2.0)));
    assert!(metrics.kv_usage.is_some() && metrics.block_size.is_some());
    assert!(!page.lora_seen);
}

#[test]
fn the_families_of_every_engine_are_read() {
    let trtllm = gauges(&[
        ("trtllm_num_requests_waiting", &[" 3"]),
        ("trtllm_num_requests_running", &[" 2"]),
        ("trtllm_kv_cache_utilization", &[" 0.25"]),
        ("trtllm_kv_cache_tokens_per_block", &[" 32"]),
        ("trtllm_kv_cache_max_blocks", &[" 500"]),
    ]);
    let sglang = gauges(&[
        ("sglang:num_queue_reqs", &["{model_name=\"m\"} 3"]),
        ("sglang:num_running_reqs", &["{model_name=\"m\"} 2"]),
        ("sglang:token_usage", &["{model_name=\"m\"} 0.25"]),
        (
            "sglang:cache_config_info",
            &["{page_size=\"32\",num_pages=\"500\"} 1"],
        ),
    ]);
    let requests = [
        "{request_type=\"scheduled\"} 2",
        "{request_type=\"waiting\"} 3",
    ];
    let blocks = [
        "{kv_cache_block_type=\"max\",model=\"m\"} 500",
        "{kv_cache_block_type=\"tokens_per\",model=\"m\"} 32",
        "{kv_cache_block_type=\"fraction\",model=\"m\"} 0.25",
    ];
    let triton_trtllm = gauges(&[
        ("nv_trt_llm_request_metrics", &requests),
        ("nv_trt_llm_kv_cache_block_metrics", &blocks),
    ]);
    for (engine, page, model) in [
        ("trtllm-serve", trtllm, None),
        ("sglang", sglang, Some("m")),
        ("triton-tensorrt-llm", triton_trtllm, None),
    ] {
        let page = extraction(engine).scan(page.as_bytes()).unwrap();
        let expected = Metrics {
            model: model.map(str::to_owned),
            ..whole_page(3.0, 2.0, 0.25, (32, 500))
        };
        assert_eq!(page.metrics, expected, "{engine}");
    }
    let triton = "# TYPE nv_inference_pending_request_count gauge\n\
        nv_inference_pending_request_count{model=\"m\"} 3\n\
        # TYPE nv_inference_exec_count counter\n\
        nv_inference_exec_count{model=\"m\"} 2\n";
    let found = extraction("triton")
        .scan(triton.as_bytes())
        .unwrap()
        .metrics;
    // The count of all requests ever run is not a load.
    assert_eq!((found.waiting, found.running), (Some(3.0), None));
}

#[test]
fn the_old_kv_family_is_read_only_if_the_page_lacks_the_current_one() {
    let old = gauges(&[("vllm:gpu_cache_usage_perc", &[" 0.25"])]);
    let newer = gauges(&[("vllm:kv_cache_usage_perc", &[" 0.5"])]);
    // The current family is present, though without a possible value: the old one is not read.
    let impossible = gauges(&[("vllm:kv_cache_usage_perc", &[" NaN"])]);
    for (page, expected) in [
        (old.clone(), Some(0.25)),
        (old.clone() + &newer, Some(0.5)),
        (newer + &old, Some(0.5)),
        (old + &impossible, None),
    ] {
        assert_eq!(metrics(&page).kv_usage, expected, "{page}");
    }
}

#[test]
fn geometry_labels_default_to_vllms_and_are_overridden_by_values() {
    let engine = EngineConfig {
        cache_info: Some((MetricSpec::family("info"), String::new(), "n".to_owned())),
        block_size: Some(MetricSpec::family("size")),
        num_blocks: Some(MetricSpec::family("number")),
        ..EngineConfig::default()
    };
    let labels = "# TYPE info gauge\ninfo{block_size=\"16\",num_gpu_blocks=\"7\",n=\"9\"} 1\n";
    let sizes = "# TYPE size gauge\nsize 32\n";
    let numbers = "# TYPE number gauge\nnumber 33\n";
    for (page, expected) in [
        (labels.to_owned(), (16, 9)),
        ([labels, sizes].concat(), (32, 9)),
        ([numbers, labels].concat(), (16, 33)),
    ] {
        let found = Extraction::new(&engine, &Needs::METRICS).scan(page.as_bytes());
        let found = found.unwrap().metrics;
        let expected = (Some(expected.0), Some(expected.1));
        assert_eq!((found.block_size, found.num_blocks), expected, "{page}");
    }
}

#[test]
fn a_spec_selects_the_series_with_its_labels() {
    let page = "# TYPE m gauge\nm{l=\"v1\",x=\"y\"} 1 1000\nm{l=\"v\\\"2\"} 2 2000\nm 3 3000\n";
    for (spec, expected) in [
        ("m{l=v1}", Some(1.0)),
        ("m{x=y,l=v1}", Some(1.0)),
        (r#"m{l="v\"2"}"#, Some(2.0)),
        ("m", Some(3.0)),
        ("m{l=v3}", None),
        ("m{k=v1}", None),
        ("m{l=v1,x=z}", None),
    ] {
        let engine = EngineConfig {
            queued: MetricSpec::parse(spec).unwrap(),
            ..EngineConfig::default()
        };
        let found = Extraction::new(&engine, &Needs::METRICS).scan(page.as_bytes());
        assert_eq!(
            found.and_then(|page| page.metrics.waiting),
            expected,
            "{spec}"
        );
    }
}

#[test]
fn impossible_values_are_left_out() {
    assert_eq!(waiting(&[" 2.9"]), Some(2.0));
    assert_eq!(waiting(&[" 1e3"]), Some(1000.0));
    for impossible in [" -1", " NaN", " +Inf", " -Inf", " 1e999"] {
        assert_eq!(waiting(&[impossible]), None, "{impossible}");
    }
    assert_eq!(kv_usage(&[" 1"]), Some(1.0));
    assert_eq!(kv_usage(&[" 5e-3"]), Some(0.005));
    for full in [" 1.01", " 87.0"] {
        assert_eq!(kv_usage(&[full]), Some(1.0), "{full}");
    }
    for impossible in [" -0.01", " NaN", " nan", " +Inf", " 1e999"] {
        assert_eq!(kv_usage(&[impossible]), None, "{impossible}");
    }
}

#[test]
fn an_impossible_value_does_not_affect_other_families() {
    let found = metrics(gauges(&[
        ("vllm:num_requests_waiting", &[" -1"]),
        ("vllm:num_requests_running", &[" 2"]),
        ("vllm:kv_cache_usage_perc", &[" x"]),
    ]));
    let expected = Metrics {
        running: Some(2.0),
        ..Metrics::default()
    };
    assert_eq!(found, expected);
}

#[test]
fn a_damaged_series_makes_its_family_unreadable() {
    assert_eq!(waiting(&["{engine=\"0\"} 5x", "{engine=\"1\"} 6"]), None);
    assert_eq!(waiting(&["{engine=\"1\"} 6", "{engine=\"0\"}"]), None);
    assert_eq!(waiting(&["", " 6"]), None);
    assert_eq!(lora_of(&["{max_lora=\"2\"} 1", "{max_lora=\"2} 2"]), None);
}

#[test]
fn a_family_without_a_type_is_read() {
    let page = |kind: &str| format!("{kind}vllm:num_requests_waiting 5\n");
    for kind in [
        "# TYPE vllm:num_requests_waiting gauge\n",
        "#TYPE  vllm:num_requests_waiting\tGAUGE \r\n",
        "\u{feff}# TYPE vllm:num_requests_waiting gauge\n",
        "",
        "\u{feff}",
        "# TYPE vllm:num_requests_waiting untyped\n",
        "# TYPE vllm:num_requests_waiting unknown\n",
        "# TYPE vllm:num_requests_waiting_total counter\n",
        "# TYPES vllm:num_requests_waiting histogram\n",
        "# HELP vllm:num_requests_waiting # TYPE vllm:num_requests_waiting histogram\n",
    ] {
        assert_eq!(metrics(page(kind)).waiting, Some(5.0), "{kind}");
    }
}

#[test]
fn a_load_is_neither_a_counter_nor_a_distribution() {
    for kind in ["counter", "histogram", "summary", "gaugehistogram", ""] {
        let kind = format!("# TYPE vllm:num_requests_waiting {kind}\n");
        let sample = "vllm:num_requests_waiting 5\n";
        // The type line stands before the sample, behind it, and beside a second type line.
        for page in [
            [&kind, sample].concat(),
            [sample, &kind].concat(),
            [&kind, sample, "# TYPE vllm:num_requests_waiting gauge\n"].concat(),
        ] {
            assert_eq!(vllm(&page), None, "{page}");
        }
    }
    // Triton exports a constant as a counter.
    let blocks = "# TYPE size counter\nsize 32\n";
    let engine = EngineConfig {
        block_size: Some(MetricSpec::family("size")),
        ..EngineConfig::default()
    };
    let found = Extraction::new(&engine, &Needs::METRICS).scan(blocks.as_bytes());
    assert_eq!(found.unwrap().metrics.block_size, Some(32));
}

#[test]
fn a_family_with_two_or_late_type_lines_is_read() {
    let kind = "# TYPE vllm:num_requests_waiting gauge\n";
    let (sample, other) = (
        "vllm:num_requests_waiting{model_name=\"m\"} 5\n",
        "vllm:num_requests_waiting{model_name=\"n\"} 7\n",
    );
    for page in [
        [kind, sample, kind, other].concat(),
        [sample, kind, other].concat(),
        [sample, other, kind].concat(),
    ] {
        assert_eq!(metrics(&page).waiting, Some(5.0), "{page}");
    }
}

#[test]
fn families_with_similar_names_are_not_confused() {
    let page = gauges(&[
        (
            "vllm:num_requests_waiting_by_reason",
            &["{reason=\"capacity\"} 7"],
        ),
        ("vllm:num_requests", &[" 8"]),
        ("my_vllm:num_requests_waiting", &[" 9"]),
        ("other", &["{help=\"vllm:num_requests_waiting 10\"} 11"]),
        ("vllm:num_requests_running", &[" 1"]),
    ]);
    let help = "# HELP x \\nvllm:num_requests_waiting 12\n# vllm:num_requests_waiting 13\n";
    let found = metrics(page + help);
    assert_eq!((found.waiting, found.running), (None, Some(1.0)));
}

#[test]
fn labels_may_hold_anything() {
    let series = r#"{a="} 9",b="\"} 8 \\",c="x,y{z}",d="vllm:num_requests_waiting 7"} 6"#;
    assert_eq!(waiting(&[series]), Some(6.0));
}

#[test]
fn all_kinds_of_blanks_and_line_breaks_are_accepted() {
    let page = " \t# TYPE vllm:num_requests_waiting gauge\r\n\r\n\n \
        vllm:num_requests_waiting\t{ a = \"b\" , } \t5  \r\n";
    assert_eq!(metrics(page).waiting, Some(5.0));
}

#[test]
fn adapters_are_sets() {
    let series =
        "{running_lora_adapters=\" b ,a,,b\",waiting_lora_adapters=\",\",max_lora=\" 4\"} 1";
    let expected = Lora {
        active: names("a b"),
        waiting: Vec::new(),
        max: 4,
    };
    assert_eq!(lora_of(&[series]), Some(expected));
    // A server without adapters still has room for them.
    let empty = "{running_lora_adapters=\"\",waiting_lora_adapters=\"\",max_lora=\"4\"} 2";
    let expected = Lora {
        max: 4,
        ..Lora::default()
    };
    assert_eq!(lora_of(&[series, empty, series]), Some(expected));
    assert_eq!(lora_of(&["{max_lora=\"-1\"} 1"]), Some(Lora::default()));
    assert_eq!(lora_of(&[]), None);
    assert_eq!(lora_of(&[" NaN"]), None);
    let after_nan = lora_of(&["{max_lora=\"1\"} NaN", "{max_lora=\"2\"} 3"]);
    assert_eq!(after_nan.unwrap().max, 2);
}

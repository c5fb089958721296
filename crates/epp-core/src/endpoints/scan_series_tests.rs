//! Several series of one family.

use super::tests::{extraction, gauges, kv_usage, lora_of, metrics, names, waiting};
use super::*;
use crate::endpoints::engine::built_in;
use crate::endpoints::series::MAX_SERIES;
use crate::endpoints::spec::MetricSpec;

/// Returns the page that vLLM's front end writes for two engines, the second of them overloaded.
fn two_engines() -> String {
    gauges(&[
        (
            "vllm:num_requests_running",
            &[
                "{engine=\"0\",model_name=\"m\"} 1.0",
                "{engine=\"1\",model_name=\"m\"} 40.0",
            ],
        ),
        (
            "vllm:num_requests_waiting",
            &[
                "{engine=\"0\",model_name=\"m\"} 0.0",
                "{engine=\"1\",model_name=\"m\"} 12.0",
            ],
        ),
        (
            "vllm:kv_cache_usage_perc",
            &[
                "{engine=\"0\",model_name=\"m\"} 0.05",
                "{engine=\"1\",model_name=\"m\"} 0.95",
            ],
        ),
    ])
}

#[test]
fn engines_of_one_page_are_one_endpoint() {
    let found = metrics(two_engines());
    let expected = Metrics {
        model: Some("m".to_owned()),
        waiting: Some(12.0),
        several_series: true,
        running: Some(41.0),
        kv_usage: Some(0.95),
        ..Metrics::default()
    };
    assert_eq!(found, expected);
}

#[test]
fn a_spec_that_names_an_engine_reads_that_engine() {
    let spec = |text| MetricSpec::parse(text).unwrap();
    let engine = EngineConfig {
        queued: spec("vllm:num_requests_waiting{engine=1}"),
        running: spec("vllm:num_requests_running{engine=0}"),
        kv_usage: spec("vllm:kv_cache_usage_perc"),
        ..EngineConfig::default()
    };
    let found = Extraction::new(&engine, &Needs::METRICS).scan(two_engines().as_bytes());
    let found = found.unwrap().metrics;
    let expected = (Some(12.0), Some(1.0), Some(0.95));
    assert_eq!((found.waiting, found.running, found.kv_usage), expected);
}

#[test]
fn labels_of_engines_ranks_and_processes_add_up_in_any_spelling() {
    for label in [
        "engine",
        "engine_id",
        "engine_idx",
        "engineIndex",
        "dp_rank",
        "dpRank",
        "attn_dp_rank",
        "data_parallel_rank",
        "rank",
        "local_rank",
        "pid",
        "worker_id",
        "WorkerId",
        "ReplicaId",
        "replica",
    ] {
        let series = |value, count| format!("{{{label}=\"{value}\",model_name=\"m\"}} {count}");
        let (first, second, third) = (series(0, 5), series(1, 6), series(2, 7));
        assert_eq!(waiting(&[&first, &second, &third]), Some(18.0), "{label}");
        let usage = |value, share| format!("{{model_name=\"m\",{label}=\"{value}\"}} {share}");
        let (first, second) = (usage(0, 0.75), usage(1, 0.5));
        assert_eq!(kv_usage(&[&first, &second]), Some(0.75), "{label}");
    }
}

/// SGLang's ranks of data-parallel attention, each with its tensor ranks.
#[test]
fn ranks_that_share_their_requests_count_once() {
    for label in [
        "tp_rank",
        "attn_tp_rank",
        "pp_rank",
        "moe_ep_rank",
        "attn_cp_rank",
        "tensor_parallel_rank",
    ] {
        let series = |dp, rank, count| format!("{{dp_rank=\"{dp}\",{label}=\"{rank}\"}} {count}");
        let all = [
            series(0, 0, 5),
            series(0, 1, 5),
            // The page is read between two writes of the server.
            series(1, 2, 7),
            series(1, 3, 6),
        ];
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        assert_eq!(waiting(&all), Some(12.0), "{label}");
        let one_server = [all[0], all[1]].map(|text| text.replace("dp_rank=\"0\",", ""));
        let one_server = one_server.each_ref().map(String::as_str);
        assert_eq!(waiting(&one_server), Some(5.0), "{label}");
    }
}

#[test]
fn labels_that_say_what_is_counted_do_not_add_up() {
    for label in [
        "model_name",
        "model",
        "version",
        "lora_name",
        "priority",
        "finished_reason",
        "engine_type",
        "quantile",
        "frank_lloyd",
        "engine_of_a_label_that_is_longer_than_any_known_one",
    ] {
        let series = |value: &str, count| format!("{{{label}=\"{value}\"}} {count}");
        let (first, second) = (series("a", 5), series("b", 6));
        assert_eq!(waiting(&[&first, &second]), Some(5.0), "{label}");
        assert_eq!(waiting(&[&second, &first]), Some(6.0), "{label}");
        // The values of each model add up over its engines.
        let more = first.replace('{', "{engine=\"1\",");
        assert_eq!(waiting(&[&first, &second, &more]), Some(10.0), "{label}");
    }
}

/// SGLang writes the total with an empty priority, then the share of each priority.
#[test]
fn a_total_counts_instead_of_its_shares() {
    let total = "{dp_rank=\"0\",priority=\"\"} 9";
    let shares = [
        "{dp_rank=\"0\",priority=\"1\"} 4",
        "{dp_rank=\"0\",priority=\"2\"} 5",
    ];
    assert_eq!(waiting(&[total, shares[0], shares[1]]), Some(9.0));
    assert_eq!(waiting(&[shares[0], total, shares[1]]), Some(9.0));
    assert_eq!(waiting(&[shares[0], " 9", shares[1]]), Some(9.0));
    let other = "{dp_rank=\"1\"} 2";
    assert_eq!(waiting(&[shares[0], total, other]), Some(11.0));
}

#[test]
fn the_newest_line_of_a_series_counts_and_of_equally_new_ones_the_first() {
    assert_eq!(waiting(&[" 5", " 6"]), Some(5.0));
    assert_eq!(waiting(&[" 5 3000", " 6 1000"]), Some(5.0));
    assert_eq!(waiting(&[" 5 1000", " 6 3000"]), Some(6.0));
    assert_eq!(waiting(&[" 5 1000", " 6 1000"]), Some(5.0));
    assert_eq!(waiting(&[" 5", " 6 1000"]), Some(6.0));
    assert_eq!(waiting(&[" 5 1000", " 6"]), Some(5.0));
    // Neither the order of labels nor an empty label makes a series different.
    let same = [
        "{a=\"1\",engine=\"0\",b=\"2\"} 5",
        "{b=\"2\",a=\"1\",engine=\"0\",c=\"\"} 6",
    ];
    assert_eq!(waiting(&same), Some(5.0));
    // Of series of two models the newer counts.
    let models = ["{model=\"a\"} 5 1000", "{model=\"b\"} 6 2000"];
    assert_eq!(waiting(&models), Some(6.0));
    // An older series of another engine still counts.
    let engines = ["{engine=\"0\"} 5 1000", "{engine=\"1\"} 6 2000"];
    assert_eq!(waiting(&engines), Some(11.0));
}

#[test]
fn a_series_without_a_value_is_left_out() {
    for impossible in ["NaN", "nan", "-1", "+Inf", "-Inf", "1e999"] {
        let none = format!("{{engine=\"0\"}} {impossible}");
        let (two, full) = ("{engine=\"1\"} 2", "{engine=\"2\"} 1.01");
        assert_eq!(waiting(&[&none, two]), Some(2.0), "{impossible}");
        assert_eq!(waiting(&[two, &none]), Some(2.0), "{impossible}");
        assert_eq!(waiting(&[&none]), None, "{impossible}");
        assert_eq!(kv_usage(&[&none, full]), Some(1.0), "{impossible}");
    }
    let most = format!("{{engine=\"0\"}} {}", f64::MAX);
    let more = format!("{{engine=\"1\"}} {}", f64::MAX);
    assert_eq!(waiting(&[&most, &more]), None, "more than a number holds");
}

fn blocks(engine: &str, page: &str) -> (Option<u32>, Option<u32>) {
    let found = extraction(engine).scan(page.as_bytes()).unwrap_or_default();
    (found.metrics.block_size, found.metrics.num_blocks)
}

/// vLLM's front end adds up the blocks of its engines and writes the sum for each of them.
#[test]
fn blocks_add_up_unless_each_engine_reports_the_sum() {
    let vllm: &[&str] = &[
        "{block_size=\"16\",engine=\"0\",num_gpu_blocks=\"900\"} 1.0",
        "{block_size=\"16\",engine=\"1\",num_gpu_blocks=\"900\"} 1.0",
    ];
    let page = gauges(&[("vllm:cache_config_info", vllm)]);
    assert_eq!(blocks("vllm", &page), (Some(16), Some(900)));
    let sglang: &[&str] = &[
        "{dp_rank=\"0\",num_pages=\"900\",page_size=\"16\",tp_rank=\"0\"} 1.0",
        "{dp_rank=\"0\",num_pages=\"900\",page_size=\"16\",tp_rank=\"1\"} 1.0",
        "{dp_rank=\"1\",num_pages=\"800\",page_size=\"16\",tp_rank=\"2\"} 1.0",
        "{dp_rank=\"2\",num_pages=\"none\",page_size=\"16\",tp_rank=\"4\"} 1.0",
    ];
    let page = gauges(&[("sglang:cache_config_info", sglang)]);
    assert_eq!(blocks("sglang", &page), (Some(16), Some(1700)));
    let page = gauges(&[
        (
            "trtllm_kv_cache_tokens_per_block",
            &["{rank=\"0\"} 32", "{rank=\"1\"} 32"],
        ),
        (
            "trtllm_kv_cache_max_blocks",
            &["{rank=\"0\"} 500", "{rank=\"1\"} 4294967295"],
        ),
    ]);
    assert_eq!(blocks("trtllm-serve", &page), (Some(32), Some(u32::MAX)));
}

#[test]
fn the_newest_adapters_of_each_engine_are_merged() {
    let series = |engine, running, waiting, time| {
        format!(
            "{{engine=\"{engine}\",max_lora=\"2\",running_lora_adapters=\"{running}\",\
             waiting_lora_adapters=\"{waiting}\"}} {time}"
        )
    };
    let of = |all: &[String]| {
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let lora = lora_of(&all).unwrap();
        (lora.active.join(" "), lora.waiting.join(" "), lora.max)
    };
    let values = |active: &str, waiting: &str, max| (active.to_owned(), waiting.to_owned(), max);
    let united = [
        series(0, "a", "", 1.5e9),
        series(1, "old", "", 1.6e9),
        series(1, "b", "c", 1.7e9),
        series(0, "", "", 1.4e9),
    ];
    // The first engine has room, though its series is older than the second engine's.
    assert_eq!(of(&united), values("a b", "c", 4));
    // Both engines are full with the same adapters.
    let full = [series(0, "a,b", "", 1.0), series(1, "b,a", "", 2.0)];
    assert_eq!(of(&full), values("a b", "", 2));
    let empty = [series(0, "", "", 1.0), series(1, "", "", 2.0)];
    assert_eq!(of(&empty), values("", "", 4));
    // The newest series of a single engine counts as it is.
    let one = [
        series(0, "a,b", "c", 2.0).replace("engine=\"0\",", ""),
        series(0, "b", "", 1.0).replace("engine=\"0\",", ""),
    ];
    assert_eq!(of(&one), values("a b", "c", 2));
    // Ranks that share their requests have the same adapters and places.
    let ranks = [series(0, "a", "", 1.0), series(1, "a", "", 1.0)];
    let ranks = ranks.map(|text| text.replace("engine", "tp_rank"));
    assert_eq!(of(&ranks), values("a", "", 2));
}

#[test]
fn too_many_adapters_of_several_series_are_ignored() {
    let series = |engine: usize| {
        let names: Vec<String> = (0..2_000).map(|name| format!("{engine}-{name}")).collect();
        let names = names.join(",");
        format!("{{engine=\"{engine}\",running_lora_adapters=\"{names}\"}} 1")
    };
    let all: Vec<String> = (0..3).map(series).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    assert_eq!(lora_of(&all[..2]).unwrap().active.len(), 4_000);
    assert_eq!(lora_of(&all), None);
    assert_eq!(names("a b").len(), 2);
}

/// More series than any server has, different in each kind of label.
#[test]
fn series_beyond_the_bound_are_left_out() {
    for (labels, expected) in [
        ("engine=\"{}\"", MAX_SERIES),
        ("model=\"{}\"", 1),
        ("tp_rank=\"{}\"", 1),
        ("engine=\"{}\",model=\"{}\",tp_rank=\"{}\"", 1),
        ("l{}=\"x\"", 1),
    ] {
        let series = |number: usize| {
            let labels = labels.replace("{}", &number.to_string());
            format!("{{{labels}}} 1")
        };
        let all: Vec<String> = (0..20 * MAX_SERIES).map(series).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        assert_eq!(waiting(&all), Some(expected as f64), "{labels}");
        assert_eq!(
            waiting(&all[..MAX_SERIES]),
            Some(expected as f64),
            "{labels}"
        );
        // A known series is still updated after the bound is reached.
        let again = format!("{} 3000", all[0].replace("} 1", "} 8"));
        let late = [&all[..], &[&again]].concat();
        let newest = match expected {
            1 => 8,
            engines => engines + 7,
        };
        assert_eq!(waiting(&late), Some(newest as f64), "{labels}");
    }
}

/// The custom attributes `a` and `b` of a page, read from families of these names.
fn attributes(page: &str, needs: &Needs) -> [Option<f64>; 2] {
    let spec = |text| MetricSpec::parse(text).unwrap().unwrap();
    let mut engine = built_in().swap_remove(0);
    engine.custom = vec![
        ("a".to_owned(), spec("x{kind=hot}")),
        ("b".to_owned(), spec("y_total")),
    ];
    let page = Extraction::new(&engine, needs).scan(page.as_bytes());
    let metrics = page.unwrap_or_default().metrics;
    ["a", "b"].map(|name| metrics.attribute(AttributeId::of(name)))
}

#[test]
fn custom_attributes_are_read_where_a_plugin_needs_them() {
    let needs = Needs {
        attributes: true,
        ..Needs::default()
    };
    for (page, expected) in [
        (
            "x{kind=\"hot\"} -3.5\nx{kind=\"cold\"} 9\n",
            [Some(-3.5), None],
        ),
        ("# TYPE y_total counter\ny_total 7\n", [None, Some(7.0)]),
        // Of several engines the greatest.
        (
            "x{kind=\"hot\",engine=\"0\"} 1\nx{kind=\"hot\",engine=\"1\"} 2\n",
            [Some(2.0), None],
        ),
        ("x{kind=\"hot\"} NaN\ny_total +Inf\n", [None, None]),
        // No measurement.
        ("x{kind=\"hot\"} 1.7e308\ny_total -1e16\n", [None, None]),
        ("# TYPE x histogram\nx{kind=\"hot\"} 1\n", [None, None]),
    ] {
        assert_eq!(attributes(page, &needs), expected, "{page}");
        let waiting = Needs {
            waiting: true,
            ..Needs::default()
        };
        assert_eq!(attributes(page, &waiting), [None, None]);
    }
}

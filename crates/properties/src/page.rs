//! The scanner of metrics pages.

use epp_wasm::datalayer::engine::{built_in, EngineConfig};
use epp_wasm::datalayer::scan::{Extraction, Page};
use epp_wasm::datalayer::spec::MetricSpec;
use epp_wasm::scheduling::{Lora, Needs};

use super::within;

/// Memory for a page of no length, and for each of its bytes: a list of adapters with names of one
/// letter takes most.
const MEMORY: usize = 4 << 10;
const MEMORY_PER_BYTE: usize = 64;

/// A page says what can be, the same whatever surrounds the wanted lines, and what a plain look at
/// it finds.
pub fn page(input: &[u8]) {
    for engine in built_in() {
        check(input, &engine);
    }
}

fn check(input: &[u8], engine: &EngineConfig) {
    let extraction = Extraction::new(engine, &Needs::METRICS);
    let limit = MEMORY + MEMORY_PER_BYTE * input.len();
    let found = within(limit, || extraction.scan(input));
    let Some((last, lines)) = input.split_last() else {
        return assert_eq!(found, None);
    };
    if *last != b'\n' {
        return assert_eq!(found, None, "a cut page");
    }

    let lines: Vec<&[u8]> = lines.split(|byte| *byte == b'\n').collect();
    let names = wanted(engine);
    let is_wanted = |line: &&&[u8]| names.iter().any(|name| contains(line, name));
    let alone: Vec<u8> = lines
        .iter()
        .filter(is_wanted)
        .flat_map(|line| [line, &b"\n"[..]].concat())
        .collect();
    assert_eq!(extraction.scan(&alone), found, "other lines matter");
    let spaced: Vec<u8> = lines
        .iter()
        .flat_map(|line| [b"\t ", *line, b" \r\n\n"].concat())
        .collect();
    assert_eq!(extraction.scan(&spaced), found, "white space matters");

    if let Some(found) = &found {
        assert_possible(found);
    }
    if let Ok(text) = std::str::from_utf8(input) {
        assert_plain(text, engine, &found.unwrap_or_default());
    }
}

fn contains(line: &[u8], name: &str) -> bool {
    String::from_utf8_lossy(line).contains(name)
}

/// The names of the families that are read.
fn wanted(engine: &EngineConfig) -> Vec<&str> {
    let labels = engine.cache_labels().map(|(spec, ..)| spec);
    let specs = [
        &engine.queued,
        &engine.running,
        &engine.kv_usage,
        &engine.kv_usage_former,
        &engine.lora,
        &engine.block_size,
        &engine.num_blocks,
    ];
    let specs = specs.into_iter().flatten().chain(labels);
    specs.map(|spec| spec.name.as_str()).collect()
}

/// What holds of any page's values.
fn assert_possible(page: &Page) {
    let metrics = &page.metrics;
    for count in [metrics.waiting, metrics.running].into_iter().flatten() {
        assert!(count >= 0.0 && count.is_finite() && count.fract() == 0.0);
    }
    assert!(metrics
        .kv_usage
        .is_none_or(|usage| (0.0..=1.0).contains(&usage)));
    assert!(metrics.block_size != Some(0) && metrics.num_blocks != Some(0));
    for adapters in [&metrics.lora.active, &metrics.lora.waiting] {
        assert!(adapters
            .iter()
            .all(|name| !name.is_empty() && name.trim() == name));
        assert!(
            adapters.windows(2).all(|pair| pair[0] < pair[1]),
            "sorted, each once"
        );
    }
    assert!(page.lora_seen || metrics.lora == Lora::default());
}

/// Whether the values are those that a plain look finds, where it can tell.
fn assert_plain(page: &str, engine: &EngineConfig, found: &Page) {
    let plain = |spec: &Option<MetricSpec>| {
        let spec = spec.as_ref().filter(|spec| spec.labels.is_empty())?;
        plain_value(page, &spec.name)
    };
    let count = |value: f64| (value >= 0.0 && value.is_finite()).then(|| value.trunc());
    if let Some(value) = plain(&engine.queued) {
        assert_eq!(found.metrics.waiting, count(value), "waiting");
    }
    if let Some(value) = plain(&engine.running) {
        assert_eq!(found.metrics.running, count(value), "running");
    }
    if let Some(value) = plain(&engine.kv_usage) {
        let share = Some(value).filter(|value| (0.0..=1.0).contains(value));
        assert_eq!(found.metrics.kv_usage, share, "KV usage");
    }
}

/// The value of a family that stands on the page once, announced as a gauge just before, with plain
/// labels and without a timestamp.
fn plain_value(page: &str, name: &str) -> Option<f64> {
    let mut lines = page
        .lines()
        .filter(|line| line.contains(name) && !line.starts_with("# HELP "));
    let (kind, sample) = (lines.next()?, lines.next()?);
    if kind != format!("# TYPE {name} gauge") || lines.next().is_some() {
        return None;
    }
    let (labels, value) = sample.strip_prefix(name)?.rsplit_once(' ')?;
    let list = labels
        .strip_prefix('{')
        .and_then(|list| list.strip_suffix('}'));
    let is_plain = |text: &str| {
        let mut letters = text.chars();
        letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
    };
    let is_label = |label: &str| {
        let pair = label
            .strip_suffix('"')
            .and_then(|pair| pair.split_once("=\""));
        pair.is_some_and(|(name, value)| is_plain(name) && is_plain(value))
    };
    let plain = labels.is_empty() || list.is_some_and(|list| list.split(',').all(is_label));
    value.parse().ok().filter(|_| plain)
}

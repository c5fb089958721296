//! Properties of the scanner of metrics pages.

use std::collections::BTreeMap;

use epp_core::endpoints::engine::{built_in, EngineConfig};
use epp_core::endpoints::loads::Loads;
use epp_core::endpoints::partial_page::PageReader;
use epp_core::endpoints::scan::{Extraction, Page};
use epp_core::endpoints::spec::MetricSpec;
use epp_core::scheduling::{Lora, Metrics, Needs};

use super::within;

/// Memory for an empty page, and per byte of a page: a list of adapters with names of one letter takes most.
const MEMORY: usize = 4 << 10;
const MEMORY_PER_BYTE: usize = 64;

const MARK: &[u8] = "\u{feff}".as_bytes();

/// Asserts that a page gives possible values, the same whatever surrounds the wanted lines, and the same as a simple
/// reader.
pub fn page(input: &[u8]) {
    // SGLang's answer in place of a page allocates nothing.
    if let Some(loads) = within(0, || Loads::read(input)) {
        assert_possible(&Page {
            metrics: loads.metrics(&Metrics::default()),
            lora_seen: false,
        });
    }
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

    // A byte order mark is recognised only at the beginning of a page.
    let lines = lines.strip_prefix(MARK).unwrap_or(lines);
    let lines: Vec<&[u8]> = lines.split(|byte| *byte == b'\n').collect();
    let names = wanted(engine);
    let is_wanted = |line: &&&[u8]| names.iter().any(|name| contains(line, name));
    let alone: Vec<u8> = lines
        .iter()
        .filter(is_wanted)
        .flat_map(|line| [&b"\n"[..], line].concat())
        .chain(*b"\n")
        .collect();
    assert_eq!(extraction.scan(&alone), found, "other lines matter");
    let spaced: Vec<u8> = lines
        .iter()
        .flat_map(|line| [b"\t ", *line, b" \r\n\n"].concat())
        .collect();
    assert_eq!(extraction.scan(&spaced), found, "white space matters");
    let mut known = PageReader::default();
    for time in 0..2 {
        let read = known.read(&extraction, &mut &input[..]);
        assert_eq!(read, found, "read in part, time {time}");
    }
    assert_eq!(
        extraction.review(input).page,
        found,
        "shown is what is read"
    );

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
        &engine.old_kv_usage,
        &engine.lora,
        &engine.block_size,
        &engine.num_blocks,
    ];
    let specs = specs.into_iter().flatten().chain(labels);
    specs.map(|spec| spec.name.as_str()).collect()
}

/// Asserts what holds for the values of any page.
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

/// Asserts that the values are those of a simple reader, where it can read the page.
fn assert_plain(page: &str, engine: &EngineConfig, found: &Page) {
    let plain = |spec: &Option<MetricSpec>| {
        let spec = spec.as_ref().filter(|spec| spec.labels.is_empty())?;
        plain_series(page, &spec.name)
    };
    let count = |value: f64| (value >= 0.0 && value.is_finite()).then(|| value.trunc());
    let sum = |one: f64, other: f64| one + other;
    let requests = |series: Vec<Series>| together(series, count, sum).filter(|it| it.is_finite());
    if let Some(series) = plain(&engine.queued) {
        let (found, sum) = (found.metrics.waiting, requests(series));
        assert!(same(found, sum), "waiting: {found:?}, not {sum:?}");
    }
    if let Some(series) = plain(&engine.running) {
        let (found, sum) = (found.metrics.running, requests(series));
        assert!(same(found, sum), "running: {found:?}, not {sum:?}");
    }
    if let Some(series) = plain(&engine.kv_usage) {
        let share = |value: f64| (value >= 0.0 && value.is_finite()).then(|| value.min(1.0));
        let usage = together(series, share, f64::max);
        assert_eq!(found.metrics.kv_usage, usage, "KV usage");
    }
}

/// Returns whether two sums differ only by the order of additions.
fn same(one: Option<f64>, other: Option<f64>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => (one - other).abs() <= one.abs() * 1e-9,
        (one, other) => one == other,
    }
}

/// A series that the simple reader understands.
#[derive(Default)]
struct Series {
    part: BTreeMap<String, String>,
    rank: BTreeMap<String, String>,
    meaning: BTreeMap<String, String>,
    value: f64,
}

/// Merges series without timestamps: of several meanings the first with the fewest labels counts, of repeated series the
/// first line, and of ranks that share requests the greatest value.
fn together(
    mut series: Vec<Series>,
    value: impl Fn(f64) -> Option<f64>,
    parts: impl Fn(f64, f64) -> f64,
) -> Option<f64> {
    series.retain(|one| value(one.value).is_some());
    let meaning = series.iter().map(|one| &one.meaning);
    let meaning = meaning.min_by_key(|meaning| meaning.len())?.clone();
    let mut ranks = BTreeMap::new();
    for one in series.iter().filter(|one| one.meaning == meaning) {
        ranks.entry((&one.part, &one.rank)).or_insert(one.value);
    }
    let mut by_part: BTreeMap<_, f64> = BTreeMap::new();
    for ((part, _), said) in ranks {
        let said = value(said)?;
        by_part
            .entry(part)
            .and_modify(|most| *most = most.max(said))
            .or_insert(said);
    }
    by_part.into_values().reduce(parts)
}

/// Returns the series of a family that is first declared as a gauge, or not declared, with plain labels and without
/// timestamps.
fn plain_series(page: &str, name: &str) -> Option<Vec<Series>> {
    let lines = page
        .lines()
        .filter(|line| line.contains(name) && !line.starts_with("# HELP "));
    let mut lines = lines.peekable();
    let kind = format!("# TYPE {name} gauge");
    lines.next_if(|line| *line == kind);
    lines.peek()?;
    // The maximum number of distinct series.
    let series: Option<Vec<Series>> = lines.map(|line| plain_sample(line, name)).collect();
    series.filter(|series| series.len() <= 1_024)
}

fn plain_sample(line: &str, name: &str) -> Option<Series> {
    let (labels, value) = line.strip_prefix(name)?.rsplit_once(' ')?;
    let mut series = Series {
        value: value.parse().ok()?,
        ..Series::default()
    };
    if labels.is_empty() {
        return Some(series);
    }
    let list = labels.strip_prefix('{')?.strip_suffix('}')?;
    let is_plain = |text: &str| {
        let mut letters = text.chars();
        letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
    };
    for label in list.split(',') {
        let (name, value) = label.strip_suffix('"')?.split_once("=\"")?;
        if !is_plain(name) || !is_plain(value) {
            return None;
        }
        let labels = match name {
            "engine" | "dp_rank" | "pid" => &mut series.part,
            "tp_rank" | "moe_ep_rank" => &mut series.rank,
            "model_name" | "priority" | "a" | "b" => &mut series.meaning,
            // The name is too similar to one that identifies a part of the server.
            _ => return None,
        };
        let twice = labels.insert(name.to_owned(), value.to_owned()).is_some();
        if twice {
            return None;
        }
    }
    for labels in [&mut series.part, &mut series.rank, &mut series.meaning] {
        labels.retain(|_, value| !value.is_empty());
    }
    Some(series)
}

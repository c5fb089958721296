//! Prometheus' own rule engine, over hours that are made of pages of a real Envoy.
//!
//! A phase of a drill lasts seconds and is recorded as two pages of `/stats/prometheus`, at its beginning and at its
//! end. `promtool test rules` gets it as two hours of scrapes: counters, and the ages of what is no longer updated, go
//! on as fast as they did between the pages; other gauges keep the value of the last one. Nothing of the rules is
//! scaled. As Prometheus does, it adds the series `up`: whether there was a page.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use envoy_harness::Folder;
use serde_json::{json, Value};

use crate::client::get;

/// Seconds between two scrapes.
const SCRAPE: usize = 15;

/// Scrapes of a phase: two hours of them, which is the longest range of the rules.
const SCRAPES: usize = 2 * 3600 / SCRAPE;

/// How long a phase is recorded: an endpoint whose polls fail is polled every five seconds.
const RECORDED: Duration = Duration::from_secs(6);

/// The histogram of the times of decisions.
const DECISIONS: &str = "llm_d_epp_scheduler_e2e_duration_seconds_bucket";

/// An alert, and the pools for which it fires; none where it has no label `pool`.
pub type Fired = (&'static str, &'static [&'static str]);

fn top() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rules() -> PathBuf {
    top().join("envoy/dashboards/alerts.yaml")
}

/// Returns the names of all alerts.
pub fn alerts() -> BTreeSet<String> {
    let rules = fs::read_to_string(rules()).unwrap();
    let rules: Value = serde_yaml::from_str(&rules).unwrap();
    let rules = rules["groups"][0]["rules"].as_array().unwrap().iter();
    rules
        .map(|rule| rule["alert"].as_str().unwrap().to_owned())
        .collect()
}

/// A page, and when it was there; empty where it could not be scraped.
#[derive(Clone)]
struct Page {
    at: Instant,
    text: String,
}

impl Page {
    fn scrape(port: u16) -> Self {
        let page = get(port, "/stats/prometheus").ok();
        let page = page.filter(|page| page.status == 200);
        let text = page.map_or_else(String::new, |page| page.body);
        // The filter's names in the templates, which these two metrics contain.
        let text = text.replace("envoy_wasm_epp0_", "envoy_wasm_epp_");
        let text = text.replace("_http_filter_wasm0_", "_http_filter_epp_");
        let at = Instant::now();
        Self { at, text }
    }

    /// Returns the samples of the rules' metrics by name and labels.
    fn samples(&self, wanted: &BTreeSet<&str>) -> BTreeMap<String, f64> {
        let lines = self.text.lines().filter(|line| !line.starts_with('#'));
        let samples = lines.filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (name, labels) = series.split_once('{')?;
            let labels = labels.strip_suffix('}')?;
            let comma = if labels.is_empty() { "" } else { "," };
            let value = value.parse().ok().filter(|_| wanted.contains(name))?;
            Some((format!("{name}{{{labels}{comma}"), value))
        });
        samples.collect()
    }

    fn counters(&self) -> BTreeSet<&str> {
        let kinds = self.text.lines();
        let kinds = kinds.filter_map(|line| line.strip_prefix("# TYPE "));
        kinds
            .filter_map(|kind| {
                kind.strip_suffix(" counter")
                    .or(kind.strip_suffix(" histogram"))
            })
            .collect()
    }
}

/// What an Envoy exported during a phase of a drill.
#[derive(Clone)]
pub struct Phase {
    first: Page,
    last: Page,
}

impl Phase {
    /// Records a phase as it is seen at several ports, with these requests all the while.
    pub fn record<const N: usize>(ports: [u16; N], mut request: impl FnMut()) -> [Self; N] {
        let first = ports.map(Page::scrape);
        let begun = Instant::now();
        while begun.elapsed() < RECORDED {
            request();
        }
        let mut last = ports.map(Page::scrape).into_iter();
        first.map(|first| Self {
            first,
            last: last.next().unwrap(),
        })
    }

    /// Returns the phase with a text of its pages replaced, for what no drill can play.
    pub fn with(mut self, text: &str, replacement: &str) -> Self {
        for page in [&mut self.first, &mut self.last] {
            assert!(page.text.contains(text), "{text}");
            page.text = page.text.replace(text, replacement);
        }
        self
    }

    /// Returns the phase without the times of decisions: where tests share the machine, those are not the drill's
    /// doing.
    pub fn without_times(self) -> Self {
        self.with_lines(DECISIONS, |_| None)
    }

    /// Returns the phase with the bounds of the histogram of decisions a thousand times as high.
    pub fn with_slow_decisions(self) -> Self {
        self.with_lines(DECISIONS, |line| {
            let (before, rest) = line.split_once("le=\"")?;
            let (bound, after) = rest.split_once('"')?;
            let bound = match bound.parse::<f64>() {
                Ok(bound) if bound.is_finite() => (bound * 1000.0).to_string(),
                _ => bound.to_owned(),
            };
            Some(format!("{before}le=\"{bound}\"{after}"))
        })
    }

    /// Returns the phase as an Envoy without the filter would export it.
    pub fn without_filter(self) -> Self {
        let begins = ["epp_wasm_", "llm_d_epp_"];
        let phase = begins.into_iter();
        phase.fold(self, |phase, begin| phase.with_lines(begin, |_| None))
    }

    /// Changes the lines that begin with this, or drops them.
    fn with_lines(mut self, begin: &str, change: impl Fn(&str) -> Option<String>) -> Self {
        for page in [&mut self.first, &mut self.last] {
            let lines = page
                .text
                .lines()
                .filter_map(|line| match line.starts_with(begin) {
                    true => change(line),
                    false => Some(line.to_owned()),
                });
            page.text = lines.collect::<Vec<_>>().join("\n");
        }
        self
    }

    fn seconds(&self) -> f64 {
        (self.last.at - self.first.at).as_secs_f64()
    }
}

/// What one Envoy exported: its phases.
pub struct Recording {
    /// The label `instance`.
    pub instance: &'static str,
    /// As many as other recordings have.
    pub phases: Vec<Phase>,
}

impl Recording {
    /// Returns the input for promtool.
    fn series(&self, wanted: &BTreeSet<&str>) -> Vec<Value> {
        let mut counters = BTreeSet::new();
        let mut pages = Vec::new();
        let mut all = BTreeSet::new();
        for phase in &self.phases {
            let (first, last) = (phase.first.samples(wanted), phase.last.samples(wanted));
            counters.extend(phase.last.counters());
            all.extend(last.keys().cloned());
            pages.push((first, last, phase.seconds()));
        }
        let instance = self.instance;
        let labels = |series: &str| format!("{series}instance=\"{instance}\",job=\"envoy\"}}");
        let scraped = self.phases.iter().map(|phase| {
            let up = u8::from(!phase.last.text.is_empty());
            format!("{up}x{}", SCRAPES - 1)
        });
        let scraped = scraped.collect::<Vec<_>>().join(" ");
        let up = json!({"series": labels("up{"), "values": scraped});
        let series = all.iter().map(|series| {
            let name = series.split('{').next().unwrap();
            let is_counter = counters.contains(name);
            let mut level = 0.0;
            let mut before = 0.0;
            let phases = pages.iter().map(|(first, last, seconds)| {
                let Some(last) = last.get(series) else {
                    return format!("_x{SCRAPES}");
                };
                let first = first.get(series).copied();
                let per_second = (last - first.unwrap_or(0.0)) / seconds;
                let grows = if is_counter {
                    true
                } else {
                    first.is_some() && name.ends_with("_age_milliseconds") && per_second > 500.0
                };
                if !grows {
                    return format!("{last:.6}x{}", SCRAPES - 1);
                }
                // A counter's own steps between the phases, and what it has grown in the hours that were made of them.
                level = match is_counter {
                    true => level + (first.unwrap_or(0.0) - before).max(0.0),
                    false => *last,
                };
                before = *last;
                let step = per_second.max(0.0) * SCRAPE as f64;
                let values = format!("{level:.6}+{step:.6}x{}", SCRAPES - 1);
                level += step * (SCRAPES - 1) as f64;
                values
            });
            let values: Vec<String> = phases.collect();
            json!({"series": labels(series), "values": values.join(" ")})
        });
        series.chain([up]).collect()
    }
}

/// Checks that during each phase exactly these alerts fire, at any time.
pub fn fires(recordings: &[Recording], expected: &[&[Fired]]) {
    let rules_text = fs::read_to_string(rules()).unwrap();
    let of_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let wanted: BTreeSet<&str> = rules_text.split(|letter| !of_name(letter)).collect();
    let series: Vec<Value> = recordings
        .iter()
        .flat_map(|recording| recording.series(&wanted))
        .collect();
    let phases = expected.iter().enumerate();
    let tests: Vec<Value> = phases
        .map(|(phase, fired)| expectation(phase, fired))
        .collect();
    let test = json!({
        "rule_files": [rules()],
        "evaluation_interval": format!("{SCRAPE}s"),
        "tests": [{"interval": format!("{SCRAPE}s"), "input_series": series, "promql_expr_test": tests}],
    });
    let folder = Folder::new("alerts");
    let file = folder.path().join("drill.json");
    fs::write(&file, test.to_string()).unwrap();
    let output = Command::new(promtool())
        .args(["test", "rules"])
        .arg(&file)
        .output();
    let output = output.unwrap();
    let said = [&*output.stdout, &*output.stderr].map(String::from_utf8_lossy);
    assert!(output.status.success(), "{}", said.concat());
    assert!(said[0].contains("SUCCESS"), "{}", said.concat());
}

/// Returns what promtool checks at the end of a phase.
fn expectation(phase: usize, fired: &[Fired]) -> Value {
    let seconds = (phase + 1) * SCRAPES * SCRAPE - SCRAPE;
    let range = (SCRAPES - 1) * SCRAPE;
    let firing = format!("present_over_time(ALERTS{{alertstate=\"firing\"}}[{range}s])");
    let mut samples: BTreeSet<String> = BTreeSet::new();
    for (alert, pools) in fired {
        if pools.is_empty() {
            samples.insert(format!("{{alertname=\"{alert}\"}}"));
        }
        samples.extend(
            pools
                .iter()
                .map(|pool| format!("{{alertname=\"{alert}\", pool=\"{pool}\"}}")),
        );
    }
    let samples: Vec<Value> = samples
        .iter()
        .map(|labels| json!({"labels": labels, "value": 1}))
        .collect();
    json!({
        "expr": format!("group by (alertname, pool) ({firing})"),
        "eval_time": format!("{seconds}s"),
        "exp_samples": samples,
    })
}

fn promtool() -> PathBuf {
    let path = top().join("target/tools/prometheus/usr/bin/promtool");
    assert!(
        Path::new(&path).exists(),
        "{}: call `make test`",
        path.display()
    );
    path
}

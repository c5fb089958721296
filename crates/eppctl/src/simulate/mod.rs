//! `eppctl simulate`: compares configurations on a simulated pool under load.

mod plot;

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use pool_sim::{simulate, Kind, Model, Outcome, Progress, Servers, Trace};
use serde::Serialize;

use crate::input::{plan_of, read_document, read_text};
use crate::output::{styled, Error, ExitStatus, Output, Report, FAINT, STRONG};

/// Simulate a pool of model servers under load, and compare configurations with round robin, least
/// request and random.
///
/// Requests are routed by the filter's own code. The servers are modelled as a queue, prefill, batched
/// decoding and a KV cache with prefix reuse: differences between policies are more reliable than
/// absolute times. With --prefill-pods, a configuration that disaggregates has prompts computed by other
/// servers than the responding ones, and can be compared with one that does not, on the same hardware. A trace is a file of JSON lines, either Mooncake's (timestamp, input_length,
/// output_length, hash_ids of 512 tokens) or requests (timestamp in milliseconds, body, optionally path
/// and output_length). Or it is generated: multi-turn (conversations) or shared-prefix (questions about
/// documents).
#[derive(Args)]
#[command(after_help = "Examples:
  eppctl simulate examples/gie.yaml examples/llm-d.yaml \\
    --trace mooncake_trace.jsonl --pods 16
  eppctl simulate examples/llm-d.yaml --trace multi-turn \\
    --requests 2000 --rate 40 --pods 100 --plot ttft.svg
  eppctl simulate examples/disaggregated.yaml examples/llm-d.yaml \\
    --trace shared-prefix --requests 500 --pods 8 --prefill-pods 5

Exit status: 0 simulated, 2 a file cannot be read or a configuration does not load.")]
pub struct Simulate {
    /// Configurations to compare; - is standard input.
    #[arg(required = true, value_name = "CONFIG")]
    configs: Vec<String>,
    /// A file of JSON lines, multi-turn, or shared-prefix.
    #[arg(long, value_name = "TRACE")]
    trace: String,
    /// Number of model servers.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pods: u32,
    /// How many of them have the label llm-d.ai/role: prefill, which leaves decode to the others; without
    /// it, no server has a role.
    #[arg(long, value_name = "PODS", default_value_t = 0)]
    prefill_pods: u32,
    /// Number of requests: the first ones of a trace file, or how many to generate [default: all, or 10,000].
    #[arg(long)]
    requests: Option<usize>,
    /// Requests per second of a generated trace.
    #[arg(long, default_value_t = 10.0, value_parser = positive)]
    rate: f64,
    /// Number of documents of a shared-prefix trace.
    #[arg(long, default_value_t = 100)]
    documents: u64,
    /// Replay the trace faster by this factor.
    #[arg(long, default_value_t = 1.0, value_parser = positive)]
    speed: f64,
    /// Seed of the random number generator.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write the distribution of the times to first token as an SVG file.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
}

/// The model of a server.
#[derive(Args)]
#[command(next_help_heading = "Server model")]
struct ModelArgs {
    /// Prompt tokens computed per second; the default is llm-d-router's peakPrefillThroughput.
    #[arg(long, default_value_t = Model::default().prefill_rate, value_parser = positive)]
    prefill_rate: f64,
    /// Milliseconds per token if one request runs (assumed).
    #[arg(long, default_value_t = Model::default().token_seconds * 1e3, value_parser = positive)]
    token_ms: f64,
    /// Milliseconds per token that each further running request adds (assumed).
    #[arg(long, default_value_t = Model::default().token_seconds_each * 1e3)]
    token_ms_each: f64,
    /// Prompt tokens per step, during which each other request gets one token; the default is the lower of vLLM's
    /// for max_num_batched_tokens. 0: prefill does not slow decoding down.
    #[arg(long, default_value_t = Model::default().step_tokens)]
    step_tokens: u32,
    /// Prompt tokens per second whose KV cache moves from a prefill to a decode server (assumed).
    #[arg(long, default_value_t = Model::default().transfer_rate, value_parser = positive)]
    transfer_rate: f64,
    /// Maximum number of running requests; the default is vLLM's max_num_seqs.
    #[arg(long, default_value_t = Model::default().max_running)]
    max_running: usize,
    /// Tokens in the KV cache; the default is the Endpoint Picker's 31,250 blocks of 16.
    #[arg(long, default_value_t = Model::default().cache_tokens)]
    cache_tokens: usize,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value.is_finite() => Ok(value),
        _ => Err("expected a number above 0".to_owned()),
    }
}

/// The run of one policy.
#[derive(Serialize)]
struct Compared {
    policy: String,
    #[serde(flatten)]
    outcome: Outcome,
    /// Wall-clock time of the simulation; not reproducible, so not serialized.
    #[serde(skip)]
    took: Duration,
}

/// The runs of all policies under one load.
#[derive(Serialize)]
struct Comparison {
    trace: String,
    pods: u32,
    prefill_pods: u32,
    seed: u64,
    policies: Vec<Compared>,
}

impl Simulate {
    /// Runs all policies, one after the other.
    pub fn run(&self, output: &mut Output) -> Result<ExitStatus, Error> {
        if self.prefill_pods > self.pods {
            let (prefill, all) = (self.prefill_pods, self.pods);
            let text = format!("--prefill-pods {prefill}: there are {all} pods");
            return Err(Error::new(text));
        }
        let kinds = self.kinds()?;
        let trace = self.load()?;
        let model = Model {
            prefill_rate: self.model.prefill_rate,
            token_seconds: self.model.token_ms / 1e3,
            token_seconds_each: self.model.token_ms_each / 1e3,
            step_tokens: self.model.step_tokens,
            transfer_rate: self.model.transfer_rate,
            max_running: self.model.max_running,
            cache_tokens: self.model.cache_tokens,
        };
        let mut policies = Vec::new();
        for (name, kind) in kinds {
            let began = Instant::now();
            let outcome = self.simulate(&trace, &name, &kind, &model);
            let outcome = outcome.map_err(|error| Error::new(format!("{name}: {error}")))?;
            policies.push(Compared {
                policy: name,
                outcome,
                took: began.elapsed(),
            });
        }
        if let Some(file) = &self.plot {
            let lines = policies.iter();
            let lines = lines.map(|run| (run.policy.as_str(), run.outcome.ttfts.as_slice()));
            let lines: Vec<_> = lines.collect();
            let failed = |error| Error::new(format!("{}: {error}", file.display()));
            plot::draw(file, &lines).map_err(failed)?;
        }
        output.print(&Comparison {
            trace: self.trace.clone(),
            pods: self.pods,
            prefill_pods: self.prefill_pods,
            seed: self.seed,
            policies,
        })?;
        Ok(ExitStatus::Ok)
    }

    fn kinds(&self) -> Result<Vec<(String, Kind)>, Error> {
        let mut kinds = Vec::new();
        for file in &self.configs {
            let text = read_document(file)?;
            // Report a document that does not load as every command does.
            plan_of(file, &text)?;
            kinds.push((file.clone(), Kind::Picker(text)));
        }
        kinds.extend([
            ("round robin".to_owned(), Kind::RoundRobin),
            ("least request".to_owned(), Kind::LeastRequest),
            ("random".to_owned(), Kind::Random),
        ]);
        Ok(kinds)
    }

    fn load(&self) -> Result<Trace, Error> {
        let generated = self.requests.unwrap_or(10_000);
        let mut trace = match self.trace.as_str() {
            "multi-turn" => Trace::multi_turn(generated, self.rate, self.seed),
            "shared-prefix" => {
                Trace::shared_prefix(generated, self.rate, self.documents, self.seed)
            }
            file => {
                let invalid = |error| Error::new(format!("{file}: {error}"));
                let text = read_text(file).map_err(|error| {
                    Error::new(format!(
                        "{error}; or generate a trace: multi-turn, shared-prefix"
                    ))
                })?;
                let mut trace = Trace::parse(&text).map_err(invalid)?;
                trace.requests.truncate(self.requests.unwrap_or(usize::MAX));
                trace
            }
        };
        trace.speed_up(self.speed);
        Ok(trace)
    }

    fn simulate(
        &self,
        trace: &Trace,
        name: &str,
        kind: &Kind,
        model: &Model,
    ) -> Result<Outcome, String> {
        let progress = Arc::new(Progress::default());
        let bar = bar(name, trace.requests.len());
        let servers = Servers {
            all: self.pods as usize,
            prefill: self.prefill_pods as usize,
        };
        let outcome = std::thread::scope(|scope| {
            let run = scope.spawn(|| simulate(trace, kind, model, servers, self.seed, &progress));
            while !run.is_finished() {
                bar.set_position(progress.load(std::sync::atomic::Ordering::Relaxed) as u64);
                // Frequent enough for a smooth bar, and negligible in a run of seconds.
                std::thread::sleep(Duration::from_millis(5));
            }
            run.join()
        });
        bar.finish_and_clear();
        outcome.unwrap_or_else(|_| Err("the simulation panicked".to_owned()))
    }
}

/// Returns a progress bar on standard error, hidden unless that is a terminal.
fn bar(name: &str, length: usize) -> ProgressBar {
    let bar = ProgressBar::new(length as u64);
    let style = ProgressStyle::with_template("{msg:24!} {bar:40} {pos}/{len} {per_sec}");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar.set_message(name.to_owned());
    bar
}

impl Report for Comparison {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let requests = self.policies.first().map_or(0, |run| run.outcome.requests);
        let prefill = match self.prefill_pods {
            0 => String::new(),
            some => format!(" ({some} prefill)"),
        };
        writeln!(
            out,
            "{requests} requests of {}, {} pods{prefill}, seed {}; time to first token and per further token in ms",
            self.trace, self.pods, self.seed
        )?;
        let head = format!(
            "{:32} {:>7} {:>7} {:>7} {:>7} {:>6} {:>6} {:>7} {:>6} {:>7} {:>7} {:>7}",
            "policy",
            "mean",
            "p50",
            "p90",
            "p99",
            "token",
            "p99",
            "cached",
            "spread",
            "prefill",
            "P/D",
            "refused"
        );
        writeln!(out, "{}", styled(STRONG, head))?;
        for Compared {
            policy, outcome, ..
        } in &self.policies
        {
            let (ttft, token) = (&outcome.ttft_ms, &outcome.token_ms);
            let disaggregated = outcome.disaggregated as f64 / outcome.requests.max(1) as f64;
            writeln!(
                out,
                "{policy:32} {:>7.0} {:>7.0} {:>7.0} {:>7.0} {:>6.0} {:>6.0} {:>6.1}% {:>6.2} {:>6.1}% {:>6.1}% {:>7}",
                ttft.mean,
                ttft.p50,
                ttft.p90,
                ttft.p99,
                token.p50,
                token.p99,
                outcome.cached_share * 100.0,
                outcome.load_spread,
                outcome.prefill_share * 100.0,
                disaggregated * 100.0,
                outcome.refused
            )?;
        }
        let took: Duration = self.policies.iter().map(|run| run.took).sum();
        let simulated = requests * self.policies.len();
        let rate = simulated as f64 / took.as_secs_f64().max(1e-9);
        let foot = format!(
            "token: median of the requests' mean times per further token; cached: share of prompt tokens; \
             spread: prefill time of the busiest pod over the mean; prefill: share of time spent in prefill; \
             P/D: share of requests whose prompt another pod computed. Simulated {rate:.0} requests/s"
        );
        writeln!(out, "{}", styled(FAINT, foot))
    }
}

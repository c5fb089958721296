//! `eppctl simulate`: compares configurations on a simulated pool under load.

mod figures;
mod load_report;
mod loads;
mod plot;
mod report;
mod runs;
mod sweep;
mod traces;

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use epp_core::config;
use pool_sim::{Kind, Model, PoolModel, Servers};

use self::load_report::Loads;
use self::loads::{capacity, LoadArgs, Named, CAPACITY_RUNS};
use self::report::{Comparison, Load, Policy};
use self::runs::{run_all, Setting};
use self::sweep::{variants, Sweep};
use self::traces::Source;
use crate::input::{plan_of, read_document};
use crate::output::{Error, ExitStatus, Output};
use crate::schema::value;

/// Simulate a pool of model servers under load, and compare configurations with round robin, least
/// request, random and ring hash.
///
/// Requests are routed by the filter's own code. The servers are modelled as a queue, prefill, batched
/// decoding and a KV cache with prefix reuse: differences between policies are more reliable than
/// absolute times. With --prefill-pods, a configuration that disaggregates has prompts computed by other
/// servers than the responding ones, and can be compared with one that does not, on the same hardware.
///
/// A trace is a file of JSON lines, either Mooncake's (timestamp, input_length, output_length, hash_ids of 512
/// tokens) or requests (timestamp in milliseconds, body, optionally path and output_length). Or it is generated:
/// multi-turn (conversations) or shared-prefix (questions about documents).
///
/// Each policy is simulated once for each seed, which draws another load of the same kind, and the result is the
/// median of its runs, with the lowest and the highest: what differs by less than that is chance. The runs share the
/// cores of this machine; one call simulates 10,000,000 requests at most.
///
/// With --load, a configuration with flow control is compared with itself without, by priority, while more arrives than
/// the pool can take. Without it, requests below priority 0 are refused while the pool is full. Each of several gateways
/// gates for itself, as each Envoy does.
#[derive(Args)]
#[command(after_help = "Examples:
  eppctl simulate examples/gie.yaml examples/llm-d.yaml \\
    --trace mooncake_trace.jsonl --pods 16
  eppctl simulate examples/llm-d.yaml --trace multi-turn \\
    --requests 2000 --rate 40 --pods 100 --plot ttft.svg
  eppctl simulate examples/disaggregated.yaml examples/llm-d.yaml \\
    --trace shared-prefix --requests 500 --pods 8 --prefill-pods 5
  # which weight, and what several gateways with an index each lose:
  eppctl simulate examples/llm-d.yaml --trace multi-turn --requests 2000 \\
    --sweep queue-scorer.weight=1,2,4
  eppctl simulate examples/llm-d.yaml --trace shared-prefix --requests 2000 \\
    --gateways 1,2,4
  # what flow control does to each priority and tenant under overload:
  eppctl simulate examples/flow-control.yaml --trace multi-turn --pods 1 \\
    --requests 500 --load 1,3 --tenants 3:1 --seeds 1

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
    /// Requests per second of a generated trace [default: 10].
    #[arg(long, value_parser = positive)]
    rate: Option<f64>,
    /// Number of documents of a shared-prefix trace [default: 100].
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    documents: Option<u64>,
    /// Number of LoRA adapters over which the conversations or documents of a generated trace are spread evenly; 0: none.
    #[arg(long, default_value_t = 0)]
    adapters: u32,
    /// Replay the trace faster by this factor.
    #[arg(long, default_value_t = 1.0, value_parser = positive)]
    speed: f64,
    /// First seed of the random number generator.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Number of seeds, each of which is a run of every policy.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    seeds: u64,
    /// Give a plugin of each configuration several weights, or values of a parameter, as in queue-scorer.weight=1,2,4;
    /// several sweeps are combined.
    #[arg(long, value_name = "PLUGIN.weight|PLUGIN.PARAMETER=VALUE,…")]
    sweep: Vec<Sweep>,
    /// Number of gateways among which requests are spread at random, each with its own index and counts; several
    /// numbers are compared.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1",
        value_parser = clap::value_parser!(u32).range(1..=1_000))]
    gateways: Vec<u32>,
    /// Write the distribution of the times to first token as an SVG file.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    #[command(flatten)]
    overload: LoadArgs,
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
    #[arg(long, default_value_t = Model::default().token_seconds_each * 1e3, value_parser = not_negative)]
    token_ms_each: f64,
    /// Prompt tokens per step, during which each other request gets one token; the default is the lower of vLLM's
    /// for max_num_batched_tokens. 0: prefill does not slow decoding down.
    #[arg(long, default_value_t = Model::default().step_tokens)]
    step_tokens: u32,
    /// Prompt tokens per second whose KV cache moves from a prefill to a decode server (assumed).
    #[arg(long, default_value_t = Model::default().transfer_rate, value_parser = positive)]
    transfer_rate: f64,
    /// Maximum number of running requests; the default is vLLM's max_num_seqs.
    #[arg(long, default_value_t = Model::default().max_running as u64, value_parser = clap::value_parser!(u64).range(1..))]
    max_running: u64,
    /// Tokens in the KV cache; the default is the Endpoint Picker's 31,250 blocks of 16.
    #[arg(long, default_value_t = Model::default().cache_tokens)]
    cache_tokens: usize,
    /// With --adapters, the most LoRA adapters whose requests run at a time on one server (assumed).
    #[arg(long, value_name = "ADAPTERS", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    max_adapters: u32,
    /// Milliseconds to load an adapter, during which the server computes nothing else (assumed).
    #[arg(long, default_value_t = Model::default().adapter_seconds * 1e3, value_parser = not_negative)]
    adapter_ms: f64,
}

/// Returns the policies of documents.
fn kinds(documents: &[Named]) -> Vec<(String, Kind)> {
    let kinds = documents.iter();
    let kinds = kinds.map(|(name, document)| (name.clone(), Kind::Picker(document.to_string())));
    kinds.collect()
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value.is_finite() => Ok(value),
        _ => Err("expected a number above 0".to_owned()),
    }
}

fn not_negative(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value >= 0.0 && value.is_finite() => Ok(value),
        _ => Err("expected a number not below 0".to_owned()),
    }
}

impl Simulate {
    /// Runs all policies.
    pub fn run(&self, output: &mut Output) -> Result<ExitStatus, Error> {
        if self.prefill_pods > self.pods {
            let (prefill, all) = (self.prefill_pods, self.pods);
            let text = format!("--prefill-pods {prefill}: there are {all} pods");
            return Err(Error::new(text));
        }
        let documents = self.documents()?;
        if !self.overload.load.is_empty() {
            return self.run_loads(documents, output);
        }
        let mut kinds = kinds(&documents);
        kinds.extend([
            ("round robin".to_owned(), Kind::RoundRobin),
            ("least request".to_owned(), Kind::LeastRequest),
            ("random".to_owned(), Kind::Random),
            ("ring hash".to_owned(), Kind::RingHash),
        ]);
        let settings = self.settings(&kinds);
        let source = Source::new(self)?;
        source.check(settings.len(), settings.len() as f64)?;
        let traces = source.traces();
        let began = Instant::now();
        let outcomes = run_all(&settings, &traces)?;
        let took = began.elapsed();
        let policies = settings.into_iter().zip(outcomes);
        let policies = policies.map(|(setting, runs)| Policy::new(setting, self.seed, runs));
        let policies: Vec<Policy> = policies.collect();
        if let Some(file) = &self.plot {
            let lines = policies.iter();
            let lines: Vec<_> = lines.map(|one| (one.name(), one.times())).collect();
            let failed = |error| Error::new(format!("{}: {error}", file.display()));
            plot::draw(file, &lines).map_err(failed)?;
        }
        output.print(&Comparison {
            load: self.load(),
            policies,
            took,
        })?;
        Ok(ExitStatus::Ok)
    }

    /// Runs each configuration with flow control and without, in multiples of the pool's capacity.
    fn run_loads(&self, documents: Vec<Named>, output: &mut Output) -> Result<ExitStatus, Error> {
        let documents = self.overload.documents(documents)?;
        let settings = self.settings(&kinds(&documents));
        let source = Source::new(self)?;
        let loads = self.overload.load.iter().map(|load| load.max(1.0));
        let runs = settings.len() as f64 * loads.sum::<f64>() + CAPACITY_RUNS;
        source.check(settings.len(), runs)?;
        // The first one has no flow control.
        let (Some((_, document)), Some(setting)) = (documents.first(), settings.first()) else {
            return Ok(ExitStatus::Ok);
        };
        let capacity = capacity(setting, &source)?;
        let objectives = self.overload.objectives(document);
        let runs = self
            .overload
            .run(&settings, &source, &objectives, capacity)?;
        output.print(&Loads::new(self.load(), capacity, runs, &objectives))?;
        Ok(ExitStatus::Ok)
    }

    fn load(&self) -> Load {
        Load {
            trace: self.trace.clone(),
            pods: self.pods,
            prefill_pods: self.prefill_pods,
            gateways: self.gateways.clone(),
            seed: self.seed,
            seeds: self.seeds,
        }
    }

    /// Returns each policy behind each number of gateways.
    fn settings(&self, kinds: &[(String, Kind)]) -> Vec<Setting> {
        let behind = |(name, kind): &(String, Kind)| {
            let (name, kind) = (name.clone(), kind.clone());
            self.gateways.iter().map(move |gateways| Setting {
                name: match self.gateways.as_slice() {
                    [_] => name.clone(),
                    _ if *gateways == 1 => format!("{name}, 1 gateway"),
                    _ => format!("{name}, {gateways} gateways"),
                },
                kind: kind.clone(),
                pool: self.pool(*gateways),
            })
        };
        kinds.iter().flat_map(behind).collect()
    }

    /// Returns the variants of all configurations, which all load.
    fn documents(&self) -> Result<Vec<Named>, Error> {
        let variants = self.configs.iter().map(|file| self.variants(file));
        Ok(variants.collect::<Result<Vec<_>, _>>()?.concat())
    }

    /// Returns the variants of a configuration.
    fn variants(&self, file: &str) -> Result<Vec<Named>, Error> {
        let text = read_document(file)?;
        // Report a document that does not load as every command does.
        plan_of(file, &text)?;
        let node = config::parse(&text);
        let node = node.map_err(|_| Error::new(format!("{file}: does not parse")))?;
        let variants = variants(value(&node), &self.sweep);
        let variants = variants.map_err(|error| Error::new(format!("{file}: {error}")))?;
        let variants = variants.into_iter().map(|variant| {
            let name = file.to_owned() + &variant.name;
            plan_of(&name, &variant.document.to_string())?;
            Ok((name, variant.document))
        });
        variants.collect()
    }

    fn pool(&self, gateways: u32) -> PoolModel {
        PoolModel {
            model: Model {
                prefill_rate: self.model.prefill_rate,
                token_seconds: self.model.token_ms / 1e3,
                token_seconds_each: self.model.token_ms_each / 1e3,
                step_tokens: self.model.step_tokens,
                transfer_rate: self.model.transfer_rate,
                max_running: usize::try_from(self.model.max_running).unwrap_or(usize::MAX),
                cache_tokens: self.model.cache_tokens,
                max_adapters: match self.adapters {
                    0 => 0,
                    _ => self.model.max_adapters as usize,
                },
                adapter_seconds: self.model.adapter_ms / 1e3,
            },
            servers: Servers {
                all: self.pods as usize,
                prefill: self.prefill_pods as usize,
            },
            gateways: gateways as usize,
        }
    }
}

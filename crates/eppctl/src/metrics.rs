//! `eppctl metrics`: shows which series of a metrics page are read.

use std::io::{self, Write};
use std::path::Path;

use clap::Args;
use epp_core::config::Plan;
use epp_core::endpoints::engine::EngineConfig;
use epp_core::endpoints::loads::{self, Loads};
use epp_core::endpoints::review::{FamilyReview, Review};
use epp_core::endpoints::scan::Extraction;
use epp_core::scheduling::{Metrics as Values, Needs};
use serde::Serialize;

use crate::admin;
use crate::input::{load_plan, read};
use crate::output::{
    styled, Error, ExitStatus, Output, Report, ERROR, FAINT, GOOD, STRONG, WARNING,
};

/// Show which series of a metrics page are read, and why others are not.
///
/// Where the document has sglangLoads: true, the load of an SGLang server at HOST:PORT is that of its /v1/loads.
#[derive(Args)]
#[command(after_help = "Examples:
  eppctl metrics tests/fixtures/vllm-0.32/metrics_busy.txt
  eppctl metrics 10.0.0.1:8000
  eppctl metrics --engine vllm http://10.0.0.1:8000/metrics
  # with the metric names of a document's core-metrics-extractor:
  eppctl metrics --config examples/full.yaml 10.0.0.1:8000
  # with /v1/loads, if the document has sglangLoads: true:
  eppctl metrics --config sglang.yaml 10.0.0.1:8000
  eppctl metrics -o json - < tests/fixtures/vllm-0.32/metrics_lora.txt

Exit status: 0 the page is usable, or the load is known from /v1/loads, 1 neither, 2 error.")]
pub struct Metrics {
    /// The page: a file, a URL, HOST:PORT of a pod (its /metrics), or - for standard input.
    #[arg(value_name = "FILE|URL|HOST:PORT")]
    page: String,
    /// The engine whose metric names are used [default: the document's defaultEngine, or vllm].
    #[arg(long, value_name = "NAME")]
    engine: Option<String>,
    /// An EndpointPickerConfig, for its engines and for whether it has /v1/loads read.
    #[arg(long, value_name = "FILE")]
    config: Option<String>,
}

/// The result of reading a page.
#[derive(Serialize)]
struct Read {
    page: String,
    engine: String,
    /// Whether the page is usable as a page of this engine, or the load is known without it.
    usable: bool,
    /// Why the page is not usable.
    why: Option<String>,
    /// The values that decisions use.
    values: MetricValues,
    families: Vec<FamilyRead>,
    /// Why the load is the page's, although the document has SGLang's `/v1/loads` read.
    loads_unread: Option<String>,
}

/// A family that the engine's configuration names.
#[derive(Serialize)]
struct FamilyRead {
    /// The value that it provides.
    provides: &'static str,
    family: String,
    /// Why none of it is read.
    unread: Option<String>,
    series: Vec<SeriesRead>,
}

#[derive(Serialize)]
struct SeriesRead {
    line: usize,
    series: String,
    read: bool,
    left_out: Option<&'static str>,
}

/// The values of an endpoint's metrics; unknown values are absent.
#[derive(Serialize, Default, Clone)]
pub struct MetricValues {
    /// Whether the load is that of SGLang's `/v1/loads`.
    from_loads: bool,
    waiting: Option<f64>,
    running: Option<f64>,
    kv_usage: Option<f64>,
    lora: Option<LoraValues>,
    block_size: Option<u32>,
    num_blocks: Option<u32>,
}

#[derive(Serialize, Default, Clone)]
struct LoraValues {
    active: Vec<String>,
    waiting: Vec<String>,
    max: u32,
}

impl MetricValues {
    /// Copies the values, with the adapters if there are any or room for some.
    pub fn of(values: &Values) -> Self {
        let lora = &values.lora;
        let none = lora.active.is_empty() && lora.waiting.is_empty() && lora.max == 0;
        Self {
            from_loads: values.from_loads,
            waiting: values.waiting,
            running: values.running,
            kv_usage: values.kv_usage,
            lora: (!none).then(|| LoraValues {
                active: lora.active.clone(),
                waiting: lora.waiting.clone(),
                max: lora.max,
            }),
            block_size: values.block_size,
            num_blocks: values.num_blocks,
        }
    }

    /// Returns the values in one line.
    pub fn line(&self) -> String {
        let number = |value: Option<f64>| value.map_or("unknown".to_owned(), |it| it.to_string());
        let mut line = format!(
            "waiting {}, running {}, KV {}",
            number(self.waiting),
            number(self.running),
            number(self.kv_usage)
        );
        if self.from_loads {
            line += " (from /v1/loads)";
        }
        if let Some(lora) = &self.lora {
            let names = |names: &[String]| match names {
                [] => "none".to_owned(),
                names => names.join(" "),
            };
            line += &format!(
                ", LoRA running {}, waiting {}, of {}",
                names(&lora.active),
                names(&lora.waiting),
                lora.max
            );
        }
        if let Some(blocks) = self.num_blocks {
            line += &format!(", {blocks} blocks");
        }
        if let Some(size) = self.block_size {
            line += &format!(" of {size} tokens");
        }
        line
    }
}

impl Metrics {
    /// Reads the page and shows it.
    pub fn run(&self, output: &mut Output) -> Result<ExitStatus, Error> {
        let plan = self.config.as_ref().map(|file| load_plan(file));
        let plan = plan.transpose()?;
        let engine = self.engine(plan.as_ref())?;
        let page = fetch(&self.page);
        let review = page.map(|page| Extraction::new(&engine, &Needs::METRICS).review(&page));
        let reads_loads = plan.is_some_and(|plan| reads_loads(&plan, &engine));
        let loads = reads_loads.then(|| fetch_loads(&self.page));
        let read = Read::of(&self.page, &engine, review, loads)?;
        output.print(&read)?;
        Ok(match read.usable {
            true => ExitStatus::Ok,
            false => ExitStatus::Findings,
        })
    }

    fn engine(&self, plan: Option<&Plan>) -> Result<EngineConfig, Error> {
        let extractor = plan.map(|plan| plan.extractor.clone()).unwrap_or_default();
        let (engines, default) = (extractor.engines, extractor.default_engine);
        let name = self.engine.clone().unwrap_or(default);
        let known: Vec<&str> = engines.iter().map(|engine| engine.name.as_str()).collect();
        let unknown = || {
            Error::new(format!(
                "--engine {name}: unknown engine; expected one of {} (--config adds those of a document)",
                known.join(", ")
            ))
        };
        let engine = engines.iter().find(|engine| engine.name == name);
        engine.cloned().ok_or_else(unknown)
    }
}

/// Returns whether a plan reads `/v1/loads` of servers of this engine.
fn reads_loads(plan: &Plan, engine: &EngineConfig) -> bool {
    plan.source.sglang_loads && Extraction::new(engine, &plan.needs).loads_suffice()
}

/// Returns whether a page's place is HOST:PORT. A file takes precedence over an address.
fn is_address(place: &str) -> bool {
    let port = place.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
    !place.contains("://") && matches!(port, Some(Ok(_))) && !Path::new(place).exists()
}

/// Reads a page from a file, a URL or an address.
fn fetch(place: &str) -> Result<Vec<u8>, Error> {
    let url = match is_address(place) {
        true => format!("http://{place}/metrics"),
        false if place.contains("://") => place.to_owned(),
        false => return read(place),
    };
    admin::get(&url).map_err(|error| {
        Error::new(format!(
            "{url}: {error}; expected a page's URL, or HOST:PORT of a model server that serves /metrics"
        ))
    })
}

/// Reads SGLang's `/v1/loads` of the server at this address. If it cannot be read, returns why.
fn fetch_loads(address: &str) -> Result<Loads, String> {
    let path = loads::PATH;
    if !is_address(address) {
        return Err(format!(
            "{path} is only read if the server is given as HOST:PORT"
        ));
    }
    let url = format!("http://{address}{path}");
    let answer = admin::get(&url).map_err(|error| format!("{url}: {error}"))?;
    let loads = Loads::read(&answer).filter(|_| answer.len() <= loads::MAX_BYTES);
    loads.ok_or_else(|| format!("{url}: not the load of each rank"))
}

impl Read {
    /// Returns what was read of a page, and of `/v1/loads` if the document has it read. Without a page, its load is enough.
    fn of(
        page: &str,
        engine: &EngineConfig,
        review: Result<Review, Error>,
        loads: Option<Result<Loads, String>>,
    ) -> Result<Self, Error> {
        let (loads, loads_unread) = match loads.transpose() {
            Ok(loads) => (loads, None),
            Err(why) => (None, Some(why)),
        };
        let (metrics, families, why) = match review {
            Ok(review) => {
                let why = match (&review.page, review.whole) {
                    (Some(_), _) => None,
                    (None, false) => Some("it does not end with a line break, so it is incomplete"),
                    (None, true) => Some("it has none of the engine's metrics"),
                };
                let metrics = review.page.unwrap_or_default().metrics;
                (metrics, review.families, why.map(str::to_owned))
            }
            Err(error) if loads.is_some() => {
                (Values::default(), Vec::new(), Some(error.to_string()))
            }
            Err(error) => return Err(error),
        };
        let metrics = match loads {
            Some(loads) => loads.metrics(&metrics),
            None => metrics,
        };
        Ok(Self {
            page: page.to_owned(),
            engine: engine.name.clone(),
            usable: why.is_none() || loads.is_some(),
            why,
            values: MetricValues::of(&metrics),
            families: families.into_iter().map(FamilyRead::of).collect(),
            loads_unread,
        })
    }
}

impl FamilyRead {
    fn of(family: FamilyReview) -> Self {
        let unread = family.unread.is_some();
        let series = family.series.into_iter().map(|series| SeriesRead {
            line: series.line,
            series: series.text,
            read: !unread && series.left_out.is_none(),
            left_out: series.left_out,
        });
        Self {
            provides: family.measures,
            family: family.name,
            series: series.collect(),
            unread: family.unread,
        }
    }
}

impl Report for Read {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        for family in &self.families {
            let name = styled(STRONG, &family.family);
            match &family.unread {
                Some(why) => writeln!(
                    out,
                    "{} {name}: {}: {why}",
                    family.provides,
                    styled(WARNING, "not read")
                )?,
                None => writeln!(out, "{} {name}", family.provides)?,
            }
            for series in &family.series {
                let line = styled(FAINT, format!("{:>6}", series.line));
                let text = &series.series;
                match series.left_out {
                    Some(why) => writeln!(
                        out,
                        "{line}  {text}  {}: {why}",
                        styled(WARNING, "left out")
                    )?,
                    None if series.read => writeln!(out, "{line}  {text}")?,
                    None => writeln!(out, "{line}  {text}  {}", styled(WARNING, "not read"))?,
                }
            }
        }
        if let Some(why) = &self.loads_unread {
            let page = styled(WARNING, "the load is the page's");
            writeln!(out, "{page}: {why}")?;
        }
        let (page, engine) = (&self.page, &self.engine);
        if !self.usable {
            let (bad, why) = (styled(ERROR, "is not usable"), self.why.as_deref());
            let why = why.unwrap_or_default();
            return writeln!(out, "{page} {bad} as a page of {engine}: {why}");
        }
        let kind = match &self.why {
            None => "page",
            Some(why) => {
                let only = styled(WARNING, "only the load is known");
                writeln!(out, "{only}, as the page is not usable: {why}")?;
                "server"
            }
        };
        let good = styled(GOOD, "is usable");
        writeln!(out, "{page} {good} as a {kind} of {engine}:")?;
        writeln!(out, "  {}", self.values.line())
    }
}

//! Requests per second, CPU and latency of Envoy with the filter, beside the same Envoy without it
//! and with a filter that does nothing.
//!
//! Envoy is pinned to core 0; this program (load and model servers that answer at once) to core 1.
//! The cases take turns in many short slices, because machines drift: compare medians, and ratios
//! within one run. The load is a closed loop of our own rather than wrk: bodies rotate through
//! prompts, and the slices of all cases must share one schedule.

mod bodies;
mod envoy;
mod load;
mod sink;
mod table;

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

type Trouble = Box<dyn std::error::Error>;

/// Measures the filter beside plain Envoy and a no-op filter, in turns.
#[derive(Parser)]
#[command(after_help = "Example: make bench ARGS='--sizes 4,64 --endpoints 10'")]
struct Args {
    /// Body sizes in KB.
    #[arg(long, value_delimiter = ',', default_value = "1,4,64,220,500")]
    sizes: Vec<usize>,
    /// Endpoints in the pool.
    #[arg(long, default_value_t = 100)]
    endpoints: usize,
    /// Requests under way at a time.
    #[arg(long, default_value_t = 16)]
    concurrency: usize,
    /// Slices per case.
    #[arg(long, default_value_t = 12)]
    slices: usize,
    /// Milliseconds of a slice.
    #[arg(long, default_value_t = 1000)]
    slice_ms: u64,
    /// Order of the body's keys.
    #[arg(long, value_enum, default_value_t = bodies::Order::MessagesFirst)]
    order: bodies::Order,
    /// Whether prompts repeat (warm) or are new each time (cold).
    #[arg(long, value_enum, default_value_t = bodies::Prompts::Warm)]
    prompts: bodies::Prompts,
    /// The EndpointPickerConfig under test.
    #[arg(long, default_value = "examples/full.yaml")]
    config: PathBuf,
    /// Cases to run.
    #[arg(long, value_delimiter = ',', default_value = "plain,noop,epp")]
    cases: Vec<String>,
    /// Instead of loading it, watch what the filter costs when idle.
    #[arg(long)]
    idle: bool,
}

fn main() -> Result<(), Trouble> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run(&args))
}

async fn run(args: &Args) -> Result<(), Trouble> {
    let ports = sink::listen(args.endpoints).await?;
    let mut proxies = Vec::new();
    for case in &args.cases {
        proxies.push(envoy::Proxy::start(case, &ports, &args.config).await?);
    }
    // Members are heard of and metrics fetched, connections pooled.
    tokio::time::sleep(Duration::from_secs(3)).await;
    if args.idle {
        return idle(&proxies).await;
    }
    println!(
        "{} endpoints, concurrency {}, {:?} prompts, {:?}, {} slices of {} ms a case\n",
        args.endpoints, args.concurrency, args.prompts, args.order, args.slices, args.slice_ms
    );
    table::head();
    for kilobytes in &args.sizes {
        let mut source = bodies::Source::new(kilobytes * 1024, args.order, args.prompts);
        let mut rows = vec![Vec::new(); proxies.len()];
        for slice in 0..=args.slices {
            for (proxy, row) in proxies.iter().zip(rows.iter_mut()) {
                let length = Duration::from_millis(args.slice_ms);
                let before = proxy.cpu()?;
                let taken = load::slice(proxy.port, args.concurrency, length, &mut source).await?;
                let cpu = proxy.cpu()? - before;
                // The first slice warms up.
                if slice > 0 {
                    row.push(table::Slice::new(taken, cpu));
                }
            }
        }
        table::rows(*kilobytes, &proxies, &rows);
    }
    for proxy in &proxies {
        println!(
            "{}: {} MB resident",
            proxy.name,
            proxy.resident_kb()? / 1024
        );
    }
    Ok(())
}

async fn idle(proxies: &[envoy::Proxy]) -> Result<(), Trouble> {
    const SECONDS: u64 = 10;
    for proxy in proxies {
        let before = (proxy.cpu()?, sink::pages());
        tokio::time::sleep(Duration::from_secs(SECONDS)).await;
        let cores = (proxy.cpu()? - before.0).as_secs_f64() / SECONDS as f64;
        let pages = (sink::pages() - before.1) / SECONDS;
        println!(
            "{}: {:.2} % of a core, {pages} pages/s",
            proxy.name,
            cores * 100.0
        );
    }
    Ok(())
}

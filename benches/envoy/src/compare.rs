//! A quick comparison of some cases, printed as a table for each setting.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::bodies::{Order, Prompts, Source};
use crate::envoy::{Case, Proxy, Setup};
use crate::machine;
use crate::measure::{self, Pace, Turns};
use crate::plan::Plan;
use crate::report::cases;
use crate::sink;
use crate::BoxError;

/// The cases and the load.
#[derive(Debug, Args)]
pub struct Compare {
    /// Body sizes in KB.
    #[arg(long, value_delimiter = ',', default_value = "4,64")]
    sizes: Vec<usize>,
    /// Whether prompts repeat (warm) or are new each time (cold).
    #[arg(long, value_enum, value_delimiter = ',', default_value = "warm,cold")]
    prompts: Vec<Prompts>,
    /// Endpoints in the pool.
    #[arg(long, default_value_t = 100)]
    endpoints: usize,
    /// Concurrent requests.
    #[arg(long, default_value_t = 16)]
    concurrency: usize,
    /// Turns: slices per case.
    #[arg(long, default_value_t = 8)]
    slices: usize,
    /// Milliseconds of a slice.
    #[arg(long, default_value_t = 300)]
    slice_ms: u64,
    /// Order of the body's keys.
    #[arg(long, value_enum, default_value_t = Order::MessagesFirst)]
    order: Order,
    /// The EndpointPickerConfig under test; without it the one of the published run: examples/full.yaml in a listener
    /// with routes to the pool only.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Envoy's workers.
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Requests per second in an open loop; without it a closed loop.
    #[arg(long)]
    rate: Option<u64>,
    /// Cases to run: those of the default, module (the dynamic module that `make module` builds), gate (flow control),
    /// least-request, ring-hash, the file of another build of the filter (.wasm), of the dynamic module (.so), or of another
    /// configuration (.yaml).
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "plain,override-host,noop,epp-wasm"
    )]
    cases: Vec<String>,
    /// Cases to run besides.
    #[arg(long, value_delimiter = ',')]
    with: Vec<String>,
}

/// Runs the comparison and prints it.
pub async fn run(args: &Compare) -> Result<(), BoxError> {
    let servers = sink::listen(args.endpoints).await?;
    let config = match &args.config {
        Some(file) => {
            std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?
        }
        None => Plan::ShortWindow.text()?,
    };
    let mut proxies = Vec::new();
    for name in args.cases.iter().chain(&args.with) {
        let setup = Setup {
            case: Case::parse(name)?,
            servers: &servers,
            config: &config,
            workers: args.workers,
            picker: None,
        };
        proxies.push(Proxy::start(&setup).await?);
    }
    // The filter learns of the members and fetches metrics, and connections are pooled.
    tokio::time::sleep(Duration::from_secs(3)).await;
    println!("{}", legend(args, machine::load_average()?));
    let proxies: Vec<&Proxy> = proxies.iter().collect();
    for prompts in &args.prompts {
        for kilobytes in &args.sizes {
            let mut source = Source::new(kilobytes * 1024, args.order, *prompts);
            let turns = Turns {
                slices: args.slices,
                length: Duration::from_millis(args.slice_ms),
            };
            let pace = args.rate.map_or(Pace::Closed(args.concurrency), Pace::Rate);
            let measured = measure::cases(&proxies, None, pace, turns, &mut source).await?;
            println!("\n{kilobytes} KB, {}", about(*prompts));
            print!("{}", cases::aligned(&measured));
        }
    }
    println!("\nstart and memory");
    for proxy in proxies {
        println!(
            "  {}: listens after {} ms, {} MiB resident",
            proxy.name,
            proxy.start.as_millis(),
            proxy.resident_kib()? / 1024
        );
    }
    Ok(())
}

/// Explains prompts and columns.
fn legend(args: &Compare, load_average: f64) -> String {
    let load = match args.rate {
        Some(rate) => format!("{rate} requests per second"),
        None => format!("{} requests at a time", args.concurrency),
    };
    format!(
        "{} endpoints, {load}, {} turns of {} ms for each case; load average before {load_average:.1}\n\n\
         CPU µs      Envoy's CPU time for a request: of its workers + of all other threads\n\
         beside X    how much more that is than in case X, turn by turn: workers, others (quartiles of the sum)\n\
         plain          Envoy without a filter, which chooses endpoints in turn\n\
         override-host  the same, with the endpoint chosen by a header, as the filter does it\n\
         noop           a wasm filter that does nothing\n\
         epp-wasm       this filter",
        args.endpoints, args.slices, args.slice_ms
    )
}

fn about(prompts: Prompts) -> &'static str {
    match prompts {
        Prompts::Warm => "warm: prompts that the prefix index knows",
        Prompts::Cold => "cold: each prompt is new",
    }
}

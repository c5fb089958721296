//! A quick comparison of some cases under one load, printed as a table.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::bodies::{Order, Prompts, Source};
use crate::envoy::{Case, Proxy, Setup};
use crate::measure::{self, Pace, Turns};
use crate::report;
use crate::sink;
use crate::BoxError;

/// The cases and the load.
#[derive(Debug, Args)]
pub struct Compare {
    /// Body sizes in KB.
    #[arg(long, value_delimiter = ',', default_value = "1,4,64,220,500")]
    sizes: Vec<usize>,
    /// Endpoints in the pool.
    #[arg(long, default_value_t = 100)]
    endpoints: usize,
    /// Concurrent requests.
    #[arg(long, default_value_t = 16)]
    concurrency: usize,
    /// Slices per case.
    #[arg(long, default_value_t = 12)]
    slices: usize,
    /// Milliseconds of a slice.
    #[arg(long, default_value_t = 1000)]
    slice_ms: u64,
    /// Order of the body's keys.
    #[arg(long, value_enum, default_value_t = Order::MessagesFirst)]
    order: Order,
    /// Whether prompts repeat (warm) or are new each time (cold).
    #[arg(long, value_enum, default_value_t = Prompts::Warm)]
    prompts: Prompts,
    /// The EndpointPickerConfig under test.
    #[arg(long, default_value = "examples/full.yaml")]
    config: PathBuf,
    /// Envoy's workers.
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Requests per second in an open loop; without it a closed loop.
    #[arg(long)]
    rate: Option<u64>,
    /// Cases to run: plain, noop, epp-wasm, ring-hash, the file of another build of the filter (.wasm), of the dynamic
    /// module (.so), or of another configuration (.yaml).
    #[arg(long, value_delimiter = ',', default_value = "plain,noop,epp-wasm")]
    cases: Vec<String>,
}

/// Runs the comparison and prints it.
pub async fn run(args: &Compare) -> Result<(), BoxError> {
    let servers = sink::listen(args.endpoints).await?;
    let config = std::fs::read_to_string(&args.config)?;
    let mut proxies = Vec::new();
    for name in &args.cases {
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
    println!("{}", report::tables::CASES_HEAD);
    let proxies: Vec<&Proxy> = proxies.iter().collect();
    for kilobytes in &args.sizes {
        let mut source = Source::new(kilobytes * 1024, args.order, args.prompts);
        let turns = Turns {
            slices: args.slices,
            length: Duration::from_millis(args.slice_ms),
        };
        let pace = args.rate.map_or(Pace::Closed(args.concurrency), Pace::Rate);
        for case in measure::cases(&proxies, None, pace, turns, &mut source).await? {
            println!("{}", report::tables::case_row(*kilobytes, &case));
        }
    }
    for proxy in proxies {
        println!(
            "{}: {} MiB resident",
            proxy.name,
            proxy.resident_kib()? / 1024
        );
    }
    Ok(())
}

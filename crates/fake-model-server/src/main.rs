//! `fake-model-server --pods 4 --port-base 8001`: the library's pods as a program.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use fake_model_server::{control, Settings, Sim};
use tokio::io::AsyncReadExt;

/// Simulated model servers with OpenAI's API, vLLM's metrics, a prefix cache and a queue.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:
  fake-model-server --pods 4 --port-base 8001
  fake-model-server --pods 2 --lora sql,chat --max-lora 1 --prefill-rate 5000 --token-ms 20
  fake-model-server --pods 4 --sidecars 2 --transfer-rate 200000 --control 127.0.0.1:9090
  fake-model-server --control 127.0.0.1:9090
  curl -X PUT 127.0.0.1:9090/pods/0/pin -d '{\"waiting\": 50}'
  curl -X PUT 127.0.0.1:9090/pods/1/faults -d '{\"metrics\": \"hang\"}'"
)]
struct Args {
    /// Number of pods.
    #[arg(long, default_value_t = 4)]
    pods: u16,
    /// Port of the first; the others follow.
    #[arg(long, default_value_t = 8001)]
    port_base: u16,
    /// Address of the control endpoint, which shows and changes pods.
    #[arg(long)]
    control: Option<SocketAddr>,
    /// The base model's name.
    #[arg(long, default_value = "demo")]
    model: String,
    /// Model names that are LoRA adapters.
    #[arg(long, value_delimiter = ',')]
    lora: Vec<String>,
    /// Adapters that can be active at a time; 0: no LoRA.
    #[arg(long, default_value_t = 0)]
    max_lora: usize,
    /// Requests that run at a time.
    #[arg(long, default_value_t = 16)]
    max_running: usize,
    /// Blocks of the KV cache, 16 tokens each.
    #[arg(long, default_value_t = 10_000)]
    cache_blocks: usize,
    /// Milliseconds to the first token, besides prefill.
    #[arg(long, default_value_t = 5)]
    base_ms: u64,
    /// Prompt tokens computed per second.
    #[arg(long, default_value_t = 20_000.0)]
    prefill_rate: f64,
    /// Milliseconds for each further token.
    #[arg(long, default_value_t = 1)]
    token_ms: u64,
    /// Number of pods, the last ones, with a routing sidecar, which has the pods in `x-prefiller-host-port` and
    /// `x-encoder-hosts-ports` prepare what the pod decodes.
    #[arg(long, default_value_t = 0)]
    sidecars: u16,
    /// Tokens per second whose KV cache a pod fetches from another; 0: all at once.
    #[arg(long, default_value_t = 200_000.0)]
    transfer_rate: f64,
    /// End when standard input does, so that no pod outlives the process that started it.
    #[arg(long)]
    exit_with_parent: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fake-model-server: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), String> {
    let settings = Settings {
        model: args.model.clone(),
        adapters: args.lora.clone(),
        max_lora: args.max_lora,
        max_running: args.max_running,
        cache_blocks: args.cache_blocks,
        base_latency: Duration::from_millis(args.base_ms),
        prefill_rate: (args.prefill_rate > 0.0).then_some(args.prefill_rate),
        token_time: Duration::from_millis(args.token_ms),
        sidecar: false,
        transfer_rate: (args.transfer_rate > 0.0).then_some(args.transfer_rate),
    };
    let first_sidecar = args.pods.saturating_sub(args.sidecars);
    let mut sim = Sim::new().map_err(|error| error.to_string())?;
    for number in 0..args.pods {
        let port = args
            .port_base
            .checked_add(number)
            .ok_or("the ports end at 65535: choose a lower --port-base")?;
        let settings = Settings {
            sidecar: number >= first_sidecar,
            ..settings.clone()
        };
        sim.add(port, settings).map_err(|error| {
            format!("port {port} is not available ({error}); choose another --port-base, or find the process that uses it: ss -ltnp 'sport = :{port}'")
        })?;
    }
    for (pod, address) in sim.pods().zip(sim.addresses()) {
        println!("{} on http://{address}", pod.name);
    }
    let pods = sim.pods().cloned().collect();
    let outcome = sim.block_on(async {
        tokio::select! {
            ended = tokio::signal::ctrl_c() => ended.map_err(|error| error.to_string()),
            () = parent_gone(args.exit_with_parent) => Ok(()),
            failed = controlled(args.control, pods) => Err(failed),
        }
    });
    outcome.unwrap_or(Ok(()))
}

async fn parent_gone(watch: bool) {
    if !watch {
        return std::future::pending().await;
    }
    let mut buffer = [0; 64];
    while let Ok(1..) = tokio::io::stdin().read(&mut buffer).await {}
}

async fn controlled(
    address: Option<SocketAddr>,
    pods: Vec<std::sync::Arc<fake_model_server::Pod>>,
) -> String {
    match address {
        Some(address) => match control::serve(address, pods).await {
            Ok(()) => "the control endpoint has ended".to_owned(),
            Err(error) => format!("--control {address}: {error}"),
        },
        None => std::future::pending().await,
    }
}

//! The cost of keeping metrics fresh without traffic, and the age of the metrics.

use std::time::Duration;

use crate::cpu::Threads;
use crate::envoy::Proxy;
use crate::result::{Idle, Spread};
use crate::sink;
use crate::statistics::statistics;
use crate::BoxError;

/// Measures an idle Envoy with the filter for some time; `plain_cores` is what one without takes.
pub async fn watch(
    proxy: &Proxy,
    endpoints: usize,
    interval_ms: u64,
    plain_cores: Option<f64>,
    length: Duration,
) -> Result<Idle, BoxError> {
    let before = sink::pages();
    let cores = cores(|| proxy.cpu(), length).await?;
    let pages = (sink::pages() - before) as f64 / length.as_secs_f64();
    let ages = ages(proxy.admin).await?;
    let oldest_ms = ages.iter().copied().fold(f64::NAN, f64::max);
    Ok(Idle {
        endpoints,
        interval_ms,
        cores,
        plain_cores,
        pages,
        bytes: pages * sink::PAGE_BYTES as f64,
        age_ms: Spread::of(ages).median,
        oldest_ms,
        picker_cores: None,
    })
}

/// Returns how many cores a process keeps busy, which `cpu` reads.
pub async fn cores(
    cpu: impl Fn() -> Result<Threads, BoxError>,
    length: Duration,
) -> Result<f64, BoxError> {
    let before = cpu()?;
    tokio::time::sleep(length).await;
    Ok(cpu()?.since(&before).total().as_secs_f64() / length.as_secs_f64())
}

/// Returns the age of each endpoint's metrics, in milliseconds.
async fn ages(admin: u16) -> Result<Vec<f64>, BoxError> {
    let ages = statistics(admin, "epp_wasm_scrape_age_milliseconds").await?;
    Ok(ages.into_iter().map(|(_, age)| age).collect())
}

//! The cost of keeping metrics fresh without traffic, and the age of the metrics.

use std::time::Duration;

use crate::envoy::Proxy;
use crate::picker::Picker;
use crate::result::{Idle, Spread};
use crate::sink;
use crate::statistics::statistics;
use crate::BoxError;

/// Measures an idle Envoy with the filter for some time.
pub async fn watch(
    proxy: &Proxy,
    endpoints: usize,
    interval_ms: u64,
    length: Duration,
) -> Result<Idle, BoxError> {
    let before = (proxy.cpu()?, sink::pages());
    tokio::time::sleep(length).await;
    let seconds = length.as_secs_f64();
    let cores = proxy.cpu()?.since(&before.0).total().as_secs_f64() / seconds;
    let pages = (sink::pages() - before.1) as f64 / seconds;
    let ages = ages(proxy.admin).await?;
    let oldest_ms = ages.iter().copied().fold(f64::NAN, f64::max);
    Ok(Idle {
        endpoints,
        interval_ms,
        cores,
        pages,
        bytes: pages * sink::PAGE_BYTES as f64,
        age_ms: Spread::of(ages).median,
        oldest_ms,
        picker_cores: None,
    })
}

/// Measures how many cores an idle Endpoint Picker uses.
pub async fn picker_cores(picker: &Picker, length: Duration) -> Result<f64, BoxError> {
    let before = picker.cpu()?;
    tokio::time::sleep(length).await;
    Ok(picker.cpu()?.since(&before).total().as_secs_f64() / length.as_secs_f64())
}

/// Returns the age of each endpoint's metrics, in milliseconds.
async fn ages(admin: u16) -> Result<Vec<f64>, BoxError> {
    let ages = statistics(admin, "epp_wasm_scrape_age_milliseconds").await?;
    Ok(ages.into_iter().map(|(_, age)| age).collect())
}

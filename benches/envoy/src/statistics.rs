//! The filter's statistics, from Envoy's admin interface.

use envoy_harness::statistics::samples;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::result::Quantiles;
use crate::BoxError;

/// Returns the labels and values of a statistic.
pub async fn statistics(admin: u16, name: &str) -> Result<Vec<(String, f64)>, BoxError> {
    let mut stream = TcpStream::connect(("127.0.0.1", admin)).await?;
    let path = format!("/stats/prometheus?filter={name}");
    let request = format!("GET {path} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut response = String::new();
    stream.read_to_string(&mut response).await?;
    let values = samples(&response, name);
    Ok(values
        .map(|(labels, value)| (labels.to_owned(), value))
        .collect())
}

/// Returns the quantiles of a histogram in seconds, as Prometheus' `histogram_quantile` does; none if it is empty.
pub async fn quantiles(admin: u16, name: &str) -> Result<Option<Quantiles>, BoxError> {
    let buckets = statistics(admin, &format!("{name}_bucket")).await?;
    let mut buckets: Vec<(f64, f64)> = buckets
        .iter()
        .filter_map(|(labels, count)| {
            let (_, bound) = labels.split_once("le=\"")?;
            Some((bound.split('"').next()?.parse().ok()?, *count))
        })
        .collect();
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    let count = buckets.last().map_or(0.0, |(_, count)| *count);
    if count == 0.0 {
        return Ok(None);
    }
    let quantile = |share: f64| {
        let rank = share * count;
        let (mut lower, mut below) = (0.0, 0.0);
        for (bound, upto) in &buckets {
            if *upto >= rank && bound.is_finite() {
                return (lower + (bound - lower) * (rank - below) / (upto - below)) * 1e6;
            }
            (lower, below) = (*bound, *upto);
        }
        f64::NAN
    };
    Ok(Some(Quantiles {
        p50_us: quantile(0.5),
        p95_us: quantile(0.95),
        count: count as u64,
    }))
}

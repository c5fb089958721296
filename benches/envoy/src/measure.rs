//! Measures cases in turns: many short slices each, one case after the other, because within minutes
//! machines drift by more than the differences that matter. While one Envoy is measured the others are
//! stopped, so that their polling does not count.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::bodies::Source;
use crate::envoy::Proxy;
use crate::load::{self, Taken};
use crate::paced;
use crate::picker::Picker;
use crate::result::{Case, Spread};
use crate::BoxError;

/// The time for which a proxy that was stopped runs before it is measured.
const SETTLE_TIME: Duration = Duration::from_millis(300);

/// The kind of load.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// A closed loop of this many connections.
    Closed(usize),
    /// An open loop with this many requests per second.
    Rate(u64),
}

/// The number and length of slices.
#[derive(Debug, Clone, Copy)]
pub struct Turns {
    /// Slices per case.
    pub slices: usize,
    /// Length of a slice.
    pub length: Duration,
}

/// One slice of one case.
struct Slice {
    taken: Taken,
    envoy: Duration,
    picker: Option<Duration>,
}

/// Measures the cases in turns.
pub async fn cases(
    proxies: &[&Proxy],
    picker: Option<&Picker>,
    pace: Pace,
    turns: Turns,
    source: &mut Source,
) -> Result<Vec<Case>, BoxError> {
    let mut rows: Vec<Vec<Slice>> = proxies.iter().map(|_| Vec::new()).collect();
    proxies.iter().try_for_each(|proxy| proxy.pause(true))?;
    // Forwards and backwards, so that drift within a turn affects all cases equally.
    let mut order: Vec<usize> = (0..proxies.len()).collect();
    for slice in 0..=turns.slices {
        for at in &order {
            let (Some(proxy), Some(row)) = (proxies.get(*at), rows.get_mut(*at)) else {
                continue;
            };
            proxy.pause(false)?;
            tokio::time::sleep(SETTLE_TIME).await;
            let measured = one(proxy, picker, pace, turns.length, source).await;
            proxy.pause(true)?;
            // The first slice warms up.
            if slice > 0 {
                row.push(measured?);
            }
        }
        order.reverse();
    }
    proxies.iter().try_for_each(|proxy| proxy.pause(false))?;
    let of = |name: &str| {
        let at = proxies.iter().position(|proxy| proxy.name == name);
        at.and_then(|at| rows.get(at))
    };
    let (plain, noop) = (of("plain"), of("noop"));
    let named = proxies.iter().zip(&rows);
    Ok(named
        .map(|(proxy, row)| case(&proxy.name, row, plain, noop))
        .collect())
}

async fn one(
    proxy: &Proxy,
    picker: Option<&Picker>,
    pace: Pace,
    length: Duration,
    source: &mut Source,
) -> Result<Slice, BoxError> {
    let picker = picker.filter(|_| proxy.name == "epp");
    let before = proxy.cpu()?;
    let picker_before = picker.map(Picker::cpu).transpose()?;
    let taken = match pace {
        Pace::Closed(connections) => load::slice(proxy.port, connections, length, source).await?,
        Pace::Rate(rate) => paced::slice(proxy.port, rate, length, source).await?,
    };
    let spent = match (picker, picker_before) {
        (Some(picker), Some(before)) => Some(picker.cpu()?.saturating_sub(before)),
        _ => None,
    };
    Ok(Slice {
        taken,
        envoy: proxy.cpu()?.saturating_sub(before),
        picker: spent,
    })
}

/// Returns the medians of a case. Ratios are medians over the ratios of each turn.
fn case(name: &str, row: &[Slice], plain: Option<&Vec<Slice>>, noop: Option<&Vec<Slice>>) -> Case {
    let spread = |of: &dyn Fn(&Slice) -> f64| Spread::of(row.iter().map(of));
    let ratio = |other: Option<&Vec<Slice>>| {
        let other = other?;
        let pairs = row.iter().zip(other);
        Some(Spread::of(
            pairs.map(|(own, other)| per_second(own) / per_second(other)),
        ))
    };
    let quantile = |share: f64| {
        let at = |latency: &Histogram<u32>| latency.value_at_quantile(share) as f64;
        spread(&|slice: &Slice| at(&slice.taken.latency))
    };
    let measured = row.iter().any(|slice| slice.picker.is_some());
    let picker = |slice: &Slice| per_request(slice.picker.unwrap_or_default(), slice);
    Case {
        name: name.to_owned(),
        per_second: spread(&per_second),
        of_plain: ratio(plain),
        of_noop: ratio(noop),
        envoy_us: spread(&|slice| per_request(slice.envoy, slice)),
        picker_us: measured.then(|| spread(&picker)),
        p50_us: quantile(0.5),
        p90_us: quantile(0.9),
        p99_us: quantile(0.99),
        failed: row.iter().map(|slice| slice.taken.failed).sum(),
    }
}

fn per_second(slice: &Slice) -> f64 {
    slice.taken.succeeded as f64 / slice.taken.elapsed.as_secs_f64()
}

fn per_request(spent: Duration, slice: &Slice) -> f64 {
    spent.as_secs_f64() * 1e6 / slice.taken.succeeded.max(1) as f64
}

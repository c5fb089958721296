//! Measures cases in turns: many short slices each, one case after the other, because within minutes
//! machines drift by more than the differences that matter. While one Envoy is measured the others are
//! stopped, so that their polling does not count.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::bodies::Source;
use crate::cpu::Spent;
use crate::envoy::Proxy;
use crate::load::{self, Taken};
use crate::paced;
use crate::picker::Picker;
use crate::result::{Case, Cpu, Spread};
use crate::BoxError;

/// The time for which a proxy that was stopped serves the same load before it is measured. Its first requests take longer:
/// its code is in no cache, and pages are due. Without it, slices of 400 ms show up to 15 µs more for a request to the wasm
/// module than slices of 2,500 ms do.
pub const SETTLE_TIME: Duration = Duration::from_millis(300);

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

/// The cases to which the others are compared.
const REFERENCES: [&str; 4] = ["plain", "override-host", "noop", "epp-wasm"];

/// One slice of one case.
struct Slice {
    taken: Taken,
    envoy: Spent,
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
            let settled = one(proxy, picker, pace, SETTLE_TIME, source).await;
            let measured = one(proxy, picker, pace, turns.length, source).await;
            proxy.pause(true)?;
            settled?;
            // The first slice warms up.
            if slice > 0 {
                row.push(measured?);
            }
        }
        order.reverse();
    }
    proxies.iter().try_for_each(|proxy| proxy.pause(false))?;
    let rows: Vec<(&str, Vec<Slice>)> = proxies
        .iter()
        .map(|proxy| proxy.name.as_str())
        .zip(rows)
        .collect();
    Ok(rows
        .iter()
        .map(|(name, row)| case(name, row, &rows))
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
    source.send_to(&proxy.destinations);
    let before = proxy.cpu()?;
    let picker_before = picker.map(Picker::cpu).transpose()?;
    let taken = match pace {
        Pace::Closed(connections) => load::slice(proxy.port, connections, length, source).await?,
        Pace::Rate(rate) => paced::slice(proxy.port, rate, length, source).await?,
    };
    let spent = match (picker, picker_before) {
        (Some(picker), Some(before)) => Some(picker.cpu()?.since(&before).total()),
        _ => None,
    };
    Ok(Slice {
        taken,
        envoy: proxy.cpu()?.since(&before),
        picker: spent,
    })
}

/// Returns the medians of a case, and of its differences to other cases in the same turns.
fn case(name: &str, row: &[Slice], all: &[(&str, Vec<Slice>)]) -> Case {
    let spread = |of: &dyn Fn(&Slice) -> f64| Spread::of(row.iter().map(of));
    let quantile = |share: f64| {
        let at = |latency: &Histogram<u32>| latency.value_at_quantile(share) as f64;
        spread(&|slice: &Slice| at(&slice.taken.latency))
    };
    let measured = row.iter().any(|slice| slice.picker.is_some());
    let picker = |slice: &Slice| per_request(slice.picker.unwrap_or_default(), slice);
    let others = all.iter().filter(|(other, _)| *other != name);
    let references = others.filter(|(other, _)| REFERENCES.contains(other));
    Case {
        name: name.to_owned(),
        per_second: spread(&per_second),
        cpu_us: cpu(row.iter().map(worker_and_others)),
        beside: references
            .map(|(other, reference)| ((*other).to_owned(), difference(row, reference)))
            .collect::<BTreeMap<_, _>>(),
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

/// Returns the CPU per request in microseconds: of the workers, and of all other threads.
fn worker_and_others(slice: &Slice) -> (f64, f64) {
    let Spent { workers, others } = slice.envoy;
    (per_request(workers, slice), per_request(others, slice))
}

/// Returns what a case takes more than another one, turn by turn.
fn difference(row: &[Slice], reference: &[Slice]) -> Cpu {
    let turns = row.iter().zip(reference);
    cpu(turns.map(|(own, other)| {
        let (own, other) = (worker_and_others(own), worker_and_others(other));
        (own.0 - other.0, own.1 - other.1)
    }))
}

fn cpu(turns: impl Iterator<Item = (f64, f64)> + Clone) -> Cpu {
    Cpu {
        worker: Spread::of(turns.clone().map(|(worker, _)| worker)),
        others: Spread::of(turns.clone().map(|(_, others)| others)),
        both: Spread::of(turns.map(|(worker, others)| worker + others)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A slice of a thousand requests.
    fn slice(worker_us: u64, others_us: u64) -> Slice {
        Slice {
            taken: Taken {
                succeeded: 1_000,
                failed: 1,
                elapsed: Duration::from_millis(500),
                latency: Histogram::new_with_max(60_000_000, 3).unwrap(),
            },
            envoy: Spent {
                workers: Duration::from_millis(worker_us),
                others: Duration::from_millis(others_us),
            },
            picker: None,
        }
    }

    #[test]
    fn differences_are_taken_within_a_turn() {
        // The machine gets slower from turn to turn, by more than the cases differ.
        let plain = vec![slice(10, 0), slice(20, 0), slice(40, 0)];
        let own = vec![slice(13, 1), slice(25, 2), slice(44, 4)];
        let all = [("plain", plain), ("mine", own)];
        let case = case("mine", &all[1].1, &all);
        let cpu = case.beside["plain"];
        assert_eq!((cpu.worker.median, cpu.others.median), (4.0, 2.0));
        // 3 + 1, 5 + 2 and 4 + 4: not the sum of the medians.
        assert_eq!(
            (cpu.both.low, cpu.both.median, cpu.both.high),
            (7.0, 7.0, 8.0)
        );
        assert_eq!(case.cpu_us.worker.median, 25.0);
        assert_eq!((case.per_second.median, case.failed), (2_000.0, 3));
    }

    #[test]
    fn a_case_is_compared_to_the_references_of_its_run() {
        let all = ["plain", "noop", "ring-hash"].map(|name| (name, vec![slice(1, 0)]));
        let beside = |at: usize| {
            let case = case(all[at].0, &all[at].1, &all);
            case.beside.into_keys().collect::<Vec<_>>()
        };
        assert_eq!(beside(0), ["noop"]);
        assert_eq!(beside(2), ["noop", "plain"]);
    }
}

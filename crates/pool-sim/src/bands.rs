//! The result of a run by priority band.

use crate::report::{ascending, distribution, second_half, Distribution, Fate, Times};
use crate::trace::{Request, Trace};
use crate::SECOND;

/// What became of the requests of one band in the second half of a load; the first half lets the queues settle.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Band {
    /// Requests that arrived.
    pub requests: usize,
    /// Requests that completed per second.
    pub completed_rate: f64,
    /// Tokens of their responses per second.
    pub token_rate: f64,
    /// Time from arrival to the first token.
    pub ttft_ms: Distribution,
    /// Time from arrival until the request was sent to a server.
    pub wait_ms: Distribution,
    /// Time from there to the first token.
    pub server_ms: Distribution,
    /// Requests that were refused at once.
    pub shed: usize,
    /// Requests that had waited as long as they may.
    pub expired: usize,
    /// Requests that servers had begun with and had to abort.
    pub evicted: usize,
    /// The share of each tenant in the requests that completed.
    pub tenants: Vec<f64>,
}

/// Returns the result of each objective of a trace; one if it has none.
pub fn bands(trace: &Trace, times: &[Times]) -> Vec<Band> {
    let bands = 0..trace.objectives.len().max(1);
    bands.map(|number| band(trace, times, number)).collect()
}

fn band(trace: &Trace, times: &[Times], number: usize) -> Band {
    let half = second_half(trace);
    let all = || {
        let all = trace.requests.iter().zip(times);
        all.filter(|(request, _)| request.objective == number)
    };
    let arrived = || all().filter(|(request, _)| half.contains(&request.at));
    let ended = || all().filter(|(_, times)| times.end.is_some_and(|end| half.contains(&end)));
    let fates = |fate: Fate| arrived().filter(|(_, times)| times.fate == fate).count();
    let times_of = |of: fn(&Request, &Times) -> Option<u64>| {
        let found = arrived().filter_map(|(request, times)| of(request, times));
        distribution(&ascending(found.map(|time| time as f64 / 1e6)))
    };
    let seconds = (half.end - half.start) as f64 / SECOND as f64;
    let rate = |count: f64| if seconds > 0.0 { count / seconds } else { 0.0 };
    let completed = ended().count() as f64;
    let tokens = ended().map(|(request, _)| u64::from(request.output));
    let tokens = tokens.sum::<u64>() as f64;
    let tenants = (0..trace.tenants.max(1)).map(|tenant| {
        let own = ended().filter(|(request, _)| request.tenant == tenant);
        own.count() as f64 / completed.max(1.0)
    });
    Band {
        requests: arrived().count(),
        completed_rate: rate(completed),
        token_rate: rate(tokens),
        ttft_ms: times_of(|request, times| times.first_token?.checked_sub(request.at)),
        wait_ms: times_of(|request, times| times.sent?.checked_sub(request.at)),
        server_ms: times_of(|_, times| times.first_token?.checked_sub(times.sent?)),
        shed: fates(Fate::Shed),
        expired: fates(Fate::Expired),
        evicted: fates(Fate::Evicted),
        tenants: tenants.collect(),
    }
}

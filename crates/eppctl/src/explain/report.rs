//! The report of `eppctl explain`.

use std::collections::BTreeMap;
use std::io::{self, Write};

use epp_core::picker::{shown, Effect, ExchangeId, Explanation, Picker};
use epp_core::protocol::DROPPED_REASON_HEADER;
use epp_core::scheduling::{DecisionMode, Pool, Slot};
use epp_core::time::whole_millis;
use serde::Serialize;

use super::source::{EndpointState, PoolState};
use crate::metrics::MetricValues;
use crate::output::{styled, Report, FAINT, GOOD, STRONG, WARNING};

/// An explained decision.
#[derive(Serialize)]
pub struct Explained {
    /// The destination header.
    pub destination: Option<String>,
    /// Further headers for the picked endpoint.
    headers: BTreeMap<&'static str, String>,
    /// Which endpoints do parts of the request for it, or why none does.
    parts: Vec<String>,
    local_reply: Option<String>,
    /// Why flow control lets the request wait, if it does.
    waits: Option<String>,
    body_bytes: usize,
    bytes_needed: usize,
    /// Notes on missing information.
    notes: Vec<String>,
    /// Whether the decision mode is metrics: enough endpoints have fresh ones.
    metrics_count: bool,
    left_out: Vec<LeftOut>,
    filters: Vec<Filtered>,
    candidates: Vec<Candidate>,
    tied: usize,
    endpoints: usize,
}

/// An endpoint that was not a candidate before filtering.
#[derive(Serialize)]
struct LeftOut {
    name: String,
    why: &'static str,
}

#[derive(Serialize)]
struct Filtered {
    filter: String,
    removed: Vec<String>,
}

#[derive(Serialize)]
struct Candidate {
    name: String,
    address: String,
    picked: bool,
    sum: f64,
    freshness: String,
    /// The age of its metrics in milliseconds, if an Envoy exports it.
    age_ms: Option<u64>,
    /// The metrics that the decision used.
    metrics: MetricValues,
    /// Its requests in flight from this Envoy, without the one that is explained.
    in_flight: u32,
    scores: Vec<Score>,
}

#[derive(Serialize)]
struct Score {
    scorer: String,
    raw: f64,
    weight: f64,
    weighted: f64,
}

/// Explains a decision that took `needed` of `all` bytes of a body, among endpoints in this state.
pub fn explained(
    picker: &Picker,
    id: ExchangeId,
    (needed, all): (usize, usize),
    decision: Option<Effect>,
    state: PoolState,
) -> Explained {
    let pool = picker.pool();
    let mut headers = BTreeMap::new();
    let (destination, local_reply) = match decision {
        Some(Effect::Forward { route, .. }) => {
            let endpoints: Vec<&str> = route.endpoints().collect();
            let destination = endpoints.join(",");
            headers.extend(route.headers);
            (Some(destination), None)
        }
        Some(Effect::Reply { reply, .. }) => {
            let reason = reply
                .reason
                .map(|reason| format!(" ({DROPPED_REASON_HEADER}: {reason})"));
            let reason = reason.unwrap_or_default();
            (
                None,
                Some(format!("{} {}{reason}", reply.status, reply.body)),
            )
        }
        _ => (None, None),
    };
    let explanation = picker.explanation(id);
    let filters = explanation.map(|explanation| filtered(pool, explanation));
    let candidates = explanation.map(|explanation| candidates(pool, explanation, &state.endpoints));
    let (filters, candidates) = (filters.unwrap_or_default(), candidates.unwrap_or_default());
    let best = candidates.first().map(|best| best.sum);
    let tied = candidates.iter().filter(|one| Some(one.sum) == best);
    let parts = explanation.map(|explanation| explanation.parts(pool));
    Explained {
        destination,
        headers,
        parts: parts.unwrap_or_default(),
        local_reply,
        waits: picker.why_requests_wait(),
        body_bytes: all,
        bytes_needed: needed,
        notes: state.notes,
        metrics_count: pool.mode == DecisionMode::Metrics,
        left_out: left_out(picker),
        filters,
        tied: tied.count(),
        candidates,
        endpoints: pool.len(),
    }
}

/// Returns what each filter removed.
fn filtered(pool: &Pool, explanation: &Explanation) -> Vec<Filtered> {
    let name = |slot: &Slot| {
        let endpoint = pool.get(*slot);
        endpoint.map_or_else(String::new, |endpoint| endpoint.name.clone())
    };
    let filters = explanation.filters.iter();
    let filters = filters.map(|(filter, removed)| Filtered {
        filter: filter.clone(),
        removed: removed.iter().map(name).collect(),
    });
    filters.collect()
}

/// Returns the candidates, best first. What is in flight is as of before the decision: since then the picker counts the
/// explained request.
fn candidates(pool: &Pool, explanation: &Explanation, before: &[EndpointState]) -> Vec<Candidate> {
    let ranked = explanation.ranking.iter().enumerate();
    let candidates = ranked.filter_map(|(place, scored)| {
        let endpoint = pool.get(scored.slot)?;
        let before = before.get(scored.slot.index())?;
        Some(Candidate {
            name: endpoint.name.clone(),
            address: endpoint.address.to_string(),
            picked: place < explanation.picks,
            sum: scored.score,
            freshness: format!("{:?}", endpoint.freshness).to_lowercase(),
            age_ms: before.age.map(whole_millis),
            metrics: MetricValues::of(&endpoint.metrics),
            in_flight: before.requests,
            scores: scores(explanation, scored.slot),
        })
    });
    candidates.collect()
}

/// Returns the endpoints that were not candidates before filtering.
fn left_out(picker: &Picker) -> Vec<LeftOut> {
    let endpoints = picker.pool().iter().filter_map(|(_, endpoint)| {
        let why = match (endpoint.is_available(), endpoint.ejected) {
            (false, _) => endpoint.health.name(),
            (true, true) => "ejected by the picker: its requests fail",
            (true, false) => return None,
        };
        let name = endpoint.name.clone();
        Some(LeftOut { name, why })
    });
    endpoints.collect()
}

/// Returns each scorer's score for an endpoint.
fn scores(explanation: &Explanation, slot: Slot) -> Vec<Score> {
    let scorers = explanation.scorers.iter();
    let scores = scorers.map(|scorer| {
        let own = scorer.scores.iter().find(|own| own.slot == slot);
        let raw = own.map_or(0.0, |own| own.score);
        Score {
            scorer: scorer.name.clone(),
            raw,
            weight: scorer.weight,
            // A negative weight makes 0 negative.
            weighted: counted(raw) * scorer.weight + 0.0,
        }
    });
    scores.collect()
}

/// Returns a score as a profile sums it.
fn counted(raw: f64) -> f64 {
    match raw.is_nan() {
        true => 0.0,
        false => raw.clamp(0.0, 1.0),
    }
}

impl Report for Explained {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        match (&self.destination, &self.local_reply) {
            (Some(destination), _) => {
                writeln!(out, "{} {destination}", styled(GOOD, "destination:"))?
            }
            (None, Some(reply)) => writeln!(out, "local reply: {reply}")?,
            (None, None) => match &self.waits {
                Some(why) => writeln!(out, "{} in a queue: {why}", styled(WARNING, "waits"))?,
                None => writeln!(out, "no endpoint was picked")?,
            },
        }
        for (name, value) in &self.headers {
            writeln!(out, "{name}: {value}")?;
        }
        for part in &self.parts {
            writeln!(out, "{part}")?;
        }
        self.bytes(out)?;
        writeln!(
            out,
            "{} of {} endpoints are candidates",
            self.candidates.len(),
            self.endpoints
        )?;
        for left_out in &self.left_out {
            writeln!(out, "left out: {} ({})", left_out.name, left_out.why)?;
        }
        for Filtered { filter, removed } in &self.filters {
            match removed.as_slice() {
                [] => writeln!(out, "filter {filter}: removed none")?,
                removed => writeln!(out, "filter {filter}: removed {}", removed.join(", "))?,
            }
        }
        if !self.metrics_count {
            let note = "too few endpoints have fresh metrics: metrics are ignored, only Envoy's own counts are used";
            writeln!(out, "{}", styled(WARNING, note))?;
        }
        if self.tied > 1 {
            writeln!(
                out,
                "{} candidates tie for the first place; the picker plugin chooses among them",
                self.tied
            )?;
        }
        self.table(out)?;
        for note in &self.notes {
            writeln!(out, "{}: {note}", styled(WARNING, "note"))?;
        }
        Ok(())
    }
}

impl Explained {
    /// Writes how much of the body the decision took.
    fn bytes(&self, out: &mut dyn Write) -> io::Result<()> {
        let (needed, all) = (self.bytes_needed, self.body_bytes);
        match needed {
            _ if self.waits.is_some() => Ok(()),
            0 => writeln!(
                out,
                "decided at the headers: the body cannot change the decision"
            ),
            whole if whole == all => writeln!(
                out,
                "decided with the whole body, {all} bytes: any part could change the decision"
            ),
            early => writeln!(
                out,
                "decided with {early} of {all} bytes: the rest cannot change the decision"
            ),
        }
    }

    /// Writes the candidates, best first, with each scorer's raw and weighted score.
    fn table(&self, out: &mut dyn Write) -> io::Result<()> {
        let Some(first) = self.candidates.first() else {
            return Ok(());
        };
        let heads = first.scores.iter();
        let heads = heads.map(|score| format!("{} × {}", score.scorer, score.weight));
        let heads: Vec<String> = heads.collect();
        let names = self.candidates.iter().map(|candidate| candidate.name.len());
        let width = names.max().unwrap_or(0).max("ENDPOINT".len());
        let mut head = format!("  {:width$}  {:>8}", "ENDPOINT", "SUM");
        for scorer in &heads {
            head += &format!("  {scorer:>SCORE_WIDTH$}");
        }
        writeln!(out, "{}", styled(STRONG, head + "  METRICS"))?;
        for candidate in &self.candidates {
            let mark = match candidate.picked {
                true => styled(GOOD, "→"),
                false => " ".to_owned(),
            };
            let name = styled(STRONG, format!("{:width$}", candidate.name));
            let sum = shown(candidate.sum, 1e-4);
            write!(out, "{mark} {name}  {sum:>8.4}")?;
            for (score, head) in candidate.scores.iter().zip(&heads) {
                let weighted = shown(score.weighted, 1e-4);
                let cell = format!("{:.4} → {weighted:.4}", score.raw);
                write!(
                    out,
                    "  {cell:>width$}",
                    width = head.chars().count().max(SCORE_WIDTH)
                )?;
            }
            let mut freshness = candidate.freshness.clone();
            if let Some(age) = candidate.age_ms {
                freshness += &format!(", {:.1} s old", age as f64 / 1e3);
            }
            writeln!(out, "  {}", styled(FAINT, freshness))?;
            let mut values = candidate.metrics.line();
            if candidate.in_flight > 0 {
                values += &format!(", {} in flight from this Envoy", candidate.in_flight);
            }
            writeln!(out, "    {}", styled(FAINT, values))?;
        }
        Ok(())
    }
}

/// Width of a raw and a weighted score: `0.0000 → 10.0000`.
const SCORE_WIDTH: usize = 16;

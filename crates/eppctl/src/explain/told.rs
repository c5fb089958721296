//! A decision as `eppctl explain` tells it.

use std::io::{self, Write};

use epp_core::picker::explain::Explanation;
use epp_core::picker::{Effect, ExchangeId, Picker};
use epp_core::scheduling::{DecisionMode, Slot};
use serde::Serialize;

use crate::metrics::Shown;
use crate::output::{styled, Report, FAINT, GOOD, STRONG, WARNING};

/// The decision.
#[derive(Serialize)]
pub struct Explained {
    /// Where it goes.
    pub destination: Option<String>,
    refusal: Option<String>,
    body_bytes: usize,
    bytes_needed: usize,
    /// What was not known when it was made.
    notes: Vec<String>,
    /// Whether too few metrics were fresh to count.
    metrics_count: bool,
    left_out: Vec<LeftOut>,
    filters: Vec<Filtered>,
    candidates: Vec<Candidate>,
    tied: usize,
    endpoints: usize,
}

/// An endpoint that could not be picked from the beginning.
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
    /// What of its page the decision rests on.
    metrics: Shown,
    /// Requests that this Envoy has in flight there.
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

/// What a picker decided of a request, with so many of so many bytes of its body.
pub fn explained(
    picker: &Picker,
    id: ExchangeId,
    (needed, all): (usize, usize),
    decision: Option<Effect>,
    notes: Vec<String>,
) -> Explained {
    let pool = picker.pool();
    let name = |slot: &Slot| {
        pool.get(*slot)
            .map(|endpoint| endpoint.name.clone())
            .unwrap_or_default()
    };
    let (destination, refusal) = match decision {
        Some(Effect::Forward { route, .. }) => (Some(route.destination), None),
        Some(Effect::Reply { reply, .. }) => {
            (None, Some(format!("{} {}", reply.status, reply.body)))
        }
        _ => (None, None),
    };
    let mut explained = Explained {
        destination,
        refusal,
        body_bytes: all,
        bytes_needed: needed,
        notes,
        metrics_count: pool.mode == DecisionMode::Metrics,
        left_out: Vec::new(),
        filters: Vec::new(),
        candidates: Vec::new(),
        tied: 0,
        endpoints: pool.len(),
    };
    explained.left_out = left_out(picker);
    let Some(explanation) = picker.explanation(id) else {
        return explained;
    };
    explained.filters = explanation
        .filters
        .iter()
        .map(|(filter, removed)| Filtered {
            filter: filter.clone(),
            removed: removed.iter().map(name).collect(),
        })
        .collect();
    let best = explanation.ranking.first().map(|first| first.score);
    let ties = explanation
        .ranking
        .iter()
        .filter(|scored| Some(scored.score) == best);
    explained.tied = ties.count();
    let ranked = explanation.ranking.iter().enumerate();
    let told = ranked.filter_map(|(place, scored)| {
        let endpoint = pool.get(scored.slot)?;
        Some(Candidate {
            name: endpoint.name.clone(),
            address: endpoint.address.clone(),
            picked: place < explanation.picks,
            sum: scored.score,
            freshness: format!("{:?}", endpoint.freshness).to_lowercase(),
            metrics: Shown::of(&endpoint.metrics),
            in_flight: pool.load(scored.slot).requests,
            scores: scores(explanation, scored.slot),
        })
    });
    explained.candidates = told.collect();
    explained
}

/// Who could not be picked before any filter was asked.
fn left_out(picker: &Picker) -> Vec<LeftOut> {
    let endpoints = picker.pool().iter().filter_map(|(_, endpoint)| {
        let why = match (endpoint.available, endpoint.ejected) {
            (false, _) => "unhealthy, ejected or draining",
            (true, true) => "avoided: requests fail there",
            (true, false) => return None,
        };
        let name = endpoint.name.clone();
        Some(LeftOut { name, why })
    });
    endpoints.collect()
}

/// What each scorer gave an endpoint.
fn scores(explanation: &Explanation, slot: Slot) -> Vec<Score> {
    let scorers = explanation.scorers.iter();
    let scores = scorers.map(|scorer| {
        let own = scorer.scores.iter().find(|own| own.slot == slot);
        let raw = own.map_or(0.0, |own| own.score);
        Score {
            scorer: scorer.name.clone(),
            raw,
            weight: scorer.weight,
            weighted: counted(raw) * scorer.weight,
        }
    });
    scores.collect()
}

/// A score as a profile adds it up.
fn counted(raw: f64) -> f64 {
    match raw.is_nan() {
        true => 0.0,
        false => raw.clamp(0.0, 1.0),
    }
}

impl Report for Explained {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        match (&self.destination, &self.refusal) {
            (Some(destination), _) => {
                writeln!(out, "{} {destination}", styled(GOOD, "destination:"))?
            }
            (None, Some(refusal)) => writeln!(out, "refused: {refusal}")?,
            (None, None) => writeln!(out, "nobody was picked")?,
        }
        let (needed, all) = (self.bytes_needed, self.body_bytes);
        match needed {
            0 => writeln!(
                out,
                "decided at the headers: nothing in the body can matter"
            )?,
            whole if whole == all => writeln!(
                out,
                "decided with the whole body, {all} bytes: until then something could change it"
            )?,
            early => writeln!(
                out,
                "decided with {early} of {all} bytes: nothing behind them can change it"
            )?,
        }
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
                [] => writeln!(out, "filter {filter}: removed nobody")?,
                removed => writeln!(out, "filter {filter}: removed {}", removed.join(", "))?,
            }
        }
        if !self.metrics_count {
            let note = "too few endpoints have fresh metrics: nobody's count, only what Envoy knows itself";
            writeln!(out, "{}", styled(WARNING, note))?;
        }
        if self.tied > 1 {
            writeln!(out, "{} tie for the first place; chance decides", self.tied)?;
        }
        self.table(out)?;
        for note in &self.notes {
            writeln!(out, "{}: {note}", styled(WARNING, "note"))?;
        }
        Ok(())
    }
}

impl Explained {
    /// The candidates, best first: with each scorer its raw score and what that adds to the sum.
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
            head += &format!("  {scorer:>CELL$}");
        }
        writeln!(out, "{}", styled(STRONG, head + "  METRICS"))?;
        for candidate in &self.candidates {
            let mark = match candidate.picked {
                true => styled(GOOD, "→"),
                false => " ".to_owned(),
            };
            let name = styled(STRONG, format!("{:width$}", candidate.name));
            write!(out, "{mark} {name}  {:>8.4}", candidate.sum)?;
            for (score, head) in candidate.scores.iter().zip(&heads) {
                let cell = format!("{:.4} → {:.4}", score.raw, score.weighted);
                write!(
                    out,
                    "  {cell:>width$}",
                    width = head.chars().count().max(CELL)
                )?;
            }
            writeln!(out, "  {}", styled(FAINT, &candidate.freshness))?;
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
const CELL: usize = 16;

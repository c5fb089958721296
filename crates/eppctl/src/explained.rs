//! A decision as `eppctl explain` tells it.

use std::io::{self, Write};

use epp_wasm::director::explain::Explanation;
use epp_wasm::director::{Director, Verdict as Outcome};
use epp_wasm::scheduling::Slot;
use serde::Serialize;

use crate::output::{styled, Report, FAINT, GOOD, STRONG};

/// The decision.
#[derive(Serialize)]
pub struct Explained {
    /// Where it goes.
    pub destination: Option<String>,
    refusal: Option<String>,
    body_bytes: usize,
    bytes_needed: usize,
    filters: Vec<Filtered>,
    candidates: Vec<Candidate>,
    tied: usize,
    endpoints: usize,
}

#[derive(Serialize)]
struct Filtered {
    filter: String,
    left: Vec<String>,
}

#[derive(Serialize)]
struct Candidate {
    name: String,
    address: String,
    picked: bool,
    sum: f64,
    freshness: String,
    scores: Vec<Score>,
}

#[derive(Serialize)]
struct Score {
    scorer: String,
    raw: f64,
    weight: f64,
}

/// What a director decided of a request, with so many of so many bytes of its body.
pub fn explained(
    director: &Director,
    id: u32,
    (needed, all): (usize, usize),
    outcome: Outcome,
) -> Explained {
    let pool = director.pool();
    let name = |slot: &Slot| {
        pool.get(*slot)
            .map(|endpoint| endpoint.name.clone())
            .unwrap_or_default()
    };
    let (destination, refusal) = match outcome {
        Outcome::Release(release) => (
            release.destination,
            release.refusal.map(|refusal| format!("{refusal:?}")),
        ),
        Outcome::Hold(_) => (None, None),
    };
    let mut explained = Explained {
        destination,
        refusal,
        body_bytes: all,
        bytes_needed: needed,
        filters: Vec::new(),
        candidates: Vec::new(),
        tied: 0,
        endpoints: pool.len(),
    };
    let Some(explanation) = director.explanation(id) else {
        return explained;
    };
    explained.filters = explanation
        .filters
        .iter()
        .map(|(filter, left)| Filtered {
            filter: filter.clone(),
            left: left.iter().map(name).collect(),
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
            scores: scores(explanation, scored.slot),
        })
    });
    explained.candidates = told.collect();
    explained
}

/// What each scorer gave an endpoint.
fn scores(explanation: &Explanation, slot: Slot) -> Vec<Score> {
    let scorers = explanation.scorers.iter();
    let scores = scorers.map(|scorer| {
        let own = scorer.scores.iter().find(|own| own.slot == slot);
        Score {
            scorer: scorer.name.clone(),
            raw: own.map_or(0.0, |own| own.score),
            weight: scorer.weight,
        }
    });
    scores.collect()
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
        for filter in &self.filters {
            writeln!(
                out,
                "filter {}: left {}",
                filter.filter,
                filter.left.join(", ")
            )?;
        }
        if self.tied > 1 {
            writeln!(out, "{} tie for the first place; chance decides", self.tied)?;
        }
        self.tell_candidates(out)
    }
}

impl Explained {
    fn tell_candidates(&self, out: &mut dyn Write) -> io::Result<()> {
        let width = self
            .candidates
            .iter()
            .map(|candidate| candidate.name.len())
            .max()
            .unwrap_or(0);
        for candidate in &self.candidates {
            let mark = if candidate.picked {
                styled(GOOD, "→")
            } else {
                " ".to_owned()
            };
            let name = styled(STRONG, format!("{:width$}", candidate.name));
            write!(out, "{mark} {name} {:>8.4}  ", candidate.sum)?;
            for score in &candidate.scores {
                write!(
                    out,
                    " {} {:.4} × {},",
                    score.scorer, score.raw, score.weight
                )?;
            }
            writeln!(out, " {}", styled(FAINT, &candidate.freshness))?;
        }
        Ok(())
    }
}

//! Plays a scenario through the whole picker, as a host does: bodies arrive in parts and metrics as pages, and
//! the endpoint that served the recorded request responds.
//!
//! In the recordings every request got its response before the next was sent, and metrics were read in between. So
//! the picker does not add requests since the last scrape to queues, and no request fails.

use std::collections::BTreeMap;

use epp_core::body::SliceBody;
use epp_core::config::settings::ReadBody;
use epp_core::config::{self, Plan};
use epp_core::endpoints::store::Member;
use epp_core::picker::{Effect, ExchangeId, Head, Picker};
use epp_core::plugins::discovery::inline::StaticDiscovery;
use epp_core::plugins::Discovery;
use epp_core::request::Api;
use epp_core::scheduling::{Freshness, Slot};
use epp_core::time::Timestamp;

use crate::scenario::{Expected, Exported, Scenario, Sent, Step};
use crate::TOLERANCE;

/// Bytes by which more of a body is shown each time: few, so that a request may be decided early.
const PART: usize = 64;

/// The time of all events, so that metrics do not become stale.
fn now() -> Timestamp {
    Timestamp::from_nanos(365 * 86_400 * 1_000_000_000)
}

/// A scenario that is being played.
pub struct Replay {
    plan: Plan,
    picker: Picker,
    next: u32,
    /// The steps so far.
    past: Vec<Past>,
}

/// A step that was played.
enum Past {
    Metrics(BTreeMap<String, Exported>),
    Served { request: Sent, by: Slot },
}

/// A decision.
pub struct Decided {
    /// The names of the endpoints with their weighted sums, best first.
    pub ranking: Vec<(String, f64)>,
    /// Whether the decision was made before the last part of the body.
    pub early: bool,
    id: ExchangeId,
    request: Sent,
}

/// The result of a replay.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The name of the scenario.
    pub name: String,
    /// The types of its plugins.
    pub plugins: Vec<String>,
    /// The number of its decisions.
    pub decisions: usize,
    /// How many of them were made before the end of the body.
    pub early: usize,
    /// Descriptions of different decisions, at most one for each decision.
    pub differences: Vec<String>,
}

/// Replays a whole scenario. Returns an error if it cannot be replayed.
pub fn replay(scenario: &Scenario) -> Result<Outcome, String> {
    let named = |error: String| format!("{}: {error}", scenario.name);
    let mut replay = Replay::new(scenario).map_err(named)?;
    let (mut differences, mut early) = (Vec::new(), 0);
    for (number, step) in scenario.steps.iter().enumerate() {
        match step {
            Step::Metrics { metrics } => replay.set_metrics(metrics).map_err(named)?,
            Step::Request { request, expect } => {
                let decided = replay.decide(request).map_err(named)?;
                if let Err(difference) = compare(&decided.ranking, expect, TOLERANCE) {
                    differences.push(format!("{} step {number}: {difference}", scenario.name));
                }
                early += usize::from(decided.early);
                replay.learn(&expect.served_by, decided).map_err(named)?;
            }
        }
    }
    Ok(Outcome {
        name: scenario.name.clone(),
        plugins: scenario.plugins(),
        decisions: scenario.decisions(),
        early,
        differences,
    })
}

/// Returns whether a ranking agrees with the recorded one. Endpoints with equal scores are in random order on
/// both sides, so the scores along the ranking are compared.
pub fn compare(ranking: &[(String, f64)], expect: &Expected, tolerance: f64) -> Result<(), String> {
    let own: BTreeMap<&str, f64> = ranking
        .iter()
        .map(|(name, score)| (name.as_str(), *score))
        .collect();
    if own.len() != expect.scores.len() {
        let (found, recorded) = (own.len(), expect.scores.len());
        return Err(format!("{found} candidates, recorded {recorded}"));
    }
    for (endpoint, recorded) in &expect.scores {
        let found = own.get(endpoint.as_str());
        let found = found.ok_or_else(|| format!("{endpoint} is not a candidate"))?;
        if (found - recorded).abs() > tolerance {
            return Err(format!("{endpoint} {found}, recorded {recorded}"));
        }
    }
    for ((name, score), recorded) in ranking.iter().zip(&expect.ranking) {
        let recorded_score = own.get(recorded.as_str()).copied().unwrap_or(f64::NAN);
        let apart = (score - recorded_score).abs();
        if apart.is_nan() || apart > tolerance {
            return Err(format!("{name} before {recorded}"));
        }
    }
    Ok(())
}

impl Replay {
    /// Begins a scenario.
    pub fn new(scenario: &Scenario) -> Result<Self, String> {
        let loaded = config::load(&scenario.config.to_string()).map_err(|rejected| {
            let errors: Vec<String> = rejected.errors.iter().map(ToString::to_string).collect();
            errors.join("; ")
        })?;
        let mut plan = loaded.plan;
        let members = scenario.endpoints.iter().map(|place| Member {
            name: place.name.clone(),
            address: format!("{}:{}", place.address, place.port),
            labels: Vec::new(),
            available: true,
        });
        let members = members.collect();
        plan.discovery = Discovery::Static(StaticDiscovery { members });
        plan.settings.explain = true;
        plan.settings.read_body = ReadBody::Always;
        plan.settings.correct_queue = false;
        plan.settings.outlier_detection = None;
        let picker = begin(&plan);
        Ok(Self {
            plan,
            picker,
            next: 0,
            past: Vec::new(),
        })
    }

    /// Changes the values that endpoints export.
    pub fn set_metrics(&mut self, metrics: &BTreeMap<String, Exported>) -> Result<(), String> {
        self.read_pages(metrics)?;
        self.past.push(Past::Metrics(metrics.clone()));
        Ok(())
    }

    fn read_pages(&mut self, metrics: &BTreeMap<String, Exported>) -> Result<(), String> {
        for (name, exported) in metrics {
            let slot = self.slot(name)?;
            if !self
                .picker
                .fixture()
                .read_page(now(), slot, exported.page().as_bytes())
            {
                return Err(format!("{name}: no metrics page: {exported:?}"));
            }
            // As the next tick would find.
            if let Some(endpoint) = self.picker.fixture().pool().get_mut(slot) {
                endpoint.freshness = Freshness::Fresh;
            }
        }
        self.picker.fixture().choose_mode();
        Ok(())
    }

    /// Decides on a request whose body arrives in parts.
    pub fn decide(&mut self, request: &Sent) -> Result<Decided, String> {
        if Api::of_path(request.path.as_bytes()) == Api::PassThrough {
            return Err(format!("{}: no API that is read", request.path));
        }
        let body = request.body.as_bytes();
        let id = self.open(&Head::post_json(&request.path, Some(body.len())));
        let mut decided = None;
        for end in (PART..body.len()).step_by(PART) {
            let part = body.get(..end).unwrap_or_default();
            let mut view = SliceBody::beginning(part);
            self.picker.request_body(now(), id, &mut view);
            decided = decided.or(self.decision());
        }
        let early = decided.is_some();
        self.picker
            .request_body(now(), id, &mut SliceBody::whole(body));
        let decision = decided.or(self.decision());
        Ok(Decided {
            ranking: self.ranking(id, decision)?,
            early,
            id,
            request: request.clone(),
        })
    }

    /// Decides by metrics alone on a request with this model.
    pub fn decide_without_body(&mut self, model: &str) -> Result<Vec<(String, f64)>, String> {
        let id = self.open(&Head {
            path: b"/",
            method: b"GET",
            model: model.as_bytes(),
            end: true,
            ..Head::default()
        });
        let decision = self.decision();
        let ranking = self.ranking(id, decision);
        self.picker.closed(now(), id);
        ranking
    }

    /// The endpoint with this name responds.
    pub fn learn(&mut self, served_by: &str, decided: Decided) -> Result<(), String> {
        let by = self.slot(served_by)?;
        let first = decided.ranking.first();
        let picked = first.is_some_and(|(name, _)| self.slot(name) == Ok(by));
        let request = decided.request;
        if picked {
            self.respond(decided.id);
        } else if self.plan.producers.is_empty() {
            // Nothing is learnt.
            self.picker.closed(now(), decided.id);
        } else {
            // Ties are broken by chance, on both sides, and what was picked here counts as sent there.
            self.relive()?;
            self.serve(&request, by)?;
        }
        self.past.push(Past::Served { request, by });
        Ok(())
    }

    /// Begins the scenario again, and plays all steps so far.
    fn relive(&mut self) -> Result<(), String> {
        self.picker = begin(&self.plan);
        let past = std::mem::take(&mut self.past);
        for step in &past {
            match step {
                Past::Metrics(metrics) => self.read_pages(metrics)?,
                Past::Served { request, by } => self.serve(request, *by)?,
            }
        }
        self.past = past;
        Ok(())
    }

    /// Routes a request to the endpoint in a slot, by making it the only available one.
    fn serve(&mut self, request: &Sent, by: Slot) -> Result<(), String> {
        self.only(Some(by));
        let decided = self.decide(request);
        self.only(None);
        self.respond(decided?.id);
        Ok(())
    }

    fn open(&mut self, head: &Head<'_>) -> ExchangeId {
        self.next += 1;
        let id = ExchangeId(self.next);
        let explained = Head {
            explain: true,
            ..*head
        };
        self.picker.request_headers(now(), id, &explained);
        id
    }

    fn respond(&mut self, id: ExchangeId) {
        self.picker.response_headers(now(), id, None);
        self.picker.closed(now(), id);
        // The response's effects are not decisions.
        while self.picker.poll_effect().is_some() {}
    }

    /// Returns the decision on a request, if it was made.
    fn decision(&mut self) -> Option<Effect> {
        let effects = std::iter::from_fn(|| self.picker.poll_effect());
        effects.filter(Effect::is_decision).last()
    }

    /// Returns the ranking of a forwarded request.
    fn ranking(
        &self,
        id: ExchangeId,
        decision: Option<Effect>,
    ) -> Result<Vec<(String, f64)>, String> {
        let Some(Effect::Forward { route, .. }) = decision else {
            return Err(format!("not forwarded: {decision:?}"));
        };
        let explanation = self.picker.explanation(id).ok_or("it is not explained")?;
        let pool = self.picker.pool();
        let scored = explanation.ranking.iter();
        let scored = scored.filter_map(|scored| Some((pool.get(scored.slot)?, scored.score)));
        let (endpoints, ranking): (Vec<_>, Vec<_>) = scored
            .map(|(endpoint, score)| (&*endpoint.address, (endpoint.name.clone(), score)))
            .unzip();
        let route: Vec<&str> = route.endpoints().collect();
        match endpoints.iter().zip(&route).all(|(own, sent)| own == sent) {
            true => Ok(ranking),
            false => Err(format!("ranked {endpoints:?}, forwarded to {route:?}")),
        }
    }

    /// Makes one endpoint the only available one, or all of them available.
    fn only(&mut self, wanted: Option<Slot>) {
        let pool = self.picker.fixture().pool();
        let slots: Vec<Slot> = pool.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            if let Some(endpoint) = pool.get_mut(slot) {
                endpoint.available = wanted.is_none_or(|wanted| wanted == slot);
            }
        }
    }

    fn slot(&self, name: &str) -> Result<Slot, String> {
        let found = self.picker.pool().find(name);
        found.ok_or_else(|| format!("no endpoint {name}"))
    }
}

/// Returns a picker with the endpoints of its plan.
fn begin(plan: &Plan) -> Picker {
    let mut picker = Picker::new(plan.clone(), 1);
    picker.install(plan.clone());
    // It adds the endpoints.
    picker.tick(now());
    picker
}

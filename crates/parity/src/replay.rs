//! Plays a scenario through the whole picker, as a host does: bodies arrive in parts and metrics as pages, and
//! the endpoint that served the recorded request responds.
//!
//! In the recordings metrics were read between requests, and a request either got its response before the next was
//! sent or none until the scenario's end. So the picker does not add requests since the last scrape to queues, and no
//! request fails.

use std::collections::{BTreeMap, BTreeSet};

use epp_core::body::SliceBody;
use epp_core::config::settings::{MissingPrefill, ReadBody};
use epp_core::config::{self, Plan};
use epp_core::endpoints::store::Member;
use epp_core::picker::{Effect, ExchangeId, Head, Picker, Route};
use epp_core::plugins::discovery::inline::StaticDiscovery;
use epp_core::plugins::Discovery;
use epp_core::request::Api;
use epp_core::scheduling::{Freshness, Health, Slot};
use epp_core::time::Timestamp;

use crate::chance::{follow, Counted, Course, Drawn, NO_HIT_LRU, TOKEN_LOAD};
use crate::compare::{compare, compare_session};
use crate::scenario::{Expected, Exported, Refused, Scenario, Sent, Step};
use crate::TOLERANCE;

/// Bytes by which more of a body is shown each time: few, so that a request may be decided early.
const PART: usize = 64;

/// The namespace of all recorded endpoints, which the recordings leave out of their names.
const NAMESPACE: &str = "default/";

/// The response header that names the endpoint of a session, in the recordings.
pub const SESSION_HEADER: &str = "x-session-token";

/// Returns an endpoint's name as the recordings have it.
fn short(name: &str) -> &str {
    name.strip_prefix(NAMESPACE).unwrap_or(name)
}

/// The time of all events, so that metrics do not become stale.
fn now() -> Timestamp {
    Timestamp::from_nanos(365 * 86_400 * 1_000_000_000)
}

/// A scenario that is being played.
pub struct Replay {
    picker: Picker,
    course: Course,
    next: u32,
    /// The names of the scorers whose scores are drawn for endpoints that were never used.
    drawing: Vec<String>,
    /// The endpoints that were used, as far as those scorers remember.
    used: BTreeSet<Slot>,
}

/// A decision.
#[derive(Debug)]
pub struct Decided {
    /// The decision itself.
    pub made: Made,
    /// Whether it was made before the last part of the body.
    pub early: bool,
    id: ExchangeId,
}

/// A decision for an endpoint, or a local reply.
#[derive(Debug)]
pub enum Made {
    /// The request is forwarded.
    Routed(Routed),
    /// It gets a local reply.
    Refused(Refused),
}

/// A decision for an endpoint.
#[derive(Debug, Default)]
pub struct Routed {
    /// The names of the endpoints with their weighted sums, best first.
    pub ranking: Vec<(String, f64)>,
    /// The endpoints to be tried, by their names; the address where no endpoint has it.
    pub destinations: Vec<String>,
    /// Headers for the endpoint that serves the request, with names in the place of addresses.
    pub headers: BTreeMap<String, String>,
    /// The parts of the sums that were drawn, by endpoint.
    pub drawn: BTreeMap<String, f64>,
    /// Whether no candidate held any of the prompt, as far as [`NO_HIT_LRU`] was asked: it remembers the endpoint.
    pub cold: bool,
}

/// The result of a replay.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The name of the scenario.
    pub name: String,
    /// Its family.
    pub family: String,
    /// The types of its plugins.
    pub plugins: Vec<String>,
    /// The number of its decisions.
    pub decisions: usize,
    /// Requests without a decision to compare: flow control had them wait.
    pub waiting: usize,
    /// How many of them agree with the recorded ones.
    pub agreeing: usize,
    /// How many of them were made before the end of the body.
    pub early: usize,
    /// Descriptions of decisions that differ, and the error of a scenario that could not be replayed to its end.
    pub differences: Vec<String>,
}

/// Replays a whole scenario.
pub fn replay(scenario: &Scenario) -> Outcome {
    let outcome = replay_counting(scenario, Counted::Uncached);
    if outcome.agreeing == outcome.decisions || !scenario.has(TOKEN_LOAD) {
        return outcome;
    }
    let whole = replay_counting(scenario, Counted::Whole);
    match whole.agreeing > outcome.agreeing {
        true => whole,
        false => outcome,
    }
}

fn replay_counting(scenario: &Scenario, counted: Counted) -> Outcome {
    let mut outcome = Outcome {
        name: scenario.name.clone(),
        family: scenario.family.clone(),
        plugins: scenario.plugins(),
        decisions: scenario.decisions(),
        waiting: scenario.waiting(),
        agreeing: 0,
        early: 0,
        differences: Vec::new(),
    };
    if let Err(error) = play(scenario, counted, &mut outcome) {
        let error = format!("{}: {error}", scenario.name);
        outcome.differences.push(error);
    }
    outcome
}

fn play(scenario: &Scenario, counted: Counted, outcome: &mut Outcome) -> Result<(), String> {
    let mut replay = Replay::counting(scenario, counted)?;
    for (number, step) in scenario.steps.iter().enumerate() {
        match step {
            Step::Metrics { metrics } => replay.set_metrics(metrics)?,
            Step::Request { expect, .. } if expect.waited() => {}
            Step::Request { request, expect } => {
                let decided = replay.decide(request, expect)?;
                outcome.early += usize::from(decided.early);
                let compared = compare(&decided.made, expect, TOLERANCE);
                let session = replay.proceed(decided, expect);
                match compared.and_then(|()| compare_session(session.as_deref(), expect)) {
                    Ok(()) => outcome.agreeing += 1,
                    Err(difference) => {
                        let difference = format!("{} step {number}: {difference}", scenario.name);
                        outcome.differences.push(difference);
                    }
                }
            }
        }
    }
    Ok(())
}

/// Loads a scenario's configuration, without what only had requests wait.
fn load(scenario: &Scenario) -> Result<Plan, String> {
    let mut config = scenario.config.clone();
    if let Some(document) = config.as_object_mut() {
        document.remove("flowControl");
        document.remove("featureGates");
    }
    let loaded = config::load(&config.to_string()).map_err(|rejected| {
        let errors: Vec<String> = rejected.errors.iter().map(ToString::to_string).collect();
        errors.join("; ")
    })?;
    let mut plan = loaded.plan;
    let members = scenario.endpoints.iter().map(|endpoint| Member {
        name: format!("{NAMESPACE}{}", endpoint.name),
        address: endpoint.place(),
        labels: endpoint.labels.clone().into_iter().collect(),
        health: Health::Healthy,
    });
    let members = members.collect();
    plan.discovery = Discovery::Static(StaticDiscovery { members });
    plan.settings.explain = true;
    plan.settings.read_body = ReadBody::Always;
    plan.settings.correct_queue = false;
    plan.settings.outlier_detection = None;
    // The recorded release left the prompt to the decode endpoint.
    plan.settings.missing_prefill = MissingPrefill::DecodeOnly;
    Ok(plan)
}

impl Replay {
    /// Begins a scenario.
    pub fn new(scenario: &Scenario) -> Result<Self, String> {
        Self::counting(scenario, Counted::Uncached)
    }

    /// Begins a scenario in which picks are given, whatever the scores are.
    pub fn directed(scenario: &Scenario) -> Result<Self, String> {
        Self::begin(scenario, Drawn::Scores, Counted::Uncached)
    }

    fn counting(scenario: &Scenario, counted: Counted) -> Result<Self, String> {
        let drawn = match scenario.has(NO_HIT_LRU) {
            true => Drawn::Scores,
            false => Drawn::Ties,
        };
        Self::begin(scenario, drawn, counted)
    }

    fn begin(scenario: &Scenario, drawn: Drawn, counted: Counted) -> Result<Self, String> {
        let mut plan = load(scenario)?;
        let drawing = plan.instances.iter().filter(|one| one.kind == NO_HIT_LRU);
        let drawing: Vec<String> = drawing.map(|instance| instance.name.clone()).collect();
        let course = follow(&mut plan, drawn, counted);
        let mut picker = Picker::new(plan.clone(), 1);
        picker.install(plan);
        // It adds the endpoints.
        picker.tick(now());
        Ok(Self {
            picker,
            course,
            next: 0,
            drawing,
            used: BTreeSet::new(),
        })
    }

    /// Returns whether anything that endpoints export is read.
    pub fn reads_metrics(&self) -> bool {
        self.picker.plan().needs.any_metric()
    }

    /// Changes the values that endpoints export.
    pub fn set_metrics(&mut self, metrics: &BTreeMap<String, Exported>) -> Result<(), String> {
        for (name, exported) in metrics {
            let slot = self.slot(name)?;
            let page = exported.page();
            let fixture = self.picker.fixture();
            let found = fixture.read_page(now(), slot, page.as_bytes());
            if !found && self.reads_metrics() {
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

    /// Decides on a request whose body arrives in parts, as recorded where that is left to chance.
    pub fn decide(&mut self, request: &Sent, expect: &Expected) -> Result<Decided, String> {
        if Api::of_path(request.path.as_bytes()) == Api::PassThrough {
            return Err(format!("{}: no API that is read", request.path));
        }
        self.course.set(self.recorded_order(expect)?);
        let body = request.body.as_bytes();
        let id = self.open(request);
        let mut decided = self.decision();
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
        let made = match decision {
            Some(Effect::Forward { route, .. }) => Made::Routed(self.routed(id, &route)?),
            Some(Effect::Reply { reply, .. }) => Made::Refused(Refused {
                status: reply.status,
                body: reply.body,
                reason: reply.reason.map(str::to_owned),
            }),
            other => return Err(format!("no decision: {other:?}")),
        };
        Ok(Decided { made, early, id })
    }

    /// Decides by metrics alone on a request with this model.
    pub fn decide_without_body(&mut self, model: &str) -> Result<Vec<(String, f64)>, String> {
        self.next += 1;
        let id = ExchangeId(self.next);
        let head = Head {
            path: b"/",
            method: b"GET",
            model: model.as_bytes(),
            explain: true,
            end: true,
            ..Head::default()
        };
        self.picker.request_headers(now(), id, &head);
        let routed = match self.decision() {
            Some(Effect::Forward { route, .. }) => self.routed(id, &route),
            other => Err(format!("not forwarded: {other:?}")),
        };
        self.picker.closed(now(), id);
        Ok(routed?.ranking)
    }

    /// Goes on as recorded: the endpoint responds, or holds the request. Returns the session header of the response.
    pub fn proceed(&mut self, decided: Decided, expect: &Expected) -> Option<String> {
        let Decided { made, id, .. } = decided;
        if let Made::Routed(routed) = &made {
            let picked = routed.ranking.first().filter(|_| routed.cold);
            let slot = picked.and_then(|(name, _)| self.slot(name).ok());
            self.used.extend(slot);
        }
        if matches!(expect, Expected::Held { .. }) {
            return None;
        }
        if matches!(made, Made::Routed(_)) {
            self.picker.response_headers(now(), id, None);
        }
        self.picker.closed(now(), id);
        let effects = std::iter::from_fn(|| self.picker.poll_effect());
        let sessions = effects.filter_map(|effect| match effect {
            Effect::SetResponseHeader { name, value, .. } if name == SESSION_HEADER => Some(value),
            _ => None,
        });
        sessions.last()
    }

    fn open(&mut self, request: &Sent) -> ExchangeId {
        self.next += 1;
        let id = ExchangeId(self.next);
        let length = request.body.len().to_string();
        let own = [
            (":method", "POST"),
            (":path", request.path.as_str()),
            ("content-type", "application/json"),
            ("content-length", length.as_str()),
        ];
        let clients = request.headers.iter();
        let clients = clients.map(|(name, value)| (name.as_str(), value.trim()));
        let headers = own.into_iter().chain(clients);
        let headers = headers.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let mut values = Vec::new();
        let head = Head::read(self.picker.plan(), headers, false, &mut values);
        let head = Head {
            explain: true,
            ..head
        };
        self.picker.request_headers(now(), id, &head);
        id
    }

    /// Returns the decision on a request, if it was made.
    fn decision(&mut self) -> Option<Effect> {
        let effects = std::iter::from_fn(|| self.picker.poll_effect());
        effects.filter(Effect::is_decision).last()
    }

    fn routed(&self, id: ExchangeId, route: &Route) -> Result<Routed, String> {
        let explanation = self.picker.explanation(id).ok_or("it is not explained")?;
        let pool = self.picker.pool();
        let name = |slot: Slot| {
            pool.get(slot)
                .map(|endpoint| short(&endpoint.name).to_owned())
        };
        let ranking = explanation.ranking.iter();
        let ranking = ranking.filter_map(|scored| Some((name(scored.slot)?, scored.score)));
        let drawing = explanation.scorers.iter();
        let drawing = drawing.filter(|scorer| self.drawing.contains(&scorer.name));
        let (mut drawn, mut cold) = (BTreeMap::new(), false);
        for scorer in drawing {
            // Otherwise all have the same.
            cold |= scorer.scores.iter().any(|scored| scored.score != 0.5);
            let unused = scorer.scores.iter();
            let unused = unused.filter(|scored| !self.used.contains(&scored.slot));
            for scored in unused {
                let part = drawn.entry(name(scored.slot).unwrap_or_default());
                *part.or_insert(0.0) += scored.score * scorer.weight;
            }
        }
        let headers = route.headers.iter();
        let headers = headers.map(|(header, value)| {
            let names: Vec<String> = value.split(',').map(|place| self.named(place)).collect();
            ((*header).to_owned(), names.join(","))
        });
        Ok(Routed {
            ranking: ranking.collect(),
            destinations: route.endpoints().map(|place| self.named(place)).collect(),
            headers: headers.collect(),
            drawn,
            cold,
        })
    }

    /// Returns the name of the endpoint with this address, or the address.
    fn named(&self, address: &str) -> String {
        let mut endpoints = self.picker.pool().iter();
        let found = endpoints.find(|(_, endpoint)| &*endpoint.address == address);
        found
            .map_or(address, |(_, endpoint)| short(&endpoint.name))
            .to_owned()
    }

    fn slot(&self, name: &str) -> Result<Slot, String> {
        let found = self.picker.pool().find(&format!("{NAMESPACE}{name}"));
        found.ok_or_else(|| format!("no endpoint {name}"))
    }

    /// Returns the recorded order of endpoints, by profile.
    fn recorded_order(&self, expect: &Expected) -> Result<BTreeMap<String, Vec<Slot>>, String> {
        let slots = |names: &mut dyn Iterator<Item = &str>| {
            let slots = names.map(|name| self.slot(name));
            slots.collect::<Result<Vec<Slot>, String>>()
        };
        let (primary, headers) = match expect {
            Expected::Refused(_) => return Ok(BTreeMap::new()),
            Expected::Held { held_by } => (slots(&mut held_by.iter().map(String::as_str))?, None),
            Expected::Served(served) => {
                let primary = match served.headers.get("x-data-parallel-host-port") {
                    Some(picked) => slots(&mut std::iter::once(picked.as_str()))?,
                    None => slots(&mut served.ranking.iter().map(String::as_str))?,
                };
                (primary, Some(&served.headers))
            }
        };
        let profiles = self.picker.plan().scheduler.profiles();
        let profiles = profiles.ids().filter_map(|id| profiles.get(id));
        profiles
            .map(|profile| {
                // Recorded profiles have the names that the handlers look for by default.
                let header = match profile.name.as_str() {
                    "prefill" => "x-prefiller-host-port",
                    "encode" => "x-encoder-hosts-ports",
                    _ => return Ok((profile.name.clone(), primary.clone())),
                };
                let value = headers.and_then(|headers| headers.get(header));
                let names = value.map_or("", String::as_str);
                let mut names = names.split(',').filter(|name| !name.is_empty());
                Ok((profile.name.clone(), slots(&mut names)?))
            })
            .collect()
    }
}

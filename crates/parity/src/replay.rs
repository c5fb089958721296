//! Plays a scenario through the whole picker, as a host does: bodies arrive in parts and metrics as pages, and
//! the endpoint that served the recorded request responds.
//!
//! In the recordings metrics were read between requests, and a request either got its response before the next was
//! sent or none until the scenario's end. So the picker does not add requests since the last scrape to queues, and no
//! request fails. Time passes only where [`Replay::pass`] is called, with ticks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

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

use crate::chance::{follow, Counted, Course, Drawn, NO_HIT_LRU};
use crate::scenario::{Expected, Exported, Refused, Scenario, Sent};

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

/// The time at which scenarios begin.
const START: Timestamp = Timestamp::from_nanos(365 * 86_400 * 1_000_000_000);

/// The time between two ticks, as the host has them.
pub const TICK: Duration = Duration::from_millis(50);

/// The age until which metrics are fresh: longer than any scenario lasts, because pages are read only where they change.
const STALENESS: Duration = Duration::from_secs(3_600);

/// A scenario that is being played.
pub struct Replay {
    picker: Picker,
    /// The time of the next event.
    now: Timestamp,
    course: Course,
    /// Decisions with their times, until they are asked for.
    decisions: BTreeMap<ExchangeId, (Timestamp, Effect)>,
    /// The session header that a response got last.
    session: Option<String>,
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
    /// The request.
    pub id: ExchangeId,
}

/// A decision for an endpoint, a local reply, or none yet.
#[derive(Debug)]
pub enum Made {
    /// The request is forwarded.
    Routed(Routed),
    /// It gets a local reply.
    Refused(Refused),
    /// It waits in a queue of flow control.
    Waits,
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

/// Loads a scenario's configuration.
fn load(scenario: &Scenario) -> Result<Plan, String> {
    let loaded = config::load(&scenario.config.to_string()).map_err(|rejected| {
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
    plan.source.staleness = STALENESS;
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

    /// Begins a scenario in which requests are counted like this.
    pub fn counting(scenario: &Scenario, counted: Counted) -> Result<Self, String> {
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
        picker.tick(START);
        Ok(Self {
            picker,
            now: START,
            course,
            decisions: BTreeMap::new(),
            session: None,
            next: 0,
            drawing,
            used: BTreeSet::new(),
        })
    }

    /// Returns the time since the scenario began.
    pub fn time(&self) -> Duration {
        self.now.since(START)
    }

    /// Returns how long a request waits in a queue at most; none without flow control.
    pub fn longest_wait(&self) -> Option<Duration> {
        self.picker.plan().flow.as_ref()?.ttl
    }

    /// Lets time pass, with ticks.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now.after(time);
        let mut next = self.now.after(TICK);
        while next <= end {
            self.now = next;
            self.picker.tick(self.now);
            self.drain();
            next = self.now.after(TICK);
        }
        self.now = end;
    }

    /// Returns whether anything that endpoints export is read.
    fn reads_metrics(&self) -> bool {
        self.picker.plan().needs.any_metric()
    }

    /// Returns whether anything that endpoints export is read again and again, because it changes.
    pub fn polls_metrics(&self) -> bool {
        self.reads_metrics() && !self.picker.plan().needs.only_constants()
    }

    /// Changes the values that endpoints export.
    pub fn set_metrics(&mut self, metrics: &BTreeMap<String, Exported>) -> Result<(), String> {
        for (name, exported) in metrics {
            let slot = self.slot(name)?;
            let page = exported.page();
            let fixture = self.picker.fixture();
            let found = fixture.read_page(self.now, slot, page.as_bytes());
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
        for end in (PART..body.len()).step_by(PART) {
            let part = body.get(..end).unwrap_or_default();
            let mut view = SliceBody::beginning(part);
            self.picker.request_body(self.now, id, &mut view);
        }
        self.drain();
        let early = self.decisions.contains_key(&id);
        let mut whole = SliceBody::whole(body);
        self.picker.request_body(self.now, id, &mut whole);
        let made = match self.decision(id)? {
            Some((_, made)) => made,
            None if self.picker.plan().flow.is_some() && self.picker.holds(id) => Made::Waits,
            None => return Err("no decision".to_owned()),
        };
        Ok(Decided { made, early, id })
    }

    /// Returns the decision on a request and its time since the scenario began, if it was made. Each is returned once.
    pub fn decision(&mut self, id: ExchangeId) -> Result<Option<(Duration, Made)>, String> {
        self.drain();
        let Some((at, effect)) = self.decisions.remove(&id) else {
            return Ok(None);
        };
        let made = match effect {
            Effect::Forward { route, .. } => Made::Routed(self.routed(id, &route)?),
            Effect::Reply { reply, .. } => Made::Refused(Refused {
                status: reply.status,
                body: reply.body,
                reason: reply.reason.map(str::to_owned),
                ..Refused::default()
            }),
            other => return Err(format!("no decision: {other:?}")),
        };
        Ok(Some((at.since(START), made)))
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
        self.picker.request_headers(self.now, id, &head);
        let decision = self.decision(id);
        self.picker.closed(self.now, id);
        match decision? {
            Some((_, Made::Routed(routed))) => Ok(routed.ranking),
            other => Err(format!("not forwarded: {other:?}")),
        }
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
            self.picker.response_headers(self.now, id, None);
        }
        self.picker.closed(self.now, id);
        self.drain();
        self.session.take()
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
        self.picker.request_headers(self.now, id, &head);
        id
    }

    /// Takes the picker's effects.
    fn drain(&mut self) {
        while let Some(effect) = self.picker.poll_effect() {
            match effect {
                Effect::SetResponseHeader { name, value, .. } if name == SESSION_HEADER => {
                    self.session = Some(value);
                }
                Effect::Forward { id, .. }
                | Effect::Reply { id, .. }
                | Effect::Bypass { id, .. } => {
                    self.decisions.insert(id, (self.now, effect));
                }
                _ => {}
            }
        }
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

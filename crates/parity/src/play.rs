//! Plays a whole scenario, and counts what agrees with the recording.
//!
//! Requests that waited in a queue take the time that they took when they were recorded, and the steps between them as
//! long as they did.

use std::time::Duration;

use epp_core::picker::ExchangeId;

use crate::chance::{Counted, TOKEN_LOAD};
use crate::compare::{compare, compare_session, Sweeps};
use crate::replay::{Made, TICK};
use crate::scenario::{Expected, Refused, Scenario, Sent, Step, EXPIRED};
use crate::{Replay, TOLERANCE};

/// How long a step takes that changes metrics.
const METRICS: Duration = Duration::from_millis(350);

/// How long a step takes whose request stays in flight, or in its queue.
const HOLD: Duration = Duration::from_millis(250);

/// The time between a response and the next step.
const PAUSE: Duration = Duration::from_millis(80);

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
    /// How many of them agree with the recorded ones.
    pub agreeing: usize,
    /// Requests without a decision: flow control had them wait, to the end of the scenario or until they expired.
    pub waiting: usize,
    /// How many of them wait here, too, and get the same reply when they expire.
    pub waiting_agreeing: usize,
    /// How many decisions were made before the end of the body.
    pub early: usize,
    /// Descriptions of requests that differ, and the error of a scenario that could not be replayed to its end.
    pub differences: Vec<String>,
}

/// Replays a whole scenario, with the gate of the recorded release.
pub fn replay(scenario: &Scenario) -> Outcome {
    Outcome {
        plugins: scenario.plugins(),
        ..replay_as_it_is(&scenario.with_recorded_gate())
    }
}

/// Replays a whole scenario, with the gate as epp-wasm reads it.
pub fn replay_as_it_is(scenario: &Scenario) -> Outcome {
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
        agreeing: 0,
        waiting: scenario.waiting(),
        waiting_agreeing: 0,
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
    let (mut queue, mut sweeps) = (Vec::new(), Sweeps::default());
    for (number, step) in scenario.steps.iter().enumerate() {
        let (compared, count) = match step {
            Step::Metrics { metrics } => {
                replay.set_metrics(metrics)?;
                replay.pass(METRICS);
                continue;
            }
            Step::Request { request, expect } => match expect {
                Expected::Refused(recorded) if expect.waited() => {
                    let compared = expire(&mut replay, request, recorded, &mut sweeps)?;
                    (compared, &mut outcome.waiting_agreeing)
                }
                Expected::Held { held_by } if held_by.is_empty() => {
                    queue.push((number, replay.time(), wait(&mut replay, request, expect)?));
                    replay.pass(HOLD);
                    continue;
                }
                _ => {
                    let compared = decide(&mut replay, request, expect, &mut outcome.early)?;
                    (compared, &mut outcome.agreeing)
                }
            },
        };
        match compared {
            Ok(()) => *count += 1,
            Err(difference) => outcome.differ(number, &difference),
        }
    }
    for (number, since, id) in queue {
        match compare_waiting(&mut replay, since, id)? {
            Ok(()) => outcome.waiting_agreeing += 1,
            Err(difference) => outcome.differ(number, &difference),
        }
    }
    Ok(())
}

impl Outcome {
    fn differ(&mut self, step: usize, difference: &str) {
        let difference = format!("{} step {step}: {difference}", self.name);
        self.differences.push(difference);
    }
}

/// Whether a request agrees with the recording.
type Compared = Result<(), String>;

/// Plays a request that was decided at once.
fn decide(
    replay: &mut Replay,
    request: &Sent,
    expect: &Expected,
    early: &mut usize,
) -> Result<Compared, String> {
    let decided = replay.decide(request, expect)?;
    *early += usize::from(decided.early);
    let compared = compare(&decided.made, expect, TOLERANCE);
    let session = replay.proceed(decided, expect);
    replay.pass(match expect {
        Expected::Held { .. } => HOLD,
        Expected::Served(_) | Expected::Refused(_) => PAUSE,
    });
    Ok(compared.and_then(|()| compare_session(session.as_deref(), expect)))
}

/// Sends a request that waits. Returns which it is; none if it did not wait.
fn wait(
    replay: &mut Replay,
    request: &Sent,
    expect: &Expected,
) -> Result<Option<ExchangeId>, String> {
    let decided = replay.decide(request, expect)?;
    Ok(matches!(decided.made, Made::Waits).then_some(decided.id))
}

/// Plays a request that waited until it expired, in the time that this took when it was recorded.
fn expire(
    replay: &mut Replay,
    request: &Sent,
    recorded: &Refused,
    sweeps: &mut Sweeps,
) -> Result<Compared, String> {
    let since = replay.time();
    let expect = Expected::Refused(recorded.clone());
    let waiting = wait(replay, request, &expect)?;
    replay.pass(Duration::from_secs_f64(recorded.waited_ms / 1_000.0));
    let ended = replay.time();
    let decision = match waiting {
        Some(id) => replay.decision(id)?,
        None => return Ok(Err("it does not wait".to_owned())),
    };
    replay.pass(PAUSE);
    let Some((at, made)) = decision else {
        return Ok(Err(format!(
            "it waits for more than {} ms",
            recorded.waited_ms
        )));
    };
    let compared = compare(&made, &expect, TOLERANCE);
    let compared = compared.and_then(|()| compare_time(replay, at - since));
    Ok(compared.and_then(|()| sweeps.compare(at, ended)))
}

/// Compares what became of a request by the end of the scenario that was in a queue then, or had expired.
fn compare_waiting(
    replay: &mut Replay,
    since: Duration,
    id: Option<ExchangeId>,
) -> Result<Compared, String> {
    let Some(id) = id else {
        return Ok(Err("it does not wait".to_owned()));
    };
    let so_far = replay.time() - since;
    Ok(match replay.decision(id)? {
        None if replay
            .longest_wait()
            .is_none_or(|longest| so_far < longest + TICK) =>
        {
            Ok(())
        }
        None => Err(format!("it waits since {so_far:?}")),
        Some((at, Made::Refused(reply))) if reply.reason.as_deref() == Some(EXPIRED) => {
            compare_time(replay, at - since)
        }
        Some((_, made)) => Err(format!("{made:?}")),
    })
}

/// Returns whether a request expired when it had waited as long as it may, and with the next tick.
fn compare_time(replay: &Replay, waited: Duration) -> Compared {
    let longest = replay.longest_wait().unwrap_or(Duration::MAX);
    match waited >= longest && waited - longest <= TICK {
        true => Ok(()),
        false => Err(format!("it waited for {waited:?} instead of {longest:?}")),
    }
}

//! What the Endpoint Picker left to chance in a recording, and takes the recorded course in a replay: the order of
//! equal sums, and which producer ran first.
//!
//! Scenarios go on from what was decided: the prefix index, sessions and requests in flight follow the endpoints that
//! were picked. So a replay has to pick those, and may only do so where the plan's own picker plugin could have.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use epp_core::config::value::Node;
use epp_core::config::Plan;
use epp_core::scheduling::{
    self, Basis, Cycle, Needs, PickerPlugin, Scored, Scorer, Slot, UnreadPrompt, WeightedScorer,
};

use crate::TOLERANCE;

/// The recorded order of endpoints by profile, for the next decision.
#[derive(Debug, Clone, Default)]
pub struct Course(Arc<Mutex<BTreeMap<String, Vec<Slot>>>>);

impl Course {
    /// Sets the order for the next decision. A profile without one draws.
    pub fn set(&self, order: BTreeMap<String, Vec<Slot>>) {
        if let Ok(mut course) = self.0.lock() {
            *course = order;
        }
    }

    fn of(&self, profile: &str) -> Vec<Slot> {
        let course = self.0.lock().ok();
        let order = course.and_then(|course| course.get(profile).cloned());
        order.unwrap_or_default()
    }
}

/// What was drawn, so that endpoints may change places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drawn {
    /// The order of equal sums.
    Ties,
    /// The scores themselves, so that the comparison has to tell whether they could have been drawn
    /// like this.
    Scores,
}

/// A picker plugin whose ties fall as in the recording.
#[derive(Debug)]
struct OnCourse {
    inner: Arc<dyn PickerPlugin>,
    profile: String,
    course: Course,
    drawn: Drawn,
}

impl PickerPlugin for OnCourse {
    fn max_endpoints(&self) -> usize {
        self.inner.max_endpoints()
    }

    fn pick(&self, scored: &mut Vec<Scored>, want: usize, draw: &mut scheduling::Chance) {
        self.inner.pick(scored, want, draw);
        let order = self.course.of(&self.profile);
        let place = |scored: &Scored| {
            let place = order.iter().position(|slot| *slot == scored.slot);
            place.unwrap_or(usize::MAX)
        };
        let mut recorded = scored.clone();
        if self.drawn == Drawn::Scores {
            recorded.sort_by_key(place);
            *scored = recorded;
            return;
        }
        recorded.sort_by(|a, b| b.score.total_cmp(&a.score));
        let equal = |a: &Scored, b: &Scored| (a.score - b.score).abs() <= TOLERANCE;
        for tie in recorded.chunk_by_mut(equal) {
            tie.sort_by_key(place);
        }
        let mut both = scored.iter().zip(&recorded).take(want);
        if both.all(|(own, recorded)| equal(own, recorded)) {
            *scored = recorded;
        }
    }

    fn same_choice(&self, shortest: &[Scored], longest: &[Scored]) -> bool {
        self.inner.same_choice(shortest, longest)
    }
}

/// How the recorded Endpoint Picker counted the request being scored in its `token-load-scorer`. It depended on which
/// producer ran first, and stayed the same while the process lived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// Without what the candidate holds.
    Uncached,
    /// All its tokens.
    Whole,
}

/// `token-load-scorer` of an Endpoint Picker that counted requests whole.
#[derive(Debug)]
struct WholeTokenLoad {
    inner: Arc<dyn Scorer>,
    threshold: f64,
}

impl Scorer for WholeTokenLoad {
    fn score(&self, cycle: &Cycle<'_>, candidates: &[Slot], scores: &mut [f64]) {
        let cost = cycle.request.cost;
        for (slot, score) in candidates.iter().zip(scores) {
            let tokens = cycle.pool.load(*slot).tokens as f64 + cost.prompt + cost.output;
            *score = 1.0 - tokens.min(self.threshold) / self.threshold;
        }
    }

    fn basis(&self) -> Basis {
        self.inner.basis()
    }

    fn needs(&self) -> Needs {
        Needs {
            unread: UnreadPrompt::Length,
            ..self.inner.needs()
        }
    }
}

/// Has a plan decide as recorded where that was left to chance.
pub fn follow(plan: &mut Plan, drawn: Drawn, counted: Counted) -> Course {
    let course = Course::default();
    let scorer = plan.instances.iter().find(|one| one.kind == TOKEN_LOAD);
    let threshold = scorer.and_then(|scorer| {
        let mut parameters = scorer.parameters.iter();
        let (_, value) = parameters.find(|(name, _)| name == "queueThresholdTokens")?;
        match value {
            Node::Number(threshold) => Some((scorer.name.clone(), *threshold)),
            _ => None,
        }
    });
    for profile in plan.scheduler.profiles_mut() {
        profile.picker = Arc::new(OnCourse {
            inner: profile.picker.clone(),
            profile: profile.name.clone(),
            course: course.clone(),
            drawn,
        });
        let Some((name, threshold)) = threshold.as_ref().filter(|_| counted == Counted::Whole)
        else {
            continue;
        };
        let scorers = profile.scorers.iter_mut();
        for weighted in scorers.filter(|weighted| weighted.name == *name) {
            let inner = weighted.scorer.clone();
            *weighted = WeightedScorer {
                scorer: Arc::new(WholeTokenLoad {
                    inner,
                    threshold: *threshold,
                }),
                ..weighted.clone()
            };
        }
    }
    course
}

/// The scorer whose count of the request itself was left to chance.
pub const TOKEN_LOAD: &str = "token-load-scorer";

/// The scorer that puts endpoints that were never used in random order.
pub const NO_HIT_LRU: &str = "no-hit-lru-scorer";

//! Traits of the plugins in a scheduling profile: filters, scorers and picker plugins.

use super::cycle::{Cycle, Scored};
use super::endpoint::Slot;

/// The dependence of a plugin's result on the part of a prompt that has not been read yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum UnreadPrompt {
    /// Nothing: the result is final as soon as the other needs are met.
    #[default]
    Irrelevant,
    /// Only the prompt's length, in a way that lets what holds for the shortest and for the longest
    /// possible prompt hold for all between. An endpoint's score is linear in 1 / `total`, up to a
    /// term that is the same for all endpoints. Whether a filter keeps an endpoint changes at most
    /// once as the prompt grows, given the same candidates. Where this is not so for a request, the plugin's
    /// `moves_evenly` says it.
    Length,
    /// What it says, not only how long it is: the result is final once the prompt window is full or the prompt has
    /// ended.
    Content,
}

/// The data on which a filter's or a scorer's result depends, beside the candidates. The result is cached
/// between requests as long as that data stays the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Basis {
    /// The request, or the requests in flight: the result holds for this request alone.
    #[default]
    Request,
    /// The endpoints, with their labels and metrics, and the request's model.
    Model,
    /// The endpoints, with their labels and metrics.
    Pool,
}

/// The data that a plugin reads. A plan's needs are the union of its plugins' needs: other data
/// is neither scanned from metrics pages nor read from bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs {
    /// The model's name.
    pub model: bool,
    /// The prompt's prefix blocks (which producers: see the plan).
    pub prompt: bool,
    /// Bytes at the beginning of the prompt whose hash ([`RequestView::anchor`](super::RequestView::anchor)) is read; 0 if
    /// it is not. Plugins that need different lengths get the hash of the longest.
    pub anchor_bytes: u32,
    /// How the unread rest of a prompt can still move the result.
    pub unread: UnreadPrompt,
    /// The endpoints' labels.
    pub labels: bool,
    /// Requests and tokens in flight.
    pub in_flight: bool,
    /// The tokens of prompts.
    pub tokens: bool,
    /// Whether prompts hold images or other media.
    pub media: bool,
    /// The endpoint that another profile has picked. Such a plugin has [`Basis::Request`].
    pub peer: bool,
    /// The waiting count.
    pub waiting: bool,
    /// The running count.
    pub running: bool,
    /// KV-cache utilization.
    pub kv_usage: bool,
    /// LoRA adapters.
    pub lora: bool,
    /// Block size and number of blocks of the server's KV cache.
    pub cache_info: bool,
    /// Random bits of the request.
    pub random: bool,
    /// Custom attributes.
    pub attributes: bool,
    /// Headers with which clients choose endpoints: a request that is left without one by them gets a local reply,
    /// whatever the failure mode, since the host's own load balancing would take any.
    pub choice: bool,
}

impl Needs {
    /// All that metrics pages say.
    pub const METRICS: Self = Self {
        model: false,
        prompt: false,
        anchor_bytes: 0,
        unread: UnreadPrompt::Irrelevant,
        labels: false,
        in_flight: false,
        tokens: false,
        media: false,
        peer: false,
        waiting: true,
        running: true,
        kv_usage: true,
        lora: true,
        cache_info: true,
        random: false,
        attributes: true,
        choice: false,
    };

    /// Returns whether anything of a metrics page is needed.
    pub fn any_metric(&self) -> bool {
        let built_in = self.waiting || self.running || self.kv_usage;
        built_in || self.lora || self.cache_info || self.attributes
    }

    /// Returns whether nothing of a metrics page is needed but what does not change while a server runs.
    pub fn only_constants(&self) -> bool {
        let varies = self.waiting || self.running || self.kv_usage || self.lora || self.attributes;
        self.cache_info && !varies
    }

    /// Returns whether anything is needed that model servers report with responses.
    pub fn reported_load(&self) -> bool {
        self.waiting || self.kv_usage
    }

    /// Returns what either needs.
    pub fn union(self, other: Self) -> Self {
        Self {
            model: self.model || other.model,
            prompt: self.prompt || other.prompt,
            anchor_bytes: self.anchor_bytes.max(other.anchor_bytes),
            unread: self.unread.max(other.unread),
            labels: self.labels || other.labels,
            in_flight: self.in_flight || other.in_flight,
            tokens: self.tokens || other.tokens,
            media: self.media || other.media,
            peer: self.peer || other.peer,
            waiting: self.waiting || other.waiting,
            running: self.running || other.running,
            kv_usage: self.kv_usage || other.kv_usage,
            lora: self.lora || other.lora,
            cache_info: self.cache_info || other.cache_info,
            random: self.random || other.random,
            attributes: self.attributes || other.attributes,
            choice: self.choice || other.choice,
        }
    }
}

/// Removes candidates.
pub trait Filter: Send + Sync {
    /// Keeps in `candidates` the endpoints that may serve the request, in their order.
    fn filter(&self, cycle: &Cycle<'_>, candidates: &mut Vec<Slot>);

    /// Returns what the survivors depend on, besides the candidates.
    fn basis(&self) -> Basis {
        Basis::Request
    }

    /// Returns whether what the filter keeps of the candidates moves as [`UnreadPrompt`] says between the shortest and
    /// the longest prompt that is still possible.
    fn moves_evenly(
        &self,
        _shortest: &Cycle<'_>,
        _longest: &Cycle<'_>,
        _candidates: &[Slot],
    ) -> bool {
        true
    }

    /// Returns what the filter reads.
    fn needs(&self) -> Needs {
        Needs::default()
    }
}

/// Scores candidates between 0 and 1.
pub trait Scorer: Send + Sync {
    /// Writes the score of each candidate; `scores` has their length and order, and holds anything.
    fn score(&self, cycle: &Cycle<'_>, candidates: &[Slot], scores: &mut [f64]);

    /// Returns what the scores depend on, besides the candidates, while decisions are based on metrics
    /// ([`super::DecisionMode::Metrics`]).
    fn basis(&self) -> Basis {
        Basis::Request
    }

    /// Returns whether the candidates' scores move as [`UnreadPrompt`] says up to the longest prompt that is still
    /// possible.
    fn moves_evenly(&self, _longest: &Cycle<'_>, _candidates: &[Scored]) -> bool {
        true
    }

    /// Returns what the scorer reads.
    fn needs(&self) -> Needs;
}

/// What decides among candidates that are as good as each other.
#[derive(Debug, Clone)]
pub struct Chance {
    /// Randomness.
    pub rng: fastrand::Rng,
    /// Goes up by one with each request, for all of its profiles alike: profiles that took turns would each see
    /// every other number, and of two equal endpoints always the same.
    pub turn: u32,
}

impl Chance {
    /// Returns what begins at a random turn, so that workers that start together do not all begin with the same
    /// endpoint.
    pub fn new(rng: fastrand::Rng) -> Self {
        let turn = rng.clone().u32(..);
        Self { rng, turn }
    }
}

/// Chooses among the scored candidates.
pub trait PickerPlugin: Send + Sync {
    /// Returns how many endpoints the plugin picks at most (`maxNumOfEndpoints`).
    fn max_endpoints(&self) -> usize;

    /// Brings the first `want` places of `scored` into order, the picks first and then the retry
    /// targets; `want` is at least [`Self::max_endpoints`], or the number of candidates.
    fn pick(&self, scored: &mut Vec<Scored>, want: usize, chance: &mut Chance);

    /// Returns whether the choice (the odds, if it is drawn) is the same from both lists, which hold the
    /// same endpoints in the same order with the scores of the shortest and of the longest
    /// prompt still possible; each endpoint's score moves linearly between the two.
    fn same_choice(&self, shortest: &[Scored], longest: &[Scored]) -> bool;
}

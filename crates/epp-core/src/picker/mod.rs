//! What happens to a request: whether it is held, when it is released, where to, and what is
//! learnt from it. Host-neutral; the host feeds it callbacks and carries out its verdicts.
//!
//! One picker serves one pool in one VM. It owns the plan in force, the pool as last heard of
//! from the poller, and the prefix indexes.

pub mod answer;
mod avoid;
mod decide;
mod delivery;
mod exchange;
pub mod explain;
mod holds;
pub mod ids;
mod learn;
mod load;
pub mod memory;
pub mod meter;
mod metrics;
mod naming;
mod outcome;
mod tick;
mod view;

use std::ops::Range;

pub use self::avoid::{Origin, Seen};
pub use self::exchange::{Appetite, Head, Show};
pub use self::tick::{Call, Tick};
pub use crate::endpoints::glimpse::Body;

use self::answer::Refusal;
use self::delivery::Delivery;
use self::exchange::Exchange;
use self::holds::Holds;
use self::ids::ById;
use self::meter::{Meter, Metric};
use self::metrics::{Handle, Metrics, Series};
use crate::config::Plan;
use crate::endpoints::avoid::Reason;
use crate::plugins::proxy::envoy_proxy::{ReadBody, Requests};
use crate::prefix::index::Index;
use crate::prefix::key::{Key, Secret};
use crate::scheduling::Scratch;
use crate::worker::Watch;

/// Asks for an explanation in a request, and carries it in the response.
pub const EXPLAIN_HEADER: &str = "x-epp-explain";

/// How many times `maxHeld` may be held from one tick to the next. Which of them go, a tick decides:
/// another request than the one whose callback runs can be released nowhere else without care. With
/// the default 1,024, twice as many are reached where a worker gets 20,000 requests a second that it
/// has to hold; beyond, the newcomers are decided at their headers.
const OVERSHOOT: usize = 2;

/// What to do with a request now.
#[derive(Debug)]
pub enum Verdict {
    /// Hold it and feed its body, of which Envoy is to show this.
    Hold(Show),
    /// Let it go.
    Release(Release),
}

/// Bytes of a body, counted from its first, and what takes their place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrite {
    /// Where they are.
    pub range: Range<usize>,
    /// What takes their place.
    pub text: String,
}

/// How a request goes on. There is no default: what is left to Envoy has to be said.
#[derive(Debug)]
pub enum Release {
    /// To an endpoint.
    Route {
        /// The destination header's value.
        destination: String,
        /// What is to be replaced in the body first.
        rewrite: Option<Rewrite>,
    },
    /// To the endpoint that the cluster's fallback policy chooses.
    Fallback {
        /// What is to be replaced in the body first.
        rewrite: Option<Rewrite>,
    },
    /// Nowhere: it gets a local reply.
    Reply(Refusal),
}

impl Release {
    /// The destination header's value, if there is one.
    pub fn destination(&self) -> Option<&str> {
        match self {
            Self::Route { destination, .. } => Some(destination),
            Self::Fallback { .. } | Self::Reply(_) => None,
        }
    }

    /// What is to be replaced in the body first.
    pub fn rewrite(&self) -> Option<&Rewrite> {
        match self {
            Self::Route { rewrite, .. } | Self::Fallback { rewrite } => rewrite.as_ref(),
            Self::Reply(_) => None,
        }
    }

    /// Whether it gets a local reply.
    pub fn is_reply(&self) -> bool {
        matches!(self, Self::Reply(_))
    }
}

/// What is known of a slot's endpoint beside its metrics.
#[derive(Debug, Default)]
struct Seat {
    /// `endpoint_name=…`.
    label: String,
    /// Counts its picks; none where nobody sits here.
    picks: Option<Handle>,
    /// When an answer was last looked at, and when one last came.
    checked: u64,
    heard: u64,
    /// What it was last told to be avoided for.
    avoided: Option<Reason>,
    /// The statistics of its models.
    models: Vec<(String, outcome::Model)>,
}

/// Statistics of every request.
#[derive(Debug)]
struct Hot {
    early: Handle,
    decision: Series,
    hit: Series,
    unread: Handle,
    /// Of models that have no statistics of their own.
    other: outcome::Model,
    look_up: Series,
    /// Decisions and look-ups so far, one in seventeen of which is timed.
    decisions: u64,
    look_ups: u64,
}

/// The picker of one pool in one VM.
pub struct Picker {
    plan: Plan,
    cluster: String,
    watch: Watch,
    indexes: Vec<Index>,
    seats: Vec<Seat>,
    loads: load::Loads,
    /// Whether pages came or endpoints went since the workers last told each other.
    stirred: bool,
    /// Tells prefix blocks of equal cut.
    cut: u64,
    /// Keys digests and indexes: this VM's own, or what those of its Envoy agreed on.
    secret: Secret,
    key: Key,
    exchanges: ById<Box<Exchange>>,
    // Boxed in the table, so that a request costs no move of its exchange.
    #[allow(clippy::vec_box)]
    spare: Vec<Box<Exchange>>,
    /// Requests that are held; counted again with the gauges, in case a panic came between.
    holding: usize,
    holds: Holds,
    scratch: Scratch,
    metrics: Metrics,
    hot: Hot,
    budget: outcome::Budget,
    account: memory::Account,
    delivery: Delivery,
    clock: fn() -> u64,
    timing: tick::Timing,
    view: view::View,
}

impl Picker {
    /// A picker that has heard of no endpoint yet. `clock` gives nanoseconds since 1970; `secret`
    /// starts its randomness and keys what clients could aim at; tests and tools pass a number. `name` is
    /// the plugin's, under which it shares data.
    pub fn new(
        name: &str,
        plan: Plan,
        secret: impl Into<Secret>,
        meter: Box<dyn Meter>,
        clock: fn() -> u64,
    ) -> Self {
        let cluster = plan.cluster().to_owned();
        let secret = secret.into();
        let mut rng = fastrand::Rng::with_seed(secret.number("randomness"));
        let watch = Watch::new(name, &plan, rng.fork());
        let mut metrics = Metrics::new(meter, &cluster);
        let hot = Hot {
            early: metrics.handle(Metric::EarlyReleases, ""),
            decision: metrics.series(Metric::DecisionTime, ""),
            hit: metrics.series(Metric::PrefixHitRatio, ""),
            unread: metrics.handle(Metric::UnreadAnswers, ""),
            other: outcome::Model::new(&mut metrics, "model_name=other"),
            look_up: metrics.series(Metric::LookUpTime, ""),
            decisions: 0,
            look_ups: 0,
        };
        let mut picker = Self {
            metrics,
            hot,
            budget: outcome::Budget::default(),
            account: memory::Account::default(),
            cluster,
            watch,
            indexes: Vec::new(),
            seats: Vec::new(),
            loads: load::Loads::default(),
            stirred: false,
            cut: 0,
            key: Key::Secret(secret.clone()),
            secret,
            exchanges: ById::default(),
            spare: Vec::new(),
            holding: 0,
            holds: Holds::default(),
            scratch: Scratch::new(rng),
            delivery: Delivery::default(),
            clock,
            timing: tick::Timing::default(),
            view: view::View::default(),
            plan,
        };
        picker.lay_out_indexes();
        picker
    }

    /// Puts another plan in force. The prefix indexes stay where prompts are cut as before.
    pub fn install(&mut self, plan: Plan, root: u32) {
        let same_hashing = self.plan.hashing_equal(&plan);
        self.timing.root = root;
        // The new root may have another answer.
        self.delivery = Delivery::default();
        self.watch.install(&plan);
        self.plan = plan;
        self.view.forget_all();
        if same_hashing {
            self.bound_indexes();
        } else {
            self.begin_indexes();
        }
    }

    /// The cluster whose requests this picker picks for, and whose VMs share its data.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Whether it matters where a request's route leads.
    pub fn asks_for_cluster(&self) -> bool {
        self.plan.proxy.requests == Requests::OfCluster
    }

    /// Whether requests routed to this cluster are ours.
    pub fn owns(&self, cluster: &[u8]) -> bool {
        !self.asks_for_cluster() || self.cluster.as_bytes() == cluster
    }

    /// The header that names the endpoint.
    pub fn destination_header(&self) -> &str {
        &self.plan.proxy.destination_header
    }

    /// The header that names the model where the body is not read.
    pub fn model_header(&self) -> &str {
        &self.plan.proxy.model_header
    }

    /// Whether a header may name another model to ask for than the body's.
    pub fn obeys_rewrite_header(&self) -> bool {
        self.plan.proxy.rewrite_header
    }

    /// A request's headers have come.
    pub fn open(&mut self, id: u32, head: &Head<'_>) -> Verdict {
        self.watch.serve();
        let now = (self.clock)();
        let mut exchange = self.spare.pop().unwrap_or_default();
        let elapsed = self.elapsed(now);
        let pool = &self.watch.store.pool;
        exchange.open(head, &self.plan, &self.key, pool, (now, elapsed));
        exchange.naming.choose(
            &exchange.reader,
            exchange.reading,
            &self.plan.rewrite,
            self.scratch.rng(),
        );
        if exchange.held.is_some() && !self.always_reads() && !self.delivery.expects(now) {
            exchange.let_go();
        }
        if exchange.held.is_some() {
            // The next tick lets those go that are too many, the newcomers last.
            if self.holding >= self.plan.proxy.max_held.saturating_mul(OVERSHOOT) {
                self.metrics.add(Metric::ForcedReleases, "reason=held", 1);
                exchange.let_go();
            } else {
                self.holding += 1;
                let probed = self.plan.proxy.read_body == ReadBody::Auto;
                self.holds.add(id, elapsed, probed);
            }
        }
        let held = exchange.held;
        self.exchanges.insert(id, exchange);
        match held {
            Some(hold) => {
                let forced = self.bound_memory(id);
                forced.unwrap_or(Verdict::Hold(hold.show))
            }
            None => {
                let release = self.decide(id);
                self.count_memory(id);
                Verdict::Release(release)
            }
        }
    }

    /// What is wanted next of a request's body, of which `unread` bytes have come and were not fed
    /// yet; `end` where nothing more comes.
    pub fn appetite(&mut self, id: u32, unread: usize, end: bool) -> Appetite {
        let now = self.timing.elapsed;
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return Appetite::Nothing;
        };
        if let Some(withheld) = exchange.withheld.take() {
            // Before any other event: it was there, and only the release has brought it.
            if withheld.tick == self.timing.ticks && unread as u64 >= withheld.bytes {
                self.delivery.withheld(self.timing.now);
            }
        }
        if exchange.held.is_some() && unread > 0 {
            self.delivery.seen();
        }
        let left = exchange.unread_ticks > 0;
        let appetite = exchange.appetite(unread, end, now);
        if exchange.unread_ticks > 0 && !left {
            self.holds.leave_unread(id);
        }
        appetite
    }

    /// Whether a request is held.
    pub fn holds(&self, id: u32) -> bool {
        let exchange = self.exchanges.get(&id);
        exchange.is_some_and(|exchange| exchange.held.is_some())
    }

    /// More of a request's body has come; `end` where it is the last. `None`: as before.
    pub fn body(&mut self, id: u32, bytes: &[u8], end: bool) -> Option<Verdict> {
        let now = self.timing.elapsed;
        let exchange = self.exchanges.get_mut(&id)?;
        if exchange.held.is_none() && !exchange.reading {
            // It was decided, and what was read of it is given back.
            return None;
        }
        // After a release it comes in any case.
        if exchange.held.is_some() {
            self.delivery.seen();
        }
        exchange.read(bytes, end, now);
        exchange.naming.choose(
            &exchange.reader,
            exchange.reading,
            &self.plan.rewrite,
            self.scratch.rng(),
        );
        self.advance(id)
    }

    /// The last bytes of a request's body, from its byte `start` on, before what stands between.
    pub fn tail(&mut self, id: u32, start: usize, bytes: &[u8]) -> Option<Verdict> {
        let exchange = self.exchanges.get_mut(&id)?;
        exchange.lazy = false;
        exchange.ended = true;
        if exchange.reader.push_tail(start, bytes) {
            exchange.reading = exchange.reader.needs_more();
        }
        exchange.naming.choose(
            &exchange.reader,
            exchange.reading,
            &self.plan.rewrite,
            self.scratch.rng(),
        );
        self.advance(id)
    }

    /// The range of a held body that must be fed once more, because a part that comes first in the
    /// prompt came late in the body.
    pub fn reread(&self, id: u32) -> Option<Range<usize>> {
        let exchange = self.exchanges.get(&id)?;
        exchange.held.filter(|hold| hold.show == Show::Whole)?;
        exchange.reader.reread()
    }

    /// The bytes that [`Self::reread`] asked for.
    pub fn body_again(&mut self, id: u32, start: usize, bytes: &[u8]) -> Option<Verdict> {
        let exchange = self.exchanges.get_mut(&id)?;
        if exchange.held.is_none() && !exchange.reading {
            return None;
        }
        exchange.reader.feed_again(start, bytes);
        exchange.reading = exchange.reader.needs_more();
        self.advance(id)
    }

    /// A request's body has been sent to its end.
    pub fn uploaded(&mut self, id: u32) {
        if let Some(exchange) = self.exchanges.get_mut(&id) {
            exchange.answer.sent = Some(self.timing.now);
        }
    }

    /// A request has ended, however.
    pub fn close(&mut self, id: u32) {
        self.tried(id);
        self.give_up(id);
        self.end(id);
        self.conclude(id);
        if let Some(mut exchange) = self.exchanges.remove(&id) {
            self.holding -= usize::from(exchange.held.is_some()).min(self.holding);
            /// As many as one worker's requests commonly overlap; beyond, memory is given back.
            const SPARE: usize = 64;
            self.account
                .change(std::mem::take(&mut exchange.counted), 0);
            if self.spare.len() < SPARE {
                exchange.stop_reading();
                exchange.explanation = None;
                if exchange.allocated() > memory::SMALL {
                    exchange.give_back();
                }
                self.spare.push(exchange);
            }
        }
    }

    /// Whether bodies are waited for even if none ever came.
    fn always_reads(&self) -> bool {
        self.plan.proxy.read_body == ReadBody::Always
    }
}

#[cfg(test)]
#[path = "picker_tests.rs"]
mod tests;

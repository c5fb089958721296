//! What happens to a request: whether it is held, when it is released, where to, and what is
//! learnt from it. Host-neutral; `crate::filter` feeds it callbacks and carries out its verdicts.
//!
//! One director serves one pool in one VM. It owns the plan in force, the pool as last heard of
//! from the poller, and the prefix indexes.

pub mod answer;
mod avoid;
mod decide;
mod delivery;
pub mod explain;
pub mod ids;
mod learn;
mod load;
pub mod memory;
pub mod meter;
mod metrics;
mod naming;
mod outcome;
mod record;
mod tick;
mod view;

use std::ops::Range;

pub use self::avoid::Seen;
pub use self::record::{Appetite, Head, Show};
pub use self::tick::{Call, Tick};
pub use crate::datalayer::glimpse::Body;

use self::answer::Refusal;
use self::delivery::Delivery;
use self::ids::ById;
use self::meter::{Meter, Metric};
use self::metrics::{Handle, Metrics, Series};
use self::record::Record;
use crate::config::Plan;
use crate::datalayer::avoid::Reason;
use crate::plugins::proxy::envoy_proxy::{ReadBody, Requests};
use crate::prefix::index::Index;
use crate::scheduling::Scratch;
use crate::worker::Watch;

/// Asks for an explanation in a request, and carries it in the response.
pub const EXPLAIN_HEADER: &str = "x-epp-explain";

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

/// How a request goes on.
#[derive(Debug, Default)]
pub struct Release {
    /// The destination header's value; none leaves the choice to Envoy's fallback policy.
    pub destination: Option<String>,
    /// Answer it so, instead of routing it.
    pub refusal: Option<Refusal>,
    /// What is to be replaced in the body first.
    pub rewrite: Option<Rewrite>,
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
    look_up: Series,
    /// Decisions and look-ups so far, one in seventeen of which is timed.
    decisions: u64,
    look_ups: u64,
}

/// The picker of one pool in one VM.
pub struct Director {
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
    records: ById<Box<Record>>,
    // Boxed in the table, so that a request costs no move of its record.
    #[allow(clippy::vec_box)]
    spare: Vec<Box<Record>>,
    /// Requests that are held, at least; counted anew with the gauges.
    holding: usize,
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

impl Director {
    /// A director that has heard of no endpoint yet. `clock` gives nanoseconds since 1970, `seed`
    /// starts its randomness; `name` is the plugin's, under which it shares data.
    pub fn new(
        name: &str,
        plan: Plan,
        seed: u64,
        meter: Box<dyn Meter>,
        clock: fn() -> u64,
    ) -> Self {
        let cluster = plan.cluster().to_owned();
        let mut rng = fastrand::Rng::with_seed(seed);
        let watch = Watch::new(name, &plan, rng.fork());
        let mut metrics = Metrics::new(meter, &cluster);
        let hot = Hot {
            early: metrics.handle(Metric::EarlyReleases, ""),
            decision: metrics.series(Metric::DecisionTime, ""),
            hit: metrics.series(Metric::PrefixHitRatio, ""),
            unread: metrics.handle(Metric::UnreadAnswers, ""),
            look_up: metrics.series(Metric::LookUpTime, ""),
            decisions: 0,
            look_ups: 0,
        };
        let mut director = Self {
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
            records: ById::default(),
            spare: Vec::new(),
            holding: 0,
            scratch: Scratch::new(rng),
            delivery: Delivery::default(),
            clock,
            timing: tick::Timing::default(),
            view: view::View::default(),
            plan,
        };
        director.lay_out_indexes();
        director
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
            self.lay_out_indexes();
            // Requests under way were cut for the old ones.
            for record in self.records.values_mut() {
                record.stop_reading();
            }
            let ids: Vec<u32> = self.records.keys().copied().collect();
            for id in ids {
                self.count_memory(id);
            }
        }
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

    /// A request's headers have come.
    pub fn open(&mut self, id: u32, head: &Head<'_>) -> Verdict {
        self.watch.serve();
        let now = (self.clock)();
        let mut record = self.spare.pop().unwrap_or_default();
        record.open(head, &self.plan, &self.watch.store.pool, now);
        record.naming.choose(
            &record.reader,
            record.reading,
            &self.plan.rewrite,
            self.scratch.rng(),
        );
        if record.held.is_some() && !self.always_reads() && !self.delivery.expects(now) {
            record.let_go();
        }
        if record.held.is_some() {
            if self.holding >= self.plan.proxy.max_held {
                self.metrics.add(Metric::ForcedReleases, "reason=held", 1);
                record.let_go();
            } else {
                self.holding += 1;
            }
        }
        let held = record.held;
        self.records.insert(id, record);
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
        let Some(record) = self.records.get_mut(&id) else {
            return Appetite::Nothing;
        };
        record.appetite(unread, end)
    }

    /// Whether a request is held.
    pub fn holds(&self, id: u32) -> bool {
        let record = self.records.get(&id);
        record.is_some_and(|record| record.held.is_some())
    }

    /// More of a request's body has come; `end` where it is the last. `None`: as before.
    pub fn body(&mut self, id: u32, bytes: &[u8], end: bool) -> Option<Verdict> {
        let now = self.timing.now;
        let record = self.records.get_mut(&id)?;
        if record.held.is_none() && !record.reading {
            // It was decided, and what was read of it is given back.
            return None;
        }
        // After a release it comes in any case.
        if record.held.is_some() {
            self.delivery.seen();
        }
        record.read(bytes, end, now);
        record.naming.choose(
            &record.reader,
            record.reading,
            &self.plan.rewrite,
            self.scratch.rng(),
        );
        self.advance(id)
    }

    /// The last bytes of a request's body, from its byte `start` on, before what stands between.
    pub fn tail(&mut self, id: u32, start: usize, bytes: &[u8]) -> Option<Verdict> {
        let record = self.records.get_mut(&id)?;
        record.lazy = false;
        record.ended = true;
        if record.reader.push_tail(start, bytes) {
            record.reading = record.reader.needs_more();
        }
        record.naming.choose(
            &record.reader,
            record.reading,
            &self.plan.rewrite,
            self.scratch.rng(),
        );
        self.advance(id)
    }

    /// The range of a held body that must be fed once more, because a part that comes first in the
    /// prompt came late in the body.
    pub fn reread(&self, id: u32) -> Option<Range<usize>> {
        let record = self.records.get(&id)?;
        record.held.filter(|hold| hold.show == Show::Whole)?;
        record.reader.reread()
    }

    /// The bytes that [`Self::reread`] asked for.
    pub fn body_again(&mut self, id: u32, start: usize, bytes: &[u8]) -> Option<Verdict> {
        let record = self.records.get_mut(&id)?;
        if record.held.is_none() && !record.reading {
            return None;
        }
        record.reader.feed_again(start, bytes);
        record.reading = record.reader.needs_more();
        self.advance(id)
    }

    /// A request has ended, however.
    pub fn close(&mut self, id: u32) {
        self.tried(id);
        self.end(id);
        self.conclude(id);
        if let Some(mut record) = self.records.remove(&id) {
            self.holding -= usize::from(record.held.is_some()).min(self.holding);
            /// As many as one worker's requests commonly overlap; beyond, memory is given back.
            const SPARE: usize = 64;
            let counted = std::mem::take(&mut record.counted);
            self.account.change(counted, 0);
            if self.spare.len() < SPARE {
                if counted > memory::SMALL {
                    record.give_back();
                }
                self.spare.push(record);
            }
        }
    }

    /// Whether bodies are waited for even if none ever came.
    fn always_reads(&self) -> bool {
        self.plan.proxy.read_body == ReadBody::Always
    }
}

#[cfg(test)]
#[path = "director_tests.rs"]
mod tests;

//! The sharing of one picker: driven by the host before and after each of its ticks.

use epp_core::picker::learnt::{LearntLog, Placement};
use epp_core::picker::load::EndpointLoad;
use epp_core::picker::peers::SharingStatistics;
use epp_core::picker::{ModelWish, Picker};

use crate::avoided::Ejections;
use crate::delivery::SharedFinding;
use crate::handover::Known;
use crate::lease::Lease;
use crate::names;
use crate::report::{self, Audience, PlanReport, Report};
use crate::secret;
use crate::share::{Knowledge, Now, Share};
use crate::snapshot::Snapshots;
use crate::Store;
use epp_core::time::Timestamp;

/// Ticks between looks at the secret: two VMs that start at the same time may differ for so long, a second.
const SECRET_TICKS: u32 = 20;

/// Ticks between status reports: half a second.
const REPORT_TICKS: u32 = 10;

/// What one picker shares with the others of its pool.
#[derive(Debug)]
pub struct Sharing {
    base: String,
    lease: Lease,
    snapshots: Snapshots,
    share: Share,
    ejections: Ejections,
    delivery: SharedFinding,
    audience: Audience,
    /// The plan as it is reported; made when it is first asked for.
    plan: Option<PlanReport>,
    unrecognised: u64,
    written_bytes: u64,
    read_bytes: u64,
    /// Ticks to the next look at the secret, and to the next status report.
    secret_due: u32,
    report_due: u32,
}

impl Sharing {
    /// Returns the sharing of a picker that has just started, among all VMs that run the plugin of this name
    /// for this cluster. `number` distinguishes the VM from the others.
    pub fn new(plugin: &str, cluster: &str, number: u64) -> Self {
        let base = report::base(plugin, cluster);
        Self {
            lease: Lease::new(format!("{base}/lease"), number),
            snapshots: Snapshots::new(&base),
            share: Share::new(&base, number),
            ejections: Ejections::new(format!("{base}/avoided")),
            delivery: SharedFinding::default(),
            audience: Audience::default(),
            plan: None,
            unrecognised: 0,
            written_bytes: 0,
            read_bytes: 0,
            secret_due: 0,
            report_due: 0,
            base,
        }
    }

    /// Feeds the picker what the others know before its first tick: a VM may be asked to decide as soon as it
    /// is there, after a trap even for the request that created it. The picker polls only once it has won
    /// the lease.
    pub fn join(&mut self, picker: &mut Picker, store: &mut dyn Store, now: Timestamp) {
        picker.set_polling(false);
        self.follow_plan(picker);
        self.snapshots.adopt(picker, store, &mut self.unrecognised);
        picker.refresh(now);
        self.agree_on_secret(picker, store);
    }

    /// Another plan is in force.
    pub fn plan_changed(&mut self, picker: &mut Picker) {
        self.plan = None;
        self.delivery = SharedFinding::default();
        self.follow_plan(picker);
    }

    fn follow_plan(&mut self, picker: &mut Picker) {
        let on = picker.may_share();
        self.share.switch(on);
        picker.set_sharing(on);
        picker.expect_loose_blocks(self.share.asks());
    }

    /// Settles who polls, and feeds the picker what the poller has published.
    pub fn before_tick(&mut self, picker: &mut Picker, store: &mut dyn Store) {
        if picker.serves() {
            self.lease.serve();
        }
        let polls = self.lease.tick(store);
        if !polls || !picker.polls() {
            // A new poller goes on from where the last one was.
            self.snapshots.adopt(picker, store, &mut self.unrecognised);
        }
        picker.set_polling(polls);
    }

    /// Publishes what the picker has found and learnt, and feeds it what the others have.
    pub fn after_tick(&mut self, picker: &mut Picker, store: &mut dyn Store, now: Timestamp) {
        let now = now.as_millis();
        if picker.polls() {
            self.snapshots.publish(picker, store);
        }
        let watched = self.audience.is_there();
        self.audience.tick(store);
        if watched && !self.audience.is_there() {
            picker.stop_recording();
            self.plan = None;
        }
        self.agree_on_secret(picker, store);
        let ticked = Now {
            serves: picker.serves(),
            stirred: picker.take_loads_outdated(),
        };
        self.share
            .exchange(ticked, store, &mut self.unrecognised, picker);
        if self.share.is_on() {
            let (outliers, pool) = picker.outliers();
            self.ejections
                .exchange(outliers, pool, store, &mut self.unrecognised, now);
        }
        self.report(picker, store, now);
        picker.set_sharing_statistics(self.statistics());
    }

    /// Returns whether there is something to exchange before the next tick: requests in flight, and another
    /// worker that serves.
    pub fn wants_fast_exchange(&self, picker: &Picker) -> bool {
        picker.serves() && self.share.glances()
    }

    /// Exchanges what is in flight, between two ticks.
    pub fn exchange_in_flight(&mut self, picker: &mut Picker, store: &mut dyn Store) {
        if picker.serves() {
            self.share.glance(store, &mut self.unrecognised, picker);
        }
    }

    /// Exchanges with the other workers what was found about the delivery of bodies. Returns what the others
    /// have found, if they have.
    pub fn exchange_delivery(&mut self, own: Option<bool>, store: &mut dyn Store) -> Option<bool> {
        self.delivery
            .exchange(&self.base, own, &mut self.unrecognised, store)
    }

    /// Answers a model's wish for statistics of its own: it gets them if there is room for it among the
    /// models of all VMs.
    pub fn admit_model(&mut self, wish: &ModelWish, picker: &mut Picker, store: &mut dyn Store) {
        let key = format!("{}/models", self.base);
        let (models, endpoints) = picker.models_mut();
        let foreign = &mut self.unrecognised;
        if names::admit(&key, &wish.name, (models, endpoints), store, foreign) {
            picker.admit_model(wish);
        }
    }

    fn agree_on_secret(&mut self, picker: &mut Picker, store: &mut dyn Store) {
        self.secret_due = self.secret_due.saturating_sub(1);
        if self.secret_due > 0 || !self.share.is_on() {
            return;
        }
        self.secret_due = SECRET_TICKS;
        let secret = secret::agree(&self.base, picker.secret(), store, &mut self.unrecognised);
        picker.set_secret(secret);
    }

    fn report(&mut self, picker: &mut Picker, store: &mut dyn Store, now: u64) {
        self.report_due = self.report_due.saturating_sub(1);
        if !self.audience.is_there() || self.report_due > 0 {
            return;
        }
        let Some((seat, owner)) = self.share.seat() else {
            return;
        };
        self.report_due = REPORT_TICKS;
        let plan = self
            .plan
            .get_or_insert_with(|| PlanReport::new(picker.plan_summary()));
        if picker.polls() {
            report::tell_plan(&self.base, plan, store);
            report::enlist(&self.base, store);
        }
        let report = Report {
            owner,
            at: now,
            plan: plan.id,
            status: picker.status(),
        };
        report::post(&seat, &report, store);
    }

    fn statistics(&mut self) -> SharingStatistics {
        let traffic = self.share.take_traffic();
        self.written_bytes += traffic.written;
        self.read_bytes += traffic.read;
        SharingStatistics {
            sharers: self.share.sharers() as u64,
            held_by_others: self.share.others_held(),
            written_bytes: self.written_bytes,
            read_bytes: self.read_bytes,
            unrecognised: self.unrecognised,
        }
    }
}

impl Known for Picker {
    fn list(&self, number: usize, hashes: &mut Vec<u64>) -> Option<Placement> {
        self.index_list(number, hashes)
    }
}

impl Knowledge for Picker {
    fn cut(&self) -> u64 {
        self.prompt_fingerprint()
    }

    fn learnt(&mut self) -> &mut LearntLog {
        Picker::learnt(self)
    }

    fn place(&mut self, seat: u32, run: Placement, prompt: &[u64], from: usize) {
        self.learn_from_peer(seat, run, prompt, from);
    }

    fn expect_loose_blocks(&mut self, loose: bool) {
        Picker::expect_loose_blocks(self, loose);
    }

    fn held(&self) -> u32 {
        u32::try_from(Picker::held(self)).unwrap_or(u32::MAX)
    }

    fn in_flight(&self, loads: &mut Vec<EndpointLoad>) {
        self.own_loads(loads);
    }

    fn others_in_flight(&mut self, others: &mut dyn Iterator<Item = &[EndpointLoad]>) {
        self.set_peer_loads(others);
    }
}

#[cfg(test)]
#[path = "sharing_tests.rs"]
mod tests;

//! The sharing of one picker: driven by the host before and after each of its ticks.

use epp_core::picker::peers::{IndexPeer, PeerView, SharingStatistics};
use epp_core::picker::Picker;

use crate::delivery::SharedFinding;
use crate::ejections::Ejections;
use crate::findings::Findings;
use crate::lease::Lease;
use crate::models;
use crate::peers::Peers;
use crate::report::{self, Audience, PlanReport, Report};
use crate::secret;
use crate::shared::{Shared, Traffic};
use crate::snapshot::Snapshots;
use crate::Store;
use epp_core::time::Timestamp;

/// Ticks between looks at the secret: two VMs that start at the same time may differ for so long, a second.
const SECRET_TICKS: u32 = 20;

/// Ticks between status reports: half a second.
const REPORT_TICKS: u32 = 10;

/// The state that one picker shares with the others of its pool.
#[derive(Debug)]
pub struct Sharing {
    base: String,
    lease: Lease,
    snapshots: Snapshots,
    peers: Peers,
    ejections: Ejections,
    delivery: SharedFinding,
    audience: Audience,
    findings: Findings,
    /// Identifies the plan in force.
    plan_digest: u64,
    /// The plan as it is reported; made when it is first requested.
    plan: Option<PlanReport>,
    traffic: Traffic,
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
            peers: Peers::new(&base, number),
            ejections: Ejections::new(format!("{base}/ejections")),
            delivery: SharedFinding::new(format!("{base}/delivery")),
            audience: Audience::default(),
            findings: Findings::new(&base),
            plan_digest: 0,
            plan: None,
            traffic: Traffic::default(),
            secret_due: 0,
            report_due: 0,
            base,
        }
    }

    /// Returns what the keys of the pool begin with.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Returns a digest of the plan in force.
    pub fn plan_digest(&self) -> u64 {
        self.plan_digest
    }

    /// Feeds the picker the others' state before its first tick: a VM may have to decide as soon as it
    /// is there, after a trap even for the request that created it. The picker polls only once it has won
    /// the lease; if it has, it goes on under its new plan.
    pub fn join(&mut self, picker: &mut Picker, store: &mut dyn Store, now: Timestamp) {
        let mut picker = picker.peers();
        let polls = self.lease.holds() && picker.polls();
        picker.set_polling(polls);
        picker.agree_on_models();
        self.follow_plan(&mut picker);
        self.with(store, |this, shared| {
            if !polls {
                this.snapshots.adopt(&mut picker, shared);
            }
            picker.refresh(now);
            this.agree_on_secret(&mut picker, shared);
        });
    }

    /// Another plan is in force.
    pub fn plan_changed(&mut self, picker: &mut Picker) {
        self.plan = None;
        self.delivery.reset();
        self.follow_plan(&mut picker.peers());
    }

    fn follow_plan(&mut self, picker: &mut PeerView<'_>) {
        self.plan_digest = picker.plan_digest();
        let sharing = picker.may_share();
        self.peers.set_sharing(sharing);
        picker.set_sharing(sharing);
        picker.allow_gaps(self.peers.allows_gaps());
    }

    /// The VM is destroyed, or runs the pool no more.
    pub fn leave(&mut self, picker: &mut Picker, store: &mut dyn Store) {
        let mut picker = picker.peers();
        self.with(store, |this, shared| this.peers.leave(shared, &mut picker));
    }

    /// Settles which VM polls, and feeds the picker what that has published.
    pub fn before_tick(&mut self, picker: &mut Picker, store: &mut dyn Store) {
        let mut picker = picker.peers();
        if picker.serves() {
            self.lease.serve();
        }
        self.with(store, |this, shared| {
            let polls = this.lease.tick(shared);
            if !polls || !picker.polls() {
                // A new poller continues where the last one stopped.
                this.snapshots.adopt(&mut picker, shared);
            }
            if polls && !picker.polls() {
                this.findings.take_over(&mut picker, shared);
                if this.lease.follows_a_lost_vm() {
                    picker.reset_ejection_gauges();
                }
            }
            picker.set_polling(polls);
        });
    }

    /// Publishes what the picker has found and learnt, and feeds it what the others have.
    pub fn after_tick(&mut self, picker: &mut Picker, store: &mut dyn Store, now: Timestamp) {
        let millis = now.as_millis();
        let mut picker = picker.peers();
        self.with(store, |this, shared| {
            if picker.polls() {
                this.snapshots.publish(&picker, shared);
            }
            this.watch_page(&mut picker, shared);
            this.agree_on_secret(&mut picker, shared);
            let (serves, loads_outdated) = (picker.serves(), picker.take_loads_outdated());
            let polls = picker.polls();
            this.peers.choose_knowledge(serves, polls, &mut picker);
            this.peers.tick(serves, loads_outdated, shared, &mut picker);
            if this.peers.is_sharing() {
                let (outliers, pool) = picker.outliers();
                this.ejections.exchange(outliers, pool, shared, now);
            }
            let (slot, others) = (this.peers.slot(), this.peers.live());
            let plan = this.plan_digest;
            let findings = &mut this.findings;
            findings.tick(slot, plan, &others, &mut picker, shared);
            this.report(&mut picker, shared, millis);
        });
        picker.set_sharing_statistics(SharingStatistics {
            sharers: self.peers.sharers() as u64,
            lacks_poller: self.lease.is_abandoned(),
            others_serve: self.peers.others_serve(),
            held_by_others: self.peers.held_by_others(),
            written_bytes: self.traffic.written,
            read_bytes: self.traffic.read,
            unrecognised: self.traffic.unrecognised,
        });
    }

    /// Returns whether there is something to exchange before the next tick: requests in flight, and another
    /// worker that serves.
    pub fn wants_fast_exchange(&self, picker: &mut Picker) -> bool {
        picker.peers().serves() && self.peers.wants_fast_exchange()
    }

    /// Exchanges counts in flight, between two ticks.
    pub fn exchange_in_flight(&mut self, picker: &mut Picker, store: &mut dyn Store) {
        let mut picker = picker.peers();
        if picker.serves() {
            self.with(store, |this, shared| {
                this.peers.exchange_in_flight(shared, &mut picker);
            });
        }
    }

    /// Exchanges with the other workers what was found about the delivery of bodies. Returns what the others
    /// have found, if they have.
    pub fn exchange_delivery(&mut self, own: Option<bool>, store: &mut dyn Store) -> Option<bool> {
        self.with(store, |this, shared| this.delivery.exchange(own, shared))
    }

    /// Gives models that ask for statistics of their own these if there is room among the models of all VMs. To be
    /// called after each event.
    pub fn admit_models(&mut self, picker: &mut Picker, store: &mut dyn Store) {
        let mut picker = picker.peers();
        while let Some(wish) = picker.take_model_wish() {
            let key = format!("{}/models", self.base);
            let name = (wish.name.as_str(), wish.evidence);
            let admitted = self.with(store, |_, shared| {
                models::admit(&key, name, picker.models_mut(), shared)
            });
            if admitted {
                picker.grant_model(&wish);
            }
        }
    }

    /// Acts on the shared values, and counts what passes.
    fn with<T>(
        &mut self,
        store: &mut dyn Store,
        act: impl FnOnce(&mut Self, &mut Shared<'_>) -> T,
    ) -> T {
        let mut traffic = self.traffic;
        let result = act(self, &mut Shared::new(store, &mut traffic));
        self.traffic = traffic;
        result
    }

    fn watch_page(&mut self, picker: &mut PeerView<'_>, shared: &mut Shared<'_>) {
        let was_open = self.audience.is_open();
        self.audience.tick(shared);
        if was_open && !self.audience.is_open() {
            picker.stop_recording();
            self.plan = None;
        }
    }

    fn agree_on_secret(&mut self, picker: &mut PeerView<'_>, shared: &mut Shared<'_>) {
        self.secret_due = self.secret_due.saturating_sub(1);
        if self.secret_due > 0 || !self.peers.is_sharing() {
            return;
        }
        self.secret_due = SECRET_TICKS;
        let secret = secret::agree(&self.base, picker.secret(), shared);
        picker.set_secret(secret);
    }

    fn report(&mut self, picker: &mut PeerView<'_>, shared: &mut Shared<'_>, now: u64) {
        self.report_due = self.report_due.saturating_sub(1);
        if !self.audience.is_open() || self.report_due > 0 {
            return;
        }
        let Some((worker, owner)) = self.peers.slot() else {
            return;
        };
        self.report_due = REPORT_TICKS;
        let id = self.plan_digest;
        let plan = self.plan.get_or_insert_with(|| PlanReport {
            id,
            summary: picker.plan_summary(),
        });
        if picker.polls() {
            report::publish_plan(&self.base, plan, shared);
            report::list_pool(&self.base, shared);
        }
        let report = Report {
            owner,
            at: now,
            plan: plan.id,
            status: picker.status(),
        };
        report::publish(&worker, &report, shared);
    }
}

#[cfg(test)]
#[path = "sharing_tests.rs"]
mod tests;

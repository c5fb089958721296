//! Findings: what each VM finds for the one that polls, and what that one has open, for the VM that polls next and for
//! the status page.

use epp_core::findings::{Condition, Finding};
use epp_core::picker::peers::PeerView;
use serde::{Deserialize, Serialize};

use crate::presence;
use crate::shared::Shared;

/// Ticks between two exchanges: a second, as conditions are looked for.
const TICKS: u32 = 20;

/// More conditions than there are. Their details are cut when they are read.
const MAX_CONDITIONS: usize = 64;

/// What one VM finds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Own {
    /// The VM's number.
    pub owner: u64,
    /// Identifies its plan.
    pub plan: u64,
    /// The conditions that only it knows to be met.
    pub conditions: Vec<Condition>,
}

/// What is wrong with a pool, as the VM that polls has published it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Verdict {
    /// The open findings, the worst first.
    pub open: Vec<Condition>,
}

/// One VM's part in the exchange.
#[derive(Debug)]
pub struct Findings {
    base: String,
    /// What this VM has published, and under which key.
    published: Option<(String, Own)>,
    /// The revision of the open findings that was published last.
    revision: Option<u64>,
    /// Ticks to the next exchange.
    due: u32,
}

/// Returns the verdict on the pool that shares under these keys, once there is one.
pub fn verdict(base: &str, shared: &mut Shared<'_>) -> Option<Verdict> {
    let key = format!("{base}/findings");
    let is_sound = |verdict: &Verdict| verdict.open.len() <= MAX_CONDITIONS;
    shared.get(&key, is_sound).0.value()
}

impl Findings {
    /// Returns the part of a VM that has just started.
    pub fn new(base: &str) -> Self {
        Self {
            base: base.to_owned(),
            published: None,
            revision: None,
            due: 0,
        }
    }

    /// This VM polls from now on: what another one had open it knows.
    pub fn take_over(&mut self, picker: &mut PeerView<'_>, shared: &mut Shared<'_>) {
        let known = verdict(&self.base, shared).unwrap_or_default();
        picker.adopt_findings(known.open);
        self.revision = None;
    }

    /// Exchanges findings, once a second. `slot` is this VM's worker slot, `plan` identifies its plan, and `others`
    /// are the slots and numbers of the other VMs.
    pub fn tick(
        &mut self,
        slot: Option<(String, u64)>,
        plan: u64,
        others: &[(u32, u64)],
        picker: &mut PeerView<'_>,
        shared: &mut Shared<'_>,
    ) {
        self.due = self.due.saturating_sub(1);
        if self.due > 0 {
            return;
        }
        self.due = TICKS;
        if let Some((worker, owner)) = slot {
            let own = Own {
                owner,
                plan,
                conditions: picker.own_conditions().to_vec(),
            };
            let now = (format!("{worker}/findings"), own);
            if self.published.as_ref() != Some(&now) {
                shared.put(&now.0, &now.1, None);
                self.published = Some(now);
            }
        }
        if picker.polls() {
            picker.set_peer_conditions(self.read(plan, others, shared));
            self.publish(picker, shared);
        }
    }

    /// Returns what the other VMs find, and that their plans differ if they do.
    fn read(&self, plan: u64, others: &[(u32, u64)], shared: &mut Shared<'_>) -> Vec<Condition> {
        let (mut conditions, mut different) = (Vec::new(), 0);
        for (worker, owner) in others {
            let key = format!("{}/findings", presence::key(&self.base, *worker));
            let is_sound = |own: &Own| own.conditions.len() <= MAX_CONDITIONS;
            let own = shared.get(&key, is_sound).0.value();
            // A slot may have had another owner before.
            if let Some(own) = own.filter(|own| own.owner == *owner) {
                different += u32::from(own.plan != plan);
                conditions.extend(own.conditions);
            }
        }
        if different > 0 {
            let all = others.len() + 1;
            let detail = format!("{different} of {all} workers differ from the worker that polls");
            conditions.push(Condition::new(Finding::ConfigurationsDiffer, &detail));
        }
        conditions
    }

    fn publish(&mut self, picker: &PeerView<'_>, shared: &mut Shared<'_>) {
        let revision = picker.findings_revision();
        if self.revision != Some(revision) {
            self.revision = Some(revision);
            let open = picker.open_findings();
            shared.put(&format!("{}/findings", self.base), &Verdict { open }, None);
        }
    }
}

#[cfg(test)]
#[path = "findings_tests.rs"]
mod tests;

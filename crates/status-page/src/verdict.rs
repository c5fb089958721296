//! The verdict on a pool: what is wrong with it, as the picker that polls has published it.

use epp_core::findings::{Condition, Finding, Severity};

use super::Pool;

/// Returns the open findings, the worst first. In a pool that is not polled no picker reports that.
pub fn findings(pool: &Pool) -> Vec<Condition> {
    let mut findings = Vec::new();
    if !pool.statuses().any(|status| status.polls) {
        findings.push(Condition::new(Finding::NoPoller, &pool.cluster));
    }
    findings.extend_from_slice(&pool.open);
    findings.sort_by_key(|condition| condition.finding);
    findings
}

/// Returns the verdict in a few words.
pub fn summary(findings: &[Condition]) -> String {
    let count = |severity| {
        let of = findings
            .iter()
            .map(|condition| condition.finding.severity());
        of.filter(|own| *own == severity).count()
    };
    let counts = [Severity::Broken, Severity::Degraded, Severity::Note];
    let counts = counts.map(|severity| (count(severity), severity.name()));
    let counts = counts.iter().filter(|(count, _)| *count > 0);
    let words: Vec<String> = counts
        .map(|(count, name)| format!("{count} {name}"))
        .collect();
    match findings
        .first()
        .map(|condition| condition.finding.severity())
    {
        None => "Healthy.".to_owned(),
        Some(Severity::Note) => format!("Healthy; to know: {}.", words.join(", ")),
        Some(_) => format!("Not healthy: {}.", words.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use epp_core::picker::status::Status;
    use epp_sync::report::Report;

    use crate::Vm;

    fn pool(polls: bool, open: &[Finding]) -> Pool {
        let status = Status {
            polls,
            ..Status::default()
        };
        let report = Report {
            status,
            ..Report::default()
        };
        Pool {
            open: open.iter().map(|of| Condition::new(*of, "x")).collect(),
            vms: vec![Vm {
                report: Some(report),
                ..Vm::default()
            }],
            ..Pool::default()
        }
    }

    #[test]
    fn the_worst_decides() {
        let verdict = |polls, open: &[Finding]| summary(&findings(&pool(polls, open)));
        assert_eq!(verdict(true, &[]), "Healthy.");
        let note = Finding::EnvoyUntested;
        assert_eq!(verdict(true, &[note]), "Healthy; to know: 1 note.");
        let found = [Finding::PoolEmpty, Finding::MetricsStale, note];
        assert_eq!(
            verdict(true, &found),
            "Not healthy: 1 broken, 1 degraded, 1 note."
        );
        assert_eq!(verdict(false, &[note]), "Not healthy: 1 broken, 1 note.");
    }
}

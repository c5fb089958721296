//! Findings over time.

use super::*;

fn at(seconds: u64) -> Instant {
    Instant::default().after(Duration::from_secs(seconds))
}

fn clock(seconds: u64) -> Clock {
    Clock::starting_at(Timestamp::from_millis(seconds * 1_000))
}

fn met(finding: Finding, detail: &str) -> Vec<Condition> {
    vec![Condition::new(finding, detail)]
}

#[test]
fn a_finding_opens_and_closes_only_after_a_while_and_its_detail_follows() {
    let mut findings = Findings::default();
    assert_eq!(findings.update(met(Finding::PoolEmpty, "a"), at(10)), []);
    assert_eq!(findings.update(met(Finding::PoolEmpty, "a"), at(11)), []);
    assert_eq!(findings.open(&clock(11)), []);
    let opened = findings.update(met(Finding::PoolEmpty, "b"), at(12));
    let condition = Condition::new(Finding::PoolEmpty, "b");
    assert_eq!(opened, [Transition::Opened(condition.clone())]);
    let revision = findings.revision();
    assert_eq!(findings.update(met(Finding::PoolEmpty, "b"), at(13)), []);
    assert_eq!(findings.revision(), revision, "nothing has changed");
    assert_eq!(findings.update(met(Finding::PoolEmpty, "c"), at(14)), []);
    assert_ne!(findings.revision(), revision);
    assert_eq!(findings.open(&clock(14))[0].detail, "c");
    for second in 15..19 {
        assert_eq!(findings.update(Vec::new(), at(second)), []);
    }
    let condition = Condition::new(Finding::PoolEmpty, "c");
    let lasted = Duration::from_secs(4);
    assert_eq!(
        findings.update(Vec::new(), at(19)),
        [Transition::Closed { condition, lasted }]
    );
}

#[test]
fn what_comes_and_goes_before_it_lasts_is_no_finding_and_later_one_finding() {
    let mut findings = Findings::default();
    for second in 0..100 {
        let condition = met(Finding::OwnCounts, "");
        let now = if second % 2 == 0 { condition } else { vec![] };
        assert_eq!(findings.update(now, at(second)), []);
    }
    let mut transitions = 0;
    for second in 100..200 {
        let condition = met(Finding::OwnCounts, "");
        let now = if second % 4 < 3 { condition } else { vec![] };
        transitions += findings.update(now, at(second)).len();
    }
    assert_eq!(transitions, 1);
}

#[test]
fn over_random_conditions_each_finding_opens_and_closes_in_turn() {
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..50 {
        let mut findings = Findings::default();
        let mut open = Vec::new();
        let mut chance = 0.5;
        for second in 0..500 {
            if second % 40 == 0 {
                chance = random.f64();
            }
            let met = Finding::all().filter(|_| random.f64() < chance);
            let met = met.map(|finding| Condition::new(finding, "x")).collect();
            for transition in findings.update(met, at(second)) {
                match transition {
                    Transition::Opened(Condition { finding, .. }) => {
                        assert!(!open.contains(&finding));
                        open.push(finding);
                    }
                    Transition::Closed {
                        condition: Condition { finding, .. },
                        ..
                    } => {
                        assert!(open.contains(&finding));
                        open.retain(|known| *known != finding);
                    }
                }
            }
            open.sort_unstable();
            let open_now = findings.open(&clock(second));
            let now: Vec<Finding> = open_now.iter().map(|open| open.finding).collect();
            assert_eq!(now, open, "the worst first");
        }
    }
}

#[test]
fn another_picker_continues_without_saying_again_what_is_known() {
    let mut findings = Findings::default();
    let condition = Condition::new(Finding::PoolEmpty, "a");
    let published = Condition {
        since: 3_000,
        ..condition.clone()
    };
    findings.adopt(vec![published.clone()], &clock(60));
    assert_eq!(findings.update(vec![condition.clone()], at(61)), []);
    assert_eq!(findings.open(&clock(61)), [published]);
    let lasted = Duration::from_secs(58);
    let over = Transition::Closed { condition, lasted };
    assert_eq!(findings.update(Vec::new(), at(66)), [over]);
    findings.adopt(Vec::new(), &clock(67));
    assert_eq!(findings.open(&clock(67)), []);
}

#[test]
fn details_are_cut_and_stay_on_one_line() {
    let detail = Condition::new(Finding::PoolEmpty, "a\nb\u{2028}c\u{7f}\u{202e}").detail;
    assert_eq!(detail, "a?b?c??");
    let detail = Condition::new(Finding::PoolEmpty, &"ä".repeat(1_000)).detail;
    assert!(detail.len() <= MAX_DETAIL_BYTES + '…'.len_utf8());
    assert!(detail.ends_with('…'));
}

#[test]
fn a_detail_from_shared_data_is_cut_and_cleaned() {
    let forged = format!("a\n[error] \u{1b}[2J\u{202e}{}", "x".repeat(1_000));
    let forged = Condition {
        detail: forged,
        ..Condition::new(Finding::PoolEmpty, "")
    };
    let text = serde_json::to_string(&forged).unwrap();
    let read: Condition = serde_json::from_str(&text).unwrap();
    assert!(read.detail.starts_with("a?[error] ?[2J?x"), "{read:?}");
    assert!(read.detail.len() <= MAX_DETAIL_BYTES + '…'.len_utf8());
    assert_eq!(read, Condition::new(Finding::PoolEmpty, &forged.detail));
}

use super::*;

const GRACE: Duration = Duration::from_millis(10);

fn at(millis: u64) -> Instant {
    Instant::default().after(Duration::from_millis(1_000 + millis))
}

fn blocked(priority: i32) -> Blocked {
    Blocked {
        priority,
        ceiling: 1.0,
    }
}

fn chosen(evictions: &mut Evictions, priority: i32, now: Instant) -> Vec<u32> {
    let chosen = evictions.choose(blocked(priority), (1.5, 10), GRACE, now);
    chosen.iter().map(|id| id.0).collect()
}

#[test]
fn the_lowest_priority_goes_first_and_of_it_the_newest() {
    let mut evictions = Evictions::default();
    for (id, (priority, sent)) in (1..).zip([(-1, 0), (-5, 1), (0, 2), (-5, 3), (7, 4), (-1, 5)]) {
        evictions.sent(ExchangeId(id), priority, at(sent));
    }
    assert_eq!(chosen(&mut evictions, 0, at(10)), [4, 2]);
    // Both have to end first, and the saturation has to show it.
    evictions.ended(ExchangeId(4), GRACE, at(20));
    assert_eq!(chosen(&mut evictions, 0, at(40)), [0; 0]);
    evictions.ended(ExchangeId(2), GRACE, at(50));
    assert_eq!(chosen(&mut evictions, 0, at(59)), [0; 0]);
    assert_eq!(chosen(&mut evictions, 0, at(60)), [6, 1]);
    evictions.ended(ExchangeId(6), GRACE, at(70));
    evictions.ended(ExchangeId(1), GRACE, at(70));
    // None of those that are not sheddable is.
    assert_eq!(chosen(&mut evictions, 9, at(200)), [0; 0]);
}

#[test]
fn only_lower_priorities_are_evicted() {
    let mut evictions = Evictions::default();
    evictions.sent(ExchangeId(1), -1, at(0));
    evictions.sent(ExchangeId(2), -2, at(0));
    assert_eq!(chosen(&mut evictions, -2, at(1)), [0; 0]);
    assert_eq!(chosen(&mut evictions, -1, at(100)), [2]);
}

#[test]
fn an_eviction_that_never_ends_holds_up_none_for_long() {
    let mut evictions = Evictions::default();
    for id in 0..3 {
        evictions.sent(ExchangeId(id), -1, at(u64::from(id)));
    }
    assert_eq!(chosen(&mut evictions, 0, at(5)), [2, 1]);
    assert_eq!(chosen(&mut evictions, 0, at(10_004)), [0; 0]);
    assert_eq!(chosen(&mut evictions, 0, at(10_005)), [0; 0]);
    assert_eq!(chosen(&mut evictions, 0, at(10_015)), [0]);
}

#[test]
fn as_many_are_evicted_as_the_saturation_is_too_high() {
    // Ten in flight that make up 1.2: each is 0.12.
    assert_eq!(needed(1.2, 1.0, 10), 2);
    assert_eq!(needed(1.1, 1.0, 10), 1);
    assert_eq!(needed(1.0, 1.0, 10), 1);
    assert_eq!(needed(5.0, 1.0, 10), MAX_AT_ONCE);
    assert_eq!(needed(0.0, 0.0, 0), 1);
}

#[test]
fn a_band_that_never_dispatches_has_none_evicted() {
    let mut evictions = Evictions::default();
    evictions.sent(ExchangeId(1), -1, at(0));
    let shut = Blocked {
        priority: 0,
        ceiling: 0.0,
    };
    assert!(evictions.choose(shut, (1.0, 1), GRACE, at(1)).is_empty());
}

#[test]
fn a_band_that_has_room_has_none_evicted() {
    let mut evictions = Evictions::default();
    evictions.sent(ExchangeId(1), -1, at(0));
    let choose = |evictions: &mut Evictions, saturation| {
        evictions.choose(blocked(0), (saturation, 10), GRACE, at(1))
    };
    assert!(choose(&mut evictions, 0.9).is_empty());
    assert_eq!(choose(&mut evictions, 1.0), [ExchangeId(1)]);
}

use super::*;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// A clock that was never set.
fn clock(millis: u64) -> Clock {
    Clock::starting_at(at(millis))
}

/// A store of this many endpoints, none of which was scraped yet.
fn store(endpoints: usize) -> EndpointStore {
    let mut store = EndpointStore::default();
    store.set_members(&(0..endpoints).map(member).collect::<Vec<_>>());
    store
}

fn page(store: &mut EndpointStore, slot: u32, now: u64) {
    store.set_metrics(Slot(slot), Metrics::default(), true, at(now));
}

fn freshness(store: &mut EndpointStore, now: u64) -> Freshness {
    store.refresh(&clock(now), Duration::from_millis(2_000));
    store.pool.get(Slot(0)).unwrap().freshness
}

fn member(number: usize) -> Member {
    Member {
        name: number.to_string(),
        address: format!("10.0.0.{number}:80"),
        health: Health::Healthy,
        ..Member::default()
    }
}

#[test]
fn members_keep_their_slots_and_new_ones_take_those_that_were_free() {
    let mut store = store(4);
    store.remove(Slot(1));
    let listed = [2, 7, 0, 7, 8].map(member);
    let changes = store.set_members(&listed);
    assert_eq!(
        changes.joined,
        [Slot(1), Slot(4)],
        "listed twice, it joins once"
    );
    assert_eq!(changes.left, [Slot(3)]);
    let names = store.pool.iter().map(|(slot, one)| (slot.0, &*one.name));
    let expected = [(0, "0"), (1, "7"), (2, "2"), (4, "8")];
    assert_eq!(names.collect::<Vec<_>>(), expected);
    assert_eq!(store.set_members(&listed), Changes::default());
}

/// The pool is as large as shared data may list: comparing each endpoint with each would take minutes.
#[test]
fn a_pool_of_the_greatest_size_is_taken_over_in_moderate_cpu_time() {
    let begun = cpu_time::ThreadTime::now();
    let listed: Vec<Member> = (0..65_536).map(member).collect();
    let mut store = EndpointStore::default();
    assert_eq!(store.set_members(&listed).joined.len(), listed.len());
    assert_eq!(store.set_members(&listed), Changes::default());
    assert_eq!(store.set_members(&[]).left.len(), listed.len());
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn the_first_page_is_trusted_and_after_silence_the_second_one() {
    let mut store = store(1);
    assert_eq!(freshness(&mut store, 1_000), Freshness::Unknown);
    page(&mut store, 0, 1_000);
    assert_eq!(freshness(&mut store, 1_000), Freshness::Fresh);
    assert_eq!(freshness(&mut store, 3_000), Freshness::Fresh);
    assert_eq!(freshness(&mut store, 3_001), Freshness::Stale);
    page(&mut store, 0, 3_050);
    for now in [3_050, 3_100, 3_200] {
        assert_eq!(freshness(&mut store, now), Freshness::Stale, "{now}");
    }
    page(&mut store, 0, 3_250);
    assert_eq!(freshness(&mut store, 3_250), Freshness::Fresh);
}

/// While pages come, and while they do not.
#[test]
fn a_wall_clock_that_is_set_changes_no_freshness() {
    for wall in [1_000, 100_000_000] {
        let mut store = store(1);
        let mut clock = clock(10_000_000);
        let mut freshness = |scraped: Option<u64>, now: u64| {
            if let Some(scraped) = scraped {
                page(&mut store, 0, scraped);
            }
            clock.advance(at(now));
            store.refresh(&clock, Duration::from_millis(2_000));
            store.pool.get(Slot(0)).unwrap().freshness
        };
        assert_eq!(freshness(Some(10_000_000), 10_000_000), Freshness::Fresh);
        // This one was read just before the clock was set.
        assert_eq!(freshness(Some(10_000_200), wall), Freshness::Fresh);
        assert_eq!(freshness(Some(wall + 200), wall + 200), Freshness::Fresh);
        assert_eq!(freshness(None, wall + 1_100), Freshness::Fresh);
        assert_eq!(freshness(None, wall + 2_000), Freshness::Fresh);
        assert_eq!(freshness(None, wall + 2_900), Freshness::Stale);
    }
}

/// A picker that adopts pages leaves those that are older than what it knows, but for no longer than they are trusted.
#[test]
fn a_step_back_of_the_wall_clock_makes_nothing_stale_where_pages_are_adopted() {
    for step in (100..=3_000).step_by(100) {
        let (mut store, mut clock) = (store(1), clock(10_000_000));
        let mut freshness = |wall: u64| {
            let condition = Condition {
                scraped: Some(Timestamp::from_millis(wall)),
                ..Condition::default()
            };
            store.adopt_page(Slot(0), condition, Metrics::default());
            clock.advance(at(wall));
            store.refresh(&clock, Duration::from_millis(2_000));
            store.pool.get(Slot(0)).unwrap().freshness
        };
        for tick in 0..20 {
            assert_eq!(freshness(10_000_000 + tick * 200), Freshness::Fresh);
        }
        for tick in 20..60 {
            let wall = 10_000_000 + tick * 200 - step;
            assert_eq!(freshness(wall), Freshness::Fresh, "{step} at {tick}");
        }
    }
}

#[test]
fn the_snapshot_is_rebuilt_only_after_a_change() {
    let mut store = store(2);
    page(&mut store, 0, 1_000);
    store.refresh(&clock(1_000), Duration::from_millis(2_000));
    let id = store.pool.snapshot().id.clone();
    let member = |health| Member {
        name: "1".to_owned(),
        address: "10.0.0.1:80".to_owned(),
        health,
        ..Member::default()
    };
    store.refresh(&clock(1_050), Duration::from_millis(2_000));
    store.set_member(Slot(1), &member(Health::Healthy));
    assert_eq!(store.pool.snapshot().id, id);
    store.set_member(Slot(1), &member(Health::Draining));
    let fewer = store.pool.snapshot();
    assert_eq!(fewer.candidates, [Slot(0)]);
    let id = fewer.id.clone();
    store.refresh(&clock(3_001), Duration::from_millis(2_000));
    assert_ne!(store.pool.snapshot().id, id);
}

#[test]
fn a_new_endpoint_in_a_slot_starts_without_history() {
    let mut store = store(1);
    page(&mut store, 0, 1_000);
    assert_eq!(freshness(&mut store, 9_000), Freshness::Stale);
    store.remove(Slot(0));
    let member = Member {
        name: "new".to_owned(),
        health: Health::Healthy,
        ..Member::default()
    };
    store.set_member(Slot(0), &member);
    page(&mut store, 0, 9_100);
    assert_eq!(freshness(&mut store, 9_100), Freshness::Fresh);
}

#[test]
fn the_decision_mode_is_left_and_entered_at_different_shares() {
    let mut store = store(8);
    let mut with = |fresh: u32, now: u64| {
        for slot in 0..fresh {
            page(&mut store, slot, now - 1);
            store.refresh(&clock(now - 1), Duration::from_millis(500));
            page(&mut store, slot, now);
        }
        store.refresh(&clock(now), Duration::from_millis(500));
        store.choose_mode();
        store.pool.mode
    };
    // No endpoint was scraped yet.
    assert_eq!(with(0, 1_000), DecisionMode::LocalOnly);
    assert_eq!(with(3, 2_000), DecisionMode::LocalOnly);
    assert_eq!(with(4, 3_000), DecisionMode::Metrics);
    assert_eq!(with(2, 4_000), DecisionMode::Metrics);
    assert_eq!(with(1, 5_000), DecisionMode::LocalOnly);
    assert_eq!(with(3, 6_000), DecisionMode::LocalOnly);
    assert_eq!(with(8, 7_000), DecisionMode::Metrics);
}

/// Metrics with these waiting requests and half of the KV cache in use.
fn waiting(requests: f64) -> Metrics {
    Metrics {
        waiting: Some(requests),
        kv_usage: Some(0.5),
        ..Metrics::default()
    }
}

const REPORT: &[u8] =
    b"TEXT named_metrics.num_requests_waiting=8, named_metrics.kv_cache_usage_perc=0.4";

/// A store of one endpoint whose page says that seven requests wait, and which has reported another load since then.
fn reported() -> EndpointStore {
    let mut store = store(1);
    freshness(&mut store, 900);
    store.set_metrics(Slot(0), waiting(7.0), true, at(1_000));
    freshness(&mut store, 1_000);
    for report in [REPORT, b"TEXT named_metrics.num_requests_waiting=9"] {
        let report = LoadReport::read(report).unwrap();
        store.set_report(Slot(0), report, at(1_100));
    }
    let metrics = &store.pool.get(Slot(0)).unwrap().metrics;
    assert_eq!((metrics.waiting, metrics.kv_usage), (Some(9.0), Some(0.4)));
    store
}

#[test]
fn a_report_is_not_part_of_the_page() {
    let mut store = reported();
    assert_eq!(store.page(Slot(0)).as_deref(), Some(&waiting(7.0)));
    // An earlier page of another picker.
    let condition = Condition {
        scraped: Some(at(1_050)),
        ..Condition::default()
    };
    store.adopt_metrics(vec![(Slot(0), condition, waiting(6.0))]);
    let shown = store.pool.get(Slot(0)).unwrap().metrics.waiting;
    assert_eq!(shown, Some(9.0));
    assert_eq!(store.page(Slot(0)).as_deref(), Some(&waiting(6.0)));
}

#[test]
fn a_page_shows_work_where_it_differs_from_the_page_before_whatever_was_reported() {
    for (page, shows_work) in [(7.0, false), (8.0, false), (6.0, true)] {
        for adopts in [false, true] {
            let mut store = reported();
            if adopts {
                let condition = Condition {
                    scraped: Some(at(1_200)),
                    ..Condition::default()
                };
                store.adopt_metrics(vec![(Slot(0), condition, waiting(page))]);
            } else {
                store.set_metrics(Slot(0), waiting(page), true, at(1_200));
            }
            freshness(&mut store, 1_200);
            assert_eq!(store.worked_at(Slot(0)).is_some(), shows_work, "{page}");
        }
    }
}
